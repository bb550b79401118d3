import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agebench.metrics.age_gates import age_gates, required_challenge_age
from agebench.metrics.clustered_rates import clustered_rate


def people(n: int = 4000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.integers(8, 40, n).astype(float)
    return pd.DataFrame(
        {"age": age, "age_pred": age + rng.normal(0, 3, n), "gender": rng.choice(["female", "male"], n)}
    )


def test_rates_are_shares_with_exact_intervals():
    table = people()
    gate = age_gates(table, legal_ages=[18], challenges=[25], groups=["gender"])["18"]
    under = table[table.age < 18]
    passed = int((under.age_pred >= 25).sum())
    fpr = gate.challenge["25"].fpr
    exact = stats.binomtest(passed, len(under)).proportion_ci(method="exact")
    assert (fpr.value, fpr.ci_low, fpr.ci_high) == pytest.approx((passed / len(under), exact.low, exact.high))
    assert gate.by_age["25"]["17"].n == (table.age == 17).sum()
    groups = gate.by_group["25"]["gender"]
    assert sum(row.n_under for row in groups.values()) == len(under)
    women = table[(table.gender == "female") & (table.age >= 18)]
    assert groups["female"].fnr.value == pytest.approx((women.age_pred < 25).mean())


def test_challenge_25_is_the_default_margin():
    gates = age_gates(people(), legal_ages=[18, 21])
    assert list(gates["18"].challenge) == ["18", "25"]
    assert list(gates["21"].challenge) == ["21", "28"]


def test_a_gate_without_anyone_under_age_is_left_out():
    table = people()
    assert list(age_gates(table[table.age >= 15], legal_ages=[13, 18])) == ["18"]


def test_images_of_one_person_count_less():
    hits = np.tile(np.random.default_rng(0).random(50) < 0.3, 20)
    among = np.ones(1000, dtype=bool)
    alone, together = clustered_rate(hits, among), clustered_rate(hits, among, np.tile(np.arange(50), 20))
    assert together.value == alone.value
    assert together.ci_high - together.ci_low > 3 * (alone.ci_high - alone.ci_low)


def test_the_needed_challenge_keeps_the_rate_and_is_the_lowest():
    estimates = np.sort(np.random.default_rng(1).normal(15, 3, 5000))
    found = required_challenge_age(estimates, 0.01)
    assert np.mean(estimates >= found.value) <= 0.01
    assert np.mean(estimates >= found.value - 0.05) > 0.009
    assert found.ci_low <= found.value <= found.ci_high


def test_too_few_to_know_is_said():
    found = required_challenge_age(np.sort(np.random.default_rng(1).normal(15, 3, 500)), 0.001)
    assert found.value is None
    assert (found.n, found.n_needed) == (500, 1000)


def test_the_needed_challenges_interval_covers():
    truth = stats.norm.ppf(0.99, 15, 3)
    covered = 0
    for seed in range(300):
        found = required_challenge_age(np.sort(np.random.default_rng(seed).normal(15, 3, 2000)), 0.01)
        covered += found.ci_low - 0.02 <= truth <= found.ci_high
    assert covered / 300 >= 0.93


@pytest.mark.parametrize(("people", "images", "own"), [(300, 20, 4.0), (82, 12, 3.0), (1000, 3, 1.0)])
def test_the_needed_challenges_interval_covers_where_people_repeat(people, images, own):
    truth = stats.norm.ppf(0.99, 15, np.hypot(own, 3))
    covered = known = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        whose = np.repeat(np.arange(people), images)
        estimates = 15 + rng.normal(0, own, people)[whose] + rng.normal(0, 3, len(whose))
        order = np.argsort(estimates)
        found = required_challenge_age(estimates[order], 0.01, clusters=whose[order])
        assert found.people <= people
        if found.value is not None:
            known += 1
            assert found.value == required_challenge_age(estimates[order], 0.01).value
            covered += found.ci_low - 0.02 <= truth <= (found.ci_high or np.inf)
    assert known >= 90
    assert covered / known >= 0.9


def test_one_image_that_passes_shows_nothing_of_thirteen_people():
    rng = np.random.default_rng(2)
    estimates = rng.normal(15, 4, 13).repeat(12) + rng.normal(0, 1, 156)
    order = np.argsort(estimates)
    found = required_challenge_age(estimates[order], 0.01, clusters=np.arange(13).repeat(12)[order])
    assert (found.value, found.people) == (None, 13)


def test_images_of_few_people_cannot_show_a_rare_rate():
    estimates, whose = np.sort(np.random.default_rng(0).normal(15, 3, 30)).repeat(20), np.repeat(np.arange(30), 20)
    found = required_challenge_age(estimates, 0.01, clusters=whose)
    assert (found.value, found.n, found.people, found.n_needed) == (None, 600, 30, 100)
    assert found.n_effective < 100
    assert required_challenge_age(estimates, 0.01).value is not None
    rate = clustered_rate(estimates > 15, np.ones(600, dtype=bool), np.zeros(600))
    assert (rate.value, rate.ci_low, rate.ci_high) == pytest.approx((np.mean(estimates > 15), 0.0, 1.0), abs=0.03)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=300), st.sampled_from([0.01, 0.05, 0.2]))
def test_people_of_one_image_are_images(ages, target):
    estimates = np.sort(np.array(ages, float))
    found = required_challenge_age(estimates, target, clusters=np.arange(len(ages)))
    plain = required_challenge_age(estimates, target)
    assert found.to_json().items() >= plain.to_json().items()


def test_the_det_curve_trades_one_error_for_the_other():
    det = age_gates(people(), legal_ages=[18])["18"].det
    assert (np.diff(det.fpr) <= 0).all()
    assert (np.diff(det.fnr) >= 0).all()


def test_needed_challenge_is_a_number_of_hundredths():
    estimates = np.sort(np.concatenate([np.full(300, 20.3), np.full(2, 30.0)]))
    assert str(required_challenge_age(estimates, 0.01).value) == "20.31"
