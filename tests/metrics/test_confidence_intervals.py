from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agebench.metrics.bootstrap import ClusterBootstrap, Replicates, pool_seeds, t_quantile_draws
from agebench.metrics.confidence_intervals import (
    NEAR,
    bootstrap_interval,
    clopper_pearson,
    difference_p_value,
    wilson,
)

REPEATS, CLUSTERS = 400, 300


def mean(sums):
    return sums[0][:, 1] / sums[0][:, 0]


def clustered_errors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Skewed errors of 300 people, 1 to 7 images each, who share a level of difficulty; their mean is 3."""
    people = np.repeat(np.arange(CLUSTERS), rng.integers(1, 8, CLUSTERS))
    return people, rng.gamma(1.5, 1, len(people)) * rng.gamma(2, 1, CLUSTERS)[people]


@pytest.mark.slow
def test_95_percent_intervals_cover_the_truth_in_93_to_97_of_100():
    hits = {"percentile": 0, "bca": 0}
    for repeat in range(REPEATS):
        people, errors = clustered_errors(np.random.default_rng(repeat))
        features = np.column_stack([np.ones(len(errors)), errors])
        found = ClusterBootstrap(features, [np.zeros(len(errors), int)], people).replicates(
            mean, resamples=500, seed=repeat
        )
        for kind in hits:
            low, high = bootstrap_interval(found, kind)
            hits[kind] += int(low[0] <= 3 <= high[0])
    assert all(0.93 <= hit / REPEATS <= 0.97 for hit in hits.values()), hits


@pytest.mark.slow
def test_intervals_over_three_seeds_cover_the_truth_in_93_to_97_percent():
    hits = 0
    for repeat in range(REPEATS):
        rng = np.random.default_rng(repeat)
        people, errors = clustered_errors(rng)
        ones = np.ones(len(errors))
        features = np.column_stack([column for _ in range(3) for column in (ones, errors + rng.normal(0, 0.15))])

        def of_each(sums):
            return np.concatenate([sums[0][:, 2 * seed + 1] / sums[0][:, 2 * seed] for seed in range(3)])

        apart = ClusterBootstrap(features, [np.zeros(len(errors), int)], people).replicates(
            of_each, resamples=500, seed=repeat
        )
        low, high = bootstrap_interval(pool_seeds(apart, 3, repeat), "percentile")
        hits += int(low[0] <= 3 <= high[0])
    assert 0.93 <= hits / REPEATS <= 0.97, hits


def test_bca_follows_the_skew_as_scipys_does():
    sample = np.random.default_rng(0).exponential(size=80)
    features = np.column_stack([np.ones(80), sample])
    found = ClusterBootstrap(features, [np.zeros(80, int)], np.arange(80)).replicates(mean, resamples=20_000, seed=0)
    low, high = bootstrap_interval(found, "bca")
    # scipy knows no expansion for small samples: ask it for the level that has the same reach.
    reach = stats.t.ppf(0.975, 79) * (80 / 79) ** 0.5
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, confidence_level=2 * stats.norm.cdf(reach) - 1, method="BCa", rng=0
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.015)


@pytest.mark.parametrize(("ours", "method"), [(wilson, "wilson"), (clopper_pearson, "exact")])
@given(st.integers(1, 500), st.data())
def test_rate_intervals_are_scipys(ours, method, n, data):
    hits = data.draw(st.integers(0, n))
    theirs = stats.binomtest(hits, n).proportion_ci(method=method)
    low, high = ours(np.array([hits]), np.array([n]))
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_no_trials_have_no_interval():
    for interval in (wilson, clopper_pearson):
        assert np.isnan(interval(np.array([0]), np.array([0]))).all()


def test_two_clusters_have_an_interval_too():
    features = np.array([[1, 5.0], [1, 1.0]])
    found = ClusterBootstrap(features, [np.zeros(2, int)], np.arange(2)).replicates(mean, resamples=100, seed=0)
    low, high = bootstrap_interval(found, "bca")
    assert (low[0], high[0]) == (1, 5)


@pytest.mark.parametrize("centre", [0.0, 5.0])
def test_rounding_of_replicates_does_not_move_an_interval(centre):
    rng = np.random.default_rng(0)
    replicates = centre + rng.normal(0, 0.05, (200, 1000))
    left_out = centre + rng.normal(0, 0.001, (200, 50))
    # Each figure's value is one of its replicates, so that rounding puts that one on either side of it.
    found = Replicates(replicates[:, 0].copy(), replicates, left_out, 300)
    rounded = replace(found, resampled=replicates + rng.choice([-1e-6, 1e-6], replicates.shape))
    ends, moved = bootstrap_interval(found, "bca"), bootstrap_interval(rounded, "bca")
    np.testing.assert_allclose(moved, ends, atol=1e-5)


@pytest.mark.parametrize("near", [0.0, NEAR])
@pytest.mark.parametrize("rounding", [-1e-6, 0.0, 1e-6])
def test_replicates_equal_to_the_value_count_half(near, rounding):
    # As many replicates below as above, and no skew: BCa has nothing to shift, however the equal ones are rounded.
    resampled = np.concatenate([np.linspace(1, 2, 50), np.full(100, 3.0 + rounding), np.linspace(4, 5, 50)])[None]
    found = Replicates(np.array([3.0]), resampled, np.full((1, 10), 3.0), 1000)
    ends = bootstrap_interval(found, "bca", near=near)
    np.testing.assert_allclose(ends, bootstrap_interval(found, "percentile"), atol=1e-9)


@pytest.mark.parametrize("others", [0, 60])
@pytest.mark.parametrize("people", [2, 3, 5, 8])
def test_the_mae_of_a_group_of_few_people_is_held_in_95_of_100(people, others):
    """Of 400 samples, 92 % at least: four standard errors less than 95 % would be 90.6 %."""
    clusters = np.repeat(np.arange(people + others), 10)
    in_group = (clusters < people).astype(int)
    held = 0
    for repeat in range(400):
        rng = np.random.default_rng(repeat)
        errors = np.abs(5 + rng.normal(0, 1.5, people + others)[clusters] + rng.normal(0, 1, len(clusters)))
        features = np.column_stack([np.ones(len(errors)), errors])
        found = ClusterBootstrap(features, [1 - in_group], clusters).replicates(
            lambda sums: mean(sums)[:1], resamples=200, seed=repeat
        )
        low, high = bootstrap_interval(found, clusters=np.array([people]))
        held += low[0] <= 5 <= high[0]
    assert held >= 0.92 * 400


def p_of(value: float, replicates: np.ndarray, clusters: int) -> float | None:
    return difference_p_value(Replicates(np.array([value]), replicates[None], np.empty((1, 0)), clusters), clusters)


def test_a_p_value_is_not_bounded_by_the_number_of_resamples():
    rng = np.random.default_rng(0)
    replicates = 10 + rng.normal(0, 1, 1000)
    assert p_of(10, replicates, 500) < 1e-12
    three = rng.choice([1.0, 2.0, 3.0], 1000, p=[0.25, 0.5, 0.25])
    assert p_of(2, three, 2) == pytest.approx(0.295, abs=0.01)  # Student's t of 2 with one degree of freedom
    near = 1 + rng.normal(0, 1, 1000)
    assert p_of(1, near, 500) == pytest.approx(2 * (1 + (near <= 0).sum()) / 1001)
    assert p_of(0, np.zeros(1000), 500) == 1
    assert p_of(3, np.full(1000, 3.0), 500) == pytest.approx(2 / 1001)


@pytest.mark.parametrize("resamples", [1000, 10_000])
def test_few_people_and_few_seeds_each_have_students_tail(resamples):
    """The heavy tail of two seeds does not enter the spread of the people, whatever the number of resamples."""
    images = np.random.default_rng(0).normal(8, 0.5, resamples)
    found = Replicates(np.array([8.0]), images[None], np.empty((1, 0)), 5)
    draws = t_quantile_draws(2, resamples, np.random.default_rng(1))
    both = found.with_seeds(np.array([0.1]), 1, draws)
    people, seeds = 2.776 * 0.5 * (5 / 4) ** 0.5, 12.706 * 0.1
    low, high = bootstrap_interval(both, "percentile", clusters=np.array([5]))
    assert high[0] - 8 == pytest.approx(np.hypot(people, seeds), rel=0.05)
    assert 8 - low[0] == pytest.approx(high[0] - 8)


def test_a_p_value_has_the_degrees_of_freedom_of_the_seeds():
    images = np.random.default_rng(0).normal(10, 0.01, 100)
    found = Replicates(np.array([10.0]), images[None], np.empty((1, 0)), 10_000)
    both = found.with_seeds(np.array([1.0]), 4, t_quantile_draws(5, 100, np.random.default_rng(1)))
    assert (both.resampled > 0).all()
    assert difference_p_value(both, 10_000) == pytest.approx(2 * stats.t.sf(10, 4), rel=0.01)
