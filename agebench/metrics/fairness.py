"""Differences between groups: raw, and at equal ages.

Groups differ in their mix of ages, and errors grow with age, so raw MAEs differ even under a model that treats everyone of
an age alike. Direct standardization weighs every group's MAE by age with one common age distribution, that of all rows
(Fleiss, Levin and Paik 2003, "Statistical Methods for Rates and Proportions", chapter 19).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agebench.metrics.bootstrap import Floats, Ints, reindex
from agebench.metrics.group_distance import GroupDistance
from agebench.metrics.groups import MIN_GROUP, Grouping
from agebench.metrics.permutation import PermutationData, make_permutations
from agebench.metrics.schema import Gap

# A p value below this shows a difference, everywhere.
SIGNIFICANT = 0.05
# A stratum of ages is closed once it is this wide and every group has so many rows in it; one that grows wider than the
# widest is given up: ages at which some group is all but absent cannot be compared.
_WIDTH, _WIDEST, _MIN_STRATUM = 5, 20, 10
_LEAST_COVERAGE = 0.5
# With more labels than this the limiting F distribution replaces the shuffles.
_SHUFFLED = 10_000
# A sentence names so many groups of a set.
_NAMED = 4


@dataclass(frozen=True)
class AgeStrata:
    """Strata of age in which every ranked group has images.

    Attributes:
        codes: (n,) the stratum of each row, -1 for ages where groups cannot be compared.
        ranges: (low, high) completed years of each stratum, both included.
        weights: (S,) the common age distribution: the share of all rows in each stratum; sums to 1.
        coverage: the share of the rows of known, ranked groups that lie in a stratum.
    """

    codes: Ints
    ranges: tuple[tuple[int, int], ...]
    weights: Floats
    coverage: float


def eligible_groups(grouping: Grouping, minimum: int = MIN_GROUP) -> Ints:
    """The groups with at least `minimum` rows, as places in `grouping.names`."""
    return np.flatnonzero(grouping.counts >= minimum)


def age_strata(years: Ints, grouping: Grouping, groups: Ints) -> AgeStrata:
    """Strata of completed years (n,) for comparing `groups`; five years wide, wider where a group is thin."""
    inside = np.isin(grouping.codes, groups)
    first, counts = _year_counts(years, grouping, groups)
    ranges = _ranges(np.cumsum(counts, axis=0))
    codes = np.full(len(counts), -1)
    for stratum, (low, high) in enumerate(ranges):
        codes[low : high + 1] = stratum
    row_codes = np.where(inside, codes[years - first], -1)
    sizes = np.bincount(row_codes[row_codes >= 0], minlength=len(ranges)).astype(float)
    coverage = float(sizes.sum() / max(inside.sum(), 1))
    named = tuple((first + low, first + high) for low, high in ranges)
    return AgeStrata(row_codes, named, sizes / max(sizes.sum(), 1), coverage)


def _year_counts(years: Ints, grouping: Grouping, groups: Ints) -> tuple[int, Ints]:
    """Return the first year, and the rows of each completed year and group (span, groups)."""
    known = grouping.codes >= 0
    first, span, width = int(years.min()), int(years.max() - years.min()) + 1, len(grouping.names)
    cells = (years[known] - first) * width + grouping.codes[known]
    return first, np.bincount(cells, minlength=span * width).reshape(span, width)[:, groups]


def _ranges(up_to: Ints) -> list[tuple[int, int]]:
    """Divide years into strata, from the cumulative rows of each year and group (span, groups); both ends are included."""
    span = len(up_to)
    ranges: list[tuple[int, int]] = []
    start = 0
    for year in range(span):
        width = year + 1 - start
        if width >= _WIDTH:
            rows = up_to[year] - up_to[start - 1] if start else up_to[year]
            if rows.min() >= _MIN_STRATUM:
                ranges.append((start, year))
                start = year + 1
            elif width >= _WIDEST:
                start = year + 1
    if ranges and start < span and ranges[-1][1] == start - 1 and span - start < _WIDEST - _WIDTH:
        # The tail, too thin for a stratum of its own, joins the last.
        ranges[-1] = (ranges[-1][0], span - 1)
    return ranges


def comparable_groups(years: Ints, grouping: Grouping, groups: Ints) -> tuple[Ints, AgeStrata]:
    """Those of `groups` that share enough ages to be compared, and the strata in which they are.

    The smallest group is left out until the strata hold half of the rows; with fewer than two groups left: none.
    """
    largest_first = groups[np.argsort(grouping.counts[groups], kind="stable")][::-1]
    _, counts = _year_counts(years, grouping, largest_first)
    up_to, of_first = np.cumsum(counts, axis=0), np.cumsum(counts, axis=1)
    for size in range(len(groups), 1, -1):
        by_year = of_first[:, size - 1]
        covered = sum(int(by_year[low : high + 1].sum()) for low, high in _ranges(up_to[:, :size]))
        if covered and covered >= _LEAST_COVERAGE * by_year.sum():
            kept = np.sort(largest_first[:size])
            return kept, age_strata(years, grouping, kept)
    return groups[:0], AgeStrata(np.full(len(years), -1), (), np.zeros(0), 0.0)


def cell_codes(strata: AgeStrata, grouping: Grouping, groups: Ints) -> Ints:
    """(n,) codes group * S + stratum, `groups` numbered 0, 1, …; -1 outside."""
    place = np.full(len(grouping.names) + 1, -1)
    place[groups] = np.arange(len(groups))
    group = place[grouping.codes]  # Code -1 reads the last place, which is -1.
    return np.where((strata.codes >= 0) & (group >= 0), group * len(strata.ranges) + strata.codes, -1)


def directly_standardize(means: Floats, weights: Floats) -> Floats:
    """Directly standardized means: (groups, S, …) by the weights (S,) -> (groups, …)."""
    return (
        np.tensordot(means, weights, axes=([1], [0])) if means.ndim == 2 else np.einsum("gs...,s->g...", means, weights)
    )


def group_permutation_test(
    errors: Floats,
    grouping: Grouping,
    groups: Ints,
    clusters: Ints,
    strata: AgeStrata | None = None,
    *,
    signed: bool = False,
    permutations: int = 1000,
    seed: int = 0,
) -> float:
    """Compute the p value of equal MAEs in `groups` by a studentized permutation test.

    Group labels are shuffled among units (subjects where there are any, else images), and within a subject that has rows in
    several groups; with `strata`, only among those of the same ages, and the MAEs are the standardized ones. `Shuffles`
    documents what is exchangeable. The statistic is `GroupDistance`: because it is divided by each group's own variance, the
    test holds its level where groups differ in spread but not in MAE. With very many labels its limiting F distribution is
    used instead of shuffles.

    Args:
        errors: (n,) absolute errors, years; or signed errors, for equal biases.
        grouping: who belongs where.
        groups: the places in `grouping.names` that are compared.
        clusters: (n,) rows shuffled together.
        strata: ages that are compared with each other; None: all with all.
        signed: whether `errors` have signs.
        permutations: shuffles.
        seed: of the shuffles.

    Returns:
        The p value, in (0, 1].
    """
    inside = np.isin(grouping.codes, groups) & (True if strata is None else strata.codes >= 0)
    errors = errors[inside]
    labels = np.searchsorted(groups, grouping.codes[inside])
    stratum = np.zeros(len(errors), np.int64) if strata is None else strata.codes[inside]
    weights = np.ones(1) if strata is None else strata.weights
    items = make_permutations(PermutationData(errors, labels, stratum, reindex(clusters[inside])), len(weights))
    distance = GroupDistance(items, len(groups), weights, signed=signed)
    observed = distance(items.observed)
    if items.moved > _SHUFFLED:
        return distance.limit_p(items.observed)
    rng = np.random.default_rng(seed)
    null = distance.shuffled(items, rng, permutations)
    return float((1 + np.sum(null >= observed * (1 - 1e-9) - 1e-12)) / (1 + permutations))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(order))
    running = 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * float(p[place])))
        adjusted[place] = running
    return [float(value) for value in adjusted]


def argmax_argmin(values: Floats) -> tuple[int, int]:
    """Places of the largest and smallest value."""
    return int(np.argmax(values)), int(np.argmin(values))


def describe_gap(gap: Gap, named: Callable[[object], str] = str) -> str:
    """Describe a gap in one sentence: raw, at equal ages, and whether it is significant.

    Args:
        gap: the gap of one grouping.
        named: how the name of a group is written.
    """
    text = f"{named(gap.worst)} has the largest MAE, {gap.difference.value:.2f} years above {named(gap.best)}"
    even = gap.age_standardized
    if even is None:
        text += "; the groups share too few ages to be compared at equal ages"
    else:
        text += f"; at equal ages {named(even.worst)} is {even.difference.value:.2f} years above {named(even.best)}"
        if gap.explained_by_age and gap.p_holm is not None and gap.p_holm < SIGNIFICANT:
            text += ", so part of the raw gap is the groups' mix of ages"
    possible = [named(name) for name in (even or gap).worst_groups or ()]
    if len(possible) > 1:
        text += f"; which group is worst is uncertain, it may be any of {len(possible)} ({_first_of(possible)})"
    p = (even or gap).p_holm
    if p is None:
        return text
    p_text = f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
    return f"{text}: {'more than chance' if gap.flagged else 'no difference shown'} ({p_text})"


def _first_of(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown}, …"
