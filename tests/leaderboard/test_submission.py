"""Submissions: `agebench results submit` and `agebench results row`."""

import json
import shutil
from pathlib import Path

import pytest

from agebench.cli import main


def submit(run: Path, out: Path) -> int:
    return main(["results", "submit", str(run), "--out", str(out)])


@pytest.mark.usefixtures("with_few")
def test_submit_writes_record_card_and_row(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "submission"
    assert submit(small_run, out) == 0
    printed = capsys.readouterr().out.splitlines()
    written = sorted(str(path) for path in out.rglob("*") if path.is_file())
    assert sorted(printed) == written
    (record,) = (out / "reports" / "results").glob("*.json")
    assert json.loads(record.read_text())["id"] == record.stem
    # The dataset's card is not shipped, so it is part of the submission; the model's card is shipped.
    card = small_run.parent / "registry" / "datasets" / "synth.toml"
    assert (out / "registry" / "datasets" / "synth.toml").read_bytes() == card.read_bytes()
    assert not (out / "registry" / "models").exists()
    assert "| few " in (out / "pull_request.md").read_text()
    assert main(["results", "check", "--results", str(record.parent)]) == 0
    capsys.readouterr()
    assert main(["results", "row", str(record)]) == 0
    assert capsys.readouterr().out.strip() in (out / "pull_request.md").read_text()


@pytest.mark.usefixtures("with_few")
def test_submit_refuses_a_model_whose_card_is_not_at_hand(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["model"]["name"] = "mine"
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert submit(run, tmp_path / "submission") == 2
    error = capsys.readouterr().err
    assert "the card of its model 'mine'" in error
    assert "--registry" in error
    assert not (tmp_path / "submission").exists()


@pytest.mark.usefixtures("with_few")
def test_submit_writes_estimates_if_the_card_allows(small_run: Path, tmp_path: Path) -> None:
    card = (small_run.parent / "registry" / "datasets" / "synth.toml").read_text()
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "few.toml").write_text(
        card.replace("title", "estimates_public = true\ntitle", 1)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEBENCH_REGISTRY", str(tmp_path / "cards"))
        assert submit(small_run, tmp_path / "submission") == 0
    (record,) = (tmp_path / "submission" / "reports" / "results").glob("*.json")
    assert (tmp_path / "submission" / "reports" / "predictions" / record.stem / "few.parquet").is_file()


@pytest.mark.usefixtures("with_few")
def test_submit_refuses_a_folder_with_files(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert submit(small_run, tmp_path) == 2
    assert "choose an empty folder with --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("with_few")
def test_row_refuses_a_record_that_was_edited(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(small_run, tmp_path / "submission") == 0
    (record,) = (tmp_path / "submission" / "reports" / "results").glob("*.json")
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1', 1))
    capsys.readouterr()
    assert main(["results", "row", str(record)]) == 2
    assert "its seal is broken" in capsys.readouterr().err


@pytest.mark.usefixtures("with_few")
def test_submit_refuses_a_limited_run(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"limit": 100}))
    assert submit(run, tmp_path / "submission") == 2
    assert "the run used --limit" in capsys.readouterr().err
    assert not (tmp_path / "submission" / "reports").exists()


def test_row_covers_all_seeds_of_the_system(capsys: pytest.CaptureFixture[str]) -> None:
    record = next((Path(__file__).parents[2] / "reports" / "results").glob("utk-mobilefacenet-coral-s1-*.json"))
    assert main(["results", "row", str(record)]) == 0
    system, baseline = capsys.readouterr().out.split("\n\n")[0].splitlines()[2:]
    cells = [cell.strip() for cell in system.split("|")[1:-1]]
    assert cells[0] == "utk"
    assert cells[2] == "3"
    assert "median" in baseline
