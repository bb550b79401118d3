import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agebench.errors import UserError
from agebench.metrics.age_gates import Gate, age_gates, parse_ages, parse_gate, required_challenge_age
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


def with_people(n_people: int, images: int, seed: int) -> pd.DataFrame:
    """Errors that the images of a person share, beside each image's own."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(n_people), images)
    age = rng.integers(10, 40, n_people).astype(float)[subject]
    predicted = age + rng.normal(0, 2, n_people)[subject] + rng.normal(0, 2, len(subject))
    return pd.DataFrame({"age": age, "age_pred": predicted, "subject": subject.astype(str)})


def test_adults_are_refused_by_year_of_age():
    table = people()
    gate = age_gates(table, legal_ages=[18], challenges=[25])["18"]
    refused = gate.refused_by_age["25"]
    aged_19 = table[table.age == 19]
    assert list(refused) == [str(year) for year in range(18, 40)]
    assert refused["19"].n == len(aged_19)
    assert refused["19"].fnr.value == pytest.approx((aged_19.age_pred < 25).mean())


def test_the_last_year_below_the_limit_requires_a_higher_challenge_age():
    gate = age_gates(people(40_000), legal_ages=[18])["18"]
    estimates = np.sort(people(40_000).query("age == 17").age_pred.to_numpy())
    assert gate.required_below_limit["0.01"].value == required_challenge_age(estimates, 0.01).value
    assert gate.required_below_limit["0.01"].value > gate.required["0.01"].value + 1


def test_gate_ages_select_the_minors_and_no_adults():
    table = people()
    chosen = age_gates(table, legal_ages=[13, 18], challenges=[25], minor_ages=(15, 17))
    assert list(chosen) == ["18"]
    near = table[(table.age >= 15) & (table.age < 18)]
    assert chosen["18"].minor_ages == [15, 17]
    assert chosen["18"].challenge["25"].fpr.value == pytest.approx((near.age_pred >= 25).mean())
    everyone = age_gates(table, legal_ages=[18], challenges=[25])["18"]
    assert chosen["18"].challenge["25"].fnr == everyone.challenge["25"].fnr
    assert chosen["18"].n_over == everyone.n_over


def test_a_further_gate_has_its_own_challenge_age():
    gates = age_gates(people(), legal_ages=[18], gates=[Gate(18, 23.0), Gate(20, 22.5)])
    assert list(gates["18"].challenge) == ["18", "23", "25"]
    assert list(gates["20"].challenge) == ["22.5"]


@pytest.mark.parametrize("with_subjects", [False, True])
def test_the_det_curve_has_the_intervals_of_the_rates(with_subjects):
    table = with_people(300, 5, 1) if with_subjects else people()
    gate = age_gates(table, legal_ages=[18], challenges=[21])["18"]
    place = gate.det.challenge.index(21.0)
    for rate, name in ((gate.challenge["21"].fpr, "fpr"), (gate.challenge["21"].fnr, "fnr")):
        det = [getattr(gate.det, key)[place] for key in (name, f"{name}_low", f"{name}_high")]
        assert det == pytest.approx([rate.value, rate.ci_low, rate.ci_high], abs=2e-6)


def test_f2_is_that_of_refusing_minors():
    table = people()
    found = age_gates(table, legal_ages=[18], resamples=200)["18"].detection
    refused, minor = table.age_pred < found.challenge, table.age < 18
    recall, precision = (refused & minor).sum() / minor.sum(), (refused & minor).sum() / refused.sum()
    assert recall >= 0.99
    assert found.f2.value == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert found.f2.ci_low < found.f2.value < found.f2.ci_high
    assert found.prevalence == pytest.approx(minor.mean())


def test_f2_needs_enough_minors_to_know_its_challenge_age():
    assert age_gates(people(200), legal_ages=[18], resamples=200)["18"].detection is None


def test_the_interval_of_f2_covers_where_people_repeat():
    everyone = age_gates(with_people(300_000, 1, 999), legal_ages=[18])["18"].detection
    covered = 0
    for seed in range(60):
        f2 = age_gates(with_people(800, 4, seed), legal_ages=[18], resamples=300)["18"].detection.f2
        covered += f2.ci_low <= everyone.f2.value <= f2.ci_high
    assert covered / 60 >= 0.87


@pytest.mark.parametrize("text", ["18", "18@", "@25", "18@x", "18@17", "a@25", "18@inf", "0@5"])
def test_a_gate_that_is_none_is_refused_with_an_example(text):
    with pytest.raises(UserError, match=r"e\.g\. \d+@\d+"):
        parse_gate(text)


@pytest.mark.parametrize("text", ["150@200", "18@200", "121@121", "130@25", "-3@25", "0@5", "18@nan", "18@inf"])
def test_a_gate_has_ages_of_people(text):
    with pytest.raises(UserError, match=rf"gate '{text}': give ages from 1 to 120 years, e\.g\. 18@25"):
        parse_gate(text)


def test_gates_and_ages_are_read_as_written():
    assert parse_gate("18@22.5") == Gate(18, 22.5)
    assert parse_gate("120@120") == Gate(120, 120.0)
    assert (parse_ages("13-17"), parse_ages("17")) == ((13, 17), (17, 17))
    with pytest.raises(UserError, match="13-17"):
        parse_ages("17-13")


def test_images_of_one_person_alone_show_next_to_nothing():
    table = people(200).assign(subject="same")
    gate = age_gates(table, legal_ages=[18], challenges=[18], resamples=100)["18"]
    place = gate.det.challenge.index(18.0)
    assert gate.det.fpr_high[place] - gate.det.fpr_low[place] > 0.9
    assert gate.detection is None


def test_a_range_of_ages_counts_only_on_one_side_of_the_legal_age():
    table = people()
    straddling = np.arange(len(table)) % 4 == 0
    ranged = table.assign(age_low=np.where(straddling, 10.0, table.age), age_high=np.where(straddling, 19.0, table.age))
    gate = age_gates(ranged, legal_ages=[18], challenges=[25])["18"]
    exact = age_gates(table[~straddling], legal_ages=[18], challenges=[25])["18"]
    assert gate.n_undecided == straddling.sum()
    assert exact.n_undecided == 0
    assert (gate.n_under, gate.n_over) == (exact.n_under, exact.n_over)
    assert gate.challenge == exact.challenge
    assert gate.by_age == exact.by_age


def test_a_range_on_one_side_counts_in_the_rate_and_in_no_year():
    table = people()
    ranged = table.assign(
        age_low=np.where(table.age < 18, 8.0, table.age), age_high=np.where(table.age < 18, 17.0, table.age)
    )
    gate, exact = (age_gates(part, legal_ages=[18], challenges=[25])["18"] for part in (ranged, table))
    assert gate.challenge == exact.challenge
    assert gate.by_age == {"25": {}}
