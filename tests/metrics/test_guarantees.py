"""How far off estimates are, by what was estimated."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agebench.errors import UserError
from agebench.metrics.guarantees import CalibrationError, conformal_interval, error_by_estimated_age, gate_error_rates


def made(n: int, people: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    age = rng.integers(0, 70, n).astype(float)
    table = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "age_pred": age + rng.normal(3, 4, n)})
    return table.assign(subject=(np.arange(n) % people).astype(str)) if people else table


def test_figures_are_those_of_the_faces_with_this_estimate() -> None:
    table = made(3000)
    found = error_by_estimated_age({"a": table}, resamples=200)["a"]
    shown = table["age_pred"].round()
    part = table[(shown >= 25) & (shown < 35)]
    error = (part["age_pred"] - part["age"]).abs()
    assert found["25-34"].n == len(part)
    assert found["25-34"].mae.value == pytest.approx(error.mean())
    assert found["25-34"].p95_ae.value == pytest.approx(error.quantile(0.95), rel=0.02)
    assert (error <= found["25-34"].p95_ae.value).mean() == pytest.approx(0.95, abs=1 / len(part))
    assert sum(band.n for band in found.values()) == len(table)


def test_intervals_hold_the_figure_and_are_wider_by_person() -> None:
    table = made(3000)
    whole = error_by_estimated_age({"a": table}, resamples=300)["a"]["25-34"]
    # The same errors of twenty people: each is off in his own way.
    table["subject"] = pd.qcut(table["age_pred"] - table["age"], 20).cat.codes.astype(str)
    people = error_by_estimated_age({"a": table}, resamples=300)["a"]["25-34"]
    for figure in ("mae", "p95_ae"):
        assert getattr(whole, figure).ci_low <= getattr(whole, figure).value <= getattr(whole, figure).ci_high
        assert getattr(people, figure).ci_low <= getattr(people, figure).value
    assert people.mae.ci_high >= people.mae.value
    assert people.p95_ae.ci_high is None  # twenty people do not bound what 95 % of errors are below
    assert people.mae.ci_high - people.mae.ci_low > 2 * (whole.mae.ci_high - whole.mae.ci_low)


def test_the_error_of_a_band_counts_its_own_people() -> None:
    """Of 100 samples of two people, 87 at least hold their MAE: the ends of their own values hold it in half."""
    held = 0
    for repeat in range(100):
        rng = np.random.default_rng(repeat)
        subject = np.concatenate([np.repeat([0, 1], 20), np.arange(2, 60)])
        shown = np.where(subject < 2, 10.0, 40.0)
        error = 8 + rng.normal(0, 2, 60)[subject] + rng.normal(0, 1, len(subject))
        table = pd.DataFrame({"age": shown + error, "age_pred": shown, "subject": subject.astype(str)})
        mae = error_by_estimated_age({"a": table}, resamples=200)["a"]["0-12"].mae
        held += mae.ci_low <= 8 <= mae.ci_high
    assert held >= 87


@pytest.mark.parametrize(("n", "is_bounded"), [(40, False), (60, False), (100, True)])
def test_few_images_do_not_bound_large_errors(n: int, is_bounded: bool) -> None:
    """The largest of fewer than 73 errors lies below the 95th percentile in more than 2.5 % of samples."""
    table = made(n).assign(age_pred=30.0, age=30 + np.random.default_rng(0).normal(0, 5, n))
    p95 = error_by_estimated_age({"a": table}, resamples=300)["a"]["25-34"].p95_ae
    assert p95.ci_low <= p95.value
    assert (p95.ci_high is not None) == is_bounded


def test_the_estimates_of_one_person_have_no_interval() -> None:
    table = made(60, people=60)
    alone = table.assign(age_pred=10.0, subject="one")
    band = error_by_estimated_age({"a": pd.concat([table.assign(age_pred=40.0), alone])}, resamples=100)["a"]["0-12"]
    assert band.n == 60
    assert (band.mae.ci_low, band.mae.ci_high, band.p95_ae.ci_low, band.p95_ae.ci_high) == (None,) * 4


def test_few_faces_and_none() -> None:
    assert error_by_estimated_age({"a": made(0)}) == {}
    (band,) = error_by_estimated_age({"a": made(1)})["a"].values()
    assert band.n == 1
    assert band.mae.ci_low is None


def test_few_validation_images_promise_little() -> None:
    assert conformal_interval(made(9), {"a": made(30)}, 0.9).n == 9
    with pytest.raises(CalibrationError, match=r"cannot be guaranteed from 8 validation images; it needs 9 or more"):
        conformal_interval(made(8), {"a": made(30)}, 0.9)


def test_few_people_promise_little_however_many_images_they_have() -> None:
    assert conformal_interval(made(90), {}, 0.9).people is None
    promise = conformal_interval(made(90, people=9), {"a": made(30)}, 0.9)
    assert (promise.n, promise.people) == (90, 9)
    with pytest.raises(CalibrationError, match=r"from 80 validation images of 8 people; it needs 9 or more people"):
        conformal_interval(made(80, people=8), {"a": made(30)}, 0.9)


@pytest.mark.parametrize(("people", "images", "level"), [(2, 10, 0.5), (5, 10, 0.8), (12, 12, 0.9)])
def test_the_promise_holds_for_new_people(people: int, images: int, level: float) -> None:
    rng = np.random.default_rng(1)

    def drawn(people: int, images: int) -> pd.DataFrame:
        own = rng.normal(0, 5, people).repeat(images)
        error = own + rng.normal(0, 1, people * images)
        return pd.DataFrame({"age": 30.0, "age_pred": 30 + error, "subject": np.arange(people).repeat(images)})

    held = []
    for _ in range(100):
        radius = conformal_interval(drawn(people, images), {}, level).radius
        new = drawn(400, 1)
        held.append((new["age_pred"].sub(30).abs() <= radius).mean())
    assert np.mean(held) >= level - 0.01


@given(st.lists(st.integers(0, 20), min_size=9, max_size=60), st.sampled_from([0.5, 0.8, 0.9]))
def test_people_of_one_image_are_the_plain_quantile(errors: list[int], level: float) -> None:
    table = pd.DataFrame({"age": 30.0, "age_pred": 30.0 + np.array(errors)})
    people = table.assign(subject=np.arange(len(table)).astype(str))
    plain = float(np.sort(errors)[int(np.ceil((len(errors) + 1) * level - 1e-9)) - 1])
    assert conformal_interval(people, {}, level).radius == conformal_interval(table, {}, level).radius == plain
    again = pd.concat([people] * 3)  # everybody three times alike: as many people as before
    assert conformal_interval(again, {}, level).radius == plain


@pytest.mark.parametrize("challenge", [float("nan"), float("inf"), 17.9])
def test_a_challenge_age_is_an_age_above_the_threshold(challenge: float) -> None:
    with pytest.raises(UserError, match="--challenge"):
        gate_error_rates({"a": made(50)}, 18, challenge)
