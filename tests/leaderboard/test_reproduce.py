"""A run's record, what is stored beside it, and the run again from it alone; through the real commands."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from agebench.cli import main
from agebench.config.evaluate import PublishedConfig
from agebench.errors import UserError
from agebench.leaderboard import reproduce
from agebench.leaderboard.published_estimates import estimates_digest
from agebench.leaderboard.records import content_hash
from agebench.leaderboard.schema import Record
from agebench.registry.catalog import load_catalog

pytestmark = pytest.mark.slow  # each asks a run that is trained for it

CARD = """
name = "{name}"
title = "A few generated faces"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
groups = ["gender", "race"]
estimates_public = {public}
[options]
count = {count}
seed = {seed}
"""


def write_card(folder: Path, name: str, count: int, seed: int, public: str = "true") -> None:
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    text = CARD.format(name=name, count=count, seed=seed, public=public)
    (folder / "datasets" / f"{name}.toml").write_text(text)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cards/, runs/mine, reports/results/*.json and reports/predictions: one finished run and its record."""
    home = tmp_path_factory.mktemp("home")
    write_card(home / "cards", "few", 80, 11, public="false")
    write_card(home / "cards", "other", 120, 12)
    words = ["run", "--train", "few", "--test", "few", "--test", "other", "--model", "tiny", "--epochs", "1", "--json"]
    small = ["--set", "model.size=32", "--set", "evaluate.resamples=100", "--out", str(home / "runs" / "mine")]
    add = ["results", "add", str(home / "runs" / "mine"), "--results", str(home / "reports" / "results")]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AGEBENCH_CACHE", str(home / "cache"))
        assert main([*words, *small, "--registry", str(home / "cards")]) == 0
        assert main([*add, "--registry", str(home / "cards")]) == 0
    return home


