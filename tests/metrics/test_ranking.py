"""Rankings from images: error rates on equal systems, ranks, seeds, and parts that differ by seed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from agebench.metrics.ranking import Layout, SystemErrors, rank, resample_maes
from agebench.metrics.seed_variance import moderate, seed_variances

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "statistics"))
from ranking import DESIGNS, Design, equal, family_wise, ranking, simulate, unequal

sys.path.pop(0)


def systems_of(errors: np.ndarray, training: str | None = None) -> list[SystemErrors]:
    images = np.arange(errors.shape[1])
    return [SystemErrors(str(row), training, (0,), (images,), (of,)) for row, of in enumerate(errors)]


@pytest.mark.parametrize(
    "design",
    [
        Design("images", images=300, seeds=1),
        Design("people", images=400, people=82, seeds=1),
        Design("unequal seeds", images=300, spread=unequal(0.1, 1.0), common=0.3),
        Design("two training sets", images=300, spread=equal(0.03), common=0.3, other_spread=1.0),
    ],
    ids=lambda design: design.name,
)
def test_equal_systems_are_rarely_shown_to_differ(design: Design) -> None:
    """At most 5 %, of 60 simulated test sets: with a true rate of 5 % more than 7 come in 1 of 100 cases."""
    assert family_wise(design, 14, 60, 300) <= 7 / 60


def test_systems_of_unsteady_trainings_leave_the_others_their_intervals() -> None:
    """Seven systems whose seeds hardly differ are compared about as exactly beside seven whose seeds differ by years."""
    steady = Design("", images=400, spread=equal(0.03), common=0.3)
    both = Design("", images=400, spread=equal(0.03), common=0.3, other_spread=1.0)
    alone, beside = (ranking(*simulate(design, 14, np.random.default_rng(8)), 500, 0) for design in (steady, both))
    narrow = beside.pair_halves[::2, ::2][np.triu_indices(7, 1)]
    wide = beside.pair_halves[1::2, 1::2][np.triu_indices(7, 1)]
    assert np.median(narrow) < 1.5 * np.median(alone.pair_halves[np.triu_indices(14, 1)])
    assert np.median(narrow) * 10 < np.median(wide) < 10
    assert beside.critical < 1.1 * alone.critical


@pytest.mark.parametrize("people", [10, 400])
def test_two_systems_have_the_interval_of_a_paired_t_test(people: int) -> None:
    """With ten people Student's distribution makes it 15 % wider than the normal one would."""
    from scipy import stats

    rng = np.random.default_rng(0)
    errors = rng.gamma(2, 2, people) + rng.normal(0, 1, (2, people))
    found = rank(Layout.of(systems_of(errors)), resample_maes(systems_of(errors), np.arange(people), resamples=4000))
    low, high = stats.ttest_rel(*errors).confidence_interval()
    assert found.differences[0, 1] == pytest.approx((low + high) / 2)
    assert found.pair_halves[0, 1] == pytest.approx((high - low) / 2, rel=0.06)
    assert found.critical == pytest.approx(1.96, rel=0.06)


def test_rank_intervals_count_who_is_shown_to_be_better() -> None:
    rng = np.random.default_rng(1)
    means = np.array([3.0, 3.0, 5.0, 8.0])
    errors = means[:, None] + rng.normal(0, 1, (4, 500))
    found = rank(Layout.of(systems_of(errors)), resample_maes(systems_of(errors), np.arange(500)))
    assert list(zip(found.rank_low, found.rank_high, strict=True)) == [(1, 2), (1, 2), (3, 3), (4, 4)]
    assert found.pairs_shown == 5


def test_an_image_in_two_seeds_parts_is_one_image() -> None:
    """Two seeds on the same images have no less uncertain a MAE than one; on other images they have."""
    rng = np.random.default_rng(2)
    errors = rng.gamma(2, 2, 1000)

    def spread(parts: tuple[np.ndarray, ...]) -> float:
        seeds = tuple(range(len(parts)))
        system = SystemErrors("a", None, seeds, parts, tuple(errors[part] for part in parts))
        replicates = resample_maes([system], np.arange(1000))
        return float(np.std(replicates.deviations.mean(axis=0)))

    half, other = np.arange(500), np.arange(500, 1000)
    assert spread((half, half)) == pytest.approx(spread((half,)), rel=1e-6)
    assert spread((half, other)) == pytest.approx(spread((half,)) / 2**0.5, rel=0.1)


def test_people_are_resampled_and_not_their_images() -> None:
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(50), 20)
    errors = rng.gamma(2, 2, (1, 50))[:, clusters]
    replicates = resample_maes(systems_of(errors), clusters)
    assert replicates.clusters == 50
    expected = errors.reshape(50, 20).mean(axis=1).std(ddof=1) / 50**0.5
    assert replicates.deviations.std() == pytest.approx(expected, rel=0.06)


def test_effects_that_seeds_have_on_all_systems_cancel() -> None:
    rng = np.random.default_rng(4)
    quiet, clusters = simulate(Design("", images=400), 4, rng)
    shifted = [
        SystemErrors(of.name, of.training, of.seeds, of.images, tuple(e + 5 * k for k, e in enumerate(of.errors)))
        for of in quiet
    ]
    same, other = (rank(Layout.of(of), resample_maes(of, clusters, resamples=500)) for of in (quiet, shifted))
    np.testing.assert_allclose(same.pair_halves, other.pair_halves, rtol=0.05)
    assert (other.halves > 3 * same.halves).all()


def test_identical_systems_share_all_ranks() -> None:
    errors = np.tile(np.random.default_rng(5).gamma(2, 2, 200), (3, 1))
    found = rank(Layout.of(systems_of(errors)), resample_maes(systems_of(errors), np.arange(200), resamples=200))
    assert found.pairs_shown == 0
    assert set(found.rank_low) == {1}
    assert set(found.rank_high) == {3}


def test_systems_that_differ_by_rounding_share_all_ranks() -> None:
    errors = np.tile(np.random.default_rng(5).gamma(2, 2, 200), (2, 1)) + np.array([[0.0], [1e-9]])
    found = rank(Layout.of(systems_of(errors)), resample_maes(systems_of(errors), np.arange(200), resamples=200))
    assert found.pairs_shown == 0


def test_alike_variances_are_pooled_and_an_unusual_one_is_not() -> None:
    alike = np.array([0.9, 1.1, 1.0, 0.95, 1.05, 1.0, 0.9, 1.1])
    freedom = np.full(8, 4.0)
    moderated, after = moderate(alike, freedom)
    assert np.ptp(moderated) < np.ptp(alike) / 2
    assert (after > 2 * freedom).all()
    odd, after_odd = moderate(np.append(alike[:-1], 40.0), freedom)
    assert odd[-1] > 10
    assert odd[0] < 2
    assert after_odd[-1] < after[0]


def test_one_seed_takes_the_variance_of_the_other_systems() -> None:
    rng = np.random.default_rng(6)
    values = 5 + 0.3 * rng.standard_normal((8, 3))
    values[-1, 1:] = np.nan
    found = seed_variances(values)
    assert found.own[-1] == pytest.approx(np.median(found.own), rel=0.5)
    assert found.own_freedom[-1] > 0


def test_unequal_designs_are_among_the_benchmarks() -> None:
    assert sum("spread 0.1 to 1" in design.name for design in DESIGNS) == 2
