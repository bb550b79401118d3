"""Index of unit vectors: the pairs with a large cosine without comparing all pairs.

An inverted file (Jegou, Douze and Schmid 2011, "Product quantization for nearest neighbor search", IEEE TPAMI 33, section IV, here
without quantization): references are divided into cells around centers, and a query is compared with the references of the cells
whose centers are nearest to it. With a number of cells that grows with the square root of the number of references, the work
grows with the power 1.5 of the number of images.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

# Cells for n references: so many times the square root of n.
_CELLS_PER_ROOT = 4
# Cells that a query is compared with. Of pairs with a cosine of 0.8 in 75 dimensions, 96 % meet in one of them, of those
# with 0.9 all but one in a thousand.
N_PROBES = 48
_SAMPLE_PER_CELL = 40
_ITERATIONS = 5
_BLOCK = 1024


class HashIndex:
    """Cells of reference vectors.

    Args:
        references: (N, D) vectors of length 1; vectors of length 0 match nothing and are left out.
        seed: seed of the sample that the centers are fitted to.
    """

    def __init__(self, references: Floats, *, seed: int = 0) -> None:
        self._references = references
        rows = np.flatnonzero(np.einsum("nd,nd->n", references, references) > 0)
        rng = np.random.default_rng(seed)
        n_cells = min(max(1, round(_CELLS_PER_ROOT * len(rows) ** 0.5)), max(len(rows), 1))
        sample = rng.choice(rows, min(len(rows), _SAMPLE_PER_CELL * n_cells), replace=False)
        self._centers = _fit_centers(references[np.sort(sample)], n_cells, rng)
        cells = _nearest_cells(references[rows], self._centers, 1)[:, 0]
        order = np.argsort(cells, kind="stable")
        self._rows = rows[order]
        self._starts = np.searchsorted(cells[order], np.arange(len(self._centers) + 1))

    def matches(
        self, queries: Floats, min_cosine: float, n_probes: int = N_PROBES
    ) -> Iterator[tuple[Ints, Ints, Floats]]:
        """Find the references that are similar to each query, one cell of references at a time.

        Args:
            queries: (Q, D) vectors of length 1, or 0 for none.
            min_cosine: the smallest cosine of a match.
            n_probes: the number of cells that each query is compared with.

        Yields:
            Rows of queries, rows of references and cosines, each (matches of the cell,).
        """
        n_probes = min(n_probes, len(self._centers))
        probed = _nearest_cells(queries, self._centers, n_probes).ravel()
        order = np.argsort(probed, kind="stable")
        query_rows = order // n_probes
        starts = np.searchsorted(probed[order], np.arange(len(self._centers) + 1))
        for cell in range(len(self._centers)):
            members = self._rows[self._starts[cell] : self._starts[cell + 1]]
            references = self._references[members].T
            for start in range(starts[cell], starts[cell + 1], _BLOCK):
                rows = query_rows[start : min(start + _BLOCK, starts[cell + 1])]
                cosines = queries[rows] @ references
                first, second = np.nonzero(cosines >= min_cosine)
                if len(first):
                    yield rows[first], members[second], cosines[first, second]


def _fit_centers(vectors: Floats, n_cells: int, rng: np.random.Generator) -> Floats:
    """Return the centers (n_cells, D) of spherical k-means; a cell that loses all its vectors keeps its center."""
    centers: Floats = vectors[rng.choice(len(vectors), n_cells, replace=False)] if len(vectors) else vectors
    for _ in range(_ITERATIONS if len(vectors) else 0):
        cells = _nearest_cells(vectors, centers, 1)[:, 0]
        order = np.argsort(cells, kind="stable")
        present = np.unique(cells)
        sums = np.add.reduceat(vectors[order], np.searchsorted(cells[order], present), axis=0)
        centers = centers.copy()
        centers[present] = sums / (np.linalg.norm(sums, axis=1, keepdims=True) + 1e-12)
    return centers


def _nearest_cells(vectors: Floats, centers: Floats, count: int) -> Ints:
    """Return the `count` cells with the nearest centers for each vector (n, count), in no order."""
    cells = np.empty((len(vectors), count), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ centers.T
        if count == 1:
            cells[start : start + _BLOCK, 0] = cosines.argmax(axis=1)
        else:
            kth = cosines.shape[1] - count
            cells[start : start + _BLOCK] = np.argpartition(cosines, kth, axis=1)[:, kth:]
    return cells
