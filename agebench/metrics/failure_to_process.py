"""Failure to process: rates of images without a prepared face, and their differences between groups."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from agebench.metrics.bootstrap import Flags, Floats, Ints, reindex
from agebench.metrics.clustered_rates import effective_sizes, subject_codes
from agebench.metrics.confidence_intervals import metric_value, wilson
from agebench.metrics.fairness import holm
from agebench.metrics.groups import MIN_GROUP, Grouping, age_bands, groupings
from agebench.metrics.permutation import PermutationData, make_permutations
from agebench.metrics.schema import FailureGap, FailureRate, FailureToProcess, GroupFailureRate

DRAWS = 9999
# Of people, whose labels are shuffled one draw after the other; fewer of very many, so that a minute is not spent on p.
_DRAWS_OF_PEOPLE, _FEWEST_DRAWS, _LABELS = 1999, 199, 20_000_000


def failures_to_process(table: pd.DataFrame, failed: "pd.Series[bool]", groups: Sequence[str] = ()) -> FailureToProcess:
    """Compute counts and rates, over all and by group.

    Args:
        table: the images that were to be processed (n rows): age, the group columns, and subject where it is known: then a
            person's images, which fail together, count as what they are worth (see `effective_sizes`).
        failed: (n,) where no face could be prepared.
        groups: columns; age bands come by themselves, gender*race where both are there.

    Returns:
        Rates with Wilson's 95 % interval; gaps only of groupings with two eligible groups.
    """
    gone, clusters = np.asarray(failed, dtype=bool), subject_codes(table)
    overall = _rates(gone, np.zeros(len(gone), dtype=np.int64), 1, clusters)[0]
    everything = [age_bands(table["age"].to_numpy(dtype=np.float64)), *groupings(table, groups)] if len(table) else []
    gaps = {each.name: gap for each in everything if (gap := _gap(each, gone, clusters))}
    adjusted = holm([gap.p for gap in gaps.values()])
    return FailureToProcess(
        n=overall.n,
        failed=overall.failed,
        rate=overall.rate,
        groups={each.name: _by_group(each, gone, clusters) for each in everything},
        gaps={
            name: gap.model_copy(update={"p_holm": p}) for (name, gap), p in zip(gaps.items(), adjusted, strict=True)
        },
    )


def _rates(gone: Flags, codes: Ints, n_groups: int, clusters: Ints | None) -> list[FailureRate]:
    """Wilson's score interval (JASA 1927) of each group: it has width where none failed, too."""
    rows = np.flatnonzero(codes >= 0)
    groups, failed_rows = codes[rows], gone[rows]
    n, failed = np.bincount(groups, minlength=n_groups), np.bincount(groups[failed_rows], minlength=n_groups)
    effective = effective_sizes(failed_rows, groups, n_groups, None if clusters is None else clusters[rows])
    shares = failed / np.maximum(n, 1)
    low, high = wilson(shares * effective, effective)
    return [
        FailureRate(
            n=int(n[group]),
            failed=int(failed[group]),
            rate=metric_value(share, min(low[group], share), max(high[group], share))
            if n[group]
            else metric_value(np.nan),
        )
        for group, share in enumerate(shares)
    ]


def _by_group(grouping: Grouping, gone: Flags, clusters: Ints | None) -> dict[str, GroupFailureRate]:
    rates = _rates(gone, grouping.codes, len(grouping.names), clusters)
    return {
        name: GroupFailureRate(n=group.n, failed=group.failed, rate=group.rate, eligible=group.n >= MIN_GROUP)
        for name, group in zip(grouping.names, rates, strict=True)
    }


def _gap(grouping: Grouping, gone: Flags, clusters: Ints | None) -> FailureGap | None:
    """Highest against lowest rate of the ranked groups; p of a permutation test of all of them (chi-squared)."""
    ranked = np.flatnonzero(grouping.counts >= MIN_GROUP)
    inside = np.isin(grouping.codes, ranked)
    labels, gone = np.searchsorted(ranked, grouping.codes[inside]), gone[inside]
    if len(ranked) < 2 or not gone.any():
        return None
    counts, failed = np.bincount(labels), np.bincount(labels[gone], minlength=len(ranked))
    rates = failed / counts
    worst, best = int(rates.argmax()), int(rates.argmin())
    generator = np.random.default_rng(0)
    if clusters is None:
        # Permuting who failed is drawing the failed from urns of the groups' sizes.
        drawn = generator.multivariate_hypergeometric(counts, int(failed.sum()), size=DRAWS, method="marginals")
        null = _chi_squared(drawn, counts)
    else:
        null = _of_people(gone, labels, reindex(clusters[inside]), generator)
    as_far = (null >= _chi_squared(failed, counts) - 1e-9).sum()
    return FailureGap(
        worst=grouping.names[ranked[worst]],
        best=grouping.names[ranked[best]],
        difference=float(rates[worst] - rates[best]),
        p=float((1 + as_far) / (1 + len(null))),
    )


def _chi_squared(failed: Ints, counts: Ints) -> Floats:
    """Return the distance of the failed (…, groups) from what is expected of groups of such sizes (…, groups)."""
    expected = counts * failed.sum(axis=-1, keepdims=True) / counts.sum(axis=-1, keepdims=True)
    distance: Floats = ((failed - expected) ** 2 / np.maximum(expected, 1e-9)).sum(axis=-1)
    return distance


def _of_people(gone: Flags, labels: Ints, units: Ints, generator: np.random.Generator) -> Floats:
    made = make_permutations(PermutationData(gone.astype(float), labels, np.zeros(len(gone), dtype=np.int64), units), 1)
    draws = int(np.clip(_LABELS // max(made.moved, 1), _FEWEST_DRAWS, _DRAWS_OF_PEOPLE))
    cells = [made.cells(generator) for _ in range(draws)]
    size = int(labels.max()) + 1
    failed, counts = (
        np.array([np.bincount(cell, of, minlength=size) for cell in cells]) for of in (made.sums, made.counts)
    )
    return _chi_squared(failed, counts)
