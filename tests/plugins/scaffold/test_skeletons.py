"""What `agebench new` writes works as it stands."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agebench.cli import main
from agebench.errors import UserError
from agebench.plugins.scaffold import KINDS, write_skeleton

# The tests of all skeletons, each in its own folder, in a process that imports torch once.
RUN_TESTS = """
import os, sys
import pytest

for folder in sys.argv[1:]:
    os.chdir(folder)
    code = pytest.main(["-q", "-p", "no:cacheprovider"])
    if code:
        sys.exit(f"{folder}: {code!r}")
"""


@pytest.mark.slow
def test_the_skeletons_own_tests_pass(tmp_path: Path) -> None:
    folders = []
    for kind in KINDS:
        assert main(["new", kind, f"my-{kind}.2", "--into", str(tmp_path)]) == 0
        folders.append(str(tmp_path / f"agebench-my-{kind}.2"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-c", RUN_TESTS, *folders]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed") == len(folders)


@pytest.mark.parametrize("kind", KINDS)
def test_every_placeholder_is_filled(kind: str, tmp_path: Path) -> None:
    files = write_skeleton(kind, "mine", tmp_path)
    assert {path.name for path in files} >= {"pyproject.toml", "README.md", "__init__.py", "test_agebench_mine.py"}
    assert not [path for path in files if "$" in f"{path}{path.read_text()}"]


@pytest.mark.parametrize("name", ["3d-faces.2", "mine", "300w"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_with_digits_and_dots_is_a_package(kind: str, name: str, tmp_path: Path) -> None:
    files = write_skeleton(kind, name, tmp_path)
    project = tomllib.loads(next(path for path in files if path.name == "pyproject.toml").read_text())["project"]
    assert project["name"] == f"agebench-{name}"
    for group in project["entry-points"].values():
        assert list(group) == [name]
        assert isinstance(group[name], str)
    for path in files:
        if path.suffix == ".py":
            compile(path.read_text(), str(path), "exec")


@pytest.mark.parametrize("name", ["mine-", "mine.", "_mine"])
def test_a_name_that_no_package_may_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a letter or digit first and last"):
        write_skeleton("head", name, tmp_path)


def test_what_was_written_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "head", "written", "--into", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path / "agebench-written")
    assert all(Path(file).exists() for file in found["files"])
    assert found["next"][0].startswith("pip install -e")


def test_a_name_that_is_taken_or_impossible_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "head", "coral", "--into", str(tmp_path)]) == 2
    assert "there is a head called 'coral' already" in capsys.readouterr().err
    assert main(["new", "head", "My Head", "--into", str(tmp_path)]) == 2
    assert "cannot be a name" in capsys.readouterr().err
    write_skeleton("head", "mine", tmp_path)
    with pytest.raises(UserError, match="is there already"):
        write_skeleton("model", "mine", tmp_path)
