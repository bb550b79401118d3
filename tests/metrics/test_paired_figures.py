"""Paired differences of systems: figures, failures to process, margins."""

import numpy as np
import pandas as pd
import pytest

from agebench.errors import UserError
from agebench.metrics.age_gates import Gate, age_gates
from agebench.metrics.paired_figures import FigureKind, FigureOptions, compare_figures, parse_margins

GATE = Gate(18, 20.0)


def tables(n: int = 600, *, bias: float = 0.0, spread: float = 4.0, seed: int = 0, people: int = 0):
    """Labels, and the predictions of two systems whose errors share the image's (and the person's) part."""
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, people, n) if people else np.arange(n)
    age = rng.integers(10, 40, n).astype(float)
    shared = rng.normal(0, 2, people or n)[subject] + rng.normal(0, 2, n)
    labels = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "subject": subject.astype(str)})
    labels["gender"] = np.where(rng.random(n) < 0.5, "f", "m")
    a = labels.assign(age_pred=age + shared + rng.normal(0, spread / 2, n))
    b = labels.assign(age_pred=age + shared + rng.normal(0, spread / 2, n) + bias)
    return labels, a, b


def compare(a, b, unanswered=None, **options):
    options = {"gates": (GATE,), "groups": ("gender",), "resamples": 200} | options
    return compare_figures({"a": [a], "b": [b]}, unanswered or {}, FigureOptions(**options))


def test_values_and_differences_are_those_of_each_system():
    _, a, b = tables()
    result = compare(a, b)
    gates = [age_gates(table, legal_ages=[18], challenges=[20])["18"].challenge["20"] for table in (a, b)]
    for name, table, gate in zip("ab", (a, b), gates, strict=True):
        values = result.systems[name]
        assert values["mae"].value == pytest.approx((table.age_pred - table.age).abs().mean())
        assert values["fpr(18@20)"].value == pytest.approx(gate.fpr.value)
        assert values["fnr(18@20)"].ci_high == pytest.approx(gate.fnr.ci_high)
    for key, difference in result.differences[0].items():
        expected = result.systems["a"][key].value - result.systems["b"][key].value
        assert difference.difference.value == pytest.approx(expected, abs=1e-9)


def test_the_gap_is_that_of_the_single_evaluation():
    from agebench.metrics.evaluate import evaluate

    _, a, b = tables()
    gap = evaluate(a, groups=["gender"], resamples=0).gaps["gender"]
    assert compare(a, b).systems["a"]["gap(gender)"].value == pytest.approx(gap.age_standardized.difference.value)


def test_an_unanswered_image_counts_against_its_system():
    labels, a, b = tables()
    lost = (labels.age >= 18) & (np.arange(len(labels)) % 10 == 0)
    result = compare(a, b[~lost].reset_index(drop=True), {"b": labels[lost]})
    assert result.unanswered == {"a": 0, "b": int(lost.sum())}
    assert (result.n, result.n_common) == (len(labels), int((~lost).sum()))
    values = result.systems["b"]
    adults = labels.age >= 18
    refused = ((b.age_pred < 20) | lost) & adults
    assert values["fnr(18@20)"].value == pytest.approx(refused.sum() / adults.sum())
    assert values["failure"].value == pytest.approx(lost.mean())
    assert values["cs5"].value == pytest.approx((((b.age_pred - b.age).abs() <= 5) & ~lost).mean())
    assert result.systems["a"]["mae"].value == pytest.approx((a.age_pred - a.age).abs()[~lost].mean())
    assert result.differences[0]["failure"].shown


def test_the_order_of_rows_and_files_does_not_matter():
    _, a, b = tables()
    assert compare(a, b) == compare(a.sample(frac=1, random_state=1), b.sample(frac=1, random_state=2))


def test_equal_systems_are_equivalent_and_differ_in_nothing():
    _, a, _ = tables()
    margins = {FigureKind.MAE: 0.1, FigureKind.FPR: 0.05}
    differences = compare(a, a, margins=margins).differences[0]
    assert not any(difference.shown for difference in differences.values())
    assert differences["mae"].margin.equivalent
    fpr = differences["fpr(18@20)"]
    assert fpr.margin.equivalent
    assert fpr.difference.ci_low < 0 < fpr.difference.ci_high


def test_a_system_far_worse_is_inferior_and_the_other_is_not():
    _, a, b = tables(bias=3.0)
    differences = compare(a, b, margins={FigureKind.MAE: 0.2, FigureKind.FPR: 0.02, FigureKind.BIAS: 1.0}).differences[
        0
    ]
    for key in ("mae", "fpr(18@20)"):
        assert differences[key].shown
        margin = differences[key].margin
        assert (margin.a_not_inferior, margin.b_not_inferior, margin.equivalent) == (True, False, False)
    assert differences["bias"].margin.a_not_inferior is None


