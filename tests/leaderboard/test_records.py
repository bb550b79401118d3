"""Records: made from a run, and found out where they lie."""

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agebench.cli import main
from agebench.errors import UserError
from agebench.leaderboard.published_estimates import (
    LocalDatasets,
    estimates_digest,
    pseudonymize,
    write_estimates,
)
from agebench.leaderboard.records import content_hash, estimates_file, make_record, runs_by_config, write_record
from agebench.leaderboard.reproduce import environment_differences
from agebench.leaderboard.schema import Circumstances
from agebench.leaderboard.verify import check_estimates, check_record, read_valid_records
from agebench.metrics.evaluate import evaluate
from agebench.registry.catalog import load_catalog


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's folder, as far as a record needs it."""
    folder = tmp_path / "runs" / "mine"
    (folder / "predictions").mkdir(parents=True)
    rng = np.random.default_rng(0)
    age = rng.integers(5, 70, 300).astype(float)
    table = pd.DataFrame(
        {
            "sample_id": [f"image-{row}" for row in range(300)],
            "age": age,
            "age_pred": age + rng.normal(0, 5, 300),
            "gender": rng.choice(["female", "male"], 300),
        }
    )
    table.to_parquet(folder / "predictions" / "fgnet.parquet")
    entry = evaluate(table, groups=["gender"], train_ages=(1.0, 60.0), resamples=100, seed=3).to_json()
    manifest = {"seed": 3, "agebench": "0.1.0", "model": {"name": "tiny", "head": "coral"}, "finished": True}
    (folder / "metrics.json").write_text(json.dumps({"schema": 1, "train": "utk", "tests": {"fgnet": entry}}))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.toml").write_text("seed = 3\n")
    return folder


def test_a_record_follows_from_its_predictions(run: Path) -> None:
    record = make_record(run)
    assert record["id"].startswith("utk-tiny-coral-s3-")
    assert record["config"] == {"seed": 3}
    assert list(check_record(record, run)) == []
    assert list(check_record(json.loads(json.dumps(record)))) == []


def test_read_valid_records_stops_at_the_first_invalid_record(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    with pytest.raises(UserError, match="contains no record"):
        read_valid_records(folder)
    content = make_record(run)
    (folder / "a.json").write_text(json.dumps(content))
    (parsed,) = read_valid_records(folder).values()
    assert parsed.id == content["id"]
    assert parsed.metrics.tests["fgnet"].n == 300
    for name, change in {"b": {"sha256": "0"}, "c": {"schema": 9}, "d": {"config": 3}}.items():
        faulty = folder / f"{name}.json"
        faulty.write_text(json.dumps(content | change))
        first = next(check_record(content | change))
        with pytest.raises(UserError) as raised:
            read_valid_records(folder)
        assert str(raised.value) == f"{faulty}: {first}; `agebench results check` lists all problems"
        faulty.unlink()
    assert gc.isenabled()


def test_a_figure_changed_by_hand_is_found_three_times(run: Path) -> None:
    record = make_record(run)
    mae = record["metrics"]["tests"]["fgnet"]["overall"]["mae"]
    mae["value"] -= 1
    problems = " ".join(check_record(record, run))
    assert "its seal is broken" in problems
    assert "lies outside its interval" in problems
    assert "is not the mean of the age bands'" in problems
    assert "all images: mae is" in problems


def test_a_new_seal_hides_nothing_from_the_predictions(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["tests"]["fgnet"]["groups"]["gender"]["male"]["cs5"]["value"] += 1e-3
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert any("gender male: cs5 is" in problem for problem in check_record(make_record(run), run))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda entry: entry["overall"].update(own={"value": 0.5}), "all images: own is 0.5000 there, and missing"),
        (lambda entry: entry["groups"]["gender"].update(other={"n": 9}), "gender other: n is 9 there, and None"),
        (lambda entry: entry["gaps"].update(side=entry["gaps"]["gender"]), "gap by side: difference is"),
        (
            lambda entry: entry["gaps"]["gender"].update(worst_groups=["male"]),
            "gap by gender: worst_groups is ['male']",
        ),
        (lambda entry: entry["gaps"]["gender"].update(p_holm=0.0001), "gap by gender: p_holm is 0.0001 there"),
    ],
)
def test_what_the_predictions_do_not_give_is_found(run: Path, change: Any, problem: str) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    change(metrics["tests"]["fgnet"])
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert any(f"fgnet: {problem}" in found for found in check_record(make_record(run), run))


