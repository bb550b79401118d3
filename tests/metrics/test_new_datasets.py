"""Claims about datasets that were not tested."""

import numpy as np
import pytest

from agebench.errors import UserError
from agebench.metrics.new_datasets import claim_about_new_datasets


def test_fewer_than_five_datasets_are_refused() -> None:
    with pytest.raises(UserError, match=r"needs 5 test sets .* there are 4"):
        claim_about_new_datasets([0.5] * 4, [0.1] * 4)


def test_intervals_hold_the_mean_and_a_new_dataset() -> None:
    """600 simulated analyses of six datasets; the Monte-Carlo error is 0.9 points."""
    held = predicted = 0
    for repeat in range(600):
        rng = np.random.default_rng([repeat, 1])
        errors = rng.uniform(0.03, 0.15, 6)
        ratios = np.exp(np.log(0.5) + 0.2 * rng.standard_normal(6) + errors * rng.standard_normal(6))
        claim = claim_about_new_datasets(ratios.tolist(), errors.tolist())
        new = 0.5 * np.exp(0.2 * rng.standard_normal())
        held += claim.ci_low <= 0.5 <= claim.ci_high
        predicted += claim.prediction_low <= new <= claim.prediction_high
    assert 0.93 <= held / 600 <= 0.98
    assert 0.92 <= predicted / 600 <= 0.985


def test_equal_datasets_do_not_vary() -> None:
    claim = claim_about_new_datasets([0.5] * 6, [0.1] * 6)
    assert claim.tau == 0
    assert claim.ratio == pytest.approx(0.5)
