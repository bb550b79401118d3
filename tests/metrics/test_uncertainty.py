import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from agebench.errors import UserError
from agebench.metrics.uncertainty import (
    _LEAST,
    LEVELS,
    conformal,
    min_calibration_size,
    score_categorical,
    score_gaussian,
    uncertainty,
)


def honest(n: int = 3000, seed: int = 0) -> pd.DataFrame:
    """Predictions that know their own spread."""
    rng = np.random.default_rng(seed)
    age, std = rng.uniform(5, 80, n), rng.uniform(1, 8, n)
    return pd.DataFrame(
        {"sample_id": np.arange(n).astype(str), "age": age, "age_pred": rng.normal(age, std), "age_std": std}
    )


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0.5, 20))
def test_gaussian_scores_are_the_textbooks(age, mean, std):
    found = score_gaussian(np.array([age]), np.array([mean]), np.array([std]))
    assert found.nll[0] == pytest.approx(-stats.norm.logpdf(age, mean, std))
    below = integrate.quad(lambda x: stats.norm.cdf(x, mean, std) ** 2, min(age, mean) - 12 * std, age, limit=200)[0]
    above = integrate.quad(lambda x: stats.norm.sf(x, mean, std) ** 2, age, max(age, mean) + 12 * std, limit=200)[0]
    assert found.crps[0] == pytest.approx(below + above, rel=1e-3, abs=1e-4)


def test_a_fine_distribution_scores_as_its_normal():
    table = honest(500)
    age = np.round(table.age.to_numpy())
    mean, std = table.age_pred.to_numpy(), table.age_std.to_numpy()
    edges = np.arange(-60, 161) - 0.5
    probs = np.diff(stats.norm.cdf(edges[None, :], mean[:, None], std[:, None]), axis=1)
    ours, theirs = score_categorical(age, probs, first_age=-60), score_gaussian(age, mean, std)
    assert ours.crps.mean() == pytest.approx(theirs.crps.mean(), rel=0.02)
    assert ours.nll.mean() == pytest.approx(theirs.nll.mean(), rel=0.02)
    assert (ours.pit_low + ours.pit_high) / 2 == pytest.approx(theirs.pit_low, abs=0.03)
    assert ours.widths == pytest.approx(theirs.widths, abs=0.5)


def test_certainty_is_scored_as_such():
    probs = np.zeros((2, 101))
    probs[:, 30] = 1
    found = score_categorical(np.array([30.0, 40.0]), probs)
    assert found.nll[0] == 0
    assert found.nll[1] > 10
    assert found.crps == pytest.approx([0, 10])


@given(
    st.floats(-30, 160),
    st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any),
    st.integers(-5, 40),
    st.booleans(),
)
def test_categorical_crps_is_that_of_point_masses(age, counts, first_age, whole):
    """Against the energy form of Gneiting and Raftery 2007, equation 21: E|X - y| - E|X - X'| / 2."""
    age = np.round(age) if whole else age
    probs = np.array(counts) / sum(counts)
    ages = first_age + np.arange(len(probs))
    energy = probs @ np.abs(ages - age) - probs @ np.abs(ages[:, None] - ages) @ probs / 2
    assert score_categorical(np.array([age]), probs[None], first_age).crps[0] == pytest.approx(energy, abs=1e-9)


@pytest.mark.parametrize(
    ("age", "first_age", "likely", "crps"),
    [(5, 18, 18, 13), (110, 0, 100, 10), (30.3, 0, 30, 0.3), (29.9, 0, 30, 0.1), (100.4, 0, 100, 0.4)],
)
def test_categorical_crps_of_certainty_is_the_error(age, first_age, likely, crps):
    probs = np.eye(101)[[likely - first_age]]
    assert score_categorical(np.array([float(age)]), probs, first_age).crps[0] == pytest.approx(crps)


@given(st.floats(-30, 160), st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any), st.integers(-5, 40))
def test_categorical_likelihood_is_that_of_the_nearest_class(age, counts, first_age):
    probs = dict(enumerate(np.array(counts) / sum(counts), start=first_age))
    found = score_categorical(np.array([age]), np.array([list(probs.values())]), first_age)
    nearest = int(np.floor(age + 0.5))
    likelihood = probs.get(nearest, 0.0)
    below = sum(mass for year, mass in probs.items() if year < nearest)
    assert found.nll[0] == pytest.approx(-np.log(max(likelihood, _LEAST)))
    assert (found.pit_low[0], found.pit_high[0]) == pytest.approx((below, below + likelihood))


