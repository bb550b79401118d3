"""A run goes on, or counts as done, only with the data and the weights that it was begun with."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.cli import main
from agebench.config.cards.suite import SuiteCard
from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.leaderboard import reproduce
from agebench.leaderboard.schema import Record
from agebench.registry.catalog import load_catalog
from agebench.runs import provenance
from agebench.runs import run as pipeline
from agebench.runs.provenance import InputTracker, changed_inputs
from agebench.runs.resolve import resolve_config
from agebench.runs.run_dir import RunDir
from agebench.suites.matrix import plan_jobs
from agebench.types import WeightsKind, WeightsSource

CARD = """
name = "mine"
title = "Mine"
reader = "csv"
licence = "internal"
faces = "none"
[options]
table = "labels.csv"
"""
CHANGES = {
    "list": "the --exclude list ex.csv",
    "label": "the images or labels of mine",
    "image": "the images or labels of mine",
    "card": "how the faces of mine are prepared",
    "weights": "the weights w.pt",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a card, a list and a file of weights; the dataset is where it belongs."""
    data = tmp_path / "data" / "mine"
    data.mkdir(parents=True)
    for number in range(24):
        pixels = np.full((16, 16, 3), number * 9, np.uint8)
        Image.fromarray(pixels).save(data / f"{number}.png")
    labels = "\n".join(f"{number}.png,{20 + number}" for number in range(24))
    (data / "labels.csv").write_text(f"path,age\n{labels}\n")
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "mine.toml").write_text(CARD)
    (tmp_path / "ex.csv").write_text("sample_id\n3.png\n")
    (tmp_path / "w.pt").write_bytes(b"weights")
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(here: Path, what: str) -> None:
    if what == "list":
        (here / "ex.csv").write_text("sample_id\n3.png\n4.png\n")
    if what == "label":
        labels = here / "data" / "mine" / "labels.csv"
        labels.write_text(labels.read_text().replace("\n5.png,25", "\n5.png,26"))
    if what == "image":
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(here / "data" / "mine" / "7.png")
    if what == "card":
        (here / "cards" / "datasets" / "mine.toml").write_text(CARD.replace('"none"', '"detect"'))
    if what == "weights":
        (here / "w.pt").write_bytes(b"other weights")


def words(*more: str) -> list[str]:
    run = ["run", "--train", "mine", "--model", "tiny", "--set", "model.size=32", "--exclude", "ex.csv"]
    return [*run, "--registry", "cards", "--out", "run", *more]