@pytest.mark.parametrize("moved", ["difference", "mix"])
def test_a_shift_that_is_not_of_the_errors_is_found(run: Path, moved: str) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    entry = metrics["tests"]["fgnet"]
    parts = {"mix": {"value": 0.0}, "same": {"value": 0.0}, "outside": {"value": 0.0}, "n_outside": 0, "ages": []}
    entry["shift"] = {"source": "utk", "difference": {"value": 0.0}, "parts": parts}
    metrics["tests"]["utk"] = entry | {"shift": None}
    (run / "predictions" / "utk.parquet").write_bytes((run / "predictions" / "fgnet.parquet").read_bytes())
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert list(check_record(make_record(run), run)) == []
    (entry["shift"] if moved == "difference" else parts)[moved] = {"value": -1.0}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert any("fgnet: its shift from utk is" in problem for problem in check_record(make_record(run)))


@pytest.mark.parametrize(
    ("overlap", "model", "right"),
    [
        ("none stated", {"trained_on": ["fgnet"]}, False),
        ("none stated", {"training_data": "unknown: a private set"}, False),
        ("validated", {"trained_on": ["utk"], "training_data": "UTKFace"}, True),
        ("known", {}, True),
    ],
)
def test_an_overlap_milder_than_the_models_card_is_found(
    run: Path, overlap: str, model: dict[str, Any], right: bool
) -> None:
    record = make_record(run)
    record["config"]["model"] = model
    record["metrics"]["tests"]["fgnet"]["training_overlap"] = overlap
    problems = list(check_record(record | {"sha256": content_hash(record)}))
    assert (problems == []) == right
    assert right or f"fgnet: its training_overlap is '{overlap}', and by its model's card it is" in problems[0]


@pytest.mark.usefixtures("with_few")
def test_groups_that_the_dataset_has_cannot_be_left_out(tmp_path: Path) -> None:
    content, path, present = record_of_few(tmp_path, ["gender", "race"])
    assert list(check_estimates(content, path, present)) == [("few", None)]
    content, path, present = record_of_few(tmp_path, ["race"])
    assert list(check_estimates(content, path, present)) == [
        ("few", "it has no groups by gender, which the dataset has")
    ]


