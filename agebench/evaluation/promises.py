"""What can be promised of a single answer, and how the promise held on the tests: an interval, and an age gate."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from agebench.errors import UserError
from agebench.evaluation.gates import MARGIN, age_gates
from agebench.evaluation.uncertainty import conformal


def interval_promise(calibration: pd.DataFrame, tests: Mapping[str, pd.DataFrame], level: float) -> dict[str, Any]:
    """The split-conformal interval for new faces, and its coverage on test sets.

    Args:
        calibration: predictions on the validation part, see `check_predictions`.
        tests: test set -> predictions.
        level: the share of true ages that the interval is to hold, between 0 and 1.

    Returns:
        level, radius (years; of a `scaled` one, standard deviations), scaled, n, coverage (test -> n, value, low, high).

    Raises:
        UserError: no such level, or too few validation images to promise it.
    """
    if not 0 < level < 1:
        raise UserError(f"--level {level:g}: must lie between 0 and 1, e.g. 0.9")
    own = conformal(calibration, calibration, levels=[level])
    if not own["levels"]:
        needed = int(-(-level // (1 - level)))
        raise UserError(
            f"--level {level:g}: cannot be promised from {len(calibration)} validation images; it needs {needed} or more"
        )
    radius = own["levels"][f"{level:g}"]["radius"]
    coverage = {}
    for name, table in tests.items():
        found = conformal(calibration, table, levels=[level])["levels"][f"{level:g}"]
        coverage[name] = {"n": len(table), **found["coverage"]}
    return {"level": level, "radius": radius, "scaled": own["scaled"], "n": len(calibration), "coverage": coverage}


def gate_promise(tests: Mapping[str, pd.DataFrame], threshold: int, challenge: float | None = None) -> dict[str, Any]:
    """How often an age gate errs, on each test set.

    Args:
        tests: test set -> predictions.
        threshold: the legal age.
        challenge: an estimate of at least this counts as over-age; default: 7 years above the threshold.

    Returns:
        threshold, challenge, tests (test -> n_under, fpr, n_over, fnr, each rate with its interval); a test set with nobody
        below the threshold, or nobody above it, has None.

    Raises:
        UserError: a challenge age below the threshold.
    """
    challenge = float(threshold + MARGIN if challenge is None else challenge)
    if challenge < threshold:
        raise UserError(
            f"--challenge {challenge:g} lies below --threshold {threshold}: an estimate is as often too high as too low, so "
            "the challenge age is the threshold or more"
        )
    found: dict[str, Any] = {}
    for name, table in tests.items():
        gate = age_gates(table, legal_ages=[threshold], challenges=[challenge]).get(str(threshold))
        rates = gate and {key: gate[key] for key in ("n_under", "n_over")} | gate["challenge"][f"{challenge:g}"]
        found[name] = rates
    return {"threshold": threshold, "challenge": challenge, "tests": found}
