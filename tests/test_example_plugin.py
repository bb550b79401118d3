"""The example plugin as a user has it: installed, found by its entry points, checked, run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "agebench-plugin-example"


def call(*words: str, cwd: Path, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-m", *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_plugin_installs_and_passes_its_own_tests(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    call("pip", "install", *offline, "--quiet", "--target", str(site), str(EXAMPLE), cwd=empty, path=tmp_path)
    checked = call("agebench", "check", "example-discs", "example-ruler", "example-log", cwd=empty, path=site)
    assert checked.count("good (") == 3
    tests = [str(EXAMPLE / "tests"), "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(empty)]
    asked = call("pytest", "-q", "--agebench-check", "example-log", *tests, cwd=empty, path=site)
    assert "3 passed" in asked
