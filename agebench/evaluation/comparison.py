"""Two or more systems on the same images: is one better, or is no difference shown?"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from agebench.errors import UserError
from agebench.evaluation.fairness import SIGNIFICANT, holm
from agebench.evaluation.intervals import LEVEL, Kind, figures, number
from agebench.evaluation.metric_specs import FigureKey
from agebench.evaluation.resampling import Floats, Ints, Replicates, Resampler, cluster_codes, student

# What a difference must be to matter, and how surely a study should show it.
RELEVANT, POWER = 0.1, 0.8


@dataclass(frozen=True)
class Paired:
    """Absolute errors of several systems on the images that all of them have.

    Attributes:
        names: the systems.
        errors: for each system (seeds, n), years.
        clusters: (n,) rows of one subject.
        subjects: whether the clusters are subjects.
        left_out: images that not all systems have.
    """

    names: tuple[str, ...]
    errors: tuple[Floats, ...]
    clusters: Ints
    subjects: bool
    left_out: int


def pair(systems: Mapping[str, Sequence[pd.DataFrame]], *, allow_missing: bool = False) -> Paired:
    """The systems' errors on their common images.

    Args:
        systems: name -> predictions, one table a seed.
        allow_missing: use the common images although some system lacks others.

    Raises:
        UserError: fewer than two systems, images that are not common, or labels that disagree.
    """
    if len(systems) < 2:
        raise UserError("a comparison needs at least two systems")
    tables = [(name, table) for name, several in systems.items() for table in several]
    common = pd.Index(tables[0][1]["sample_id"])
    for _, table in tables[1:]:
        common = common[common.isin(table["sample_id"])]
    everything = len(pd.unique(pd.concat([table["sample_id"] for _, table in tables])))
    if not len(common):
        raise UserError(f"{' and '.join(systems)} have no images in common")
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
    clusters = cluster_codes(None if labels is None else labels["subject"].to_numpy(object), len(common))
    errors = tuple(
        np.stack([np.abs(t["age_pred"].to_numpy(float) - t["age"].to_numpy(float)) for t in several])
        for several in aligned.values()
    )
    return Paired(tuple(systems), errors, clusters, labels is not None, everything - len(common))


def compare(paired: Paired, *, resamples: int = 1000, seed: int = 0, interval: Kind = "bca") -> dict[str, Any]:
    """Every pair of systems: the difference in MAE with its paired 95 % interval, tests, and what it would take to know.

    Several seeds of a system: its MAE is their mean, and the interval holds their spread too (see `over_seeds`).

    Args:
        paired: see `pair`.
        resamples: bootstrap samples.
        seed: of them.
        interval: `bca` or `percentile`; always `percentile` where a system has several seeds.

    Returns:
        n, subjects (clusters, or None), left_out, systems (name -> seeds, mae), pairs: [{a, b, difference (MAE of a minus that
        of b), p (bootstrap), p_holm, wilcoxon: {p, p_holm}, shown, better, images_for_0.1, verdict}].
    """
    counts = [len(of) for of in paired.errors]
    pairs = list(itertools.combinations(range(len(paired.names)), 2))
    features = np.vstack([np.ones((1, len(paired.clusters))), *paired.errors]).T

    def maes(sums: Sequence[Floats]) -> Floats:
        return np.asarray(sums[0][0, 1:] / sums[0][0, :1])

    groups = [np.zeros(len(features), dtype=np.int64)]
    apart = Resampler(features, groups, paired.clusters).replicates(maes, resamples=resamples, seed=seed)
    systems, images_only = _of_systems(apart, counts, seed)
    keys: list[FigureKey] = [(name, "mae") for name in paired.names]
    keys += [(paired.names[a], paired.names[b], "difference") for a, b in pairs]
    contrasts = np.vstack([np.eye(len(counts)), *(_contrast(a, b, len(counts)) for a, b in pairs)])
    found = Replicates(
        contrasts @ systems.value, contrasts @ systems.resampled, contrasts @ systems.left_out, systems.clusters
    )
    # The seeds' heavy-tailed part has no skewness to correct, and makes a correction of the images' part unsteady.
    every = figures(keys, found, interval if max(counts) == 1 else "percentile")
    mean_errors = [of.mean(axis=0) for of in paired.errors]
    rows = []
    for place, (a, b) in enumerate(pairs):
        replicates = found.resampled[len(counts) + place]
        spread = float(np.std(_contrast(a, b, len(counts)) @ images_only)) if len(replicates) else float("nan")
        rows.append(
            {
                "a": paired.names[a],
                "b": paired.names[b],
                "difference": every[paired.names[a], paired.names[b], "difference"],
                "p": _bootstrap_p(replicates),
                "wilcoxon": {"p": wilcoxon(mean_errors[a] - mean_errors[b], paired.clusters)},
                f"images_for_{RELEVANT:g}": _images_needed(spread, len(features)),
            }
        )
    _judge(rows, len(features))
    return {
        "n": len(features),
        "subjects": int(paired.clusters.max()) + 1 if paired.subjects else None,
        "left_out": paired.left_out,
        "systems": {
            name: {"seeds": count, "mae": every[name, "mae"]} for name, count in zip(paired.names, counts, strict=True)
        },
        "pairs": rows,
    }


def _contrast(a: int, b: int, count: int) -> Floats:
    row = np.zeros(count)
    row[a], row[b] = 1, -1
    return row


def _of_systems(apart: Replicates, counts: Sequence[int], seed: int) -> tuple[Replicates, Floats]:
    """Each system's mean over its seeds: replicates with the seeds' spread, and those of the images alone (systems, B)."""
    ends = np.cumsum(counts)
    rng = np.random.default_rng(seed)
    value, left_out, images, moved = [], [], [], []
    for count, end in zip(counts, ends, strict=True):
        of = slice(end - count, end)
        value.append(apart.value[of].mean())
        images.append(apart.resampled[of].mean(axis=0))
        left_out.append(apart.left_out[of].mean(axis=0))
        spread = apart.value[of].std(ddof=1) / count**0.5 if count > 1 else 0.0
        moved.append(images[-1] + spread * student(count, apart.resampled.shape[1], rng))
    return Replicates(np.array(value), np.array(moved), np.array(left_out), apart.clusters), np.array(images)


def _bootstrap_p(replicates: Floats) -> float | None:
    """Twice the smaller share of replicates on either side of 0."""
    if not len(replicates):
        return None
    side = min(np.sum(replicates <= 0), np.sum(replicates >= 0))
    return float(min(1.0, 2 * (1 + side) / (1 + len(replicates))))


def wilcoxon(differences: Floats, clusters: Ints) -> float:
    """P of Wilcoxon's signed-rank test of paired differences (n,), one mean difference a subject; 1 where all are 0."""
    means = np.bincount(clusters, differences) / np.bincount(clusters)
    # The mean of equal errors is not always exactly the same number.
    means = np.round(means, 9)
    if not np.any(means):
        return 1.0
    return float(stats.wilcoxon(means, zero_method="zsplit", method="approx" if len(means) > 50 else "auto").pvalue)