@pytest.fixture
def begun(here: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run that was stopped when its first checkpoint stood."""

    def stopped(config: object, folder: RunDir, *rest: object, **more: object) -> None:
        folder.checkpoints.mkdir(parents=True)
        (folder.checkpoints / "last.safetensors").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "cross_validate", stopped)
        patched.setattr(pipeline, "load_pretrained", lambda *arguments: WeightsSource(WeightsKind.FILE, "w.pt"))
        assert main(words("--pretrained", "w.pt")) == 130
    return RunDir(here / "run")


@pytest.mark.parametrize("what", CHANGES)
def test_a_run_whose_inputs_changed_neither_goes_on_nor_counts_as_done(
    what: str, here: Path, begun: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "load_pretrained", lambda *arguments: WeightsSource(WeightsKind.FILE, "w.pt"))
    monkeypatch.setattr(pipeline, "cross_validate", lambda *arguments, **more: pytest.fail("it went on"))
    change(here, what)
    before = {path: path.read_bytes() for path in begun.path.rglob("*") if path.is_file()}
    for finished in (False, True):
        if finished:
            begun.write_json("manifest.json", begun.manifest() | {"finished": True})
            before[begun.path / "manifest.json"] = (begun.path / "manifest.json").read_bytes()
        assert main(words("--pretrained", "w.pt", "--resume")) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert f"was started before {CHANGES[what]} changed" in said[0]
        assert "restore the earlier state, choose another folder with --out, or delete this one" in said[0]
        assert {path: path.read_bytes() for path in begun.path.rglob("*") if path.is_file()} == before


def test_alignment_digest_is_that_of_versions_without_an_offset() -> None:
    samples = Samples(pd.DataFrame({"sample_id": ["a"], "path": ["a"], "age": [3.0]}))
    settings = asdict(AlignmentSpec("none", 32))
    older = {key: value for key, value in settings.items() if key not in ("offset", "fit", "margin")}
    assert provenance._alignment_digest(settings, samples) == provenance._alignment_digest(older, samples)
    lower = asdict(AlignmentSpec("none", 32, offset=0.1))
    assert provenance._alignment_digest(lower, samples) != provenance._alignment_digest(older, samples)


def test_unchanged_run_is_done_and_so_is_a_run_without_its_data(
    here: Path, begun: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards, config = load_catalog([here / "cards"]), begun.config()
    assert InputTracker(cards).refuse_changed(begun, config) == ""
    monkeypatch.setenv("AGEBENCH_DATA", str(here / "nowhere"))
    assert "dataset 'mine' (Mine) is not on this machine" in InputTracker(cards).refuse_changed(begun, config)


def test_a_manifest_from_before_it_named_its_inputs(here: Path, begun: RunDir) -> None:
    cards, config = load_catalog([here / "cards"]), begun.config()
    old = {key: value for key, value in begun.manifest().items() if key != "inputs"}
    begun.write_json("manifest.json", old)
    assert InputTracker(cards).refuse_changed(begun, config) == ""
    change(here, "list")
    with pytest.raises(UserError, match=r"the --exclude list ex\.csv changed"):
        InputTracker(cards).refuse_changed(begun, config)
    begun.write_json("manifest.json", {"finished": True, "samples": [], "model": None})
    assert InputTracker(cards).refuse_changed(begun, config) == "its manifest does not contain their digests"


def test_what_follows_from_a_change_is_not_named_beside_it() -> None:
    told = {"images": {"a": "1", "b": "1"}, "parts": {"a": "1"}, "initial": {"backbone": "1"}, "weights": {"w": "1"}}
    now = {"images": {"a": "2", "b": "1"}, "parts": {"a": "2"}, "initial": {"backbone": "2"}, "weights": {"w": "2"}}
    assert changed_inputs({"inputs": told}, now) == ["the images or labels of a", "the weights w"]
    assert changed_inputs({"inputs": told}, told | {"parts": {"a": "2"}}) == ["the parts that the images of a are in"]
    assert changed_inputs({"model": {"file_sha256": "1"}}, {"model": {"file": "2"}}) == ["the model's file"]
    random = {"weights": "random", "initial": {"backbone_sha256": "1"}}
    assert changed_inputs({"model": random}, {"initial": {"backbone": "2"}}) == []


def test_a_suite_shows_what_changed_and_does_not_take_it_for_done(here: Path) -> None:
    cards = load_catalog([here / "cards"])
    card = SuiteCard(name="s", title="S", train=("mine",), test=("mine",), models=("tiny",), seeds=(0, 1))
    settings = [{"data": {"exclude": ["ex.csv"]}}]
    for job in plan_jobs(card, cards, here / "runs", settings):
        folder = RunDir(job.folder)
        folder.write_config(job.config)
        assert job.inputs is not None
        folder.write_json("manifest.json", {"finished": True, "inputs": job.inputs._inputs(job.config)})
        assert job.state() == "done"
    change(here, "list")
    for job in plan_jobs(card, cards, here / "runs", settings):
        assert job.state() == "stale"
        assert "the --exclude list ex.csv changed" in job.reason()


def test_another_split_of_the_same_images_is_seen(here: Path) -> None:
    cards = load_catalog([here / "cards"])
    layers = [{"data": {"train": "mine", "test": ["mine"]}, "model": {"name": "tiny"}}]
    one, other = (InputTracker(cards)._inputs(resolve_config(cards, [*layers, {"seed": seed}])) for seed in (0, 1))
    assert one["images"] == other["images"]
    assert one["parts"] != other["parts"]
    assert json.loads(json.dumps(one)) == one


def test_models_whose_faces_are_framed_otherwise_share_no_inputs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = load_catalog([here / "cards"])
    layers = [{"data": {"train": "mine", "test": ["mine"]}, "model": {"name": "tiny"}}]
    tracker, asked = InputTracker(cards), list[bool | None]()
    monkeypatch.setattr(RunDir, "manifest", lambda self: {"inputs": {"images": {"mine": "0123456789abcdef"}}})
    monkeypatch.setattr(InputTracker, "_inputs", lambda self, config: asked.append(config.model.letterbox) or {})
    for letterbox in (False, True, True):
        config = resolve_config(cards, [*layers, {"model": {"letterbox": letterbox}}])
        assert tracker.refuse_changed(RunDir(here / "run"), config) == ""
    assert asked == [False, True]


def test_changed_names_the_split_scheme_of_an_old_run(here: Path) -> None:
    layers = [{"data": {"train": "mine", "test": ["mine"]}, "model": {"name": "tiny"}}]
    now = InputTracker(load_catalog([here / "cards"]))._inputs(resolve_config(load_catalog([here / "cards"]), layers))
    manifest = {"train": {"name": "mine"}, "protocol": {"name": "default", "folds": 1}, "inputs": {**now, "split": {}}}
    manifest["inputs"]["parts"] = {"mine": "0123456789abcdef"}
    assert changed_inputs(manifest, now) == ["the split scheme that divides mine"]
    drawn = {"name": "default", "folds": 1, "split_scheme": 2}
    assert changed_inputs({**manifest, "protocol": drawn, "inputs": now}, now) == []


def record_of(protocol: dict[str, object]) -> Record:
    """Return a record of a run that began with random weights."""
    content = {"id": "a", "config": {}, "protocol": protocol, "predictions": {}, "sha256": ""}
    return Record.from_json(
        {**content, "metrics": {"train": "mine", "tests": {}}, "model": {"name": "tiny", "weights": "random"}}
    )


@pytest.mark.parametrize(
    ("protocol", "scheme"), [({"name": "default"}, 1), ({"split_scheme": 2}, 2), ({"split_scheme": 99}, 99)]
)
def test_reproduce_names_the_split_scheme_of_a_record(here: Path, protocol: dict[str, object], scheme: int) -> None:
    cards = load_catalog([here / "cards"])
    config = resolve_config(cards, [{"data": {"train": "mine", "test": ["mine"]}, "model": {"name": "tiny"}}])
    record = record_of(protocol)
    told = list(reproduce.input_differences(record, config, cards))
    expected = f"the split scheme has changed: this agebench divides mine by scheme 3, the record was made with scheme {scheme}"
    assert any(line.startswith(expected) for line in told)
    of_scheme_3 = record_of({"split_scheme": 3})  # its images are not listed in the order of their ids
    assert not any("split scheme" in line for line in reproduce.input_differences(of_scheme_3, config, cards))


def test_reproduce_asks_no_split_scheme_where_nothing_is_drawn(here: Path) -> None:
    labels = (here / "data" / "mine" / "labels.csv").read_text().splitlines()
    parts = ["split", *["train"] * 12, *["val"] * 6, *["test"] * 6]
    lines = [f"{row},{part}" for row, part in zip(labels, parts, strict=True)]
    (here / "data" / "mine" / "labels.csv").write_text("\n".join(lines))
    cards = load_catalog([here / "cards"])
    config = resolve_config(cards, [{"data": {"train": "mine", "test": ["mine"]}, "model": {"name": "tiny"}}])
    record = record_of({"name": "default"})
    assert not any("split scheme" in line for line in reproduce.input_differences(record, config, cards))
