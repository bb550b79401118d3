import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from agebench.errors import UserError
from agebench.evaluation.uncertainty import LEVELS, categorical, conformal, gaussian, smallest_n, uncertainty


def honest(n: int = 3000, seed: int = 0) -> pd.DataFrame:
    """Predictions that know their own spread."""
    rng = np.random.default_rng(seed)
    age, std = rng.uniform(5, 80, n), rng.uniform(1, 8, n)
    return pd.DataFrame(
        {"sample_id": np.arange(n).astype(str), "age": age, "age_pred": rng.normal(age, std), "age_std": std}
    )


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0.5, 20))
def test_gaussian_scores_are_the_textbooks(age, mean, std):
    found = gaussian(np.array([age]), np.array([mean]), np.array([std]))
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
    ours, theirs = categorical(age, probs, first_age=-60), gaussian(age, mean, std)
    assert ours.crps.mean() == pytest.approx(theirs.crps.mean(), rel=0.02)
    assert ours.nll.mean() == pytest.approx(theirs.nll.mean(), rel=0.02)
    assert ours.pit == pytest.approx(theirs.pit, abs=0.03)
    assert ours.widths == pytest.approx(theirs.widths, abs=0.5)


def test_certainty_is_scored_as_such():
    probs = np.zeros((2, 101))
    probs[:, 30] = 1
    found = categorical(np.array([30.0, 40.0]), probs)
    assert found.nll[0] == 0
    assert found.nll[1] > 10
    assert found.crps == pytest.approx([0, 10])


def test_an_honest_model_covers_what_it_promises():
    found = uncertainty(honest(), resamples=200)
    for level, of in found["levels"].items():
        assert of["coverage"]["low"] <= float(level) <= of["coverage"]["high"]
    assert found["reliability"]["observed"] == pytest.approx(found["reliability"]["nominal"], abs=0.03)
    area = found["rejection"]
    assert area["area_best"] < area["area"]["low"] < area["area"]["high"] < area["area_random"]
    assert area["mae"][-1] == pytest.approx(area["area_random"])


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
    with pytest.raises(UserError, match=r"--first-age .perhaps 16"):
        uncertainty(table)
    assert uncertainty(table, first_age=16, resamples=0)["source"] == "p"


def test_conformal_intervals_cover_new_images_of_the_same_kind():
    covered = []
    for seed in range(60):
        table = honest(600, seed)
        covered.append(conformal(table[:300], table[300:], levels=[0.9])["levels"]["0.9"]["coverage"]["value"])
    assert 0.895 <= np.mean(covered) <= 0.91


def test_conformal_coverage_stands_by_group_and_few_images_promise_little():
    table = honest(400).assign(gender=["a", "b"] * 200)
    found = conformal(table[:12], table[12:], groups=["gender"])
    assert set(found["levels"]) == {"0.5", "0.8", "0.9"}
    assert {row["n"] for row in found["levels"]["0.9"]["groups"]["gender"].values()} == {194}


def test_a_level_needs_as_many_images_as_its_rank():
    assert [smallest_n(level) for level in LEVELS] == [1, 4, 9, 19]
    for level in (1e-12, *LEVELS, 0.37, 0.995):
        for n in range(1, 250):
            assert (n >= smallest_n(level)) == (np.ceil((n + 1) * level - 1e-9) <= n)
    table = honest(9).drop(columns="age_std")
    found = conformal(table, table, levels=[0.9])["levels"]["0.9"]
    assert found["radius"] == (table.age_pred - table.age).abs().max()
    assert conformal(table[:8], table, levels=[0.9])["levels"] == {}


def test_coverage_of_one_has_an_exact_interval():
    age = np.arange(50.0)
    table = pd.DataFrame({"age": age, "age_pred": age + 0.01, "age_std": np.full(50, 5.0)})
    coverage = uncertainty(table, resamples=100)["levels"]["0.5"]["coverage"]
    assert coverage["value"] == coverage["high"] == 1
    assert coverage["low"] == pytest.approx(0.025 ** (1 / 50))
