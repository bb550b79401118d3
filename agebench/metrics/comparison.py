"""Paired comparison of systems on the same images."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from agebench.errors import UserError
from agebench.metrics.bootstrap import ClusterBootstrap, Floats, Ints, Replicates, encode_clusters, t_quantile_draws
from agebench.metrics.confidence_intervals import (
    CONFIDENCE_LEVEL,
    IntervalKind,
    difference_p_value,
    json_number,
    metric_values,
)
from agebench.metrics.fairness import SIGNIFICANT, holm
from agebench.metrics.metric_specs import FigureKey
from agebench.metrics.schema import (
    ComparisonResult,
    FriedmanTest,
    MetricValue,
    NemenyiPair,
    PairComparison,
    RankComparison,
    SystemMae,
)

# What a difference must be to matter, and how surely a study should show it.
RELEVANT, POWER = 0.1, 0.8
_FEWEST = 30


@dataclass(frozen=True)
class PairedErrors:
    """Absolute errors of several systems on the images that all of them have.

    Attributes:
        names: the systems.
        errors: for each system (seeds, n), years.
        clusters: (n,) rows of one subject.
        subjects: whether the clusters are subjects.
        left_out: images that not all systems have.
        ages: (n,) true ages, years.
    """

    names: tuple[str, ...]
    errors: tuple[Floats, ...]
    clusters: Ints
    subjects: bool
    left_out: int
    ages: Floats


def align_systems(systems: Mapping[str, Sequence[pd.DataFrame]], *, allow_missing: bool = False) -> PairedErrors:
    """The systems' errors on their common images.

    Args:
        systems: name -> predictions, one table a seed.
        allow_missing: use the common images although some system lacks others.

    Raises:
        UserError: fewer than two systems, images that are not common, one common image only, or labels that disagree.
    """
    if len(systems) < 2:
        raise UserError("a comparison needs at least two systems")
    tables = [(name, table) for name, several in systems.items() for table in several]
    common = pd.Index(tables[0][1]["sample_id"])
    for _, table in tables[1:]:
        common = common[common.isin(table["sample_id"])]
    everything = len(pd.unique(pd.concat([table["sample_id"] for _, table in tables])))
    # Ordered by their ids, so that no interval depends on the order of rows in a file.
    common = common[np.argsort(pd.util.hash_array(common.to_numpy(object), categorize=False), kind="stable")]
    if not len(common):
        raise UserError(f"{' and '.join(systems)} have no images in common")
    if len(common) < 2:
        raise UserError(f"{' and '.join(systems)} have only one image in common; a comparison needs at least two")
    if len(common) < everything and not allow_missing:
        fewest = min(tables, key=lambda item: len(item[1]))
        raise UserError(
            f"only {len(common)} of {everything} images have an estimate of every system ('{fewest[0]}' has {len(fewest[1])}); "
            "--allow missing compares on those"
        )
    aligned = {
        name: [table.set_index("sample_id").loc[common] for table in several] for name, several in systems.items()
    }
    first = next(iter(aligned.values()))[0]
    for name, several in aligned.items():
        for table in several:
            differing = np.flatnonzero(table["age"].to_numpy() != first["age"].to_numpy())
            if len(differing):
                sample = common[differing[0]]
                ours, theirs = first["age"].iloc[differing[0]], table["age"].iloc[differing[0]]
                raise UserError(
                    f"'{name}' has {theirs:g} as the age of '{sample}', another system {ours:g}: not the same labels"
                )
    labels = next(
        (t for several in aligned.values() for t in several if "subject" in t and t["subject"].notna().any()), None
    )
    clusters = encode_clusters(None if labels is None else labels["subject"].to_numpy(object), len(common))
    errors = tuple(
        np.stack([np.abs(t["age_pred"].to_numpy(float) - t["age"].to_numpy(float)) for t in several])
        for several in aligned.values()
    )
    return PairedErrors(
        tuple(systems), errors, clusters, labels is not None, everything - len(common), first["age"].to_numpy(float)
    )


def compare_systems(
    paired: PairedErrors, *, resamples: int = 1000, seed: int = 0, interval: IntervalKind = "bca"
) -> ComparisonResult:
    """Compare every pair of systems: the difference in MAE with its paired 95 % interval, tests, and what it would take to know.

    Several seeds of a system: its MAE is their mean, and the interval holds the spread of trainings too, see `_seed_spread`. A
    system with one seed is compared as it is.

    Args:
        paired: see `pair`.
        resamples: bootstrap samples.
        seed: of them.
        interval: `bca` or `percentile`; always `percentile` where a system has several seeds.

    Returns:
        The systems' MAEs and the pairs; `images_needed` is None for systems that never differ.
    """
    counts = [len(of) for of in paired.errors]
    pairs = list(itertools.combinations(range(len(paired.names)), 2))
    features = np.vstack([np.ones((1, len(paired.clusters))), *paired.errors]).T

    def maes(sums: Sequence[Floats]) -> Floats:
        return np.asarray(sums[0][0, 1:] / sums[0][0, :1])

    groups = [np.zeros(len(features), dtype=np.int64)]
    apart = ClusterBootstrap(features, groups, paired.clusters).replicates(maes, resamples=resamples, seed=seed)
    images_only, spread = _systems(apart, counts), _seed_spread(paired)
    keys: list[FigureKey] = [(name, "mae") for name in paired.names]
    keys += [(paired.names[a], paired.names[b], "difference") for a, b in pairs]
    contrasts = np.vstack([np.eye(len(counts)), *(_contrast(a, b, len(counts)) for a, b in pairs)])
    rng = np.random.default_rng(seed)
    trained = np.array([1 / count if count > 1 else 0.0 for count in counts])
    found = Replicates(
        contrasts @ images_only.value,
        contrasts @ images_only.resampled,
        contrasts @ images_only.jackknife,
        images_only.clusters,
    )
    if spread.freedom:
        size = found.resampled.shape[1]
        draws = np.stack([t_quantile_draws(spread.freedom + 1, size, rng) for _ in contrasts])
        found = found.with_seeds(spread.error * np.sqrt(contrasts**2 @ trained), spread.freedom, draws)
    # The seeds' heavy-tailed part has no skewness to correct, and makes a correction of the images' part unsteady.
    kind: IntervalKind = interval if max(counts) == 1 else "percentile"
    every = metric_values(keys, found, kind, clusters=np.full(len(keys), found.clusters))
    tested = []
    for place, (a, b) in enumerate(pairs):
        replicates = found.resampled[len(counts) + place]
        image_error = float(np.std(_contrast(a, b, len(counts)) @ images_only.resampled)) if len(replicates) else np.nan
        names = (paired.names[a], paired.names[b])
        images_needed = None if _identical(paired, a, b) else _images_needed(image_error, len(features))
        p = difference_p_value(found.rows(np.array([len(counts) + place])), found.clusters)
        tested.append(_TestedPair(names, every[(*names, "difference")], p, images_needed))
    identical = {(paired.names[a], paired.names[b]) for a, b in pairs if _identical(paired, a, b)}
    return ComparisonResult(
        n=len(features),
        subjects=int(paired.clusters.max()) + 1 if paired.subjects else None,
        left_out=paired.left_out,
        systems={
            name: SystemMae(seeds=count, mae=every[name, "mae"])
            for name, count in zip(paired.names, counts, strict=True)
        },
        pairs=_pair_comparisons(tested, len(features), identical),
    )


@dataclass(frozen=True)
class _TestedPair:
    """Two systems, their difference in MAE (years), its p value, and the images that would show 0.1 years."""

    names: tuple[str, str]
    difference: MetricValue
    p: float | None
    images_needed: int | None


def _contrast(a: int, b: int, count: int) -> Floats:
    row = np.zeros(count)
    row[a], row[b] = 1, -1
    return row


def _systems(apart: Replicates, counts: Sequence[int]) -> Replicates:
    """Each system's mean over its seeds, with the spread of the images alone."""
    starts = np.cumsum([0, *counts[:-1]])
    sizes = np.array(counts)

    def means(figures: Floats) -> Floats:
        result: Floats = np.add.reduceat(figures, starts, axis=0) / sizes[:, None]
        return result

    value = means(apart.value[:, None])[:, 0]
    return Replicates(value, means(apart.resampled), means(apart.jackknife), apart.clusters)


