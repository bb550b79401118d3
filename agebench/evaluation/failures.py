"""Failure to process: in how many images no face could be prepared, and whether that falls on some groups more than on others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from agebench.evaluation.fairness import holm
from agebench.evaluation.groups import MIN_GROUP, Grouping, age_bands, groupings
from agebench.evaluation.resampling import Ints

DRAWS = 9999


def failures_to_process(table: pd.DataFrame, failed: "pd.Series[bool]", groups: Sequence[str] = ()) -> dict[str, Any]:
    """Counts and rates, over all and by group.

    Args:
        table: the images that were to be processed (n rows): age and the group columns.
        failed: (n,) where no face could be prepared.
        groups: columns; age bands come by themselves, gender*race where both are there.

    Returns:
        `n`, `failed`, `rate` (value, low, high: Wilson's 95 % interval), `groups`: grouping -> group -> the same three and
        `ranked`, and `gaps`: grouping -> worst, best, difference (of rates), p and p_holm (over the
        groupings), for groupings with two ranked groups.
    """
    gone = np.asarray(failed, dtype=bool)
    made = _rate(int(gone.sum()), len(gone))
    everything = [age_bands(table["age"].to_numpy(dtype=np.float64)), *groupings(table, groups)] if len(table) else []
    made["groups"] = {each.name: _by_group(each, gone) for each in everything}
    gaps = {each.name: gap for each in everything if (gap := _gap(each, gone))}
    for gap, adjusted in zip(gaps.values(), holm([gap["p"] for gap in gaps.values()]), strict=True):
        gap["p_holm"] = adjusted
    made["gaps"] = gaps
    return made


def _rate(failed: int, n: int) -> dict[str, Any]:
    """Wilson's score interval (JASA 1927): it has width where none failed, too."""
    if not n:
        return {"n": 0, "failed": 0, "rate": {"value": None, "low": None, "high": None}}
    z, share = float(ndtri(0.975)), failed / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    low, high = max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))
    return {"n": n, "failed": failed, "rate": {"value": share, "low": low, "high": high}}


def _by_group(grouping: Grouping, gone: np.ndarray) -> dict[str, Any]:
    failed, counts = _failed(grouping, gone), grouping.counts
    return {
        name: _rate(int(failed[code]), int(counts[code])) | {"ranked": bool(counts[code] >= MIN_GROUP)}
        for code, name in enumerate(grouping.names)
    }


def _failed(grouping: Grouping, gone: np.ndarray) -> Ints:
    known = gone & (grouping.codes >= 0)
    return np.bincount(grouping.codes[known], minlength=len(grouping.names))


def _gap(grouping: Grouping, gone: np.ndarray) -> dict[str, Any] | None:
    """Highest against lowest rate of the ranked groups; p of a permutation test of all of them (chi-squared)."""
    ranked = np.flatnonzero(grouping.counts >= MIN_GROUP)
    counts, failed = grouping.counts[ranked], _failed(grouping, gone)[ranked]
    if len(ranked) < 2 or not failed.sum():
        return None
    rates = failed / counts
    worst, best = int(rates.argmax()), int(rates.argmin())
    # Permuting who failed is drawing the failed from urns of the groups' sizes.
    generator = np.random.default_rng(0)
    drawn = generator.multivariate_hypergeometric(counts, int(failed.sum()), size=DRAWS, method="marginals")
    expected = counts * failed.sum() / counts.sum()
    as_far = (
        ((drawn - expected) ** 2 / expected).sum(axis=1) >= ((failed - expected) ** 2 / expected).sum() - 1e-9
    ).sum()
    return {
        "worst": grouping.names[ranked[worst]],
        "best": grouping.names[ranked[best]],
        "difference": float(rates[worst] - rates[best]),
        "p": float((1 + as_far) / (1 + DRAWS)),
    }
