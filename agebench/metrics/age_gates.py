"""Error rates of age gates that decide by an estimated age.

The rule under test is NIST's (Hanaoka et al. 2024, NIST IR 8525, "Face Analysis Technology Evaluation: Age Estimation and
Verification", the Challenge-25 task): a person counts as over-age when the estimate is at least the challenge age T. A
false positive is a person below the legal age who passes, a false negative one of legal age who does not.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from agebench.metrics.bootstrap import Flags, Floats, Ints
from agebench.metrics.clustered_rates import clustered_rate, design_effect, group_rates, subject_codes
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL, metric_value
from agebench.metrics.groups import Grouping, groupings
from agebench.metrics.schema import (
    AgeGateRate,
    CountedGateRates,
    DetCurve,
    GateRates,
    GateResult,
    MetricValue,
    RequiredChallengeAge,
)

LEGAL_AGES = (13, 16, 18, 21)
TARGET_FPRS = (0.01, 0.001)
# Challenge-25 for a legal age of 18: the margin that the default challenge age adds to any legal age.
DEFAULT_CHALLENGE_MARGIN = 7
# With at least this many passing images the design effect can be estimated.
_TELLING = 20


def age_gates(
    table: pd.DataFrame,
    *,
    legal_ages: Sequence[int] = LEGAL_AGES,
    challenges: Sequence[float] = (),
    groups: Sequence[str] = (),
) -> dict[str, GateResult]:
    """Compute error rates of age gates with 95 % Clopper-Pearson intervals.

    Where `subject` is known the intervals count persons' worth of images: n over the design effect (Korn and Graubard 1998,
    "Confidence intervals for proportions with small expected number of positive counts estimated from survey data").

    Args:
        table: predictions, see `check_predictions`.
        legal_ages: legal ages, years; ages with images on one side only are left out.
        challenges: challenge ages T, tried for each legal age where not below it; default: the legal age, and 7 years more.
        groups: group columns, or crossings.

    Returns:
        Legal age -> its rates.

    Raises:
        UserError: a group column is not there.
    """
    age, predicted = table["age"].to_numpy(float), table["age_pred"].to_numpy(float)
    clusters = subject_codes(table)
    made = groupings(table, groups)
    gates = {}
    for legal in legal_ages:
        under = age < legal
        if under.any() and not under.all():
            tried = [t for t in challenges if t >= legal] or [legal, legal + DEFAULT_CHALLENGE_MARGIN]
            gates[str(legal)] = _gate(age, predicted, under, clusters, legal, tried, made)
    return gates


def _gate(
    age: Floats,
    predicted: Floats,
    under: Flags,
    clusters: Ints | None,
    legal: int,
    challenges: Sequence[float],
    made: Sequence[Grouping],
) -> GateResult:
    rates: dict[str, GateRates] = {}
    by_age: dict[str, dict[str, AgeGateRate]] = {}
    by_group: dict[str, dict[str, dict[str, CountedGateRates]]] = {}
    years = np.floor(age)
    for challenge in challenges:
        passes = predicted >= challenge
        key = f"{challenge:g}"
        rates[key] = GateRates(
            fpr=clustered_rate(passes, under, clusters), fnr=clustered_rate(~passes, ~under, clusters)
        )
        by_age[key] = {
            f"{year:g}": AgeGateRate(n=int((years == year).sum()), fpr=clustered_rate(passes, years == year, clusters))
            for year in np.unique(years[under])
        }
        by_group[key] = {
            grouping.name: {
                name: CountedGateRates(n_under=int(n_under), fpr=fpr, n_over=int(n - n_under), fnr=fnr)
                for name, n, n_under, fpr, fnr in zip(
                    grouping.names,
                    grouping.counts,
                    np.bincount(grouping.codes[under & (grouping.codes >= 0)], minlength=len(grouping.names)),
                    group_rates(passes, under, grouping.codes, len(grouping.names), clusters),
                    group_rates(~passes, ~under, grouping.codes, len(grouping.names), clusters),
                    strict=True,
                )
            }
            for grouping in made
        }
    order = np.argsort(predicted[under], kind="stable")
    estimates, people = predicted[under][order], None if clusters is None else clusters[under][order]
    return GateResult(
        n_under=int(under.sum()),
        n_over=int((~under).sum()),
        challenge=rates,
        by_age=by_age,
        by_group=by_group,
        required={f"{target:g}": required_challenge_age(estimates, target, clusters=people) for target in TARGET_FPRS},
        det=_det(predicted, under, legal),
    )


def required_challenge_age(
    estimates: Floats, target: float, level: float = CONFIDENCE_LEVEL, *, clusters: Ints | None = None
) -> RequiredChallengeAge:
    """Find the lowest T at which at most `target` of the under-age pass, with its interval from order statistics.

    T lies just above an order statistic of the under-age estimates, and which one may be it follows a binomial law (David
    and Nagaraja 2003, "Order Statistics", section 7.1). With fewer than 1/target images the rate cannot be shown: None.
    Where people repeat, n in this law, and for what can be shown, is that over the design effect of passing at T, or
    where a few more pass (Woodruff 1952, "Confidence intervals for medians and other position measures", JASA 47), and its ranks
    are spread over the images.

    Args:
        estimates: (n,) of the under-age, ascending, years.
        target: false positive rate.
        level: of the interval.
        clusters: (n,) whose estimates they are, where that is known.

    Returns:
        The age, undefined where `n_effective` images cannot show the rate.
    """
    n = len(estimates)
    required = int(np.ceil(1 / target))
    allowed = int(np.floor(n * target + 1e-9))

    def above(place: int) -> float:
        # The smallest number of hundredths above the estimate: `>= T` must refuse it.
        return float((np.floor(estimates[place] * 100 + 1e-9) + 1) / 100)

    value = above(n - allowed - 1)
    # One or two images that pass cannot show whether a person's pass together.
    passing = value if allowed >= _TELLING else above(max(n - _TELLING - 1, 0))
    effective = int(n / design_effect(estimates >= passing, clusters) + 1e-9)

    def counted(age: MetricValue) -> RequiredChallengeAge:
        found = RequiredChallengeAge(value=age.value, ci_low=age.ci_low, ci_high=age.ci_high, n=n, n_needed=required)
        if clusters is None:
            return found
        return found.model_copy(update={"people": len(np.unique(clusters)), "n_effective": effective})

    if effective < required:
        return counted(metric_value(np.nan))
    # Ranks of the (1 - target) quantile that a binomial count may reach, each of so many images.
    low, high = stats.binom.ppf([(1 - level) / 2, (1 + level) / 2], effective, 1 - target)
    each = n / effective
    first, last = int((low - 1) * each + 1e-9), int(np.ceil((high + 1) * each - 1e-9)) - 1
    upper = above(last) if high < effective else np.nan  # Beyond the largest estimate nothing is known.
    return counted(metric_value(value, above(max(first, 0)), upper))


def _det(predicted: Floats, under: Flags, legal: int) -> DetCurve:
    """False positive against false negative rate over challenge ages, half years apart."""
    challenges = np.arange(max(0, legal - 15), legal + 25.5, 0.5)
    young, old = np.sort(predicted[under]), np.sort(predicted[~under])
    fpr = 1 - np.searchsorted(young, challenges, side="left") / len(young)
    fnr = np.searchsorted(old, challenges, side="left") / len(old)
    return DetCurve(challenge=challenges.tolist(), fpr=fpr.tolist(), fnr=fnr.tolist())
