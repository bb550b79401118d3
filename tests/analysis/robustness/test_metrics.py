import numpy as np
import pandas as pd
import pytest

from agebench.analysis.robustness.corruptions import select_corruptions
from agebench.analysis.robustness.evaluate import RobustnessPredictions, robustness_metrics
from agebench.analysis.robustness.report import robustness_text
from agebench.analysis.robustness.schema import RobustnessFile
from agebench.data.samples import Samples

AGES = np.linspace(20, 60, 8)


def metrics(**columns: np.ndarray) -> RobustnessFile:
    """Of estimates that are 2 years too high, and 3 where faces are blurred."""
    table = pd.DataFrame({"sample_id": [f"{row}" for row in range(len(AGES))], "age": AGES, **columns})
    consistency = {"mirror": AGES[None] + 2, "small-shift": np.stack([AGES + 2] * 4)}
    predictions = RobustnessPredictions(AGES + 2, {"blur": np.stack([AGES + 3] * 5)}, consistency)
    return robustness_metrics(predictions, Samples(table), select_corruptions(["blur"]), resamples=0)


def test_errors_of_labels_that_are_ranges_are_named_as_such() -> None:
    found = metrics(age_low=AGES - 5, age_high=AGES + 5)
    assert found.clean.mae.value == pytest.approx(2)
    assert found.to_json()["label_ranges"] is True
    assert "ranges of ages: errors here are measured to the middle" in robustness_text(found)


@pytest.mark.parametrize(
    "bounds", [{}, {"age_low": AGES, "age_high": AGES}, {"age_low": AGES * np.nan, "age_high": AGES * np.nan}]
)
def test_errors_of_ages_need_no_caveat(bounds: dict[str, np.ndarray]) -> None:
    found = metrics(**bounds)
    assert found.summary.relative_error.value == pytest.approx(1.5)
    assert "label_ranges" not in found.to_json()
    assert "ranges of ages" not in robustness_text(found)
