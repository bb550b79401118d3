"""Resampling by weights: a bootstrap sample is a count for every cluster, and every figure a function of weighted sums.

No row is ever copied. Rows that fall into the same sets (same gender, same age, …) form a cell; the sums of a block of
resamples are one small matrix product a cell, added up to the sets afterwards. What is kept of a resample is its figures.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special
from threadpoolctl import ThreadpoolController

# Aliases that name the type that is meant; numpy's own types of mixed expressions are wider.
Floats = NDArray[Any]
Ints = NDArray[Any]
Flags = NDArray[np.bool_]

# A statistic takes, for every grouping, sums of shape (sets, features, resamples) and gives figures (figures, resamples).
Statistic = Callable[[Sequence[Floats]], Floats]

# Weights held at a time by each of two threads: 16 million numbers of four bytes.
_BLOCK = 16_000_000
# Above this many clusters counting draws one by one is slower than `_many_counts`.
_MANY = 10_000
# Up to so many clusters leave one by one (see `Replicates.left_out`); more of them leave in so many random groups, which
# give the acceleration with an error of 0.003: nothing to an interval.
_JACKKNIFE, _JACKKNIFE_GROUPS = 1_000, 200
# With more cells than this, a matrix product per cell costs more in calls than in arithmetic, and the sums of all cells fill the
# memory: further groupings are summed by a sparse product each.
_MOST_CELLS = 4_096
# Resamples that a sparse product takes at a time.
_CHUNK = 64


@dataclass(frozen=True)
class Replicates:
    """A vector of K figures: as observed, in B resamples, and with clusters left out.

    Attributes:
        value: (K,) on the rows as they are; NaN where a figure is undefined.
        resampled: (K, B) in the bootstrap samples (B = 0 with fewer than two clusters).
        jackknife: (K, J) with one cluster, or one of J random groups of clusters, left out (for BCa's acceleration).
        clusters: how many clusters were resampled.
        image_errors: (K,) standard deviation of the replicates before the spread over seeds was added; None: none was.
        seed_errors: (K,) standard error over seeds that was added.
        seed_freedom: its degrees of freedom.
    """

    value: Floats
    resampled: Floats
    jackknife: Floats
    clusters: int
    image_errors: Floats | None = None
    seed_errors: Floats | None = None
    seed_freedom: int = 0

    def rows(self, places: Ints) -> "Replicates":
        """Return some of the figures."""
        return replace(
            self,
            value=self.value[places],
            resampled=self.resampled[places],
            jackknife=self.jackknife[places],
            image_errors=None if self.image_errors is None else self.image_errors[places],
            seed_errors=None if self.seed_errors is None else self.seed_errors[places],
        )

    def with_seeds(self, errors: Floats, freedom: int, draws: Floats) -> "Replicates":
        """Add the spread over seeds, which the resampled images do not have.

        Args:
            errors: (K,) standard error over seeds.
            freedom: its degrees of freedom.
            draws: (B,) of Student's distribution with so many, or (K, B).
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a figure without any replicate
            image_errors = np.nanstd(self.resampled, axis=1) if self.resampled.shape[1] else np.zeros(len(self.value))
        resampled = self.resampled + errors[:, None] * draws
        return Replicates(self.value, resampled, self.jackknife, self.clusters, image_errors, errors, max(freedom, 1))


def encode_clusters(subject: "NDArray[np.object_] | None", n: int) -> Ints:
    """The cluster of each of n rows, 0, 1, …: its subject where that is known, else the row itself.

    Args:
        subject: (n,) identities, None/NaN where unknown; or None: every row is a cluster.
        n: rows.
    """
    if subject is None:
        return np.arange(n)
    import pandas as pd

    codes, names = pd.factorize(subject)
    unknown = codes < 0
    codes[unknown] = len(names) + np.arange(int(unknown.sum()))
    return np.asarray(codes)


def reindex(codes: Ints) -> Ints:
    """Codes >= 0 renumbered 0, 1, … without gaps, in their order."""
    if codes.max(initial=0) > 4 * len(codes) + 1000:
        return np.unique(codes, return_inverse=True)[1]
    present = np.bincount(codes) > 0
    renumbered: Ints = (np.cumsum(present) - 1)[codes]
    return renumbered


def distinct_values(codes: Ints) -> Ints:
    """Return the distinct integers in `codes`, ascending.

    Sorting takes a few hundredths of a second for a million integers; the hash table of `numpy.unique` takes almost a second.

    Args:
        codes: (n,) integers.
    """
    ordered = np.sort(codes)
    is_first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


class _Level:
    """Sums of ordered rows over cells, contiguous runs of rows, and from cells over sets."""

    def __init__(
        self,
        features: Floats,
        columns: Sequence[int],
        order: Ints,
        cells: Ints,
        groupings: Sequence[Ints],
        scattered: Sequence[Ints],
    ) -> None:
        self.starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
        self.stops = np.append(self.starts[1:], len(order))
        # Column by column: in double precision the rows in order are never there as a whole.
        self.features = np.empty((len(order), len(columns)), dtype=np.float32)
        self.sums = np.empty((len(self.starts), len(columns), 1))
        for place, column in enumerate(columns):
            ordered = features[order, column]
            self.features[:, place] = ordered
            self.sums[:, place, 0] = np.add.reduceat(ordered, self.starts)
        self.members = [_membership(codes[order[self.starts]]) for codes in groupings]
        self.scattered = [_spread(features[:, list(columns)], order, codes) for codes in scattered]

    def observed(self) -> list[Floats]:
        ones = np.ones((sum(matrix.shape[1] for matrix in self.scattered[:1]), 1))
        return [*self._sets(self.sums), *(self._fold(matrix @ ones) for matrix in self.scattered)]

    def weighted(self, weights: Floats, clusters: Ints | None) -> list[Floats]:
        return [*(self._cell_sums(weights, clusters) if self.members else []), *self._scattered_sums(weights, clusters)]

    def _scattered_sums(self, weights: Floats, clusters: Ints | None) -> list[Floats]:
        sums = [np.empty((matrix.shape[0], len(weights))) for matrix in self.scattered]
        for start in range(0, len(weights) if sums else 0, _CHUNK):
            part = slice(start, start + _CHUNK)
            drawn = weights[part] if clusters is None else weights[part][:, clusters]
            columns = np.ascontiguousarray(drawn.T, dtype=np.float64)
            for matrix, made in zip(self.scattered, sums, strict=True):
                made[:, part] = matrix @ columns
        return [self._fold(made) for made in sums]

    def _fold(self, sums: Floats) -> Floats:
        """Sums of one grouping as (sets, F, b)."""
        return sums.reshape(-1, self.features.shape[1], sums.shape[1])

    def _cell_sums(self, weights: Floats, clusters: Ints | None) -> list[Floats]:
        cells = np.empty((len(self.starts), self.features.shape[1], len(weights)))
        for cell, (start, stop) in enumerate(zip(self.starts, self.stops, strict=True)):
            # Slices and gathers are of one cell: no copy of all rows is made.
            drawn = weights[:, start:stop] if clusters is None else weights[:, clusters[start:stop]]
            cells[cell] = (drawn @ self.features[start:stop]).T
        return self._sets(cells)

    def _sets(self, cells: Floats) -> list[Floats]:
        flat = cells.reshape(len(cells), -1)
        return [(members @ flat).reshape(members.shape[0], *cells.shape[1:]) for members in self.members]


class ClusterBootstrap:
    """Weighted sums of features over sets of rows.

    Args:
        features: (n, F) numbers to be summed.
        groupings: each (n,) integers: the set that a row belongs to in this grouping, 0, 1, …; -1 for none.
        clusters: (n,) integers 0, 1, …: rows that are drawn together (images of one subject).
        fine: further groupings, of many sets, in which only `fine_columns` of the features are summed.
        fine_columns: columns of `features`.
    """

    def __init__(
        self,
        features: Floats,
        groupings: Sequence[Ints],
        clusters: Ints,
        *,
        fine: Sequence[Ints] = (),
        fine_columns: Sequence[int] = (),
    ) -> None:
        self.count = int(clusters.max()) + 1
        coarse_cells = _cells(groupings, np.zeros(len(features), dtype=np.int64))
        fine_cells = _cells(fine, coarse_cells)
        nested, cells = _nested(groupings, np.zeros(len(features), dtype=np.int64))
        fine_nested, cells_of_fine = _nested(fine, coarse_cells)
        # Fine cells divide coarse ones, so that one order of the rows suits both.
        order = np.argsort(fine_cells, kind="stable")
        every_column = range(features.shape[1])
        self._levels = [_Level(features, every_column, order, cells, groupings[:nested], groupings[nested:])]
        if fine:
            self._levels.append(
                _Level(features, fine_columns, order, cells_of_fine, fine[:fine_nested], fine[fine_nested:])
            )
        # Where every row is its own cluster, rows are numbered as they lie: weights are read in place, not gathered.
        self._clusters: Ints | None = None if self.count == len(features) else clusters[order]

    def observed(self) -> list[Floats]:
        """Sums on the rows as they are: for each grouping, then each fine one, (sets, F, 1), in double precision."""
        return [sums for level in self._levels for sums in level.observed()]

    def weighted(self, weights: Floats) -> list[Floats]:
        """Sums under weights (b, clusters): for each grouping, then each fine one, (sets, F, b)."""
        return [sums for level in self._levels for sums in level.weighted(weights, self._clusters)]

    def replicates(self, statistic: Statistic, *, resamples: int, seed: int) -> Replicates:
        """The figures of `statistic`, observed, resampled and left out; the same for the same seed."""

        def figures(sums: list[Floats]) -> Floats:
            with np.errstate(all="ignore"):  # 0 / 0 in an empty set is NaN, as meant. Set in every thread.
                return statistic(sums)

        value = figures(self.observed())[:, 0]
        if self.count < 2 or resamples < 1:
            empty = np.empty((len(value), 0))
            return Replicates(value, empty, empty, self.count)
        weights = [*bootstrap_weights(self.count, resamples, seed), *_leave_out(self.count, seed)]
        # Many small products: threads within each of them cost more than they bring, above all on a busy machine.
        with _thread_pools().limit(limits=1, user_api="blas"), ThreadPoolExecutor(2) as pool:
            every = np.concatenate(list(pool.map(lambda make: figures(self.weighted(make())), weights)), axis=1)
        return Replicates(value, every[:, :resamples], every[:, resamples:], self.count)


@lru_cache(maxsize=1)
def _thread_pools() -> ThreadpoolController:
    """Find the thread pools of the loaded libraries; searching them takes longer than a small bootstrap, so it is done once."""
    return ThreadpoolController()


def pool_seeds(found: Replicates, seeds: int, seed: int) -> Replicates:
    """Replicates of the mean over seeds (K figures) from those of each seed (seeds * K figures, the first seed's first).

    Hierarchical: images vary as they were resampled, and so does the mean over seeds. The few seeds themselves cannot be
    resampled (three values drawn from three show neither their variance nor its uncertainty), so their mean is drawn from
    its Student distribution with seeds - 1 degrees of freedom, one draw a replicate for all figures.
    """
    if seeds == 1:
        return found
    value, resampled, left_out = (
        of.reshape(seeds, len(of) // seeds, of.shape[-1])
        for of in (found.value[:, None], found.resampled, found.jackknife)
    )
    spread = value.std(axis=0, ddof=1) / seeds**0.5
    moved = t_quantile_draws(seeds, resampled.shape[2], np.random.default_rng(seed))
    means = Replicates(value.mean(axis=0)[:, 0], resampled.mean(axis=0), left_out.mean(axis=0), found.clusters)
    return means.with_seeds(spread[:, 0], seeds - 1, moved)


def t_quantile_draws(seeds: int, count: int, rng: np.random.Generator) -> Floats:
    """Draws (count,) of Student's t with seeds - 1 degrees of freedom, spread evenly over its quantiles; 0 for one seed.

    Even spread: with two degrees of freedom the tails of a thousand plain draws are mostly luck.
    """
    if seeds < 2:
        return np.zeros(count)
    return rng.permutation(special.stdtrit(seeds - 1, (np.arange(count) + 0.5) / max(count, 1)))


def bootstrap_weights(clusters: int, resamples: int, seed: int) -> Iterator[Callable[[], Floats]]:
    """Makers of (b, clusters) float32 multinomial counts, together `resamples` rows; memory is that of one block."""
    block = max(1, min(resamples, _BLOCK // clusters))
    starts = range(0, resamples, block)
    for start, stream in zip(starts, np.random.SeedSequence(seed).spawn(len(starts)), strict=True):
        yield partial(_multinomial, stream, clusters, min(block, resamples - start))


def _multinomial(stream: np.random.SeedSequence, clusters: int, count: int) -> Floats:
    generator = np.random.Generator(np.random.SFC64(stream))
    draw = _many_counts if clusters > _MANY else _counts
    weights = np.empty((count, clusters), dtype=np.float32)
    for row in weights:
        row[:] = draw(generator, clusters)
    return weights


def _counts(generator: np.random.Generator, clusters: int) -> Ints:
    return np.bincount(generator.integers(0, clusters, size=clusters), minlength=clusters)


def _many_counts(generator: np.random.Generator, clusters: int) -> Ints:
    """Multinomial counts without a random walk over memory for every draw.

    Independent Poisson counts, given their total, are multinomial. So: Poisson counts of a slightly smaller mean (five
    standard deviations of the total), to 16 bits of probability, and the few draws that are missing one by one.
    """
    steps = _poisson_steps(1 - 5 / clusters**0.5)
    uniform = generator.integers(0, 2**64 - 1, size=-(-clusters // 4), dtype=np.uint64, endpoint=True).view(np.uint16)
    uniform = uniform[:clusters]
    counts = np.zeros(clusters, dtype=np.uint8)
    for step in steps:
        counts += (uniform >= step).view(np.uint8)
    missing = max(0, clusters - int(counts.sum(dtype=np.uint32)))
    np.add.at(counts, generator.integers(0, clusters, size=missing), np.uint8(1))  # of the same type: 25 times as fast
    return counts


@lru_cache
def _poisson_steps(mean: float) -> Ints:
    """Return the thresholds at which 16 uniform bits pass from one Poisson count to the next."""
    steps = np.round(special.pdtr(np.arange(12), mean) * 2**16)
    below_one: Ints = steps[steps < 2**16].astype(np.uint16)
    return below_one


def _leave_out(clusters: int, seed: int) -> Iterator[Callable[[], Floats]]:
    groups = clusters if clusters <= _JACKKNIFE else _JACKKNIFE_GROUPS
    group = np.random.default_rng(seed).permutation(clusters) % groups
    block = max(1, _BLOCK // clusters)
    for start in range(0, groups, block):
        yield partial(_without, group, start, min(start + block, groups))


def _without(group: Ints, start: int, stop: int) -> Floats:
    weights: Floats = (group[None, :] != np.arange(start, stop)[:, None]).astype(np.float32)
    return weights


def _cells(groupings: Sequence[Ints], cells: Ints) -> Ints:
    """Codes (n,) of the finest sets that `groupings` and `cells` make together, in the order of `cells`."""
    for codes in groupings:
        cells = reindex(cells * (int(codes.max(initial=-1)) + 2) + codes + 1)  # Dense, so that the product stays small.
    return cells


def _nested(groupings: Sequence[Ints], cells: Ints) -> tuple[int, Ints]:
    """Count the first of `groupings` that divide `cells` into no more than `_MOST_CELLS`, and return those cells."""
    for count, codes in enumerate(groupings):
        finer = _cells([codes], cells)
        if int(finer.max(initial=-1)) >= _MOST_CELLS:
            return count, cells if count else np.zeros_like(cells)
        cells = finer
    return len(groupings), cells


def _spread(features: Floats, order: Ints, codes: Ints) -> sparse.csr_array:
    """(sets * F, n) of the ordered rows' features: times weights (n, b) it gives the sums of every set and feature."""
    rows = np.flatnonzero(codes[order] >= 0)
    n_features = features.shape[1]
    sums = (codes[order[rows]][:, None] * n_features + np.arange(n_features)).ravel()
    shape = ((int(codes.max(initial=-1)) + 1) * n_features, len(order))
    return sparse.csr_array((features[order[rows]].ravel(), (sums, np.repeat(rows, n_features))), shape=shape)


def _membership(codes: Ints) -> sparse.csr_array:
    """(sets, cells) of zeros and ones."""
    inside = np.flatnonzero(codes >= 0)
    shape = (int(codes.max(initial=-1)) + 1, len(codes))
    return sparse.csr_array((np.ones(len(inside)), (codes[inside], inside)), shape=shape)