def test_seeds_that_differ_widen_the_interval():
    _, a, b = tables()
    far = [a.assign(age_pred=a.age_pred + shift) for shift in (-3.0, 0.0, 3.0)]
    options = FigureOptions(groups=("gender",), resamples=200)
    several = compare_figures({"a": far, "b": [b]}, {}, options).differences[0]["bias"].difference
    single = compare_figures({"a": [a], "b": [b]}, {}, options).differences[0]["bias"].difference
    assert several.value == pytest.approx(single.value)
    assert several.ci_high - several.ci_low > 5 * (single.ci_high - single.ci_low)


def test_without_resamples_there_are_values_and_no_verdicts():
    _, a, b = tables(bias=3.0)
    difference = compare(a, b, resamples=0, margins={FigureKind.MAE: 0.2}).differences[0]["mae"]
    assert difference.difference.value < 0
    assert (difference.difference.ci_low, difference.p, difference.margin, difference.shown) == (
        None,
        None,
        None,
        False,
    )


@pytest.mark.parametrize("people", [0, 80])
def test_equivalence_at_the_margin_is_claimed_in_at_most_one_of_twenty(people):
    """The true difference in FPR is at the margin; the size of each one-sided test is 5 % (two standard errors: 3 points)."""
    shift = 1.2
    truth = compare(*tables(200_000, bias=shift, seed=99)[1:], resamples=0, groups=()).differences[0]
    margins = {
        FigureKind.MAE: abs(truth["mae"].difference.value),
        FigureKind.FPR: abs(truth["fpr(18@20)"].difference.value),
    }
    claimed = np.zeros(2)
    for seed in range(100):
        _, a, b = tables(400, bias=shift, seed=seed, people=people)
        differences = compare(a, b, resamples=200, groups=(), seed=seed, margins=margins).differences[0]
        claimed += [differences[key].margin.equivalent for key in ("mae", "fpr(18@20)")]
    assert (claimed <= 5 + 2 * 2.2).all(), claimed


@pytest.mark.parametrize("text", ["mae", "mae=", "mae=x", "speed=1", "mae=0", "fpr=-0.1", "mae=inf"])
def test_a_margin_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="--margin"):
        parse_margins([text])


def test_one_person_alone_has_values_and_no_interval():
    _, a, b = tables()
    one_person = [table.assign(subject="same") for table in (a, b)]
    difference = compare(*one_person, margins={FigureKind.MAE: 0.2}).differences[0]["mae"]
    assert difference.difference.value is not None
    assert (difference.difference.ci_low, difference.margin, difference.shown) == (None, None, False)


def test_a_rate_of_zero_over_two_seeds_has_an_interval():
    labels, a, b = tables()
    nobody = [table.assign(age_pred=np.where(table.age < 18, 5.0, table.age_pred)) for table in (a, b)]
    found = compare_figures({"two": nobody, "one": [a]}, {}, FigureOptions(gates=(GATE,), resamples=200))
    fpr = found.systems["two"]["fpr(18@20)"]
    minors = int((labels.age < 18).sum())
    assert (fpr.value, fpr.ci_low) == (0, 0)
    assert fpr.ci_high == pytest.approx(1 - 0.025 ** (1 / minors))


def test_the_spread_of_trainings_is_in_the_rate_of_several_seeds():
    _, a, _ = tables()
    far = [a.assign(age_pred=a.age_pred + shift) for shift in (-3.0, 0.0, 3.0)]
    near = [a.assign(age_pred=a.age_pred + shift) for shift in (-0.01, 0.0, 0.01)]
    widths = []
    for seeds in (near, far):
        found = compare_figures({"seeds": seeds, "one": [a]}, {}, FigureOptions(gates=(GATE,), resamples=200))
        fnr = found.systems["seeds"]["fnr(18@20)"]
        widths.append(fnr.ci_high - fnr.ci_low)
    assert widths[1] > 2 * widths[0]


def test_a_range_of_ages_counts_at_a_gate_only_on_one_side_of_it():
    _, a, b = tables()
    straddling = np.arange(len(a)) % 3 == 0
    limits = {"age_low": np.where(straddling, 10.0, a.age), "age_high": np.where(straddling, 39.0, a.age)}
    whole = compare(a[~straddling].reset_index(drop=True), b[~straddling].reset_index(drop=True)).systems
    ranged = compare(a.assign(**limits), b.assign(**limits)).systems
    for key in ("fpr(18@20)", "fnr(18@20)", "fpr(18@20, age 17)"):
        assert ranged["a"][key].value == pytest.approx(whole["a"][key].value)
