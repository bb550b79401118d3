import numpy as np
import pandas as pd

from agebench.metrics.label_noise import largest_errors, suspected_label_errors


def answers(count: int = 600) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    age = generator.uniform(1, 80, count)
    return pd.DataFrame(
        {"sample_id": [f"i{n}" for n in range(count)], "age": age, "age_pred": age + generator.normal(0, 3, count)}
    )


def test_a_wrong_label_is_found_and_a_hard_age_is_not() -> None:
    table = answers()
    table.loc[table["age"] > 60, "age_pred"] -= 15  # all old faces are taken for younger: bias, no label noise
    table.loc[5, ["age", "age_pred"]] = [3.0, 41.0]
    found = suspected_label_errors(table)
    assert found["sample_id"].iloc[0] == "i5"
    assert found["far"].iloc[0] < -5
    assert len(found) < 10


def test_few_images_have_no_suspects() -> None:
    assert len(suspected_label_errors(answers(50))) == 0
    assert "far" in suspected_label_errors(answers(50))


def test_the_worst_come_first() -> None:
    table = answers()
    found = largest_errors(table, 24)
    errors = (found["age_pred"] - found["age"]).abs()
    assert len(found) == 24
    assert errors.is_monotonic_decreasing
    assert errors.iloc[0] == (table["age_pred"] - table["age"]).abs().max()
