"""The gaps between groups as metrics.json has them: raw and at equal ages, with intervals and a test each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from agebench.evaluation import metrics
from agebench.evaluation.fairness import (
    SIGNIFICANT,
    Strata,
    cell_codes,
    comparable,
    equality_test,
    holm,
    ranked,
    standardised,
    worst_and_best,
)
from agebench.evaluation.groups import Grouping
from agebench.evaluation.metric_specs import FigureKey
from agebench.evaluation.metrics import Features
from agebench.evaluation.resampling import Floats, Ints


@dataclass(frozen=True)
class Comparison:
    """The groups of one grouping that are compared, and at which ages.

    Attributes:
        grouping: all groups.
        groups: places in `grouping.names` of those with enough rows.
        pair: (worst, best) by raw MAE, as places in `groups`.
        strata: ages at which the groups of `even_groups` can be compared.
        even_groups: those of `groups` that are; fewer than two: none can be.
        even_pair: (worst, best) by age-standardised MAE, as places in `even_groups`.
    """

    grouping: Grouping
    groups: Ints
    pair: tuple[int, int]
    strata: Strata
    even_groups: Ints
    even_pair: tuple[int, int] = (0, 0)

    @property
    def cells(self) -> Ints:
        """(n,) group and stratum in one code, -1 where there is none."""
        return cell_codes(self.strata, self.grouping, self.even_groups)

    def figure_keys(self) -> list[FigureKey]:
        """Keys of what `figures` gives."""
        name = self.grouping.name
        keys: list[FigureKey] = [(name, self.grouping.names[place], "mae_standardised") for place in self.even_groups]
        return [*keys, (name, "difference"), (name, "ratio"), (name, "even", "difference"), (name, "even", "ratio")]

    def figures(self, features: Features, mae: Floats, cells: Floats) -> Floats:
        """Standardised MAEs, raw and standardised gap (K, b) from the groups' MAE (groups, b) and the sums of the cells."""
        even = self._even_means(features.of(cells, "n"), features.of(cells, "abs"))
        return np.concatenate([even, _between(mae[self.groups], self.pair), _between(even, self.even_pair)])

    def _even_means(self, n: Floats, total: Floats) -> Floats:
        # Every group stands in every stratum, so that no cell is missing.
        shape = (len(self.even_groups), len(self.strata.ranges), n.shape[1])
        n, total = n.reshape(shape), total.reshape(shape)
        # A resample without a row in some cell takes the group's plain mean for it.
        means = np.where(n > 0, total / np.where(n > 0, n, 1), total.sum(1, keepdims=True) / n.sum(1, keepdims=True))
        return standardised(means, self.strata.weights)

    def with_even_pair(self, errors: Floats) -> "Comparison":
        """This, with worst and best at equal ages by the absolute errors (n,)."""
        if not len(self.even_groups):
            return self
        cells = self.cells
        inside = cells >= 0
        sums = np.bincount(cells[inside], errors[inside])[:, None]
        even = self._even_means(np.bincount(cells[inside])[:, None], sums)
        return replace(self, even_pair=worst_and_best(even[:, 0]))


def compare_groups(table: pd.DataFrame, grouping: Grouping, errors: Floats, minimum: int) -> Comparison:
    """Which groups of `grouping` are compared, at which ages, and between which two the gap lies.

    Args:
        table: predictions, for the ages.
        grouping: the groups.
        errors: (n,) absolute errors, years.
        minimum: rows that a group must have.
    """
    groups = ranked(grouping, minimum)
    known = grouping.codes >= 0
    sums = np.bincount(grouping.codes[known], errors[known], minlength=len(grouping.names))
    pair = worst_and_best((sums / np.maximum(grouping.counts, 1))[groups]) if len(groups) else (0, 0)
    even_groups, strata = comparable(metrics.years(table), grouping, groups)
    return Comparison(grouping, groups, pair, strata, even_groups).with_even_pair(errors)


def _between(values: Floats, pair: tuple[int, int]) -> Floats:
    """Difference and ratio (2, b) of two named groups' figures.

    The pair is fixed by the observed figures: the largest gap of a resample is biased upwards, that of two given groups not.
    """
    if len(values) < 2:
        return np.full((2, values.shape[1]), np.nan)
    worst, best = values[pair[0]], values[pair[1]]
    return np.stack([worst - best, np.where(best > 0, worst / np.where(best > 0, best, 1), np.nan)])


def gap_tables(
    compared: Sequence[Comparison],
    figures: Mapping[FigureKey, Any],
    errors: Floats,
    clusters: Ints,
    *,
    permutations: int,
    seed: int,
) -> dict[str, Any]:
    """Grouping -> its gap; see docs/evaluation.md for the keys.

    Args:
        compared: the groupings.
        figures: the figures named by `Comparison.figure_keys` and the groups' MAEs.
        errors: (n,) absolute errors, years.
        clusters: (n,) rows that belong together.
        permutations: shuffles of each test; 0: no tests.
        seed: of the shuffles.
    """
    gaps: dict[str, dict[str, Any]] = {}
    for one in compared:
        if len(one.groups) < 2:
            continue
        name, names = one.grouping.name, [one.grouping.names[place] for place in one.groups]
        gap: dict[str, Any] = {key: figures[name, key] for key in ("difference", "ratio")}
        gap |= {"worst": names[one.pair[0]], "best": names[one.pair[1]]}
        gap["p"] = _p(one.grouping, one.groups, errors, clusters, None, permutations, seed)
        gap |= {"standardised": None, "shrinks": False}
        if len(one.even_groups):
            even = gap["standardised"] = _even_gap(one, figures)
            even["p"] = _p(one.grouping, one.even_groups, errors, clusters, one.strata, permutations, seed)
            raw = [figures[name, group, "mae"]["value"] for group in even["groups"]]
            # Of the same groups, more than a tenth of the raw gap is gone at equal ages.
            gap["shrinks"] = even["difference"]["value"] < 0.9 * (max(raw) - min(raw))
        gaps[name] = gap
    _judge(gaps)
    return gaps


def _even_gap(one: Comparison, figures: Mapping[FigureKey, Any]) -> dict[str, Any]:
    names = [one.grouping.names[place] for place in one.even_groups]
    return {
        "difference": figures[one.grouping.name, "even", "difference"],
        "ratio": figures[one.grouping.name, "even", "ratio"],
        "worst": names[one.even_pair[0]],
        "best": names[one.even_pair[1]],
        "groups": names,
        "coverage": one.strata.coverage,
        "ages": [list(ages) for ages in one.strata.ranges],
    }


def _p(
    grouping: Grouping,
    groups: Ints,
    errors: Floats,
    clusters: Ints,
    strata: Strata | None,
    permutations: int,
    seed: int,
) -> float | None:
    if not permutations:
        return None
    return equality_test(errors, grouping, groups, clusters, strata, permutations=permutations, seed=seed)


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
