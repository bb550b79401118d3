"""Rates over images, some of which are of one person: their intervals count what the images are worth."""

import numpy as np
import pandas as pd

from agebench.evaluation.intervals import clopper_pearson, figure
from agebench.evaluation.resampling import Flags, Ints, cluster_codes


def clusters_of(table: pd.DataFrame) -> Ints:
    """`cluster_codes` of a table, which may have the column `subject`."""
    return cluster_codes(table["subject"].to_numpy(object) if "subject" in table else None, len(table))


def people(table: pd.DataFrame) -> Ints | None:
    """(n,) whose image each row is, 0, 1, …; a row of an unknown subject is a person's; None where no subject is known."""
    return clusters_of(table) if "subject" in table and table["subject"].notna().any() else None


def rate(hits: Flags, among: Flags, clusters: Ints | None = None) -> dict[str, float | None]:
    """The share of `hits` (n,) `among` (n,) with its Clopper-Pearson interval, narrower n where clusters repeat themselves."""
    n, count = int(among.sum()), int((hits & among).sum())
    if not n:
        return figure(np.nan)
    share = count / n
    design = design_effect(hits[among], clusters[among] if clusters is not None else None)
    low, high = clopper_pearson(np.array([count / design]), np.array([n / design]))
    return figure(share, low[0], high[0])


def design_effect(hits: Flags, clusters: Ints | None = None) -> float:
    """How many of the n >= 1 images count as one: the variance of the share of `hits` (n,) over that of n people's images.

    Never below 1 (Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data").
    """
    if clusters is None:
        return 1.0
    codes = np.unique(clusters, return_inverse=True)[1]
    persons, share = int(codes.max()) + 1, float(hits.mean())
    if persons in (1, len(hits)) or share in (0.0, 1.0):
        # No spread between or within people to learn from: one image a person is what counts.
        return len(hits) / persons
    residual = np.bincount(codes, hits - share)
    correction = persons / (persons - 1)
    return max(1.0, float(correction * np.sum(residual**2) / (len(hits) * share * (1 - share))))