@pytest.mark.usefixtures("with_few")
@pytest.mark.parametrize("public", [True, False])
def test_public_estimates_of_a_record_cannot_be_left_out(
    public: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, path, _ = record_of_few(tmp_path, ["gender", "race"])
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    monkeypatch.setattr(LocalDatasets, "has_public_estimates", lambda self, name: public)
    check, file = ["results", "check", "--results", str(path.parent), "--quick"], estimates_file(path, "few")
    assert main(check) == 0
    table = pd.read_parquet(file)
    write_estimates(file, table.assign(age_pred=table["age_pred"] + 1))
    assert main(check) == 1
    assert "are not those of the record" in capsys.readouterr().out
    file.unlink()
    assert main(check) == int(public)
    assert (f"few: {file} is missing" in capsys.readouterr().out) == public


@pytest.mark.usefixtures("with_few")
def test_cards_state_whether_estimates_are_public() -> None:
    present = LocalDatasets(load_catalog())
    assert present.has_public_estimates("fgnet")
    assert not present.has_public_estimates("few")
    assert not present.has_public_estimates("no such set")


def record_of_few(folder: Path, groups: list[str]) -> tuple[dict[str, Any], Path, LocalDatasets]:
    """A record of a test on `few` with its estimates, its file, and the datasets."""
    present, path = LocalDatasets(load_catalog()), folder / "results" / "a.json"
    samples = present.samples("few")
    assert samples is not None
    table = samples.table.assign(age_pred=samples.table["age"] + 1.5)
    estimates = pseudonymize(table, samples.table)
    write_estimates(estimates_file(path, "few"), estimates)
    content = {
        "id": "a",
        "config": {},
        "model": {"name": "m"},
        "metrics": {"train": None, "tests": {"few": evaluate(table, groups=groups, resamples=20).to_json()}},
        "predictions": {"few": {"estimates_sha256": estimates_digest(estimates)}},
        "samples": {"few": {"fingerprint": present.fingerprint("few")}},
    }
    return content | {"sha256": content_hash(content)}, path, present


@pytest.mark.parametrize(
    ("version", "moved", "right"),
    [(3, 0.004, False), (2, 0.004, True), (2, 0.02, False), (1, 0.02, True), (1, 0.2, False)],
)
def test_ends_of_older_records_are_checked_within_rounding(run: Path, version: int, moved: float, right: bool) -> None:
    table = pd.read_parquet(run / "predictions" / "fgnet.parquet")
    metrics = json.loads((run / "metrics.json").read_text())
    entry = evaluate(table, groups=["gender"], train_ages=(1.0, 60.0), resamples=100, seed=3, version=version).to_json()
    entry["method"]["version"] = version
    if version == 1:
        del entry["method"]["version"]
    mae = entry["overall"]["mae"]
    mae["ci_high"] += moved * (mae["ci_high"] - mae["ci_low"])
    metrics["tests"]["fgnet"] = json.loads(json.dumps(entry))
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert (list(check_record(make_record(run), run)) == []) == right


def test_intervals_of_a_later_version_are_refused(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["tests"]["fgnet"]["method"]["version"] = 9
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert any("of version 9" in problem for problem in check_record(make_record(run), run))


def test_other_predictions_are_found(run: Path) -> None:
    record = make_record(run)
    file = run / "predictions" / "fgnet.parquet"
    table = pd.read_parquet(file)
    table.loc[7, "age_pred"] += 0.01
    table.to_parquet(file)
    assert any("are not those of the record" in problem for problem in check_record(record, run))


def test_a_stress_test_of_the_run_goes_with_it_and_must_be_of_it(run: Path) -> None:
    mae = make_record(run)["metrics"]["tests"]["fgnet"]["overall"]["mae"]
    stress = {"test": "fgnet", "n": 300, "summary": {}, "clean": {"mae": mae}, "method": {}, "groups": {"age_band": {}}}
    (run / "stress").mkdir()
    (run / "stress" / "fgnet.json").write_text(json.dumps(stress))
    record = make_record(run)
    assert record["stress"]["fgnet"].keys() == {"n", "summary", "clean", "method"}
    assert list(check_record(record, run)) == []
    stress["clean"] = {"mae": mae | {"value": mae["value"] + 1}}
    (run / "stress" / "fgnet.json").write_text(json.dumps(stress))
    assert any("the stress test's MAE" in problem for problem in check_record(make_record(run), run))


def test_results_add_refuses_an_edited_figure(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["tests"]["fgnet"]["overall"]["cs5"] = {"value": 0.99, "ci_low": 0.98, "ci_high": 1.0}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert main(["results", "add", str(run), "--results", str(tmp_path / "results")]) == 2
    told = capsys.readouterr().err
    assert "all images: cs5 is 0.9900 there, and" in told
    assert f"agebench run --config {run / 'config.toml'} --out DIR" in told
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("key", "value"), [("n", 299), ("eligible", False)])
def test_check_compares_the_size_of_groups(key: str, value: Any, run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["tests"]["fgnet"]["groups"]["gender"]["male"][key] = value
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert any(f"gender male: {key} is {value} there" in problem for problem in check_record(make_record(run), run))


@pytest.mark.parametrize(
    ("end", "moved", "wrong"), [("ci_low", 1e-5, False), ("ci_low", -1e-3, True), ("value", 1e-5, True)]
)
def test_check_allows_ends_only_rounding(end: str, moved: float, wrong: bool, run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["tests"]["fgnet"]["groups"]["gender"]["male"]["mae"][end] += moved
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert bool(list(check_record(make_record(run), run))) == wrong


def test_results_add_needs_the_predictions(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "predictions" / "fgnet.parquet"
    file.unlink()
    assert main(["results", "add", str(run)]) == 2
    assert f"{file}: missing" in capsys.readouterr().err
    file.write_bytes(b"PAR1")
    assert main(["results", "add", str(run)]) == 2
    assert f"{file}: damaged" in capsys.readouterr().err


def recorded(run: Path, table: pd.DataFrame, tested: pd.DataFrame, **samples: Any) -> list[str]:
    """Problems of a run with these predictions, which was to be tested on `tested`; its figures follow from `table`."""
    table.to_parquet(run / "predictions" / "fgnet.parquet")
    (run / "samples").mkdir(exist_ok=True)
    tested.to_parquet(run / "samples" / "fgnet-test.parquet")
    entry = evaluate(table, groups=["gender"], resamples=100, seed=3).to_json()
    (run / "metrics.json").write_text(json.dumps({"schema": 1, "train": "utk", "tests": {"fgnet": entry}}))
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"samples": {"fgnet": samples}}))
    return list(check_record(make_record(run), run))


def test_check_finds_predictions_that_were_dropped(run: Path) -> None:
    table = pd.read_parquet(run / "predictions" / "fgnet.parquet")
    assert recorded(run, table, table, read=301, quarantined={"no face found": 1}, test=300) == []
    errors = (table["age_pred"] - table["age"]).abs()
    kept = table[errors < errors.quantile(0.9)].reset_index(drop=True)
    told = " ".join(recorded(run, kept, table, read=301, quarantined={"no face found": 1}, test=300))
    assert "n is 270, and 300 images were to be tested" in told
    assert "30 of 300 test images have no prediction" in told
    (told,) = recorded(run, kept, kept, read=301, quarantined={"no face found": 1}, test=270)
    assert "301 images were read, and 271 tested, trained on or rejected" in told


def test_check_finds_repeated_predictions(run: Path) -> None:
    table = pd.read_parquet(run / "predictions" / "fgnet.parquet")
    best = (table["age_pred"] - table["age"]).abs().nsmallest(20).index
    (told,) = recorded(run, pd.concat([table, table.loc[best]], ignore_index=True), table)
    assert "20 predictions are repeated" in told


def test_check_finds_labels_that_were_changed(run: Path) -> None:
    table = pd.read_parquet(run / "predictions" / "fgnet.parquet")
    flattered = table.assign(age=table["age"].where(table.index > 4, table["age_pred"]))
    (told,) = recorded(run, flattered, table)
    assert "5 predictions are of images or labels that samples/ does not have, the first is 'image-0'" in told


def test_an_unfinished_run_has_no_record(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    with pytest.raises(UserError, match="not finished"):
        make_record(run)


def test_the_command_adds_and_checks(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    assert main(["results", "add", str(run), "--results", str(results)]) == 0
    check = ["results", "check", "--results", str(results), "--runs", str(run.parent)]
    assert main(check) == 0
    told = capsys.readouterr().out
    assert "1 records, 0 wrong; figures of 1 computed again" in told
    assert "not computed again" not in told
    assert main(["results", "check", "--results", str(results)]) == 0
    assert "1 not computed again" in capsys.readouterr().out
    assert main(["results", "add", str(run), "--results", str(results), "--json"]) == 0
    path = write_record(run, results)
    assert json.loads(capsys.readouterr().out) == {str(run): str(path)}
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    assert main(check) == 1
    assert "seal is broken" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[", '{"schema": 1}'])
def test_what_is_no_record_is_named(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text(content)
    assert main(["results", "check", "--results", str(tmp_path)]) in (1, 2)
    told = capsys.readouterr()
    assert "bad.json" in told.out + told.err


def hung(key: str, value: Any) -> Any:
    """What puts `value` at `key` of a record, the test set's name left out: its keys are joined by dots."""

    def change(record: dict[str, Any]) -> None:
        *tables, last = key.replace("TEST", "metrics.tests.fgnet").split(".")
        for name in tables:
            record = record.setdefault(name, {})
        record[last] = value

    return change


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "../../elsewhere"),
        ("config.seed", [1]),
        ("config.data", 3),
        ("config.model", 3),
        ("model.name", None),
        ("model.title", {"a": 1}),
        ("model.weights", [1]),
        ("model.parameters", "many"),
        ("model.parameters", float("nan")),
        ("model.parameters", 10**400),
        ("model.initial", "x"),
        ("metrics.train", [1]),
        ("TEST.n", "7"),
        ("TEST.n", float("nan")),
        ("TEST.overall.mae.value", 10**400),
        ("TEST.overall.bias.value", float("inf")),
        ("TEST.baseline_mae", "x"),
        ("TEST.baseline_mae", float("nan")),
        ("TEST.groups.gender.male", None),
        ("TEST.gaps.gender.age_standardized", 3),
        ("TEST.gaps.gender.age_standardized", {"difference": {"value": "x"}}),
        ("samples", [1]),
        ("samples.fgnet.quarantined", {"no face found": "y"}),
        ("timings", [1]),
        ("timings.predict_s", "x"),
        ("faces", [1]),
        ("hardware", "cpu"),
        ("plugins", [1]),
        ("datasets", {"utk": 3}),
        ("stress.fgnet", {"summary": [], "clean": {}}),
    ],
)
def test_what_has_another_shape_is_refused_by_its_key(key: str, value: Any, run: Path) -> None:
    record = make_record(run)
    hung(key, value)(record)
    (problem,) = check_record(record | {"sha256": content_hash(record)})
    assert f"'{key.replace('TEST', 'metrics.tests.fgnet')}" in problem
    assert "`agebench results add` gives" in problem
    assert len(problem) < 300


def test_figures_that_only_the_check_looks_at_may_be_anything(run: Path) -> None:
    for value in ("x", 10**400, [1], None):
        record = make_record(run)
        hung("TEST.overall.r2", {"value": value, "low": 0, "high": 1})(record)
        problems = list(check_record(record | {"sha256": content_hash(record)}))
        assert len(problems) == (value is not None)


def test_keys_that_are_not_known_are_let_in_and_tables_without_end_are_not(run: Path) -> None:
    record = make_record(run) | {"note": {"by": ["somebody"]}}
    assert list(check_record(record | {"sha256": content_hash(record)})) == []
    endless: Any = {}
    for _ in range(900):
        endless = {"more": endless}
    for change in (hung("config.data.more", endless), hung("note", endless)):
        record = make_record(run)
        change(record)
        (problem,) = check_record(record | {"sha256": "0"})
        assert "levels deep" in problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"schema": 1, "epochs": NaN}', "it contains NaN"),
        ('{"schema": 1, "epochs": -Infinity}', "it contains -Infinity"),
    ],
)
@pytest.mark.parametrize(
    "command", ["leaderboard --out page.md --results .", "results check --results .", "reproduce bad.json"]
)
def test_no_file_ends_a_command_without_a_sentence(
    command: str,
    content: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text(content)
    assert main(command.split()) == 2
    told = capsys.readouterr().err
    assert "bad.json: not a readable JSON file" in told
    assert said in told


def test_a_reproduction_is_no_evidence_against_its_record(run: Path) -> None:
    shutil.copytree(run, run.parent / "again-mine")
    assert list(runs_by_config(run.parent).values()) == [[run]]


def test_a_run_without_predictions_computes_nothing_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    path = write_record(run, results)
    (run / "predictions" / "fgnet.parquet").unlink()
    record = json.loads(path.read_text())
    record["metrics"]["tests"]["fgnet"]["groups"]["gender"]["male"]["cs5"]["value"] += 1e-3
    path.write_text(json.dumps(record | {"sha256": content_hash(record)}))
    assert main(["results", "check", "--results", str(results), "--runs", str(run.parent)]) == 0
    told = capsys.readouterr().out
    assert "figures of 0 computed again" in told
    assert "1 not computed again" in told


def other_outcome(run: Path, name: str) -> Path:
    """Copy a run into a folder beside it, with the same settings and other predictions."""
    other = Path(shutil.copytree(run, run.parent / name))
    file = other / "predictions" / "fgnet.parquet"
    table = pd.read_parquet(file)
    table["age_pred"] += 0.5
    table.to_parquet(file)
    metrics = json.loads((run / "metrics.json").read_text())
    entry = evaluate(table, groups=["gender"], train_ages=(1.0, 60.0), resamples=100, seed=3).to_json()
    (other / "metrics.json").write_text(json.dumps(metrics | {"tests": {"fgnet": entry}}))
    return other


def test_two_outcomes_of_the_same_settings_are_compared_each_with_its_own_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    other = other_outcome(run, "other")
    unfinished = Path(shutil.copytree(run, run.parent / "stopped"))
    manifest = json.loads((run / "manifest.json").read_text())
    (unfinished / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    assert [*runs_by_config(run.parent).values()] == [[run, other]]
    assert write_record(run, results) != write_record(other, results)
    check = ["results", "check", "--results", str(results), "--runs", str(run.parent)]
    assert main(check) == 0
    assert "2 records, 0 wrong; figures of 2 computed again" in capsys.readouterr().out
    shutil.rmtree(other)  # a run of the other record is no evidence against this one
    assert main(check) == 0
    told = capsys.readouterr().out
    assert "2 records, 0 wrong; figures of 1 computed again" in told
    assert "1 not computed again" in told


def test_predictions_of_no_record_contradict_the_record_of_their_settings(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(run, tmp_path / "results")
    other = other_outcome(run, "other")
    shutil.rmtree(run)
    assert main(["results", "check", "--results", str(tmp_path / "results"), "--runs", str(run.parent)]) == 1
    assert f"fgnet: the predictions in {other} are not those of the record" in capsys.readouterr().out


def test_another_detector_is_named_when_a_record_is_reproduced() -> None:
    record, manifest = (
        Circumstances.model_validate(
            {"faces": {"detectors": {"few": {"name": name, "version": 1}}}, "agebench": "1", "git": "a"}
        )
        for name in ("dlib", "yunet")
    )
    assert environment_differences(record, record) == []
    assert environment_differences(record, manifest) == ["faces of few are detected by yunet (there by dlib)"]
