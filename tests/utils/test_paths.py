"""A cache that cannot be written does not stop a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agebench.errors import AgebenchError
from agebench.utils import paths
from agebench.utils.io import write_error
from agebench.utils.paths import cache_home


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where nobody can make a folder, root included."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "file" / "cache"


def test_cache_home_falls_back_to_a_temporary_folder(
    no_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cache_home()
    assert folder.parent == tmp_path
    assert cache_home() == folder
    assert os.environ["AGEBENCH_CACHE"] == str(folder)  # for processes that this one starts
    (line,) = caplog.messages
    assert str(no_cache) in line
    assert "AGEBENCH_CACHE" in line
    paths._remove_cache(folder, os.getpid() + 1)
    assert folder.exists()
    paths._remove_cache(folder, os.getpid())
    assert not folder.exists()


def test_cache_home_that_must_last_is_refused(no_cache: Path) -> None:
    with pytest.raises(AgebenchError, match="set AGEBENCH_CACHE to another folder"):
        cache_home(lasting=True)
    assert os.environ["AGEBENCH_CACHE"] == str(no_cache)


def test_cache_home_without_any_place_names_the_setting(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(no_cache))
    with pytest.raises(AgebenchError, match="set AGEBENCH_CACHE to another folder"):
        cache_home()


def test_a_temporary_cache_goes_with_its_process(no_cache: Path, tmp_path: Path) -> None:
    code = "from agebench.utils.paths import cache_home; print(cache_home())"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()


def test_write_error_names_the_cache() -> None:
    error = PermissionError(13, "Permission denied")
    assert "AGEBENCH_CACHE" in str(write_error(cache_home() / "faces" / "a", error))
    assert "AGEBENCH_CACHE" not in str(write_error(Path("/elsewhere/a"), error))
