import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agebench.metrics.bootstrap import _MOST_CELLS, ClusterBootstrap, bootstrap_weights, encode_clusters, reindex


def test_sums_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 3))
    groups = [rng.integers(-1, 3, 50), rng.integers(0, 2, 50)]
    clusters = rng.integers(0, 20, 50)
    clusters[:20] = np.arange(20)
    sampler = ClusterBootstrap(features, groups, clusters)
    weights = next(bootstrap_weights(20, 7, seed=1))()
    for sums, codes in zip(sampler.weighted(weights), groups, strict=True):
        for group in range(codes.max() + 1):
            rows = codes == group
            expected = weights[:, clusters[rows]] @ features[rows]
            assert pytest.approx(expected, abs=1e-4) == sums[group].T
    for sums, codes in zip(sampler.observed(), groups, strict=True):
        assert sums[0, :, 0] == pytest.approx(features[codes == 0].sum(axis=0))


@pytest.mark.parametrize("own_clusters", [True, False])
def test_sums_of_thousands_of_sets_are_those_of_a_plain_loop(own_clusters):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20_000, 3))
    groups = [rng.integers(0, 2, 20_000), rng.integers(-1, 5000, 20_000), rng.integers(0, 3, 20_000)]
    clusters = np.arange(20_000) if own_clusters else rng.permutation(np.arange(20_000) % 900)
    sampler = ClusterBootstrap(features, groups, clusters, fine=[groups[1]], fine_columns=[0, 2])
    weights = rng.integers(0, 4, (70, clusters.max() + 1)).astype(np.float32)
    # Rows that are their own clusters are numbered as the sampler orders them.
    row_weights = weights if own_clusters else weights[:, clusters]
    order = _order(groups) if own_clusters else np.arange(20_000)
    for columns, sums, codes in zip(
        [[0, 1, 2]] * 3 + [[0, 2]], sampler.weighted(weights), [*groups, groups[1]], strict=True
    ):
        for group in (0, codes.max()):
            rows = codes[order] == group
            expected = row_weights[:, rows] @ features[order][rows][:, columns]
            assert pytest.approx(expected, abs=2e-2) == sums[group].T
    for sums, codes in zip(sampler.observed(), [*groups, groups[1]], strict=True):
        assert sums[1, 0, 0] == pytest.approx(features[codes == 1, 0].sum())


def test_cells_are_few_whatever_the_groups_are():
    """The work of one resample is bounded by rows and sets: never by the product of the groupings."""
    rng = np.random.default_rng(0)
    groups = [rng.permutation(np.arange(20_000) % size) for size in (8, 5000, 90)]
    sampler = ClusterBootstrap(np.ones((20_000, 4)), groups, np.arange(20_000), fine=[groups[2]], fine_columns=[0])
    assert sum(len(level.starts) for level in sampler._levels) <= 2 * _MOST_CELLS
    assert [sums.shape for sums in sampler.weighted(np.ones((3, 20_000)))] == [
        (8, 4, 3),
        (5000, 4, 3),
        (90, 4, 3),
        (90, 1, 3),
    ]


def _order(groups):
    return np.lexsort([np.arange(len(groups[0])), *groups[::-1]])


@pytest.mark.parametrize("clusters", [7, 150_000])
def test_weights_are_multinomial(clusters):
    weights = np.concatenate([make() for make in bootstrap_weights(clusters, 40, seed=0)])
    assert weights.shape == (40, clusters)
    assert (weights.sum(axis=1, dtype=float) == clusters).all()
    assert weights.var() == pytest.approx(1 - 1 / clusters, abs=0.15 if clusters < 100 else 0.01)


@pytest.mark.parametrize("resamples", [1, 10, 1000])
def test_every_resample_is_made_once(resamples):
    assert sum(len(make()) for make in bootstrap_weights(100_000, resamples, seed=0)) == resamples


def test_unknown_subjects_stand_alone():
    codes = encode_clusters(np.array(["a", None, "a", None, "b"], dtype=object), 5)
    assert codes[0] == codes[2]
    assert len(set(codes)) == 4


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_dense_codes_keep_their_order(codes):
    expected = np.unique(codes, return_inverse=True)[1]
    assert (reindex(np.array(codes)) == expected).all()
