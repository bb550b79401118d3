"""Gaps between groups: raw and at equal ages, with intervals and a test each."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from agebench.metrics import point
from agebench.metrics.bootstrap import Floats, Ints
from agebench.metrics.confidence_intervals import json_number, metric_value
from agebench.metrics.fairness import (
    SIGNIFICANT,
    AgeStrata,
    argmax_argmin,
    cell_codes,
    comparable_groups,
    directly_standardize,
    eligible_groups,
    group_permutation_test,
    holm,
)
from agebench.metrics.groups import Grouping
from agebench.metrics.metric_specs import FigureKey
from agebench.metrics.point import MetricFeatures
from agebench.metrics.schema import AgeStandardizedGap, BiasGap, Gap, GroupDifference, MetricValue
from agebench.metrics.simultaneous import (
    GroupReplicates,
    clusters_in_groups,
    difference_critical,
    excess_intervals,
)

_MANY_ROWS = 100_000


@dataclass(frozen=True)
class GroupComparison:
    """The groups of one grouping that are compared, and at which ages.

    Attributes:
        grouping: all groups.
        groups: places in `grouping.names` of those with enough rows.
        strata: ages at which the groups of `even_groups` can be compared.
        even_groups: those of `groups` that are; fewer than two: none can be.
    """

    grouping: Grouping
    groups: Ints
    strata: AgeStrata
    age_standardized_groups: Ints

    @cached_property
    def cells(self) -> Ints:
        """(n,) group and stratum in one code, -1 where there is none."""
        return cell_codes(self.strata, self.grouping, self.age_standardized_groups)

    def figure_keys(self) -> list[FigureKey]:
        """Keys of what `metric_values` returns."""
        return [
            (self.grouping.name, self.grouping.names[place], name)
            for name in ("age_standardized_mae", "age_standardized_bias")
            for place in self.age_standardized_groups
        ]

    def metric_values(self, features: MetricFeatures, cells: Floats) -> Floats:
        """Compute the standardized MAEs, then the standardized biases without trend (K, b), from the sums of the cells."""
        n = features.of(cells, "n")
        return np.concatenate([self.standardized_means(n, features.of(cells, name)) for name in ("abs", "detrended")])

    def standardized_means(self, n: Floats, total: Floats) -> Floats:
        """Compute the age-standardized means (groups, b) from the counts and sums of all cells, each (cells, b)."""
        # Every group has images in every stratum, so that no cell is missing.
        shape = (len(self.age_standardized_groups), len(self.strata.ranges), n.shape[1])
        n, total = n.reshape(shape), total.reshape(shape)
        # A resample without a row in some cell takes the group's plain mean for it.
        means = np.where(n > 0, total / np.where(n > 0, n, 1), total.sum(1, keepdims=True) / n.sum(1, keepdims=True))
        return directly_standardize(means, self.strata.weights)


@dataclass(frozen=True)
class SignedErrors:
    """Estimates less ages, years.

    Attributes:
        raw: (n,) as they are.
        without_trend: (n,) less the trend over age that all rows share.
    """

    raw: Floats
    without_trend: Floats


def compare_groups(table: pd.DataFrame, grouping: Grouping, minimum: int) -> GroupComparison:
    """Select the groups of `grouping` that are compared, and the ages at which they are.

    Args:
        table: predictions, for the ages.
        grouping: the groups.
        minimum: rows that a group must have.
    """
    groups = eligible_groups(grouping, minimum)
    even_groups, strata = comparable_groups(point.years(table), grouping, groups)
    return GroupComparison(grouping, groups, strata, even_groups)


@dataclass(frozen=True)
class WorstGroup:
    """The group with the largest error above all other images, of all groupings and crossings.

    Attributes:
        grouping: its grouping.
        group: its name.
        excess: its MAE minus the mean of all others, years, with an interval that holds for all groups at once.
        at_equal_ages: whether the difference is taken at equal ages.
        n_groups: groups that were scanned.
    """

    grouping: str
    group: str
    excess: MetricValue
    at_equal_ages: bool
    n_groups: int

    @property
    def shown(self) -> bool:
        """Return whether the group is shown to have larger errors than the others."""
        return self.excess.ci_low is not None and self.excess.ci_low > 0


def worst_group(gaps: Mapping[str, Gap]) -> WorstGroup | None:
    """Scan all groupings and crossings for the group whose excess has the highest lower bound.

    At equal ages wherever some grouping can be compared so: the intervals of those groups are simultaneous over all of them, so
    that the selection of one is allowed for. Without any such grouping, the raw differences are scanned.

    Args:
        gaps: grouping -> gap, of one test set.

    Returns:
        The group; None without a compared group that has an interval.
    """
    standardized = {name: gap.age_standardized for name, gap in gaps.items() if gap.age_standardized is not None}
    parts: Mapping[str, GroupDifference] = standardized or gaps
    candidates = [
        (name, group, excess)
        for name, part in parts.items()
        for group, excess in (part.excess or {}).items()
        if excess.ci_low is not None
    ]
    if not candidates:
        return None
    name, group, excess = max(candidates, key=lambda item: item[2].ci_low or 0.0)
    return WorstGroup(name, group, excess, bool(standardized), len(candidates))


def gap_results(
    compared: Sequence[GroupComparison],
    figures: Mapping[FigureKey, MetricValue],
    replicates: Mapping[FigureKey, Floats],
    errors: Floats,
    clusters: Ints,
    *,
    signed_errors: SignedErrors | None = None,
    permutations: int,
    seed: int,
) -> dict[str, Gap]:
    """Compute each grouping's gap.

    Args:
        compared: the groupings.
        figures: the figures named by `Comparison.figure_keys` and the groups' MAEs.
        replicates: key of a figure -> its bootstrap replicates (B,).
        errors: (n,) absolute errors, years.
        clusters: (n,) rows that belong together.
        signed_errors: for the gaps in bias; None: without these.
        permutations: shuffles of each test; 0: no tests.
        seed: of the shuffles.
    """
    compared = [one for one in compared if len(one.groups) > 1]
    comparable_ages = [one for one in compared if len(one.age_standardized_groups)]
    raw_parts = _parts(compared, [one.groups for one in compared], "mae", figures, replicates, clusters)
    even_parts = dict(
        zip(
            (one.grouping.name for one in comparable_ages),
            _parts(
                comparable_ages,
                [one.age_standardized_groups for one in comparable_ages],
                "age_standardized_mae",
                figures,
                replicates,
                clusters,
            ),
            strict=True,
        )
    )
    raw_p = _p_values([_GapTest(one.grouping, one.groups, errors) for one in compared], clusters, permutations, seed)
    even_p = _p_values(
        [_GapTest(one.grouping, one.age_standardized_groups, errors, one.strata) for one in comparable_ages],
        clusters,
        permutations,
        seed,
    )
    gaps: dict[str, Gap] = {}
    for one, part in zip(compared, raw_parts, strict=True):
        name = one.grouping.name
        even, explained = None, False
        if name in even_parts:
            groups = [one.grouping.names[place] for place in one.age_standardized_groups]
            even = AgeStandardizedGap(
                **even_parts[name].set_fields(),
                p=even_p[name],
                groups=groups,
                coverage=float(one.strata.coverage),
                ages=[[int(year) for year in ages] for ages in one.strata.ranges],
            )
            raw = [value for group in groups if (value := figures[name, group, "mae"].value) is not None]
            # Among the same groups, more than a tenth of the raw gap is gone at equal ages.
            explained = (even.difference.value or 0.0) < 0.9 * (max(raw) - min(raw))
        gaps[name] = Gap(**part.set_fields(), p=raw_p[name], age_standardized=even, explained_by_age=explained)
    if signed_errors is not None:
        biases = _bias_gaps(compared, figures, replicates, signed_errors, clusters, permutations, seed)
        gaps = {name: gap.model_copy(update={"bias": biases[name]}) for name, gap in gaps.items()}
    return _with_holm(gaps)


def _bias_gaps(
    compared: Sequence[GroupComparison],
    figures: Mapping[FigureKey, MetricValue],
    replicates: Mapping[FigureKey, Floats],
    signed_errors: SignedErrors,
    clusters: Ints,
    permutations: int,
    seed: int,
) -> dict[str, BiasGap]:
    """Compute each grouping's gap in bias, at equal ages where its groups can be compared so.

    Bias depends on age in every estimator that pulls toward the middle, so that groups of other ages have other biases. Within a
    stratum of several years ages still differ: the trend that all rows share is subtracted first, which leaves the difference at
    each age as it is.
    """
    families, tested = [], []
    for one in compared:
        even = bool(len(one.age_standardized_groups))
        places = one.age_standardized_groups if even else one.groups
        keys = _keys(one, places, "age_standardized_bias" if even else "bias")
        families.append(_family(one, places, keys, figures, replicates, clusters, even=even))
        error = signed_errors.without_trend if even else signed_errors.raw
        tested.append(_GapTest(one.grouping, places, error, one.strata if even else None, signed=True))
    critical = difference_critical(families)
    p_values = _p_values(tested, clusters, permutations, seed)
    gaps = {}
    for family, test in zip(families, tested, strict=True):
        highest, lowest = argmax_argmin(family.values)
        half = family.half_widths(critical, slice(highest, highest + 1))[0, lowest]
        difference = family.values[highest] - family.values[lowest]
        names = test.grouping.names
        gaps[test.grouping.name] = BiasGap(
            difference=metric_value(difference, difference - half, difference + half),
            highest=names[test.groups[highest]],
            lowest=names[test.groups[lowest]],
            at_equal_ages=test.strata is not None,
            p=p_values[test.grouping.name],
        )
    return gaps


def _keys(one: GroupComparison, places: Ints, name: str) -> list[FigureKey]:
    return [(one.grouping.name, one.grouping.names[place], name) for place in places]


def _family(
    one: GroupComparison,
    places: Ints,
    keys: Sequence[FigureKey],
    figures: Mapping[FigureKey, MetricValue],
    replicates: Mapping[FigureKey, Floats],
    clusters: Ints,
    *,
    even: bool,
) -> GroupReplicates:
    """The values and replicates of the groups `places`; `even`: at equal ages."""
    codes = np.where(one.cells >= 0, one.grouping.codes, -1) if even else one.grouping.codes
    return GroupReplicates(
        np.array([figures[key].value for key in keys], dtype=float),
        np.stack([replicates[key] for key in keys]),
        one.grouping.counts[places].astype(float),
        clusters_in_groups(codes, clusters, len(one.grouping.names))[places],
    )


def _parts(
    compared: Sequence[GroupComparison],
    groups: Sequence[Ints],
    key: str,
    figures: Mapping[FigureKey, MetricValue],
    replicates: Mapping[FigureKey, Floats],
    clusters: Ints,
) -> list[GroupDifference]:
    """Worst and best of each comparison with simultaneous intervals over all of them; `key` names the groups' figure."""
    families = [
        _family(one, places, _keys(one, places, key), figures, replicates, clusters, even=key != "mae")
        for one, places in zip(compared, groups, strict=True)
    ]
    logarithms = [family.logarithms() for family in families]
    critical, ratio_critical = difference_critical(families), difference_critical(logarithms)
    parts = []
    for one, places, family, logarithm, excess in zip(
        compared, groups, families, logarithms, excess_intervals(families), strict=True
    ):
        names = [one.grouping.names[place] for place in places]
        worst, best = argmax_argmin(family.values)
        half = family.half_widths(critical, slice(worst, worst + 1))[0, best]
        difference = family.values[worst] - family.values[best]
        ratio, reach = np.nan, logarithm.half_widths(ratio_critical, slice(worst, worst + 1))[0, best]
        if family.values[best] > 0:
            ratio = family.values[worst] / family.values[best]
        part = GroupDifference(
            difference=metric_value(difference, difference - half, difference + half),
            ratio=metric_value(ratio, ratio * np.exp(-reach), ratio * np.exp(reach))
            if reach < 100
            else metric_value(ratio),
            worst=names[worst],
            best=names[best],
        )
        if family.resampled.shape[1]:
            possible = [names[place] for place in family.possibly_largest(critical)]
            excesses = {name: metric_value(*ends) for name, ends in zip(names, excess.T, strict=True)}
            upper = json_number(family.largest_upper(critical))
            part = part.model_copy(update={"worst_groups": possible, "excess": excesses, "upper": upper})
        parts.append(part)
    return parts


