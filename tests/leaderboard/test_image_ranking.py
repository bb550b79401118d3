"""Rankings and shifts of the leaderboard, from records and the estimates beside them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agebench.errors import UserError
from agebench.leaderboard.image_ranking import (
    ImageRankings,
    RankingBuilder,
    _Labels,
    build_rankings,
    rankings_file,
)
from agebench.leaderboard.markdown import leaderboard
from agebench.leaderboard.published_estimates import LocalDatasets, pseudonym_keys, write_estimates
from agebench.leaderboard.ranking_check import check_rankings
from agebench.leaderboard.records import estimates_file
from agebench.leaderboard.schema import Record
from agebench.leaderboard.site import site_data
from agebench.leaderboard.systems import System, group_into_systems
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.ranking import SystemErrors
from agebench.registry.catalog import Catalog, load_catalog

pytestmark = pytest.mark.usefixtures("with_few")
ERRORS = {"good": 1.0, "alike": 1.02, "bad": 4.0}


@pytest.fixture
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture
def board(tmp_path: Path, catalog: Catalog) -> tuple[Path, list[System]]:
    """Three systems of two seeds each, trained on `few` and tested on both its held-out part and, as if another set, all of it."""
    present = LocalDatasets(catalog)
    samples = present.samples("few")
    assert samples is not None
    table, keys = samples.table, pseudonym_keys(samples.table)
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(len(table))
    records = []
    for head, spread in ERRORS.items():
        for seed in (0, 1):
            held_out = np.sort(np.random.default_rng(seed).permutation(len(table))[:90])
            errors = spread * (shared + 0.3 * rng.standard_normal(len(table)))
            identity = f"{head}-{seed}"
            estimates = pd.DataFrame({"key": keys, "age_pred": table["age"].to_numpy(float) + errors})
            path = tmp_path / "results" / f"{identity}.json"
            write_estimates(estimates_file(path, "few"), estimates.iloc[held_out].sort_values("key"))
            records.append(_record(identity, head, seed, float(np.abs(errors).mean()), present.fingerprint("few")))
    return tmp_path / "results", group_into_systems(records)


def _record(
    identity: str, head: str, seed: int, mae: float, fingerprint: str | None, tests: tuple[str, ...] = ("few",)
) -> Record:
    """A record of test sets with the same figures; the estimates of all but `few` are not public."""
    few = {"n": 90, "overall": {"mae": {"value": mae}}, "groups": {"side": {"a": {"n": 40 + seed}}}}
    content: dict[str, Any] = {
        "id": identity,
        "config": {"seed": seed, "head": head},
        "model": {"name": "m", "head": head},
        "metrics": {"train": "few", "tests": dict.fromkeys(tests, few)},
        "predictions": {"few": {"sha256": "", "estimates_sha256": identity}},
        "samples": {"few": {"fingerprint": fingerprint}},
        "sha256": "",
    }
    return Record.from_json(content)


def labels_by_key(catalog: Catalog) -> dict[int, float]:
    samples = LocalDatasets(catalog).samples("few")
    assert samples is not None
    return dict(zip(pseudonym_keys(samples.table), samples.table["age"], strict=True))


def test_systems_are_ranked_by_their_estimates(board: tuple[Path, list[System]], catalog: Catalog) -> None:
    results, rows = board
    ranked = build_rankings(results, rows, catalog)
    (ranking,) = ranked.rankings
    by_name = {system.name: (system.rank_low, system.rank_high) for system in ranking.systems}
    assert by_name == {"m, good": (1, 2), "m, alike": (1, 2), "m, bad": (3, 3)}
    assert ranking.held_out == [True]
    assert 90 < ranking.images[0] < 180  # two parts of 90 that overlap; an image in both is one image
    page = leaderboard(rows, (), ranked)
    assert "2 of 3 pairs are shown to differ" in page
    assert "|    1-2 | m, " in page
    assert site_data(rows, [], ranked)["systems"][0]["ranks"] == [[1, ["few"], 1, 2]]


def test_stored_rankings_serve_where_the_dataset_is_missing(
    board: tuple[Path, list[System]], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, rows = board
    first = build_rankings(results, rows, catalog)
    monkeypatch.setattr(LocalDatasets, "samples", lambda self, name: None)
    assert build_rankings(results, rows, catalog).rankings == first.rankings
    rankings_file(results).unlink()
    again = build_rankings(results, rows, catalog)
    assert again.rankings == ()
    assert "agebench data add few PATH" in again.missing[0]
    assert not rankings_file(results).exists()


def test_a_damaged_file_of_rankings_is_named(board: tuple[Path, list[System]], catalog: Catalog) -> None:
    results, rows = board
    rankings_file(results).write_text("[]")
    with pytest.raises(UserError, match=r"rankings\.json: not a readable file .* delete it"):
        build_rankings(results, rows, catalog)


def test_systems_without_estimates_are_named(board: tuple[Path, list[System]], catalog: Catalog) -> None:
    _, rows = board
    ranked = build_rankings(board[0].parent / "elsewhere" / "results", rows, catalog)
    assert ranked == ImageRankings(missing=ranked.missing)
    (sentence,) = ranked.missing
    assert sentence.startswith("few: the systems of these records are not ranked, because their estimates")
    assert all(row.records[0].id in sentence for row in rows)
    assert "Without a rank" in leaderboard(rows, (), ranked)


def test_without_estimates_a_system_leaves_only_that_ranking(
    board: tuple[Path, list[System]], catalog: Catalog
) -> None:
    results, rows = board
    first = build_rankings(results, rows, catalog)
    fingerprint = LocalDatasets(catalog).fingerprint("few")
    records = [
        _record(f"{head}-{seed}", head, seed, mae, fingerprint, ("few",) if head == "bad" else ("few", "hidden"))
        for head, mae in ERRORS.items()
        for seed in (0, 1)
    ]
    both = group_into_systems(records)
    ranked = build_rankings(results, both, catalog)
    assert [ranking.systems for ranking in ranked.rankings] == [ranking.systems for ranking in first.rankings]
    (sentence,) = ranked.missing
    assert sentence.startswith("hidden: ")
    assert all(identity in sentence for identity in ("good-0", "good-1", "alike-0", "alike-1"))
    assert "bad" not in sentence


def test_a_seed_without_a_test_set_leaves_the_ranks_of_the_others(
    board: tuple[Path, list[System]], catalog: Catalog
) -> None:
    results, rows = board
    (first,) = build_rankings(results, rows, catalog).rankings
    records = [record for row in rows for record in row.records]
    more = _record("good-2", "good", 2, 0.8, LocalDatasets(catalog).fingerprint("few"), ("elsewhere",))
    ranked = build_rankings(results, group_into_systems([*records, more]), catalog)
    (again,) = ranked.rankings
    assert again.differences == first.differences
    assert [system.name for system in again.systems] == [system.name for system in first.systems]
    assert ranked.missing == ()


def test_a_system_without_estimates_is_named_and_others_are_ranked(
    board: tuple[Path, list[System]], catalog: Catalog
) -> None:
    results, rows = board
    estimates_file(results / "alike-1.json", "few").unlink()
    ranked = build_rankings(results, rows, catalog)
    (ranking,) = ranked.rankings
    assert {system.name for system in ranking.systems} == {"m, good", "m, bad"}
    (sentence,) = ranked.missing
    assert sentence.endswith(": alike-1")
    assert sentence in leaderboard(rows, (), ranked)
    assert rankings_file(results).exists()


def test_a_record_of_folds_is_ranked_by_the_mean_error_of_its_models(
    board: tuple[Path, list[System]], catalog: Catalog
) -> None:
    results, rows = board
    first = build_rankings(results, rows, catalog)
    file = estimates_file(results / "good-0.json", "few")
    single = pd.read_parquet(file)
    ages = labels_by_key(catalog)
    error = single["age_pred"] - single["key"].map(ages)
    # Two models, whose errors are on either side of the age: their mean estimate would have a smaller error.
    folds = [
        single.assign(**{FOLD: "a"}, age_pred=single["age_pred"] + 0.5 * error),
        single.assign(**{FOLD: "b"}, age_pred=single["key"].map(ages) - 0.5 * error),
    ]
    write_estimates(file, pd.concat(folds, ignore_index=True))
    rankings_file(results).unlink()
    again = build_rankings(results, rows, catalog)
    assert again.missing == ()
    (before,), (after,) = first.rankings, again.rankings
    assert [(system.name, system.value.value) for system in after.systems] == [
        (system.name, pytest.approx(system.value.value, abs=1e-3)) for system in before.systems
    ]


def test_estimates_that_do_not_fit_leave_only_their_system_out(
    board: tuple[Path, list[System]], catalog: Catalog
) -> None:
    results, rows = board
    file = estimates_file(results / "alike-1.json", "few")
    table = pd.read_parquet(file)
    partly = pd.concat([table.assign(**{FOLD: "a"}), table.iloc[:10].assign(**{FOLD: "b"})], ignore_index=True)
    write_estimates(file, partly)
    ranked = build_rankings(results, rows, catalog)
    (ranking,) = ranked.rankings
    assert [system.name for system in ranking.systems] == ["m, good", "m, bad"]
    assert ranking.systems[1].runs == ["bad-0", "bad-1"]
    (sentence,) = ranked.missing
    assert sentence.endswith("their estimates do not fit the images of the dataset: alike-0 and alike-1")
    assert rankings_file(results).exists()
    assert build_rankings(results, rows, catalog) == ranked  # from the stored ranking


def test_a_test_set_of_one_age_is_not_among_those_over_which_systems_are_ranked(
    board: tuple[Path, list[System]], catalog: Catalog
) -> None:
    _, rows = board
    rng = np.random.default_rng(0)
    builder = RankingBuilder({}, LocalDatasets(catalog))
    images = np.arange(60)
    labels = {}
    for name, ages in (("a", rng.uniform(0, 60, 60)), ("b", rng.uniform(0, 60, 60)), ("one age", np.full(60, 18.0))):
        labels[name] = _Labels(pd.Index(images), ages, images, False)
        for row in rows:
            errors = tuple(np.abs(rng.normal(0, 3, 60)) for _ in row.records)
            builder._systems[name, row] = SystemErrors(row.name, row.train, (0, 1), (images, images), errors)
    found = builder._compute(rows, [(name, False, frozenset()) for name in ("a", "one age", "b")], labels, "")
    assert found is not None
    assert found.tests == ["a", "b"]
    assert builder._compute(rows, [(name, False, frozenset()) for name in ("a", "one age")], labels, "") is None
    alone = builder._compute(rows, [("one age", False, frozenset())], labels, "")
    assert alone is not None
    assert len(alone.systems) == 3


def test_stored_rankings_are_computed_again(
    board: tuple[Path, list[System]], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, rows = board
    assert check_rankings(results, rows, LocalDatasets(catalog)) is None
    build_rankings(results, rows, catalog)
    path = rankings_file(results)
    check = check_rankings(results, rows, LocalDatasets(catalog))
    assert check is not None
    assert (check.path, check.problems) == (path, ())
    assert (
        check.computed == check.entries == 6
    )  # a ranking, the gate rates of two runs, and the scatters of three systems

    def problems(datasets: LocalDatasets | None, **changes: object) -> tuple[str, ...]:
        content = json.loads(original)
        content["rankings"][0]["systems"][0] |= changes
        path.write_text(json.dumps(content))
        found = check_rankings(results, rows, datasets)
        assert found is not None
        return found.problems

    original = path.read_text()
    better = json.loads(original)["rankings"][0]["systems"][0]["value"] | {"value": 0.5}
    (wrong,) = problems(LocalDatasets(catalog), value=better)
    assert "systems[0].value.value is 0.5000 there" in wrong
    (promoted,) = problems(None, rank_high=1)
    assert "does not follow from its differences (1-2)" in promoted
    path.write_text(original.replace('"inputs":"', '"inputs":"0'))
    outdated = check_rankings(results, rows, None)
    assert outdated is not None
    assert "is not of the records that are there now" in outdated.problems[0]
