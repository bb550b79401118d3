"""Auxiliary targets on images of few people."""

import numpy as np
import pandas as pd

from agebench.metrics.auxiliary_targets import evaluate_tasks


def test_accuracy_of_a_group_counts_its_own_people() -> None:
    rng = np.random.default_rng(0)
    race = np.repeat(["a", "b", "c"], [200, 60, 30])
    subject = np.concatenate([np.arange(200), np.repeat([200, 201], 30), np.full(30, 202)])
    table = pd.DataFrame(
        {"age": 30.0, "race": race, "subject": subject.astype(str), "gender": rng.choice(["f", "m"], 290)}
    )
    hit = np.where(subject == 201, np.arange(290) % 2 > 0, rng.random(290) < 0.9)
    other = np.where(table["gender"] == "f", "m", "f")
    table["gender_pred"] = np.where(hit, table["gender"], other)
    groups = evaluate_tasks(table, ["gender"], groups=["race"], resamples=200)["gender"].groups["race"]
    many, two, one = (groups[name].accuracy for name in "abc")
    assert many.ci_high - many.ci_low < 0.2
    assert (two.ci_low, two.ci_high) == (0, 1)  # two people that differ by 0.4 may as well be of any share
    assert one.value is not None
    assert (one.ci_low, one.ci_high) == (None, None)
