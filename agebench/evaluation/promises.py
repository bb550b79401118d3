"""What can be promised of a single answer, and how the promise held on the tests: an interval, and an age gate."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from agebench.errors import UserError
from agebench.evaluation.gates import MARGIN, age_gates
from agebench.evaluation.uncertainty import LEVELS, conformal

__all__ = ["LEVELS", "gate_promise", "gate_promises", "interval_promise"]


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
            f"--challenge {challenge:g} lies below --threshold {threshold}: the challenge age is the threshold or more, or most "
            "people just below the threshold pass"
        )
    return dict(_gates(tests, threshold, [challenge])[f"{challenge:g}"])


def gate_promises(tests: Mapping[str, pd.DataFrame], threshold: int) -> dict[str, Any]:
    """Challenge age -> `gate_promise`, for every whole challenge age up to 15 years above the threshold."""
    return _gates(tests, threshold, [float(threshold + margin) for margin in range(16)])


def _gates(tests: Mapping[str, pd.DataFrame], threshold: int, challenges: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"{challenge:g}": {"threshold": threshold, "challenge": challenge, "tests": {}} for challenge in challenges
    }
    for name, table in tests.items():
        gate = age_gates(table, legal_ages=[threshold], challenges=challenges).get(str(threshold))
        for key, promise in found.items():
            counts = {count: gate[count] for count in ("n_under", "n_over")} if gate else {}
            promise["tests"][name] = counts | gate["challenge"][key] if gate else None
    return found