def _images_needed(spread: float, n: int) -> int | None:
    """Images of this kind by which a difference of RELEVANT years is shown at 5 % with a power of 80 %.

    From the standard error that n images gave: it falls with the root of their number.
    """
    if number(spread) is None:
        return None
    reach = stats.norm.ppf((1 + LEVEL) / 2) + stats.norm.ppf(POWER)
    return max(2, int(np.ceil(n * (reach * spread / RELEVANT) ** 2)))


def _judge(rows: list[dict[str, Any]], n: int) -> None:
    for family in (rows, [row["wilcoxon"] for row in rows]):
        if all(row["p"] is not None for row in family):
            for row, adjusted in zip(family, holm([row["p"] for row in family]), strict=True):
                row["p_holm"] = adjusted
    for row in rows:
        row["shown"] = row.get("p_holm") is not None and row["p_holm"] < SIGNIFICANT
        value = row["difference"]["value"]
        row["better"] = (row["a"] if value < 0 else row["b"]) if row["shown"] else None
        row["verdict"] = _verdict(row, n)


def _verdict(row: dict[str, Any], n: int) -> str:
    if row["shown"]:
        worse = row["b"] if row["better"] == row["a"] else row["a"]
        return f"{row['better']} is better than {worse} by {abs(row['difference']['value']):.2f} years"
    needed = row[f"images_for_{RELEVANT:g}"]
    if needed is None:
        return "not tested, for want of resamples"
    if needed <= n:
        return f"no difference shown; {needed:,} images would do to show {RELEVANT:g} years, and there are {n:,}"
    return f"no difference shown; to show {RELEVANT:g} years about {needed:,} images would be needed, there are {n:,}"


def across_datasets(maes: Mapping[str, Mapping[str, float]], *, level: float = LEVEL) -> dict[str, Any]:
    """Friedman's test over datasets, and Nemenyi's critical difference of mean ranks.

    Demšar 2006, "Statistical comparisons of classifiers over multiple data sets", section 3.2.2.

    Args:
        maes: dataset -> system -> MAE, years; every dataset has every system.
        level: of the critical difference.

    Returns:
        datasets, systems, ranks (system -> mean rank, 1 is best), friedman ({statistic, p}), critical_difference, nemenyi (pairs
        with p), groups (systems whose ranks are within the critical difference).

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
    ranks = table.rank(axis=1).mean().sort_values()
    statistic, p = stats.friedmanchisquare(*(table[column] for column in table))
    unit = np.sqrt(systems * (systems + 1) / (6 * datasets))
    critical = critical_difference(systems, datasets, level=level)
    nemenyi = [
        {
            "a": a,
            "b": b,
            "p": float(stats.studentized_range.sf(abs(ranks[a] - ranks[b]) / unit * np.sqrt(2), systems, np.inf)),
        }
        for a, b in itertools.combinations(ranks.index, 2)
    ]
    return {
        "datasets": list(maes),
        "systems": list(ranks.index),
        "ranks": {name: float(rank) for name, rank in ranks.items()},
        "friedman": {"statistic": number(statistic), "p": number(p)},
        "critical_difference": critical,
        "nemenyi": nemenyi,
        "groups": _cliques(ranks, critical),
    }


def critical_difference(systems: int, datasets: int, *, level: float = LEVEL) -> float:
    """Nemenyi's: mean ranks over `datasets` that lie closer cannot be told apart. Demšar 2006, section 3.2.2."""
    unit = np.sqrt(systems * (systems + 1) / (6 * datasets))
    return float(stats.studentized_range.ppf(level, systems, np.inf) / np.sqrt(2) * unit)


def _cliques(ranks: "pd.Series[float]", critical: float) -> list[list[str]]:
    """Largest runs of neighbouring ranks (ascending) within the critical difference, of two systems at least."""
    groups: list[list[str]] = []
    for start in range(len(ranks)):
        group = [str(name) for name, rank in ranks.iloc[start:].items() if rank - ranks.iloc[start] <= critical]
        if len(group) > 1 and not any(set(group) <= set(other) for other in groups):
            groups.append(group)
    return groups
