"""The variance between trainings, from all systems of one training set: two or three seeds of one system show too little.

A system's metric in seed k is modeled as its mean, plus an effect that seed k has on all systems of the training set (they share
its split), plus an effect of its own. The common effect cancels in differences between systems with the same seeds. The own
variances are moderated: each is moved toward the one that all systems share, the further the more alike they are (Smyth 2004,
"Linear models and empirical Bayes methods for assessing differential expression in microarray experiments").
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from agebench.metrics.bootstrap import Flags, Floats
from agebench.metrics.student import match_mixture

# Smallest variance that enters the logarithms, as a share of the pooled one.
_SMALLEST = 1e-6
# Degrees of freedom of the prior that are averaged over: from unlike variances to equal ones.
_PRIOR_FREEDOM = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1000.0])
# Prior share of systems whose variance does not come from the others' distribution, but from one with so many degrees of freedom
# and a center so many times larger (Phipson et al. 2016, "Robust hyperparameter estimation protects against hypervariable genes").
_UNUSUAL, _WIDE_FREEDOM, _WIDER = 0.1, 1.0, 10.0
# Centers of the prior that are averaged over, as multiples of the pooled variance.
_CENTERS = np.exp(np.linspace(np.log(0.02), np.log(20.0), 70))


@dataclass(frozen=True)
class SeedVariances:
    """Variances between the seeds of several systems of one training set.

    Attributes:
        own: (S,) variance of each system's own effect in one seed: `own_raw` less `own_sampled`, 0 at least.
        own_raw: (S,) the same with the share of the sampled images.
        own_sampled: (S,) that share.
        own_freedom: (S,) degrees of freedom of `own_raw`.
        common: variance of the effect that a seed has on all systems: `common_raw` less `common_sampled`, 0 at least.
        common_raw: the same with the shares of the sampled images and of the systems' own effects.
        common_sampled: these shares.
        common_freedom: degrees of freedom of `common_raw`; 0 if it is unknown.
        unusual: (S,) whether a system's seeds differ more than those of the other systems (F test at 1 %).
    """

    own: Floats
    own_raw: Floats
    own_sampled: Floats
    own_freedom: Floats
    common: float
    common_raw: float
    common_sampled: float
    common_freedom: float
    unusual: Flags


def moderate(variances: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Moderate sample variances: return variances (S,) and degrees of freedom (S,).

    The model is that of Smyth (2004): precisions come from a gamma distribution with center `1 / variance` and d0 degrees of
    freedom. A dozen systems do not determine d0, so it is not estimated but averaged over, with equal prior weights of
    `_PRIOR_FREEDOM`; an estimate of infinity, which a dozen unequal variances often give, would pool what is not alike. An effect
    then has a mixture of Student distributions; variance and degrees of freedom are those of the one that stands for it
    (`match_mixture`).

    Args:
        variances: (S,) sample variances.
        freedom: (S,) their degrees of freedom; 0 where a system has one seed and takes the variance of the others.
    """
    known = freedom > 0
    total = float(freedom.sum())
    pooled = float(np.sum(freedom * np.where(known, variances, 0.0)) / total) if total else 0.0
    if pooled <= 0:
        return np.zeros(len(variances)), np.full(len(variances), total)
    floored = np.maximum(variances, _SMALLEST * pooled)
    prior_freedom, centers = (
        grid.ravel()[:, None] for grid in np.meshgrid(_PRIOR_FREEDOM, pooled * _CENTERS, indexing="ij")
    )
    usual = (1 - _UNUSUAL) * _f_density(floored / centers, freedom, prior_freedom) / centers
    wide = _UNUSUAL * _f_density(floored / (_WIDER * centers), freedom, _WIDE_FREEDOM) / (_WIDER * centers)
    likelihood = np.where(known, usual + wide, 1.0)
    weights = np.prod(likelihood / likelihood.max(axis=0), axis=1)
    weights /= weights.sum()
    is_wide = np.where(
        known, wide / likelihood, 0.0
    )  # nothing speaks for an unusual variance of a system with one seed
    shares, variances_after, freedom_after = [], [], []
    for share, d0, center in ((1 - is_wide, prior_freedom, centers), (is_wide, _WIDE_FREEDOM, _WIDER * centers)):
        after = d0 + freedom
        shares.append(weights[:, None] * share)
        variances_after.append((d0 * center + freedom * np.where(known, variances, 0.0)) / after)
        freedom_after.append(np.broadcast_to(after, shares[-1].shape))
    return match_mixture(np.concatenate(shares), np.concatenate(variances_after), np.concatenate(freedom_after))


