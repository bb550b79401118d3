"""Error rates of age gates that decide by an estimated age.

The rule under test is NIST's (Hanaoka et al. 2024, NIST IR 8525, "Face Analysis Technology Evaluation: Age Estimation and
Verification", the Challenge-25 task): a person counts as over-age when the estimate is at least the challenge age T. A
false positive is a person below the legal age who passes, a false negative one of legal age who does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from agebench.errors import UserError
from agebench.metrics.bootstrap import Flags, Floats, Ints, Replicates, distinct_values, reindex
from agebench.metrics.clustered_rates import (
    clustered_rate,
    effective_sizes,
    few_people_share,
    group_rates,
    subject_codes,
)
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL, bootstrap_interval, clopper_pearson, metric_value
from agebench.metrics.groups import Grouping, groupings
from agebench.metrics.point import age_limits
from agebench.metrics.quantiles import binomial_quantile
from agebench.metrics.schema import (
    AgeGateRate,
    AgeRefusalRate,
    CountedGateRates,
    DetCurve,
    GateRates,
    GateResult,
    MetricValue,
    RequiredChallengeAge,
    UnderAgeDetection,
)

LEGAL_AGES = (13, 16, 18, 21)
_GATE_AGES = (1, 120)  # years, of legal and of challenge ages
TARGET_FPRS = (0.01, 0.001)
# Challenge-25 for a legal age of 18: the margin that the default challenge age adds to any legal age.
DEFAULT_CHALLENGE_MARGIN = 7
# Refusals are listed by year of age up to so many years above the legal age.
_REFUSED_YEARS = 25
# With at least this many passing images the design effect can be estimated.
_TELLING = 20
# People are resampled in at most so many random groups where the whole distribution of estimates is needed in each resample,
# and challenge ages are searched among so many estimates in the upper tail of the minors'.
_PEOPLE_GROUPS, _TAIL, _TAIL_STEPS = 1000, 0.1, 200


@dataclass(frozen=True, order=True)
class Gate:
    """A legal age, and the estimate from which a person passes, both in years."""

    legal: int
    challenge: float

    @property
    def label(self) -> str:
        """The gate as users write it, such as `18@25`."""
        return f"{self.legal}@{self.challenge:g}"


def parse_gate(text: str) -> Gate:
    """Parse a gate such as `18@25`.

    Args:
        text: legal age and challenge age.

    Raises:
        UserError: the text has another form, an age lies outside 1 to 120 years, or the challenge age below the legal age.
    """
    legal, at, challenge = text.partition("@")
    try:
        gate = Gate(int(legal), float(challenge))
    except ValueError:
        at = ""
    if not at:
        raise UserError(f"gate '{text}': write the legal age and the challenge age in years, e.g. 18@25")
    low, high = _GATE_AGES
    if not all(low <= age <= high for age in (gate.legal, gate.challenge)):
        raise UserError(f"gate '{text}': give ages from {low} to {high} years, e.g. 18@25")
    if gate.challenge < gate.legal:
        example = f"{gate.legal}@{min(gate.legal + 7, high)}"
        raise UserError(f"gate '{text}': the challenge age must be the legal age or more, e.g. {example}")
    return gate


def parse_ages(text: str) -> tuple[int, int]:
    """Parse a range of completed years such as `13-17`; both ends are included.

    Args:
        text: the range, or one age.

    Raises:
        UserError: the text is no range of ages.
    """
    low, dash, high = text.partition("-")
    if low.strip().isdecimal() and (not dash or high.strip().isdecimal()):
        ages = (int(low), int(high) if dash else int(low))
        if ages[0] <= ages[1]:
            return ages
    raise UserError(f"ages '{text}': write the first and the last year, e.g. 13-17")


def age_gates(
    table: pd.DataFrame,
    *,
    legal_ages: Sequence[int] = LEGAL_AGES,
    challenges: Sequence[float] = (),
    groups: Sequence[str] = (),
    gates: Sequence[Gate] = (),
    minor_ages: tuple[int, int] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, GateResult]:
    """Compute error rates of age gates with 95 % Clopper-Pearson intervals.

    Where `subject` is known the intervals count persons' worth of images: n over the design effect (Korn and Graubard 1998,
    "Confidence intervals for proportions with small expected number of positive counts estimated from survey data").

    A label that is a range of ages counts where it lies on one side of the legal age as a whole, and in no rate by year. An image
    without an estimate (minus infinity) is a person who is refused, which counts for people of legal age only: a minor who is not
    answered is in no rate.

    Args:
        table: predictions, see `check_predictions`.
        legal_ages: legal ages, years; ages with images on one side only are left out.
        challenges: challenge ages T, tried for each legal age where not below it; default: the legal age, and 7 years more.
        groups: group columns, or crossings.
        gates: further pairs of legal and challenge age.
        minor_ages: first and last completed year of the minors that count; None: all below the legal age.
        resamples: bootstrap samples behind the interval of the detection's F2; 0: no such interval.
        seed: seed of these samples.

    Returns:
        Legal age -> its rates.

    Raises:
        UserError: a group column is missing.
    """
    rows = _GateRows.from_table(table, groupings(table, groups))
    results = {}
    for legal in sorted({*legal_ages, *(gate.legal for gate in gates)}):
        under = (np.floor(rows.high) < legal) & np.isfinite(rows.predicted)
        if minor_ages is not None:
            under &= (np.floor(rows.low) >= minor_ages[0]) & (np.floor(rows.high) <= minor_ages[1])
        over = rows.low >= legal
        if under.any() and over.any():
            general = [t for t in challenges if t >= legal] or [legal, legal + DEFAULT_CHALLENGE_MARGIN]
            tried = {
                *(general if legal in legal_ages else ()),
                *(gate.challenge for gate in gates if gate.legal == legal),
            }
            result = _gate(rows, under, over, legal, sorted(tried))
            results[str(legal)] = result.model_copy(
                update={
                    "minor_ages": None if minor_ages is None else list(minor_ages),
                    "detection": _detection(rows, under, over, result.required[f"{TARGET_FPRS[0]:g}"], resamples, seed),
                    "n_undecided": int(((rows.low < legal) & (np.floor(rows.high) >= legal)).sum()),
                }
            )
    return results


@dataclass(frozen=True)
class _GateRows:
    """The images of a test set.

    Attributes:
        low: (n,) the lowest age that the label leaves possible, years.
        high: (n,) the highest one.
        years: (n,) completed years; -1 where the label is a range of them.
        predicted: (n,) estimates, years.
        clusters: (n,) people; None where unknown.
        groupings: groups of the images.
    """

    low: Floats
    high: Floats
    years: Ints
    predicted: Floats
    clusters: Ints | None
    groupings: Sequence[Grouping]

    @classmethod
    def from_table(cls, table: pd.DataFrame, groupings: Sequence[Grouping]) -> "_GateRows":
        low, high = age_limits(table)
        years = np.where(np.floor(low) == np.floor(high), np.floor(low), -1).astype(np.int64)
        return cls(low, high, years, table["age_pred"].to_numpy(float), subject_codes(table), groupings)

    @cached_property
    def order(self) -> Ints:
        """The rows by ascending estimate (n,)."""
        return np.argsort(self.predicted, kind="stable")

    def people(self, rows: Flags) -> Ints | None:
        """People of the selected rows."""
        return None if self.clusters is None else self.clusters[rows]


def _gate(rows: _GateRows, under: Flags, over: Flags, legal: int, challenges: Sequence[float]) -> GateResult:
    rates: dict[str, GateRates] = {}
    by_age: dict[str, dict[str, AgeGateRate]] = {}
    refused_by_age: dict[str, dict[str, AgeRefusalRate]] = {}
    by_group: dict[str, dict[str, dict[str, CountedGateRates]]] = {}
    near = over & (rows.years >= legal) & (rows.years < legal + _REFUSED_YEARS)
    for challenge in challenges:
        passes = rows.predicted >= challenge
        key = f"{challenge:g}"
        rates[key] = GateRates(
            fpr=clustered_rate(passes, under, rows.clusters), fnr=clustered_rate(~passes, over, rows.clusters)
        )
        by_age[key] = {year: AgeGateRate(n=n, fpr=rate) for year, n, rate in _rates_by_year(rows, passes, under)}
        refused_by_age[key] = {
            year: AgeRefusalRate(n=n, fnr=rate) for year, n, rate in _rates_by_year(rows, ~passes, near)
        }
        by_group[key] = {
            grouping.name: _rates_by_group(grouping, passes, under, over, rows.clusters) for grouping in rows.groupings
        }
    below_limit = under & (rows.years == legal - 1)
    return GateResult(
        n_under=int(under.sum()),
        n_over=int(over.sum()),
        challenge=rates,
        by_age=by_age,
        by_group=by_group,
        required=_required(rows, under),
        det=_det(rows, under, over, legal),
        refused_by_age=refused_by_age,
        required_below_limit=_required(rows, below_limit) if below_limit.any() else {},
    )


def _rates_by_year(rows: _GateRows, hits: Flags, among: Flags) -> list[tuple[str, int, MetricValue]]:
    """Completed year, images and rate of `hits`, for each year that has rows in `among`."""
    among = among & (rows.years >= 0)
    row_years = rows.years[among]
    years, codes = distinct_values(row_years), reindex(row_years - row_years.min(initial=0))
    rates = group_rates(hits[among], np.ones(len(codes), dtype=bool), codes, len(years), rows.people(among))
    counts = np.bincount(codes, minlength=len(years))
    return [(str(year), int(n), rate) for year, n, rate in zip(years, counts, rates, strict=True)]


def _rates_by_group(
    grouping: Grouping, passes: Flags, under: Flags, over: Flags, clusters: Ints | None
) -> dict[str, CountedGateRates]:
    codes, size = grouping.codes, len(grouping.names)
    n_under, n_over = (np.bincount(codes[side & (codes >= 0)], minlength=size) for side in (under, over))
    fpr = group_rates(passes, under, codes, size, clusters)
    fnr = group_rates(~passes, over, codes, size, clusters)
    return {
        name: CountedGateRates(n_under=int(n_under[place]), fpr=fpr[place], n_over=int(n_over[place]), fnr=fnr[place])
        for place, name in enumerate(grouping.names)
    }


def _required(rows: _GateRows, among: Flags) -> dict[str, RequiredChallengeAge]:
    order = rows.order[among[rows.order]]
    estimates, people = rows.predicted[order], None if rows.clusters is None else rows.clusters[order]
    return {f"{target:g}": required_challenge_age(estimates, target, clusters=people) for target in TARGET_FPRS}


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
    worth = effective_sizes(estimates >= passing, np.zeros(n, dtype=np.int64), 1, clusters)
    effective = int(worth[0] + 1e-9)

    def counted(age: MetricValue) -> RequiredChallengeAge:
        found = RequiredChallengeAge(value=age.value, ci_low=age.ci_low, ci_high=age.ci_high, n=n, n_needed=required)
        if clusters is None:
            return found
        return found.model_copy(update={"people": len(distinct_values(clusters)), "n_effective": effective})

    if effective < required:
        return counted(metric_value(np.nan))
    # Ranks of the (1 - target) quantile that a binomial count may reach, each of so many images.
    low, high = (binomial_quantile(share, effective, 1 - target) for share in ((1 - level) / 2, (1 + level) / 2))
    each = n / effective
    first, last = int((low - 1) * each + 1e-9), int(np.ceil((high + 1) * each - 1e-9)) - 1
    upper = above(last) if high < effective else np.nan  # Beyond the largest estimate nothing is known.
    return counted(metric_value(value, above(max(first, 0)), upper))


def _det(rows: _GateRows, under: Flags, over: Flags, legal: int) -> DetCurve:
    """False positive against false negative rate over challenge ages, half years apart, with their 95 % intervals."""
    challenges = np.arange(max(0, legal - 15), legal + 25.5, 0.5)
    fpr = _passing_rates(rows.predicted[under], challenges, rows.people(under))
    passing = _passing_rates(rows.predicted[over], challenges, rows.people(over))
    fnr = (1 - passing[0], 1 - passing[2], 1 - passing[1])
    columns = [[round(float(share), 6) for share in part] for part in (*fpr, *fnr)]
    return DetCurve(
        challenge=challenges.tolist(),
        fpr=columns[0],
        fpr_low=columns[1],
        fpr_high=columns[2],
        fnr=columns[3],
        fnr_low=columns[4],
        fnr_high=columns[5],
    )


def _passing_rates(predicted: Floats, challenges: Floats, people: Ints | None) -> tuple[Floats, Floats, Floats]:
    """Share that passes at each challenge age, and the ends of its interval, each (len(challenges),)."""
    n = len(predicted)
    counts = _counts_above(predicted, challenges, None)[0]
    shares = counts / n
    effective = np.full(len(challenges), float(n))
    persons = n if people is None else len(distinct_values(people))
    if people is not None and persons < n:
        groups = _people_groups(people)
        by_group = _counts_above(predicted, challenges, groups)
        sizes, n_groups = np.bincount(groups, minlength=len(by_group)), len(by_group)
        squares = ((by_group - shares * sizes[:, None]) ** 2).sum(axis=0)
        with np.errstate(all="ignore"):
            effects = n_groups / max(n_groups - 1, 1) * squares / (n * shares * (1 - shares))
        is_flat = (shares == 0) | (shares == 1) | (n_groups < 2)
        worth = n / np.maximum(np.nan_to_num(effects, nan=1.0), 1)
        effective = np.where(is_flat, persons, worth * few_people_share(np.array(n), np.array(n_groups)))
    low, high = clopper_pearson(shares * effective, effective)
    return shares, low, high


def _people_groups(people: Ints) -> Ints:
    """Codes (n,) of at most `_PEOPLE_GROUPS` random groups of people: independent, so that resampling them is valid."""
    codes = reindex(people)
    count = int(codes.max()) + 1
    if count <= _PEOPLE_GROUPS:
        return codes
    grouped: Ints = (np.random.default_rng(0).permutation(count) % _PEOPLE_GROUPS)[codes]
    return grouped


def _counts_above(predicted: Floats, challenges: Floats, groups: Ints | None) -> Floats:
    """Count the estimates (n,) at or above each challenge age (ascending), by group: (groups, len(challenges))."""
    width = len(challenges) + 1
    bins = np.searchsorted(challenges, predicted, side="right")
    codes = bins if groups is None else groups * width + bins
    n_groups = 1 if groups is None else int(groups.max(initial=0)) + 1
    counts = np.bincount(codes, minlength=n_groups * width).reshape(n_groups, width)
    above: Floats = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].astype(float)
    return above


def _detection(
    rows: _GateRows, under: Flags, over: Flags, required: RequiredChallengeAge, resamples: int, seed: int
) -> UnderAgeDetection | None:
    """Compute F2 of detecting minors where 1 % of them pass; None where that challenge age cannot be shown.

    The interval is the wider of two: that of a bootstrap of people in which each resample has its own challenge age, and that which
    the order statistics' interval of the challenge age implies. With few minors above it the bootstrap is too narrow.
    """
    if required.value is None:
        return None
    among = (under | over) & np.isfinite(
        rows.predicted
    )  # minors without an estimate are in no rate, nor are adults here
    predicted, is_minor = rows.predicted[among], under[among]
    passed = int((predicted[is_minor] >= required.value).sum())
    flagged_minors, flagged_adults = int(is_minor.sum()) - passed, int((predicted[~is_minor] < required.value).sum())
    f2 = _f2(np.array([flagged_minors]), np.array([passed]), np.array([flagged_adults]))
    resampled = np.empty((1, 0))
    people = rows.people(among)
    n_people = len(predicted) if people is None else len(distinct_values(people))
    if resamples:
        people = np.arange(len(predicted)) if people is None else people
        resampled = _resampled_f2(predicted, is_minor, _people_groups(people), resamples, seed)[None]
    ends = bootstrap_interval(Replicates(f2, resampled, resampled[:, :0], n_people), "percentile")
    low, high = (
        _implied_f2(predicted, is_minor, end, default)
        for end, default in ((required.ci_high, np.inf), (required.ci_low, -np.inf))
    )
    if resamples:
        ends = (np.minimum(ends[0], low), np.maximum(ends[1], high))
    return UnderAgeDetection(
        false_adult_rate=TARGET_FPRS[0],
        challenge=required.value,
        f2=metric_value(f2[0], ends[0][0], ends[1][0]),
        recall=flagged_minors / int(is_minor.sum()),
        precision=flagged_minors / (flagged_minors + flagged_adults),
        prevalence=float(is_minor.mean()),
    )


def _implied_f2(predicted: Floats, is_minor: Flags, challenge: float | None, default: float) -> float:
    """F2 if exactly 1 % of the minors passed at this challenge age; None stands for `default`."""
    minors = float(is_minor.sum())
    refused = float((predicted[~is_minor] < (default if challenge is None else challenge)).sum())
    missed = TARGET_FPRS[0] * minors
    return float(_f2(np.array([minors - missed]), np.array([missed]), np.array([refused]))[0])


def _f2(detected: Floats, missed: Floats, false_alarms: Floats) -> Floats:
    """F2 = 5 TP / (5 TP + 4 FN + FP)."""
    score: Floats = 5 * detected / np.maximum(5 * detected + 4 * missed + false_alarms, 1)
    return score


@lru_cache(maxsize=1)
def _group_weights(n_groups: int, resamples: int, seed: int) -> Floats:
    """Draw how often each group of people counts in each resample (resamples, n_groups); the same for every legal age."""
    weights = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
    return weights.astype(np.float32)


def _resampled_f2(predicted: Floats, is_minor: Flags, groups: Ints, resamples: int, seed: int) -> Floats:
    """F2 (resamples,) where groups of people are resampled, and the challenge age is chosen in each resample."""
    minors = np.sort(predicted[is_minor])
    tail = minors[int(len(minors) * (1 - _TAIL)) :]
    chosen = tail[np.unique(np.linspace(0, len(tail) - 1, _TAIL_STEPS).round().astype(np.int64))]
    challenges = np.unique((np.floor(chosen * 100 + 1e-9) + 1) / 100)
    n_groups = int(groups.max()) + 1
    sides = []
    for side in (is_minor, ~is_minor):
        sizes = np.bincount(groups[side], minlength=n_groups)
        above = np.zeros((n_groups, len(challenges)))
        counts = _counts_above(predicted[side], challenges, groups[side])
        above[: len(counts)] = counts
        sides.append((sizes.astype(np.float32), above.astype(np.float32)))
    weights = _group_weights(n_groups, resamples, seed)
    (n_minors, minors_above), (n_adults, adults_above) = sides
    total, passing = weights @ n_minors, weights @ minors_above
    place = (passing <= TARGET_FPRS[0] * total[:, None] + 1e-9).argmax(axis=1)
    every = np.arange(resamples)
    missed = passing[every, place]
    false_alarms = weights @ n_adults - (weights @ adults_above)[every, place]
    return _f2(total - missed, missed, false_alarms)