@pytest.mark.parametrize("width", [0.3, 1.0, 6.0])
def test_categorical_coverage_is_exact_for_an_honest_model(width):
    """Also of distributions so narrow that one class holds nearly all of them."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(20, 60, 6000)
    logits = -0.5 * ((np.arange(90) - mean[:, None]) / width) ** 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    age = (rng.random((len(mean), 1)) > np.cumsum(probs, axis=1)).sum(axis=1).astype(float)
    found = score_categorical(age, probs)
    for level in LEVELS:
        assert found.covered(level).mean() == pytest.approx(level, abs=0.02)
    histogram = [found.covered(level).mean() for level in np.linspace(0.1, 0.9, 9)]
    assert np.diff(histogram) == pytest.approx(0.1, abs=0.02)


def test_categorical_labels_outside_the_classes_are_not_covered():
    found = score_categorical(np.array([5.0, 130.0]), np.full((2, 101), 1 / 101), first_age=18)
    assert (found.pit_low.tolist(), found.pit_high.tolist()) == ([0, 1], [0, 1])
    assert not any(found.covered(level).any() for level in LEVELS)


def test_an_honest_model_covers_what_it_promises():
    found = uncertainty(honest(), resamples=200)
    for level, of in found.levels.items():
        assert of.coverage.ci_low <= float(level) <= of.coverage.ci_high
    assert found.reliability.observed == pytest.approx(found.reliability.nominal, abs=0.03)
    area = found.rejection
    assert area.area_best < area.area.ci_low < area.area.ci_high < area.area_random
    assert area.mae[-1] == pytest.approx(area.area_random)


def test_scores_of_few_people_have_students_intervals():
    """Of 100 samples of three people, 87 at least hold the mean width; the ends of their own values would hold it in 75."""
    held = 0
    for repeat in range(100):
        rng = np.random.default_rng(repeat)
        subject = np.repeat(np.arange(3), 20)
        own = 5 + rng.normal(0, 1, 3)[subject]
        table = pd.DataFrame(
            {"age": 30.0, "age_pred": 30 + rng.normal(0, own), "age_std": own, "subject": subject.astype(str)}
        )
        found = uncertainty(table, resamples=200)
        width = found.levels["0.5"].width
        held += width.ci_low <= 5 * 2 * stats.norm.ppf(0.75) <= width.ci_high
        assert found.rejection.area.ci_low <= found.rejection.area.value <= found.rejection.area.ci_high
    assert held >= 87


def test_nothing_to_say_without_a_spread():
    assert uncertainty(honest(10).drop(columns="age_std")) is None


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([[0.5, 0.5], [1.0]], "different lengths"),
        ([[0.5, 0.5], [0.9, 0.9]], "sums to 1.8"),
        ([[1.5, -0.5], [1, 0]], "negative"),
    ],
)
def test_what_is_no_distribution_is_refused(p, message):
    with pytest.raises(UserError, match=message):
        uncertainty(honest(2).assign(p=p), resamples=0)


def test_a_distribution_that_starts_at_another_age_is_refused():
    table = honest(200)
    table["p"] = list(np.eye(101)[np.clip(table.age_pred.round().astype(int), 16, 100) - 16])
    with pytest.raises(UserError, match=r"--p-first-age .perhaps 16"):
        uncertainty(table)
    assert uncertainty(table, first_age=16, resamples=0).source == "p"


def test_conformal_intervals_cover_new_images_of_the_same_kind():
    covered = []
    for seed in range(60):
        table = honest(600, seed)
        covered.append(conformal(table[:300], table[300:], levels=[0.9]).levels["0.9"].coverage.value)
    assert 0.895 <= np.mean(covered) <= 0.91


def test_conformal_coverage_stands_by_group_and_few_images_promise_little():
    table = honest(400).assign(gender=["a", "b"] * 200)
    found = conformal(table[:12], table[12:], groups=["gender"])
    assert set(found.levels) == {"0.5", "0.8", "0.9"}
    assert {row.n for row in found.levels["0.9"].groups["gender"].values()} == {194}


def test_intervals_from_labels_that_are_decades_hold_the_true_ages():
    rng = np.random.default_rng(0)
    true = rng.uniform(10, 70, 2000)
    low = np.floor(true / 10) * 10
    # The model answers the middle of the decade: against midpoints it hardly errs.
    table = pd.DataFrame(
        {"age": low + 5, "age_low": low, "age_high": low + 10, "age_pred": low + 5 + rng.normal(0, 0.5, 2000)}
    )
    found = conformal(table[:1000], table[1000:], levels=[0.9]).levels["0.9"]
    assert 5 < found.radius < 7
    assert found.coverage.value == pytest.approx(0.9, abs=0.03)
    assert (abs(true - table.age_pred) <= found.radius)[1000:].mean() >= 0.9
    exact = table.assign(age_low=np.nan, age_high=np.nan)
    plain = table[["age", "age_pred"]]
    assert conformal(exact[:1000], exact[1000:]) == conformal(plain[:1000], plain[1000:])
    assert conformal(exact[:1000], table[1000:], levels=[0.9]).levels["0.9"].coverage.value < 0.01


def test_a_level_needs_as_many_images_as_its_rank():
    assert [min_calibration_size(level) for level in LEVELS] == [1, 4, 9, 19]
    for level in (1e-12, *LEVELS, 0.37, 0.995):
        for n in range(1, 250):
            assert (n >= min_calibration_size(level)) == (np.ceil((n + 1) * level - 1e-9) <= n)
    table = honest(9).drop(columns="age_std")
    found = conformal(table, table, levels=[0.9]).levels["0.9"]
    assert found.radius == (table.age_pred - table.age).abs().max()
    assert conformal(table[:8], table, levels=[0.9]).levels == {}


def test_coverage_of_one_has_an_exact_interval():
    age = np.arange(50.0)
    table = pd.DataFrame({"age": age, "age_pred": age + 0.01, "age_std": np.full(50, 5.0)})
    coverage = uncertainty(table, resamples=100).levels["0.5"].coverage
    assert coverage.value == coverage.ci_high == 1
    assert coverage.ci_low == pytest.approx(0.025 ** (1 / 50))
