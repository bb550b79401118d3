"""Planning: sizes reach their power, shrinkage helps, label errors are taken off."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from agebench.errors import UserError
from agebench.metrics.confidence_intervals import clopper_pearson
from agebench.metrics.planning import (
    PlanOptions,
    label_noise_sensitivity,
    make_plan,
    rate_size,
    shared_variance,
    shrink,
)


def pilot(n: int = 2000, people: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, people, n)
    age = rng.integers(10, 60, n).astype(float)
    error = rng.normal(0, 2, people)[subject] + rng.normal(0, 3, n)
    table = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "age_pred": age + error})
    return table.assign(subject=subject.astype(str), gender=np.where(subject % 3 > 0, "f", "m"))


def test_the_interval_has_the_planned_width():
    plan = make_plan(None, PlanOptions(half_widths=(0.5,)))
    errors = np.random.default_rng(0).gamma(1, plan.pilot.spread, plan.intervals[0].images)
    half_width = 1.96 * errors.std(ddof=1) / len(errors) ** 0.5
    assert half_width == pytest.approx(0.5, rel=0.2)


def test_a_gap_is_shown_with_the_planned_power():
    plan = make_plan(None, PlanOptions(gaps=(1.0,), power=0.8))
    n, rng = plan.gaps[0].images_per_group, np.random.default_rng(1)
    errors = [rng.normal(5 + shift, plan.pilot.spread, (1000, n)) for shift in (0, 1.0)]
    shown = stats.ttest_ind(*errors, axis=1).pvalue < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=0.04)


def test_more_images_of_a_person_need_fewer_people_and_more_images():
    single = make_plan(pilot(), PlanOptions()).gaps[0]
    several = make_plan(pilot(), PlanOptions(images_per_person=5)).gaps[0]
    assert several.people_per_group < single.people_per_group
    assert several.images_per_group > single.images_per_group


def test_several_pairs_need_more():
    single, ten = (make_plan(None, PlanOptions(pairs=pairs)).gaps[0].people_per_group for pairs in (1, 10))
    assert ten > 1.3 * single


@pytest.mark.parametrize(("limit", "rate"), [(0.05, 0.02), (0.01, 0.004), (0.2, 0.1)])
def test_a_rate_is_shown_with_the_planned_power_and_hardly_fewer_minors(limit, rate):
    size = rate_size(limit, rate, 0.8)
    allowed, minors = np.array([size.allowed, size.allowed + 1]), np.array([size.minors] * 2)
    upper = clopper_pearson(allowed, minors)[1]
    assert upper[0] <= limit < upper[1]
    assert stats.binom.cdf(size.allowed, size.minors, rate) >= 0.8
    one_less = clopper_pearson(np.array([size.allowed]), np.array([size.minors - 1]))[1]
    assert one_less[0] > limit
    none = clopper_pearson(np.zeros(2), np.array([size.minors_without_any, size.minors_without_any - 1]))[1]
    assert none[0] <= limit < none[1]


def test_the_shared_part_of_the_variance_is_that_of_the_people():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(2000), 4)
    values = rng.normal(0, 1, 2000)[clusters] + rng.normal(0, 2, len(clusters))
    assert shared_variance(values, clusters) == pytest.approx(1 / 5, abs=0.03)
    assert shared_variance(rng.normal(0, 1, len(clusters)), clusters) < 0.03


def test_shrunk_means_are_nearer_to_the_truth_than_raw_ones():
    raw_error = shrunk_error = 0.0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        errors = rng.uniform(0.2, 1.5, 8)
        truth = rng.normal(5, 0.4, 8)
        means = rng.normal(truth, errors)
        raw_error += ((means - truth) ** 2).sum()
        shrunk_error += ((shrink(means, errors) - truth) ** 2).sum()
    assert shrunk_error < 0.4 * raw_error


def test_a_group_of_one_person_takes_the_common_mean():
    shrunk = shrink(np.array([4.0, 6.0, 30.0]), np.array([0.1, 0.1, np.inf]))
    assert shrunk[2] == pytest.approx(5.0, abs=0.01)
    assert np.abs(shrunk[:2] - [4, 6]).max() < 0.05


@pytest.mark.parametrize("bias", [0.0, 2.0])
def test_label_errors_are_taken_off_the_mae(bias):
    rng = np.random.default_rng(0)
    error = rng.normal(bias, 4, 100_000)
    noisy = error - rng.normal(0, 2, len(error))
    found = {noise.label_sd: noise.mae for noise in label_noise_sensitivity(noisy)}
    assert found[2.0] == pytest.approx(np.abs(error).mean(), rel=0.01)
    assert found[3.0] < found[2.0] < found[1.0] < np.abs(noisy).mean()
    assert label_noise_sensitivity(noisy / 10)[0].mae is None


def test_a_group_of_two_people_has_students_quantiles():
    rng = np.random.default_rng(0)
    subject = np.concatenate([np.repeat([0, 1], 20), np.arange(2, 500), [500] * 20])
    group = np.repeat(["few", "many", "one"], [40, 498, 20])
    error = np.where(subject < 2, 2 + 8 * subject, rng.normal(0, 2, len(subject)))
    table = pd.DataFrame({"age": 30.0, "age_pred": 30 + error, "subject": subject.astype(str), "group": group})
    few, many, one = make_plan(table, PlanOptions(power=0.8), ["group"]).groups
    # Their MAEs are 2 and 10 years: the standard error of the mean is 4.
    assert few.half_width == pytest.approx(stats.t.ppf(0.975, 1) * 4)
    assert few.smallest_gap == pytest.approx((stats.t.ppf(0.975, 1) + stats.t.ppf(0.8, 1)) * 4, rel=0.01)
    assert many.half_width == pytest.approx(1.965 * np.abs(error[40:538]).std(ddof=1) / 498**0.5, rel=1e-3)
    assert (one.half_width, one.smallest_gap) == (None, None)


def test_a_range_of_ages_is_a_minors_only_as_a_whole():
    table = pilot()
    young = table["age"] < 18
    wide = table.assign(age_low=table["age"] - 5, age_high=table["age"] + 10)
    narrow = table.assign(age_low=np.where(young, 10.0, np.nan), age_high=np.where(young, 17.9, np.nan))
    plain, of_wide, of_narrow = (make_plan(labels, PlanOptions()).groups for labels in (table, wide, narrow))
    assert [group.minors for group in of_wide] == [0, 0]
    assert [group.smallest_fpr for group in of_wide] == [None, None]
    assert of_narrow == plain


def test_a_pilot_shows_what_its_groups_could_have_shown():
    plan = make_plan(pilot(), PlanOptions())
    rows = {row.group: row for row in plan.groups}
    assert set(rows) == {"f", "m"}
    assert rows["m"].half_width > rows["f"].half_width
    assert rows["f"].people == pilot().query("gender == 'f'").subject.nunique()
    assert 0 < rows["f"].smallest_fpr < 0.1
    raw, shrunk = (abs(getattr(rows["f"], key) - getattr(rows["m"], key)) for key in ("mae", "mae_shrunk"))
    assert shrunk <= raw


@pytest.mark.parametrize(
    "options", [{"power": 1.0}, {"gaps": (0.0,)}, {"fpr_limits": (1.0,)}, {"images_per_person": 0.5}, {"pairs": 0}]
)
def test_impossible_plans_are_refused(options):
    with pytest.raises(UserError, match="must"):
        make_plan(None, PlanOptions(**options))