@dataclass(frozen=True)
class _SeedSpread:
    """Standard deviation of the MAE over trainings of one system, years, and its degrees of freedom."""

    error: float
    freedom: int


def _seed_spread(paired: PairedErrors) -> _SeedSpread:
    """Pool the spread over seeds of all systems: two or three seeds of one system show too little of it.

    The MAEs of seeds also differ because each seed errs differently on the few images that there are. The bootstrap of the
    images holds that part, so it is subtracted here.
    """
    squares, noise, freedom = 0.0, 0.0, 0
    count = int(paired.clusters.max()) + 1
    for errors in paired.errors:
        seeds, n = errors.shape
        if seeds < 2:
            continue
        means = errors.mean(axis=1)
        squares += float(np.sum((means - means.mean()) ** 2))
        freedom += seeds - 1
        # What is left of an error after its seed's and its image's mean: the interaction of both.
        own = errors - errors.mean(axis=0) - (means - means.mean())[:, None]
        by_cluster = np.array([np.bincount(paired.clusters, row, minlength=count) for row in own])
        noise += float(np.sum(by_cluster**2)) / n**2
    if not freedom:
        return _SeedSpread(0.0, 0)
    return _SeedSpread(float(np.sqrt(max(squares - noise, 0.0) / freedom)), freedom)


