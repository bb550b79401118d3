"""Claims about datasets that were not tested: a random-effects meta-analysis over datasets."""

from collections.abc import Sequence

import numpy as np

from agebench.errors import UserError
from agebench.metrics.bootstrap import Floats
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL
from agebench.metrics.quantiles import t_quantile
from agebench.metrics.schema import NewDatasetClaim

# Fewer datasets do not show how much datasets differ.
FEWEST_DATASETS = 5


def claim_about_new_datasets(
    ratios: Sequence[float], errors: Sequence[float], *, level: float = CONFIDENCE_LEVEL
) -> NewDatasetClaim:
    """Estimate the ratio of MAE to baseline MAE on datasets like those that were tested, and predict it for a new one.

    The logarithms of the ratios vary between datasets by tau (Paule and Mandel 1982). The mean has the interval of Hartung and
    Knapp (2001, "A refined method for the meta-analysis of controlled clinical trials with binary outcome"), and the prediction
    interval is that of Higgins, Thompson and Spiegelhalter (2009, "A re-evaluation of random-effects meta-analysis").

    Args:
        ratios: MAE of the system divided by that of the baseline, one for each dataset that it was not trained on.
        errors: standard errors of the logarithms of `ratios`.
        level: of both intervals.

    Raises:
        UserError: there are fewer than five datasets.
    """
    count = len(ratios)
    if count < FEWEST_DATASETS:
        raise UserError(
            f"a claim about new datasets needs {FEWEST_DATASETS} test sets that the system was not trained on; there are {count}. "
            "The results hold on these sets"
        )
    values, variances = np.log(np.asarray(ratios, float)), np.asarray(errors, float) ** 2
    tau_squared = _paule_mandel(values, variances)
    weights = 1 / (variances + tau_squared)
    mean = float(np.average(values, weights=weights))
    # Never narrower than the fixed-effect interval (Röver, Knapp and Friede 2015).
    scale = max(1.0, float(np.sum(weights * (values - mean) ** 2) / (count - 1)))
    error = np.sqrt(scale / weights.sum())
    half = t_quantile((1 + level) / 2, count - 1) * error
    reach = t_quantile((1 + level) / 2, count - 2) * np.sqrt(tau_squared + error**2)
    ends = np.exp([mean, mean - half, mean + half, mean - reach, mean + reach])
    return NewDatasetClaim(
        datasets=count,
        ratio=float(ends[0]),
        ci_low=float(ends[1]),
        ci_high=float(ends[2]),
        prediction_low=float(ends[3]),
        prediction_high=float(ends[4]),
        tau=float(np.sqrt(tau_squared)),
    )


def _paule_mandel(values: Floats, variances: Floats) -> float:
    """The variance between datasets at which the weighted sum of squares equals its degrees of freedom."""

    def excess(tau_squared: float) -> float:
        weights = 1 / (variances + tau_squared)
        mean = np.average(values, weights=weights)
        return float(np.sum(weights * (values - mean) ** 2) - (len(values) - 1))

    if not variances.all():
        variances = variances + 1e-12
    if excess(0.0) <= 0:
        return 0.0
    upper = float(np.var(values, ddof=1)) * 4 + 1e-9
    while excess(upper) > 0:
        upper *= 2
    from scipy import optimize  # takes 0.2 s, and few comparisons have five datasets

    return float(optimize.brentq(excess, 0.0, upper))
