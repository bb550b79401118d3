"""Rates over images, some of which are of one person: their intervals count what the images are worth."""

import numpy as np
import pandas as pd
from scipy import special

from agebench.metrics.bootstrap import Flags, Floats, Ints, encode_clusters
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL, clopper_pearson, metric_value
from agebench.metrics.schema import MetricValue


def row_clusters(table: pd.DataFrame) -> Ints:
    """`cluster_codes` of a table, which may have the column `subject`."""
    return encode_clusters(table["subject"].to_numpy(object) if "subject" in table else None, len(table))


def subject_codes(table: pd.DataFrame) -> Ints | None:
    """(n,) whose image each row is, 0, 1, …; a row of an unknown subject is a person's; None where no subject is known."""
    return row_clusters(table) if "subject" in table and table["subject"].notna().any() else None


def clustered_rate(hits: Floats, among: Flags, clusters: Ints | None = None) -> MetricValue:
    """The share of `hits` (n,) `among` (n,) with its Clopper-Pearson interval, of fewer images where clusters repeat themselves."""
    everyone = np.zeros(len(hits), dtype=np.int64)
    return group_rates(hits, among, everyone, 1, clusters)[0]


def group_rates(
    hits: Floats, among: Flags, codes: Ints, n_groups: int, clusters: Ints | None = None
) -> list[MetricValue]:
    """Compute `clustered_rate` for every group at once; the work does not grow with the number of groups.

    Args:
        hits: (n,) what is counted, of an image 0 to 1.
        among: (n,) rows that count.
        codes: (n,) group of each row, 0, 1, …, n_groups - 1; -1 for none.
        n_groups: how many groups there are.
        clusters: (n,) whose image each row is.
    """
    rows = np.flatnonzero(among & (codes >= 0))
    groups, is_hit = codes[rows], hits[rows]
    n, count = np.bincount(groups, minlength=n_groups), np.bincount(groups, is_hit, minlength=n_groups)
    effective = effective_sizes(is_hit, groups, n_groups, None if clusters is None else clusters[rows])
    shares = count / np.maximum(n, 1)
    low, high = clopper_pearson(shares * effective, effective)
    return [
        metric_value(share, *ends) if size else metric_value(np.nan)
        for size, share, *ends in zip(n, shares, low, high, strict=True)
    ]


def effective_sizes(hits: Floats, groups: Ints, n_groups: int, clusters: Ints | None = None) -> Floats:
    """Count the independent images that each group's share is worth (n_groups,): n over the design effect.

    Where the effect is estimated from few people, so many images are left that Student's quantile with one degree of freedom less
    than people is allowed for (Korn and Graubard 1998).

    Args:
        hits: (n,) what is counted, of an image 0 to 1.
        groups: (n,) group of each row, 0, 1, ….
        n_groups: how many groups there are.
        clusters: (n,) whose image each row is; None: every row is a person's.
    """
    n = np.bincount(groups, minlength=n_groups)
    if clusters is None or not len(hits):
        return n.astype(float)
    effects, persons, is_estimated = _design_effects(hits, groups, n_groups, clusters)
    sizes: Floats = n / effects
    return np.where(is_estimated, sizes * few_people_share(n, persons), sizes)


def few_people_share(n: Ints, persons: Ints) -> Floats:
    """Share of the effective images that is left where the design effect is estimated from so many people; elementwise.

    Args:
        n: images.
        persons: people.
    """
    quantiles = [special.stdtrit(np.maximum(count - 1, 1), (1 + CONFIDENCE_LEVEL) / 2) for count in (n, persons)]
    share: Floats = (quantiles[0] / quantiles[1]) ** 2
    return share


def design_effect(hits: Flags, clusters: Ints | None = None) -> float:
    """Return the number of the n >= 1 images that count as one: see `design_effects`, of one group."""
    return float(design_effects(hits, np.zeros(len(hits), dtype=np.int64), 1, clusters)[0])


def design_effects(hits: Floats, groups: Ints, n_groups: int, clusters: Ints | None = None) -> Floats:
    """Compute for each group how many images count as one (n_groups,); 1 for an empty group.

    The variance of the share of `hits` over that of n people's images, never below 1 (Korn and Graubard 1998, "Confidence
    intervals for proportions with small expected number of positive counts estimated from survey data").

    Args:
        hits: (n,) what is counted.
        groups: (n,) group of each row, 0, 1, ….
        n_groups: how many groups there are.
        clusters: (n,) whose image each row is; None: every row is a person's.
    """
    if clusters is None or not len(hits):
        return np.ones(n_groups)
    return _design_effects(hits, groups, n_groups, clusters)[0]


def _design_effects(hits: Floats, groups: Ints, n_groups: int, clusters: Ints) -> tuple[Floats, Ints, Flags]:
    """Design effects, people, and whether the effect is estimated from them, each (n_groups,)."""
    n = np.bincount(groups, minlength=n_groups)
    shares = np.bincount(groups, hits, minlength=n_groups) / np.maximum(n, 1)
    n_clusters = int(clusters.max()) + 1
    pairs, pair = np.unique(groups * n_clusters + clusters.astype(np.int64), return_inverse=True)
    persons = np.bincount(pairs // n_clusters, minlength=n_groups)
    residuals = np.bincount(pair, hits - shares[groups])
    squares = np.bincount(pairs // n_clusters, residuals**2, minlength=n_groups)
    # No spread between or within people to learn from: one image a person is what counts.
    is_flat = (persons <= 1) | (persons == n) | (shares == 0) | (shares == 1)
    with np.errstate(all="ignore"):
        effects = np.maximum(persons / (persons - 1) * squares / (n * shares * (1 - shares)), 1)
        designs = np.where(n == 0, 1.0, np.where(is_flat, n / persons, effects))
    return designs, persons, ~is_flat
