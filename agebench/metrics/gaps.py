"""The gaps between groups as metrics.json has them: raw and at equal ages, with intervals and a test each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from agebench.metrics import point
from agebench.metrics.bootstrap import Floats, Ints
from agebench.metrics.confidence_intervals import metric_value
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
from agebench.metrics.simultaneous import (
    GroupReplicates,
    clusters_in_groups,
    difference_critical,
    excess_intervals,
)


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
        """Keys of what `figures` gives."""
        return [
            (self.grouping.name, self.grouping.names[place], "mae_standardised")
            for place in self.age_standardized_groups
        ]

    def metric_values(self, features: MetricFeatures, cells: Floats) -> Floats:
        """Compute the standardised MAEs (K, b) from the sums of the cells."""
        return self._even_means(features.of(cells, "n"), features.of(cells, "abs"))

    def _even_means(self, n: Floats, total: Floats) -> Floats:
        # Every group stands in every stratum, so that no cell is missing.
        shape = (len(self.age_standardized_groups), len(self.strata.ranges), n.shape[1])
        n, total = n.reshape(shape), total.reshape(shape)
        # A resample without a row in some cell takes the group's plain mean for it.
        means = np.where(n > 0, total / np.where(n > 0, n, 1), total.sum(1, keepdims=True) / n.sum(1, keepdims=True))
        return directly_standardize(means, self.strata.weights)


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


def gap_results(
    compared: Sequence[GroupComparison],
    figures: Mapping[FigureKey, Any],
    replicates: Mapping[FigureKey, Floats],
    errors: Floats,
    clusters: Ints,
    *,
    permutations: int,
    seed: int,
) -> dict[str, Any]:
    """Compute each grouping's gap; see docs/evaluation.md for the keys.

    Args:
        compared: the groupings.
        figures: the figures named by `Comparison.figure_keys` and the groups' MAEs.
        replicates: key of a figure -> its bootstrap replicates (B,).
        errors: (n,) absolute errors, years.
        clusters: (n,) rows that belong together.
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
                "mae_standardised",
                figures,
                replicates,
                clusters,
            ),
            strict=True,
        )
    )
    gaps: dict[str, dict[str, Any]] = {}
    for one, gap in zip(compared, raw_parts, strict=True):
        name = one.grouping.name
        gap["p"] = _p(one.grouping, one.groups, errors, clusters, None, permutations, seed)
        gap |= {"standardised": None, "shrinks": False}
        if name in even_parts:
            even = gap["standardised"] = even_parts[name]
            even |= {
                "groups": [one.grouping.names[place] for place in one.age_standardized_groups],
                "coverage": one.strata.coverage,
                "ages": [list(ages) for ages in one.strata.ranges],
            }
            even["p"] = _p(one.grouping, one.age_standardized_groups, errors, clusters, one.strata, permutations, seed)
            raw = [figures[name, group, "mae"]["value"] for group in even["groups"]]
            # Of the same groups, more than a tenth of the raw gap is gone at equal ages.
            gap["shrinks"] = even["difference"]["value"] < 0.9 * (max(raw) - min(raw))
        gaps[name] = gap
    _judge(gaps)
    return gaps


def _parts(
    compared: Sequence[GroupComparison],
    groups: Sequence[Ints],
    key: str,
    figures: Mapping[FigureKey, Any],
    replicates: Mapping[FigureKey, Floats],
    clusters: Ints,
) -> list[dict[str, Any]]:
    """Worst and best of each comparison with simultaneous intervals over all of them; `key` names the groups' figure."""
    families = []
    for one, places in zip(compared, groups, strict=True):
        keys = [(one.grouping.name, one.grouping.names[place], key) for place in places]
        even = key != "mae"
        codes = np.where(one.cells >= 0, one.grouping.codes, -1) if even else one.grouping.codes
        families.append(
            GroupReplicates(
                np.array([figures[figure_key]["value"] for figure_key in keys], dtype=float),
                np.stack([replicates[figure_key] for figure_key in keys]),
                one.grouping.counts[places].astype(float),
                clusters_in_groups(codes, clusters, len(one.grouping.names))[places],
            )
        )
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
        part: dict[str, Any] = {
            "difference": metric_value(difference, difference - half, difference + half),
            "ratio": metric_value(ratio, ratio * np.exp(-reach), ratio * np.exp(reach))
            if reach < 100
            else metric_value(ratio),
            "worst": names[worst],
            "best": names[best],
        }
        if family.resampled.shape[1]:
            part["worst_groups"] = [names[place] for place in family.possibly_largest(critical)]
            part["excess"] = {name: metric_value(*ends) for name, ends in zip(names, excess.T, strict=True)}
        parts.append(part)
    return parts


def _p(
    grouping: Grouping,
    groups: Ints,
    errors: Floats,
    clusters: Ints,
    strata: AgeStrata | None,
    permutations: int,
    seed: int,
) -> float | None:
    if not permutations:
        return None
    return group_permutation_test(errors, grouping, groups, clusters, strata, permutations=permutations, seed=seed)


def _judge(gaps: dict[str, dict[str, Any]]) -> None:
    """Add Holm's p values over all groupings, and what follows from them."""
    even = {name: gap["standardised"] for name, gap in gaps.items() if gap["standardised"]}
    for family in (gaps, even):
        tested = [part for part in family.values() if part["p"] is not None]
        for part, adjusted in zip(tested, holm([part["p"] for part in tested]), strict=True):
            part["p_holm"] = adjusted
    for gap in gaps.values():
        judged = gap["standardised"] or gap
        gap["flagged"] = judged.get("p_holm") is not None and judged["p_holm"] < SIGNIFICANT