def _identical(paired: PairedErrors, a: int, b: int) -> bool:
    """Return whether two systems have the same mean error on every image, but for rounding."""
    return bool(np.allclose(paired.errors[a].mean(axis=0), paired.errors[b].mean(axis=0), rtol=0, atol=1e-9))


def _images_needed(spread: float, n: int) -> int | None:
    """Images of this kind by which a difference of RELEVANT years is shown at 5 % with a power of 80 %.

    From the standard error that n images gave: it falls with the root of their number.
    """
    if json_number(spread) is None:
        return None
    reach = special.ndtri((1 + CONFIDENCE_LEVEL) / 2) + special.ndtri(POWER)
    # With fewer images the standard error is not normal, and the formula does not hold.
    return max(_FEWEST, int(np.ceil(n * (reach * spread / RELEVANT) ** 2)))


_IDENTICAL = "no difference: their errors are the same on every image"


def _pair_comparisons(
    tested: Sequence[_TestedPair], n: int, identical: Collection[tuple[str, str]]
) -> list[PairComparison]:
    """Add Holm's p values over all pairs, and what follows from them."""
    p_values = [pair.p for pair in tested if pair.p is not None]
    adjusted = holm(p_values) if len(p_values) == len(tested) else [None] * len(tested)
    comparisons = []
    for pair, p_holm in zip(tested, adjusted, strict=True):
        a, b = pair.names
        shown = p_holm is not None and p_holm < SIGNIFICANT
        better = (a if (pair.difference.value or 0.0) < 0 else b) if shown else None
        comparison = PairComparison(
            a=a,
            b=b,
            difference=pair.difference,
            p=pair.p,
            shown=shown,
            better=better,
            images_needed=pair.images_needed,
            verdict=_IDENTICAL if pair.names in identical else _verdict(pair, better, n),
        )
        comparisons.append(comparison if p_holm is None else comparison.model_copy(update={"p_holm": p_holm}))
    return comparisons