@pytest.fixture(autouse=True)
def one_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are read once for all tests here."""
    monkeypatch.setenv("AGEBENCH_CACHE", str(home / "cache"))


@pytest.fixture
def reports(home: Path, tmp_path: Path) -> Path:
    """A copy of the reports, to be spoilt."""
    return Path(shutil.copytree(home / "reports", tmp_path / "reports"))


def record_in(reports: Path) -> Path:
    return next((reports / "results").glob("*.json"))


def rewrite(path: Path, change: Any, *, sealed: bool = True) -> None:
    record = json.loads(path.read_text())
    change(record)
    if sealed:
        del record["sha256"]
        record["sha256"] = content_hash(record)
    path.write_text(json.dumps(record))


def check(home: Path, reports: Path) -> int:
    return main(["results", "check", "--results", str(reports / "results"), "--registry", str(home / "cards")])


def again(home: Path, record: Path, out: Path, *more: str) -> int:
    return main(["reproduce", str(record), "--out", str(out), "--registry", str(home / "cards"), *more])


def test_a_record_says_what_its_figures_depend_on(home: Path) -> None:
    record = json.loads(record_in(home / "reports").read_text())
    assert len(record["model"]["initial"]["backbone_sha256"]) == 64
    assert record["faces"]["sha256"].keys() == {"few", "other"}
    assert record["datasets"]["few"]["options"] == {"count": 80, "seed": 11}
    assert record["datasets"]["few"]["public"] is True
    assert record["samples"]["few"]["fingerprint"]


def test_what_is_stored_tells_no_label_and_no_name(home: Path) -> None:
    record = record_in(home / "reports")
    files = sorted((home / "reports" / "predictions").rglob("*.parquet"))
    # The card of `few` does not allow it.
    assert [str(file.relative_to(home / "reports" / "predictions")) for file in files] == [
        f"{record.stem}/other.parquet"
    ]
    table = pd.read_parquet(files[0])
    assert list(table.columns) == ["key", "age_pred"]
    assert table["key"].is_monotonic_increasing  # not in the order of the dataset, which may be that of ages


def test_figures_follow_from_what_is_stored(home: Path, reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = ["--registry", str(home / "cards")]
    assert check(home, reports) == 0
    told = capsys.readouterr().out
    assert "1 records, 0 wrong; figures of 0 computed again" in told
    assert "1 computed again on some of their test sets only" in told  # the estimates for `few` are not public
    assert main(["results", "check", "--results", str(reports / "results"), "--runs", str(home / "runs"), *cards]) == 0
    assert "1 records, 0 wrong; figures of 1 computed again" in capsys.readouterr().out


def test_other_estimates_are_found(home: Path, reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next((reports / "predictions").rglob("other.parquet"))
    table = pd.read_parquet(file)
    table.loc[3, "age_pred"] += 1
    table.to_parquet(file)
    assert check(home, reports) == 1
    assert "are not those of the record" in capsys.readouterr().out
    # Whoever also mends the digest and the seal is found by the figures.
    digest = estimates_digest(table)
    rewrite(record_in(reports), lambda record: record["predictions"]["other"].update(estimates_sha256=digest))
    assert check(home, reports) == 1
    assert "other: all images: mae is" in capsys.readouterr().out
    file.write_bytes(b"PAR1")
    assert check(home, reports) == 1
    assert "not a readable Parquet file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda test: test.pop("method"), "it does not have the method of its intervals"),
        (lambda test: test["method"].update(resamples=10**9), "are not computed again"),
    ],
)
def test_a_record_of_a_strange_shape_ends_no_check(
    change: Any, words: str, home: Path, reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(record_in(reports), lambda record: change(record["metrics"]["tests"]["other"]))
    assert check(home, reports) == 1
    assert words in capsys.readouterr().out


def test_a_gap_changed_by_hand_and_sealed_again_is_found(
    home: Path, reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(record: dict[str, Any]) -> None:
        record["metrics"]["tests"]["other"]["gaps"]["gender"]["difference"]["value"] *= 0.5

    rewrite(record_in(reports), change)
    assert check(home, reports) == 1
    assert "gap by gender: difference is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record.update(schema=7), "its schema is 7; this agebench"),
        (lambda record: record.update(metrics={"train": "few", "tests": {"few": 3}}), "do not have the shape"),
        (lambda record: record.update(config="seed = 0"), "its 'config' does not have the shape"),
        (lambda record: record.update(metrics={"tests": {}}), "its 'metrics' does not have the shape"),
        (lambda record: record.pop("model"), "it has no 'model'"),
        (lambda record: record.update(id="another"), "its id is another"),
    ],
)
def test_a_record_of_another_shape_is_named(
    change: Any, said: str, home: Path, reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(record_in(reports), change)
    assert check(home, reports) == 1
    told = capsys.readouterr().out
    assert said in told
    assert record_in(reports).name in told


def test_a_record_of_an_unknown_dataset_says_so(home: Path, reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "check", "--results", str(reports / "results")]) == 1
    assert "no dataset called 'few'" in capsys.readouterr().out
    assert main(["reproduce", str(record_in(reports))]) == 2
    assert "no dataset called 'few'" in capsys.readouterr().err


def test_the_run_again_is_identical(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert again(home, record_in(home / "reports"), tmp_path / "again", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "identical"
    assert said["differences"] == []
    # A second call does not train again.
    assert again(home, record_in(home / "reports"), tmp_path / "again") == 0
    assert "verdict: identical" in capsys.readouterr().out


def test_reproduce_of_an_old_split_scheme_says_so(
    home: Path, reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(record_in(reports), lambda record: record["protocol"].pop("split_scheme"))
    assert again(home, record_in(reports), tmp_path / "again") == 1
    error = capsys.readouterr().err
    assert "differs: the split scheme has changed: this agebench divides few by scheme 2" in error
    assert "--force runs it all the same" in error
    assert not (tmp_path / "again").exists()


def test_other_data_are_told_before_hours_of_training(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_card(tmp_path, "few", 80, 99)
    write_card(tmp_path, "other", 120, 12)
    words = ["reproduce", str(record_in(home / "reports")), "--out", str(tmp_path / "again")]
    assert main([*words, "--registry", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "the card of few has options" in told
    assert "few: its images or labels here are others" in told
    assert not (tmp_path / "again").exists()


def test_a_figure_outside_the_interval_is_a_verdict(home: Path) -> None:
    record = json.loads(record_in(home / "reports").read_text())
    near, far = copy.deepcopy(record), copy.deepcopy(record)
    for other, step in ((near, 0.0), (far, 50.0)):
        other["predictions"]["few"]["sha256"] = "others"
        mae = other["metrics"]["tests"]["few"]["overall"]["mae"]
        mae.update({end: mae[end] + step for end in ("value", "ci_low", "ci_high")})
    found = [
        reproduce.reproduction_verdicts(Record.from_json(content), home / "runs" / "mine")
        for content in (record, near, far)
    ]
    assert [reproduce.worst_verdict(of) for of in found] == ["identical", "inside the interval", "outside the interval"]
    assert found[2]["other"].verdict == "identical"


def test_a_strangers_record_brings_no_code_of_the_strangers(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    card = 'name = "ruler"\nkind = "external"\ntitle = "A ruler"\nformat = "command"\n'
    card += 'source = "true {input} {output}"\nlicence = "CC0-1.0"\n'
    (tmp_path / "models" / "ruler.toml").write_text(card)
    found = load_catalog([tmp_path])
    theirs = found.models.get("ruler").model_dump(mode="json") | {"source": "rm -rf {input} {output}"}
    content: dict[str, Any] = {
        "schema": 1,
        "id": "x",
        "config": {"seed": 0, "data": {"test": ["synth"]}, "model": theirs, "faces": {}, "device": "cpu"},
        "model": {"name": "ruler"},
        "metrics": {"train": None, "tests": {}},
        "predictions": {},
    }
    config = reproduce.config_of(content | {"sha256": content_hash(content)}, found)
    assert config.model.source == "true {input} {output}"
    content["config"]["model"]["output"]["scale"] = 3.0
    with pytest.raises(UserError, match="has another output than the record"):
        reproduce.config_of(content | {"sha256": content_hash(content)}, found)


def test_a_record_of_published_weights_is_one_of_a_test() -> None:
    found = load_catalog()
    architecture = found.models.get("swinface").architecture.model_dump(mode="json")
    content: dict[str, Any] = {
        "schema": 1,
        "id": "x",
        "config": {
            "seed": 0,
            "data": {"test": ["synth"]},
            "model": architecture,
            "pretrained": "checkpoint.pt",
            "faces": {},
            "device": "cpu",
        },
        "model": {"name": "swinface"},
        "metrics": {"train": None, "tests": {}},
        "predictions": {},
    }
    config = reproduce.config_of(content | {"sha256": content_hash(content)}, found)
    assert isinstance(config, PublishedConfig)
    assert config.pretrained == "checkpoint.pt"
    del content["config"]["pretrained"]
    content["config"]["model"]["name"] = "resnet50"
    with pytest.raises(UserError, match="'resnet50' of this registry has to be trained"):
        reproduce.config_of(content | {"sha256": content_hash(content)}, found)


def test_a_record_that_does_not_hold_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^theirs\.json cannot be trusted: "):
        reproduce.config_of({"schema": 1, "sha256": "0" * 64}, load_catalog([]), source="theirs.json")
