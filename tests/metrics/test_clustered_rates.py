import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from agebench.metrics.clustered_rates import clustered_rate, design_effect, effective_sizes, group_rates
from agebench.metrics.groups import Grouping

N = 60


@settings(max_examples=40, deadline=None)
@given(
    arrays(bool, N),
    arrays(bool, N),
    arrays(np.int64, N, elements=st.integers(-1, 6)),
    st.one_of(st.none(), arrays(np.int64, N, elements=st.integers(0, 20))),
)
def test_group_rates_are_the_rates_of_each_group(hits, among, codes, clusters):
    together = group_rates(hits, among, codes, 8, clusters)
    for group, entry in enumerate(together):
        alone = clustered_rate(hits, among & (codes == group), clusters)
        assert entry.to_json() == pytest.approx(alone.to_json())


@given(arrays(bool, N), arrays(np.int64, N, elements=st.integers(0, 20)))
def test_design_effect_is_korn_and_graubards(hits, clusters):
    people, share = np.unique(clusters), hits.mean()
    if len(people) in (1, N) or share in (0, 1):
        expected = N / len(people)
    else:
        squares = sum((hits[clusters == who] - share).sum() ** 2 for who in people)
        expected = max(1, len(people) / (len(people) - 1) * squares / (N * share * (1 - share)))
    assert design_effect(hits, clusters) == pytest.approx(expected)


@given(arrays(np.int64, N, elements=st.integers(-1, 6)), arrays(np.int64, N, elements=st.integers(0, 20)))
def test_cluster_counts_are_distinct_clusters_of_a_group(codes, clusters):
    counts = Grouping("g", tuple("abcdefg"), codes).cluster_counts(clusters)
    assert counts.tolist() == [len(set(clusters[codes == group])) for group in range(7)]


@pytest.mark.parametrize("people", [2, 4, 8])
def test_rates_of_few_people_reach_as_far_as_students(people):
    """Whole people pass or do not, by chances of their own: the interval holds their mean in 95 of 100 samples."""
    rng = np.random.default_rng(people)
    clusters, everyone = np.repeat(np.arange(people), 25), np.ones(people * 25, dtype=bool)
    held = 0
    for _ in range(300):
        chances = rng.beta(2, 6, people)
        rate = clustered_rate(rng.random(people * 25) < chances[clusters], everyone, clusters)
        held += rate.ci_low <= 0.25 <= rate.ci_high
    assert held >= 0.92 * 300


def test_effective_sizes_fall_with_few_people():
    rng = np.random.default_rng(0)
    hits, everyone = (rng.random(200) < 0.3).astype(float), np.zeros(200, dtype=np.int64)
    alone = effective_sizes(hits, everyone, 1, np.arange(200))
    assert alone.tolist() == [200]
    for people in (2, 20, 100):
        clusters = np.arange(200) % people
        expected = 200 / design_effect(hits, clusters)
        expected *= (stats.t.ppf(0.975, 199) / stats.t.ppf(0.975, people - 1)) ** 2
        assert effective_sizes(hits, everyone, 1, clusters)[0] == pytest.approx(expected)


def test_people_are_counted_whatever_their_codes_are():
    hits, groups = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0]), np.zeros(6, dtype=np.int64)
    sizes = [effective_sizes(hits, groups, 1, np.array(codes))[0] for codes in ([0, 0, 1, 1, 2, 2], [5, 5, 0, 0, 3, 3])]
    assert sizes[0] == sizes[1] < 6
