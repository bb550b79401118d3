"""`evaluate` writes into a folder of its own alone."""

from pathlib import Path

import pytest

import agebench as ab
from agebench.errors import UserError


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PROJECT = {"figures/plot.png": "mine", "report.md": "mine"}
TRAINED = {"config.toml": '[data]\ntrain = "utk"\ntest = ["utk"]\n', "manifest.json": '{"finished": true}'}
FOLDERS = {
    "project": (PROJECT, "is not empty and holds no run"),
    "project-with-settings": ({**PROJECT, "config.toml": 'title = "mine"\n'}, "is not empty and holds no run"),
    "project-with-damaged-settings": ({**PROJECT, "config.toml": "mine"}, "is not empty and holds no run"),
    "trained-run": (TRAINED, "holds a run with other settings"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_evaluate_touches_no_folder_of_something_else(kind: str, tmp_path: Path) -> None:
    contents, message = FOLDERS[kind]
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=message):
        ab.evaluate(lambda faces: [40.0] * len(faces), datasets="synth-shift", device="cpu", out=tmp_path)
    assert files_of(tmp_path) == before