def with_verdict(pair: PairComparison, p_holm: float | None, n: int) -> PairComparison:
    """Return a pair whose difference was replaced, with its corrected p value, the better system and the verdict in words.

    Args:
        pair: the pair; `difference`, `p` and `shown` are those of the new difference.
        p_holm: its p value corrected over the pairs; None: not tested.
        n: images of the comparison.
    """
    tested = _TestedPair((pair.a, pair.b), pair.difference, pair.p, pair.images_needed)
    better = (pair.a if (pair.difference.value or 0.0) < 0 else pair.b) if pair.shown else None
    verdict = pair.verdict if pair.verdict == _IDENTICAL else _verdict(tested, better, n)
    changes = {"better": better, "verdict": verdict, **({} if p_holm is None else {"p_holm": p_holm})}
    return pair.model_copy(update=changes)


def _verdict(pair: _TestedPair, better: str | None, n: int) -> str:
    if better is not None:
        worse = pair.names[1] if better == pair.names[0] else pair.names[0]
        return f"{better} is better than {worse} by {abs(pair.difference.value or 0.0):.2f} years"
    needed = pair.images_needed
    if needed is None:
        return "not tested, for want of resamples"
    if needed <= n:
        return f"no difference shown; {needed:,} images would do to show {RELEVANT:g} years, and there are {n:,}"
    return f"no difference shown; to show {RELEVANT:g} years about {needed:,} images would be needed, there are {n:,}"


def friedman_nemenyi(maes: Mapping[str, Mapping[str, float]], *, level: float = CONFIDENCE_LEVEL) -> RankComparison:
    """Compute Friedman's test over datasets and Nemenyi's critical difference of mean ranks.

    Demšar 2006, "Statistical comparisons of classifiers over multiple data sets", section 3.2.2.

    Args:
        maes: dataset -> system -> MAE, years; every dataset has every system.
        level: of the critical difference.

    Raises:
        UserError: fewer than three systems or two datasets, or a system without a dataset.
    """
    table = pd.DataFrame({dataset: dict(of) for dataset, of in maes.items()}).T
    datasets, systems = table.shape
    if datasets < 2 or systems < 3:
        raise UserError(
            f"Friedman's test needs three systems on two datasets at least; there are {systems} on {datasets}"
        )
    if table.isna().to_numpy().any():
        raise UserError("Friedman's test needs every system on every dataset")
    from scipy import stats  # takes half a second, and few comparisons have the datasets for it

    ranks = table.rank(axis=1).mean().sort_values()
    statistic, p = stats.friedmanchisquare(*(table[column] for column in table))
    unit = np.sqrt(systems * (systems + 1) / (6 * datasets))
    critical = critical_difference(systems, datasets, level=level)
    nemenyi = [
        NemenyiPair(
            a=a,
            b=b,
            p=float(stats.studentized_range.sf(abs(ranks[a] - ranks[b]) / unit * np.sqrt(2), systems, np.inf)),
        )
        for a, b in itertools.combinations(ranks.index, 2)
    ]
    return RankComparison(
        datasets=list(maes),
        systems=[str(name) for name in ranks.index],
        ranks={str(name): float(rank) for name, rank in ranks.items()},
        friedman=FriedmanTest(statistic=json_number(statistic), p=json_number(p)),
        critical_difference=critical,
        nemenyi=nemenyi,
        groups=_cliques(ranks, critical),
    )


def critical_difference(systems: int, datasets: int, *, level: float = CONFIDENCE_LEVEL) -> float:
    """Compute Nemenyi's critical difference of mean ranks (Demšar 2006, section 3.2.2)."""
    unit = np.sqrt(systems * (systems + 1) / (6 * datasets))
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, systems, np.inf) / np.sqrt(2) * unit)


def _cliques(ranks: "pd.Series[float]", critical: float) -> list[list[str]]:
    """Largest runs of neighboring ranks (ascending) within the critical difference, of two systems at least."""
    groups: list[list[str]] = []
    for start in range(len(ranks)):
        group = [str(name) for name, rank in ranks.iloc[start:].items() if rank - ranks.iloc[start] <= critical]
        if len(group) > 1 and not any(set(group) <= set(other) for other in groups):
            groups.append(group)
    return groups
