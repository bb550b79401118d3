import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from agebench.cli import main

CARD = """
name = "mine"
title = "My faces"
reader = "folder"
licence = "mine alone"
count = 2
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    (tmp_path / "registry" / "datasets").mkdir(parents=True)
    (tmp_path / "registry" / "datasets" / "mine.toml").write_text(CARD)
    return tmp_path / "registry"


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("faces/20/a.png", file.getvalue())
        archive.writestr("faces/30/b.png", file.getvalue())
    return tmp_path / "faces.zip"


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["data", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_add_list_check(registry: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "list", "--registry", registry)
    line = next(line for line in out.splitlines() if line.startswith("mine"))
    assert code == 0
    assert "missing" in line
    assert line.endswith("  agebench data import mine PATH")

    code, out, _ = call(capsys, "add", "mine", faces, "--registry", registry)
    assert code == 0
    assert "My faces added: 2 images" in out
    assert "mine alone" in out
    code, out, _ = call(capsys, "add", "mine", faces, "--registry", registry)
    assert code == 0
    assert "was there already" in out

    code, out, _ = call(capsys, "list", "--registry", registry, "--json")
    found = {row["name"]: row for row in json.loads(out)["datasets"]}
    assert found["mine"]["state"] == "here"
    assert found["mine"]["where"] == os.path.join(os.environ["AGEBENCH_DATA"], "mine")
    assert found["utk"]["state"] == "missing"

    code, out, _ = call(capsys, "check", "--registry", registry)
    assert code == 0
    assert "good" in out


def test_check_says_what_is_wrong_and_exits_with_one(
    registry: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, "add", "mine", faces, "--registry", registry)
    Path(os.environ["AGEBENCH_DATA"], "mine", "faces", "20", "a.png").write_bytes(b"<html>")
    code, out, _ = call(capsys, "check", "mine", "--registry", registry)
    assert code == 1
    assert "wrong" in out
    assert "mine: 1 of 2 images cannot be opened, the first is faces/20/a.png" in out
    code, out, _ = call(capsys, "check", "mine", "--full", "--registry", registry, "--json")
    assert code == 1
    assert list(json.loads(out)[0]["unreadable"]) == ["faces/20/a.png"]


def test_check_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "check")
    assert code == 0
    assert "no dataset is on this machine yet" in out
    code, _, err = call(capsys, "check", "utk")
    assert code == 2
    assert "agebench data import utk PATH" in err


def test_get_from_an_open_source(registry: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (registry / "datasets" / "mine.toml").write_text(CARD + f'url = "{faces.as_uri()}"\n')
    code, out, _ = call(capsys, "get", "mine", "--registry", registry, "--json")
    assert code == 0
    assert json.loads(out)["images"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "nosuch", "."), "no dataset called 'nosuch'"),
        (("add", "fgnt", "."), "did you mean 'fgnet'?"),
        (("add", "utk", "nowhere.tar.gz"), "nowhere.tar.gz: no such file or folder"),
        (("get", "utk"), "https://susanqq.github.io/UTKFace/"),
    ],
)
def test_mistakes_are_named_in_a_line(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *words)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) <= 2


def test_a_card_with_a_typo(registry: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = registry / "datasets" / "mine.toml"
    card.write_text(CARD.replace("licence", "lisence"))
    code, _, err = call(capsys, "add", "mine", faces, "--registry", registry)
    assert code == 2
    assert str(card) in err
    assert "unknown key 'lisence'; did you mean 'licence'?" in err
    code, out, _ = call(capsys, "list", "--registry", registry)
    assert code == 0
    assert "broken: mine: " in out


def test_an_archive_that_was_cut(faces: Path, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces.write_bytes(faces.read_bytes()[:-40])
    code, _, err = call(capsys, "add", "mine", faces, "--registry", registry)
    assert code == 2
    assert "cut short or damaged: download it again" in err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "archive", "count"), [("utk", "UTKFace.tar.gz", 23707), ("fgnet", "FGNET.zip", 1002)])
def test_the_real_archives(
    name: str, archive: str, count: int, test_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "add", name, test_data / archive, "--json")
    assert code == 0
    assert json.loads(out)["images"] == count
    code, out, _ = call(capsys, "check", name, "--json")
    assert code == 0
    assert json.loads(out)[0]["problems"] == []
