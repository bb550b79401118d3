import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agebench.metrics.clustered_rates import clustered_rate, design_effect, group_rates
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