def _pool(variances: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Replace all variances by their weighted mean, with the sum of the degrees of freedom."""
    total = float(freedom.sum())
    mean = float(np.sum(freedom * variances) / total) if total else 0.0
    return np.full(len(variances), mean), np.full(len(variances), total)


def _f_density(ratio: Floats, freedom: Floats, prior_freedom: Floats | float) -> Floats:
    """The density of an F distribution with `freedom` and `prior_freedom` degrees of freedom; 1 for 0 degrees of freedom."""
    d, d0 = np.where(freedom > 0, freedom, 1.0), np.asarray(prior_freedom)
    logs = d / 2 * np.log(d / d0) + (d / 2 - 1) * np.log(ratio) - (d + d0) / 2 * np.log1p(d * ratio / d0)
    density: Floats = np.exp(logs - special.betaln(d / 2, d0 / 2))
    return density


def seed_variances(values: Floats, noise: Floats | None = None, *, pooled: bool = False) -> SeedVariances:
    """Estimate the variances between seeds from a table of metric values.

    Args:
        values: (S, K) metric of S systems in K seeds, NaN where a system lacks a seed. Systems share the split of each seed.
        noise: (S, K, B) deviations of these values in B bootstrap resamples of the images. The interval already contains what the
            images contribute, so their share is subtracted from the variances; None subtracts nothing.
        pooled: whether all systems are taken to have one variance. It finds more differences, and too many where one system's
            seeds differ more than those of the others.
    """
    block = _largest_block(values)
    shared = int(block.sum())
    effects = _seed_effects(values, block)
    residuals = _residuals(values, effects)
    freedom = np.maximum(np.isfinite(values).sum(axis=1) - 1.0, 0.0)
    if shared > 1:
        freedom[block] *= 1 - 1 / shared  # the common effect is estimated from the same systems
    divisor = np.where(freedom > 0, freedom, np.inf)
    raw = np.nansum(residuals**2, axis=1) / divisor
    own_raw, own_freedom = (_pool if pooled else moderate)(raw, freedom)
    common_freedom = float(np.isfinite(effects).sum() - 1) if shared > 1 else 0.0
    common_raw = float(np.nanvar(effects, ddof=1)) if common_freedom > 0 else 0.0
    sampled, common_sampled = np.zeros(len(values)), 0.0
    if noise is not None and noise.shape[2]:
        moved = _seed_effects(noise, block)
        sampled = np.nansum(_residuals(noise, moved) ** 2, axis=1).mean(axis=-1) / divisor
        sampled = np.where(freedom > 0, sampled, sampled[freedom > 0].mean() if (freedom > 0).any() else 0.0)
        if common_freedom > 0:
            common_sampled = float(np.nanvar(moved[np.isfinite(effects)], axis=0, ddof=1).mean())
    own = np.maximum(own_raw - sampled, 0.0)
    common_sampled += float(own.mean()) / max(shared, 1)
    common = max(common_raw - common_sampled, 0.0)
    return SeedVariances(
        own,
        own_raw,
        sampled,
        own_freedom,
        common,
        common_raw,
        common_sampled,
        max(common_freedom, 0.0),
        _unusual(raw, freedom),
    )


def _largest_block(values: Floats) -> Flags:
    """The largest set of systems that have the same seeds, two at least (S,)."""
    present = np.isfinite(values)
    patterns, member = np.unique(present, axis=0, return_inverse=True)
    sizes = np.bincount(member.ravel(), minlength=len(patterns)) * (patterns.sum(axis=1) > 1)
    best = int(np.argmax(sizes)) if len(sizes) else 0
    block: Flags = (member.ravel() == best) & (sizes[best] > 0)
    return block


def _seed_effects(values: Floats, block: Flags) -> Floats:
    """The effect of each seed on all systems, (K,) or (K, B): the mean over the systems of `block`, NaN where it is unknown."""
    if block.sum() < 2:
        return np.full(values.shape[1:], np.nan)
    shared = values[block]
    effects: Floats = shared.mean(axis=0)
    with np.errstate(invalid="ignore"):
        centered: Floats = effects - np.nanmean(effects, axis=0)
    return centered


def _residuals(values: Floats, effects: Floats) -> Floats:
    """Each system's own effects: values less the seeds' effects, less the system's mean."""
    left = values - np.nan_to_num(effects)
    present = np.isfinite(left)
    means = np.where(present, left, 0.0).sum(axis=1, keepdims=True) / np.maximum(present.sum(axis=1, keepdims=True), 1)
    centered: Floats = left - means
    return centered


def _unusual(raw: Floats, freedom: Floats) -> Flags:
    others = freedom.sum() - freedom
    testable = (freedom > 0) & (others > 0)
    rest = (np.sum(freedom * raw) - freedom * raw) / np.where(testable, others, 1.0)
    limit = special.fdtri(np.where(testable, freedom, 1.0), np.where(testable, others, 1.0), 0.99)
    unusual: Flags = testable & (raw > limit * rest)
    return unusual
