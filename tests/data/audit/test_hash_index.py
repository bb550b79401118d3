"""The index of hashes finds the pairs that comparing all pairs finds, and does less of the work."""

import numpy as np
import pytest

from agebench.data.audit import near_duplicates
from agebench.data.audit.hash_index import N_PROBES, HashIndex

WIDTH = 75


def signatures(count: int, copied: int, cosine: float, seed: int = 0) -> np.ndarray:
    """Random hashes of `count` images, then copies of the first `copied` at a cosine."""
    rng = np.random.default_rng(seed)
    hashes = rng.normal(size=(count, WIDTH))
    hashes /= np.linalg.norm(hashes, axis=1, keepdims=True)
    noise = rng.normal(size=(copied, WIDTH))
    noise -= np.sum(noise * hashes[:copied], axis=1, keepdims=True) * hashes[:copied]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    copies = cosine * hashes[:copied] + (1 - cosine**2) ** 0.5 * noise
    return np.concatenate([hashes, copies]).astype(np.float32)


def matched(index: HashIndex, hashes: np.ndarray, **options: int) -> set[tuple[int, int]]:
    return {
        (int(row), int(column))
        for rows, columns, _ in index.matches(hashes, near_duplicates.MIN_COSINE, **options)
        for row, column in zip(rows, columns, strict=True)
    }


@pytest.mark.parametrize(("cosine", "least"), [(0.9, 0.99), (0.8, 0.93)])
def test_planted_copies_meet_in_a_cell(cosine: float, least: float) -> None:
    count, copied = 6_000, 400
    hashes = signatures(count, copied, cosine)
    pairs = matched(HashIndex(hashes), hashes)
    assert np.mean([(row, count + row) in pairs for row in range(copied)]) >= least


def test_all_cells_probed_give_all_pairs() -> None:
    hashes = signatures(700, 80, 0.7)
    rows, columns = np.nonzero(hashes @ hashes.T >= near_duplicates.MIN_COSINE)
    index = HashIndex(hashes)
    assert matched(index, hashes, n_probes=10_000) == set(zip(rows.tolist(), columns.tolist(), strict=True))


def test_work_grows_more_slowly_than_the_number_of_pairs() -> None:
    compared = {}
    for count in (2_000, 8_000):
        hashes = signatures(count, 0, 0.9)
        # Below every cosine: what is compared is matched.
        compared[count] = sum(len(rows) for rows, _, _ in HashIndex(hashes).matches(hashes, -1.1, n_probes=8))
    assert compared[8_000] < 10 * compared[2_000]


def test_images_without_contrast_match_nothing() -> None:
    hashes = signatures(50, 0, 0.9)
    hashes[7] = 0
    assert {pair for pair in matched(HashIndex(hashes), hashes, n_probes=N_PROBES) if 7 in pair} == set()
    assert matched(HashIndex(np.zeros((3, WIDTH), np.float32)), np.zeros((3, WIDTH), np.float32)) == set()


def test_near_duplicates_of_a_large_collection_use_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    side = near_duplicates.THUMBNAIL_SIDE
    coarse = rng.integers(0, 256, (60, 8, 8)).repeat(side // 8, axis=1).repeat(side // 8, axis=2)
    images = np.concatenate([coarse, coarse[:20, :, ::-1]]).astype(np.uint8)
    exhaustive, _ = near_duplicates.near_duplicates(images)
    monkeypatch.setattr(near_duplicates, "MAX_EXHAUSTIVE", 10)
    indexed, _ = near_duplicates.near_duplicates(images)
    assert {(row, row + 60) for row in range(20)} <= set(
        zip(indexed.first.tolist(), indexed.second.tolist(), strict=True)
    )
    np.testing.assert_array_equal(indexed.first, exhaustive.first)
    np.testing.assert_allclose(indexed.similarity, exhaustive.similarity, atol=1e-4)