@dataclass(frozen=True)
class _GapTest:
    """A test of equal errors in some groups; see `group_permutation_test`."""

    grouping: Grouping
    groups: Ints
    errors: Floats
    strata: AgeStrata | None = None
    signed: bool = False


def _p_values(tests: Sequence[_GapTest], clusters: Ints, permutations: int, seed: int) -> dict[str, float | None]:
    """Return the p value of each grouping's test; None for all without permutations."""
    if not permutations:
        return {test.grouping.name: None for test in tests}

    def p_value(test: _GapTest) -> float:
        return group_permutation_test(
            test.errors,
            test.grouping,
            test.groups,
            clusters,
            test.strata,
            signed=test.signed,
            permutations=permutations,
            seed=seed,
        )

    # Few rows are shuffled in Python, where two threads would only wait for each other.
    with ThreadPoolExecutor(2 if len(clusters) > _MANY_ROWS else 1) as pool:
        return dict(zip((test.grouping.name for test in tests), pool.map(p_value, tests), strict=True))


def _with_holm(gaps: Mapping[str, Gap]) -> dict[str, Gap]:
    """Add Holm's p values over all groupings, and whether each gap is significant.

    MAE and bias are two questions, as raw and at equal ages are: each has its own correction over the groupings.
    """
    raw_p = _holm({name: gap.p for name, gap in gaps.items()})
    even_p = _holm({name: gap.age_standardized.p for name, gap in gaps.items() if gap.age_standardized})
    bias_p = _holm({name: gap.bias.p for name, gap in gaps.items() if gap.bias})
    judged = {}
    for name, gap in gaps.items():
        even = gap.age_standardized
        p = raw_p.get(name) if even is None else even_p.get(name)
        changes: dict[str, object] = {"flagged": p is not None and p < SIGNIFICANT}
        if name in raw_p:
            changes["p_holm"] = raw_p[name]
        if even is not None and name in even_p:
            changes["age_standardized"] = even.model_copy(update={"p_holm": even_p[name]})
        if gap.bias is not None and name in bias_p:
            changes["bias"] = gap.bias.model_copy(update={"p_holm": bias_p[name]})
        judged[name] = gap.model_copy(update=changes)
    return judged


def _holm(p_values: Mapping[str, float | None]) -> dict[str, float]:
    tested = {name: p for name, p in p_values.items() if p is not None}
    return dict(zip(tested, holm([*tested.values()]), strict=True))
