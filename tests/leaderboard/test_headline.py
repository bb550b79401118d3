"""The table that the leaderboard begins with, its verdict, and the rates of age gates behind it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from agebench.leaderboard.gate_figure import gate_figure
from agebench.leaderboard.gate_rates import GateRatesByAge, gate_rate, gate_rates_by_age
from agebench.leaderboard.headline import Headline, Kind, headline_table, short_rows, short_table
from agebench.leaderboard.headline_systems import MOST_ROWS, headline_systems
from agebench.leaderboard.image_ranking import ImageRankings
from agebench.leaderboard.markdown import leaderboard
from agebench.leaderboard.schema import Record, RecordExcluded, RecordSamples
from agebench.leaderboard.site import page
from agebench.leaderboard.systems import System, group_into_systems
from agebench.metrics.age_gates import Gate, age_gates
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.schema import AgeStandardizedGap, Gap, MetricValue, RankedSystem, SystemRanking

Gates = dict[tuple[str, str], GateRatesByAge]


def predictions(n: int = 600, spread: float = 5.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(3, 70, n).astype(float)
    return pd.DataFrame(
        {
            "sample_id": [f"image-{row}" for row in range(n)],
            "age": age,
            "age_pred": age + rng.normal(0, spread, n),
            "gender": rng.choice(["female", "male"], n),
            "subject": rng.integers(0, n // 3, n).astype(str),
        }
    )


def test_gate_rates_are_those_of_the_metrics() -> None:
    table = predictions()
    rates = gate_rates_by_age(table, ["gender"])
    expected = age_gates(table, gates=[Gate(18, 25)], groups=["gender"], minor_ages=(13, 17))["18"]
    rate, n = gate_rate(rates, 18, 25)
    assert n == expected.n_under
    for end in ("value", "ci_low", "ci_high"):
        assert getattr(rate, end) == pytest.approx(getattr(expected.challenge["25"].fpr, end), abs=1e-4)
    (female,) = (group for group in rates.gates[2].groups if group.group == "female")
    assert female.passing[25 - 18][0] == pytest.approx(expected.by_group["25"]["gender"]["female"].fpr.value, abs=1e-4)
    assert [gates.legal for gates in rates.gates] == [13, 16, 18, 21]
    assert [gates.minors for gates in rates.gates] == [[8, 12], [11, 15], [13, 17], [16, 20]]


def test_stage_errors_are_those_of_children_and_adults() -> None:
    table = predictions()
    errors = {error.stage: error for error in gate_rates_by_age(table).stages}
    children = table[table["age"] < 13]
    assert errors["0-12"].n == len(children)
    assert errors["0-12"].mae.value == pytest.approx((children["age_pred"] - children["age"]).abs().mean(), abs=1e-4)
    assert sum(error.n for error in errors.values()) == len(table)


@pytest.mark.parametrize("rows", [slice(None), slice(0, 500)])
def test_folds_that_share_images_are_no_further_images(rows: slice) -> None:
    table = predictions().drop(columns="subject")
    single = gate_rates_by_age(table, ["gender"])
    folds = [table.assign(**{FOLD: "a"}), table[rows].assign(**{FOLD: "b"}), table.assign(**{FOLD: "c"})]
    several = gate_rates_by_age(pd.concat(folds, ignore_index=True), ["gender"])
    assert [error.n for error in several.stages] == [error.n for error in single.stages]
    for ours, theirs in zip(several.gates[2].groups, single.gates[2].groups, strict=True):
        assert (ours.n_minors, ours.n_adults) == (theirs.n_minors, theirs.n_adults)
    for rates in (single, several):
        value, low, high = rates.gates[2].groups[0].passing[25 - 18]
        assert value is not None
        assert low is not None
        assert high is not None
        assert 0.1 < high - low < 0.4  # of 40 minors, not of 120
    ours, theirs = (rates.stages[0].mae for rates in (several, single))
    assert ours.value == pytest.approx(theirs.value, rel=0.03)
    assert ours.ci_high - ours.ci_low > 0.9 * (theirs.ci_high - theirs.ci_low)


def test_ranges_of_ages_give_no_gate_rates() -> None:
    table = predictions().assign(age_low=10.0, age_high=19.0)
    assert gate_rates_by_age(table) == GateRatesByAge()


def test_gate_rates_survive_json() -> None:
    rates = gate_rates_by_age(predictions(200))
    assert GateRatesByAge.model_validate(rates.to_json()) == rates


def _record(
    name: str,
    mae: float,
    *,
    train: str | None = None,
    overlap: str = "none stated",
    unanswered: int = 0,
    **tests: float,
) -> Record:
    maes = tests or {"few": mae}
    content: dict[str, Any] = {
        "id": name,
        "config": {"seed": 0, "model": {"name": name}},
        "model": {"name": name, "title": name, "licence": f"licence of {name}"},
        "metrics": {
            "train": train,
            "tests": {
                test: {"n": 90, "training_overlap": overlap, "overall": {"mae": {"value": value}}, "groups": {}}
                for test, value in maes.items()
            },
        },
        "predictions": {},
        "sha256": "",
    }
    if unanswered:
        rejected = {"quarantined": {"no face found": unanswered}}
        content["samples"] = {test: {"read": 100, "test": 100 - unanswered, **rejected} for test in maes}
    return Record.from_json(content)


def _systems() -> list[System]:
    return group_into_systems(
        [
            _record("worse", 6.0),
            _record("better", 4.0),
            _record("contaminated", 1.0, overlap="known"),
            _record("ours", 0.0, train="many", few=5.0, many=2.0),
            _record("ours-too", 0.0, train="many", few=7.0, many=1.0),
        ]
    )


def test_installed_systems_come_first_and_contaminated_ones_apart() -> None:
    headline = Headline.from_systems(_systems(), ImageRankings())
    assert [row.name.split(",")[0] for row in headline.rows] == ["better", "worse", "contaminated", "ours"]
    assert [row.kind for row in headline.rows][1:] == [
        Kind.INSTALLED,
        Kind.INSTALLED_CONTAMINATED,
        Kind.TRAINED_HERE,
    ]
    table = headline_table(headline)
    assert "1.00§" in table
    assert "licence of better" in table
    assert headline_table(headline, short_rows(headline)) == table
    assert headline.trust.endswith("That was not measured.")


def test_short_table_has_one_number_of_images_a_column_and_names_of_cards() -> None:
    headline = Headline.from_systems(_systems(), ImageRankings())
    lines = short_table(headline).splitlines()
    assert len(lines) == 2 + len(short_rows(headline))
    header = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert header[0] == "system"
    assert all(" MAE (" in cell for cell in header[1:])
    assert "license" not in lines[0]
    assert "1.00§" in "".join(lines)
    assert "(trained on many)" in lines[-1]


def test_the_first_table_never_has_more_than_twelve_rows() -> None:
    many = [_record(f"external-{number:02}", number) for number in range(20)]
    rows = headline_systems(group_into_systems([*many, _record("ours", 0.0, train="many", few=5.0, many=2.0)]))
    assert len(rows) == MOST_ROWS
    assert rows[-1].train == "many"


def test_the_trained_system_shown_first_was_tested_on_most_sets() -> None:
    complete = [
        _record(name, 0.0, train="many", few=mae, other=6.0, many=2.0) for name, mae in (("a", 5.2), ("b", 5.1))
    ]
    elsewhere = _record("theirs", 0.0, few=6.0, other=6.0)
    rows = group_into_systems([*complete, _record("on-one-set", 0.0, train="many", few=4.9, many=1.0), elsewhere])
    assert [row.name for row in headline_systems(rows)] == ["theirs", "b"]


def test_one_more_test_set_makes_no_system_the_best_trained() -> None:
    good = [_record(name, 0.0, train="many", few=mae, other=6.0) for name, mae in (("a", 5.2), ("b", 5.1), ("c", 5.3))]
    further = _record("further", 0.0, train="many", few=9.0, other=9.0, synth=9.0)
    assert [row.name for row in headline_systems(group_into_systems([*good, further]))] == ["b"]


def test_the_best_trained_system_has_a_rank_on_the_images_of_most() -> None:
    def of_copy(name: str, mae: float, fingerprint: str, read: int = 90) -> Record:
        copy = RecordSamples(read=read, fingerprint=fingerprint)
        return _record(name, 0.0, train="many", few=mae).model_copy(update={"samples": {"few": copy}})

    honest = [of_copy("a", 5.2, "usual"), of_copy("b", 5.1, "usual")]
    seen = _record("seen", 0.0, train="many", overlap="known", few=1.0)
    records = [*honest, seen, of_copy("other", 1.1, "other"), of_copy("part", 1.2, "part", 80)]
    assert [row.name for row in headline_systems(group_into_systems(records))] == ["b"]
    assert headline_systems(group_into_systems([seen])) == []


def _gates(rows: list[System], spread: float, n: int) -> Gates:
    return {
        (record.id, "few"): gate_rates_by_age(predictions(n, spread))
        for row in rows
        for record in row.records
        if record.id != "ours-too"
    }


def test_no_system_is_trusted_unless_the_upper_end_is_low() -> None:
    rows = _systems()
    careless = Headline.from_systems(rows, ImageRankings(gates=_gates(rows, 8.0, 600)))
    assert "None. No system is shown to meet “at T = 25 at most 1 % of minors of 13 to 17 pass”" in careless.trust
    precise = Headline.from_systems(rows, ImageRankings(gates=_gates(rows, 0.5, 12_000)))
    assert "None" not in precise.trust
    assert "better and" not in precise.trust  # all are fit, so the list ends with another
    assert "contaminated" not in precise.trust
    assert "better" in precise.trust


def test_gate_figure_has_a_curve_for_each_system() -> None:
    rows = _systems()
    headline = Headline.from_systems(rows, ImageRankings(gates=_gates(rows, 5.0, 300)))
    drawn = gate_figure(headline)
    assert drawn is not None
    assert drawn.count("<polyline") == 2 * len(headline.rows)
    assert "contaminated§" in drawn
    assert gate_figure(Headline.from_systems(rows, ImageRankings())) is None


def test_page_without_gates_is_complete() -> None:
    assert "That was not measured" in page(_systems())


def test_a_system_is_judged_by_its_worst_test_set() -> None:
    records = [
        _record("mixed", 0.0, easy=1.0, hard=5.0),
        _record("even", 0.0, easy=3.0, hard=3.5),
        _record("elsewhere", 0.5, easy=0.5),
    ]
    spreads = {
        ("mixed", "easy"): 0.5,
        ("mixed", "hard"): 9.0,
        ("even", "easy"): 4.0,
        ("even", "hard"): 4.5,
        ("elsewhere", "easy"): 3.0,
    }
    gates = {key: gate_rates_by_age(predictions(4000, spread)) for key, spread in spreads.items()}
    trust = Headline.from_systems(group_into_systems(records), ImageRankings(gates=gates)).trust
    # A system that was measured on fewer test sets than others is not said to be better than they.
    assert "Of the installed ones measured on 2 such test sets, even has the lowest worst upper end: on hard," in trust
    assert trust.endswith("of adults are refused.")


def test_unanswered_images_and_unknown_data_are_marked() -> None:
    silent = _record("silent", 1.0, unanswered=10)
    rows = group_into_systems(
        [silent, _record("unknown", 3.0, overlap="unknown", unanswered=3), _record("honest", 4.0)]
    )
    headline = Headline.from_systems(rows, ImageRankings())
    assert [(row.name, row.cells["few"].mark) for row in headline.rows] == [
        ("unknown", "?"),
        ("honest", ""),
        ("silent", "¶"),
    ]
    assert headline.rows[2].cells["few"].tested == "90 of 100"
    assert "¶ more than 5 % of the images got no estimate" in headline.note


def test_systems_without_room_are_named() -> None:
    many = group_into_systems([_record(f"external-{number:02}", number) for number in range(MOST_ROWS + 2)])
    assert "For external-12 and external-13 there is no room here" in Headline.from_systems(many, ImageRankings()).note
    assert "no room" not in Headline.from_systems(many[:3], ImageRankings()).note


def test_both_tables_say_how_many_adults_are_refused() -> None:
    rows = _systems()
    headline = Headline.from_systems(rows, ImageRankings(gates=_gates(rows, 5.0, 600)))
    refused = headline.rows[0].cells["few"].refused
    expected = age_gates(predictions(600, 5.0), gates=[Gate(18, 25)])["18"].challenge["25"].fnr
    assert refused.value == pytest.approx(expected.value, abs=1e-4)
    for table in (headline_table(headline), short_table(headline)):
        assert "adults refused at T = 25, few" in table
        assert f"{100 * (refused.value or 0):.1f} %" in table


def test_excluded_images_keep_a_system_off_the_first_table() -> None:
    gamed = _record("gamed", 1.0).model_copy(update={"excluded": {"bad.csv": RecordExcluded(images=5)}})
    rows = group_into_systems([_record("honest", 4.0), gamed])
    assert [row.name for row in headline_systems(rows)] == ["honest"]
    assert "gamed" in leaderboard(rows).split("# Appendix")[1]


def test_the_first_table_shows_ranks_and_the_widest_gap() -> None:
    ranked = RankedSystem(
        name="better", train=None, runs=["better"], value=MetricValue(value=4.0), rank_low=1, rank_high=2
    )
    other = ranked.model_copy(update={"name": "worse", "runs": ["worse"], "rank_low": 2, "rank_high": 3})
    ranking = SystemRanking(
        inputs="",
        tests=["few"],
        held_out=[False],
        images=[90],
        people=[None],
        resamples=100,
        critical=2.4,
        systems=[ranked, other],
        differences=[],
    )
    gap = AgeStandardizedGap(
        difference=MetricValue(value=1.5, ci_low=0.5, ci_high=2.5), worst="m", best="f", p=0.001, p_holm=0.002
    )
    content = _record("better", 4.0).to_json()
    content["metrics"]["tests"]["few"]["gaps"] = {"gender": Gap(age_standardized=gap).to_json()}
    rows = group_into_systems([Record.from_json(content), _record("worse", 6.0)])
    headline = Headline.from_systems(rows, ImageRankings(rankings=(ranking,)))
    assert [row.cells["few"].rank for row in headline.rows] == ["1-2 of 2", "2-3 of 2"]
    first, second = headline_table(headline).splitlines()[2:]
    assert "1-2 of 2" in first
    assert "1.50 [0.50, 2.50] (few: m above f, shown)" in first
    assert "1.50" not in second
