"""Per-prediction guarantees and their empirical validity on the test sets.

They are the conformal interval, age-gate error rates, and errors by estimated age.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from agebench.errors import UserError
from agebench.metrics.age_gates import DEFAULT_CHALLENGE_MARGIN, age_gates
from agebench.metrics.analytic_intervals import quantile_replicates, with_rows
from agebench.metrics.bootstrap import ClusterBootstrap, Floats, Ints, Replicates, reindex
from agebench.metrics.clustered_rates import row_clusters, subject_codes
from agebench.metrics.confidence_intervals import metric_values
from agebench.metrics.groups import Grouping, age_bands
from agebench.metrics.point import is_within, quantile, signed_error
from agebench.metrics.schema import (
    ConformalInterval,
    CountedGateRates,
    EstimateError,
    EstimateErrors,
    GateGuarantee,
    GateResult,
)
from agebench.metrics.uncertainty import calibration_units, conformal, min_calibration_size


class CalibrationError(UserError):
    """Intervals cannot be calibrated, because data are missing or too few; the message names them."""


def conformal_interval(calibration: pd.DataFrame, tests: Mapping[str, pd.DataFrame], level: float) -> ConformalInterval:
    """The split-conformal interval for new faces, and its coverage on test sets.

    Args:
        calibration: predictions on the validation part, see `check_predictions`.
        tests: test set -> predictions.
        level: the share of true ages that the interval is to hold, between 0 and 1.

    Returns:
        The interval. Where subjects are known the guarantee holds for an image of a new person, else for an image of the same
        kind.

    Raises:
        UserError: no such level.
        CalibrationError: too few validation images, or people on them, to guarantee it.
    """
    if not 0 < level < 1:
        raise UserError(f"--coverage {level:g}: must lie between 0 and 1, e.g. 0.9")
    needed = min_calibration_size(level)
    if calibration_units(calibration) < needed:
        of, unit = (
            ("", "")
            if subject_codes(calibration) is None
            else (f" of {calibration_units(calibration)} people", " people")
        )
        raise CalibrationError(
            f"--coverage {level:g}: cannot be guaranteed from {len(calibration)} validation images{of}; "
            f"it needs {needed} or more{unit}"
        )
    own = conformal(calibration, calibration, levels=[level])
    key = f"{level:g}"
    coverage = {}
    for name, table in tests.items():
        tested = conformal(calibration, table, levels=[level]).levels[key]
        coverage[name] = tested.coverage.model_copy(update={"n": len(table)})
    return ConformalInterval(
        level=level,
        radius=own.levels[key].radius,
        scaled=own.scaled,
        n=own.n_calibration,
        people=own.people_calibration,
        coverage=coverage,
    )


def gate_error_rates(
    tests: Mapping[str, pd.DataFrame], threshold: int, challenge: float | None = None
) -> GateGuarantee:
    """Compute the error rates of one age gate on each test set.

    Args:
        tests: test set -> predictions.
        threshold: the legal age.
        challenge: an estimate of at least this counts as over-age; default: 7 years above the threshold.

    Returns:
        The rates; None for a test set in which one side of the threshold is empty.

    Raises:
        UserError: a challenge age below the threshold, or no number.
    """
    challenge = float(threshold + DEFAULT_CHALLENGE_MARGIN if challenge is None else challenge)
    if not np.isfinite(challenge):
        raise UserError(f"--challenge {challenge:g}: must be an age, e.g. {threshold + DEFAULT_CHALLENGE_MARGIN}")
    if challenge < threshold:
        raise UserError(
            f"--challenge {challenge:g} lies below --threshold {threshold}: the challenge age is the threshold or more, or most "
            "people just below the threshold pass"
        )
    return _gates(tests, threshold, [challenge])[f"{challenge:g}"]


def gate_error_rate_grid(tests: Mapping[str, pd.DataFrame], threshold: int) -> dict[str, GateGuarantee]:
    """Compute `gate_error_rates` by challenge age, for every whole challenge age up to 15 years above the threshold."""
    return _gates(tests, threshold, [float(threshold + margin) for margin in range(16)])


def _gates(tests: Mapping[str, pd.DataFrame], threshold: int, challenges: Sequence[float]) -> dict[str, GateGuarantee]:
    gates = {
        name: age_gates(table, legal_ages=[threshold], challenges=challenges).get(str(threshold))
        for name, table in tests.items()
    }

    def rates(gate: GateResult | None, challenge: float) -> CountedGateRates | None:
        if gate is None:
            return None
        at_challenge = gate.challenge[f"{challenge:g}"]
        return CountedGateRates(n_under=gate.n_under, n_over=gate.n_over, fpr=at_challenge.fpr, fnr=at_challenge.fnr)

    return {
        f"{challenge:g}": GateGuarantee(
            threshold=threshold,
            challenge=challenge,
            tests={name: rates(gate, challenge) for name, gate in gates.items()},
        )
        for challenge in challenges
    }


def error_by_estimated_age(
    tests: Mapping[str, pd.DataFrame], *, resamples: int = 1000, seed: int = 0
) -> EstimateErrors:
    """Compute the errors of estimates by the estimated age in whole years, the only age that is known of a new face.

    Args:
        tests: test set -> predictions.
        resamples: bootstrap samples behind the intervals.
        seed: of them.

    Returns:
        test -> band of the estimate ('0-12', …) -> n, mae and p95_ae (what 95 % of the absolute errors are below), years.
    """
    return {name: _errors_by_estimate(table, resamples, seed) for name, table in tests.items() if len(table)}


def _errors_by_estimate(table: pd.DataFrame, resamples: int, seed: int) -> dict[str, EstimateError]:
    bands = age_bands(np.round(table["age_pred"].to_numpy(float)))
    error = np.abs(signed_error(table))
    ordered = [np.sort(error[bands.codes == code]) for code in range(len(bands.names))]
    reach = np.array([float(quantile(of, 0.95)) for of in ordered])
    below = is_within(error, reach[bands.codes]).astype(float)
    share = np.bincount(bands.codes, below) / bands.counts

    def statistic(sums: Sequence[Floats]) -> Floats:
        n, summed, inside = (sums[0][:, column] for column in range(3))
        # As in `metrics.whole`: a quantile moves against the share of errors below it.
        moved = 0.95 - (inside / n - share[:, None])
        far = [
            np.where(np.isfinite(at), quantile(of, np.nan_to_num(at)), np.nan)
            for of, at in zip(ordered, moved, strict=True)
        ]
        return np.concatenate([summed / n, np.stack(far)])

    clusters = row_clusters(table)
    sampler = ClusterBootstrap(np.column_stack([np.ones(len(error)), error, below]), [bands.codes], clusters)
    keys = [(band, metric) for metric in ("mae", "p95_ae") for band in bands.names]
    found = sampler.replicates(statistic, resamples=resamples, seed=seed)
    people = bands.cluster_counts(clusters)
    several = np.flatnonzero(people > 1)
    if found.resampled.shape[1] and len(several):
        found = _with_quantiles(found, error, bands, clusters, several)
    # The replicates of a quantile allow for few people themselves; one person has no interval.
    behind = np.concatenate([people, np.where(people > 1, 0, people)])
    every = metric_values(keys, found, clusters=behind)
    return {
        band: EstimateError(n=int(n), mae=every[band, "mae"], p95_ae=every[band, "p95_ae"])
        for band, n in zip(bands.names, bands.counts, strict=True)
    }


def _with_quantiles(found: Replicates, error: Floats, bands: Grouping, clusters: Ints, several: Ints) -> Replicates:
    """Give the 95th percentiles, the last rows, replicates from order statistics: open above where no image bounds them.

    Args:
        found: the errors' means, then their percentiles, by band.
        error: (n,) absolute errors.
        bands: of the estimates.
        clusters: (n,) rows drawn together.
        several: the bands with several people.
    """
    rows = several + len(bands.names)
    parts = [np.flatnonzero(bands.codes == code) for code in several]
    resampled = [
        quantile_replicates(error[part], np.sort(error[part]), 0.95, reindex(clusters[part]), found.resampled[row])
        for part, row in zip(parts, rows, strict=True)
    ]
    return with_rows(found, rows, np.stack(resampled))
