"""Files are there whole or not at all, and nothing is left of a process that was killed."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from agebench.errors import AgebenchError
from agebench.utils import io
from agebench.utils.io import atomic_write, temporary_folder, write_text


def open_files() -> list[Path]:
    """The files that this process has open."""
    paths = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(
            FileNotFoundError
        ):  # the descriptor of the listing itself, and those that other threads close
            paths.append(link.readlink())
    return paths


def killed_while_writing(path: Path) -> None:
    child = os.fork()
    if not child:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_atomic_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "figures" / "mae.png")
    (left,) = (tmp_path / "figures").iterdir()
    assert left.name.endswith(".tmp.png")
    write_text(tmp_path / "figures" / "other.txt", "whole")
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["other.txt"]


def test_atomic_spares_what_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / ".mine.abcdefgh.tmp.png"
    foreign.write_text("of another program")
    with atomic_write(tmp_path / "a.txt") as first:
        first.write_text("first")
        monkeypatch.setattr(io, "_tidied", set())  # as another process sees it
        write_text(tmp_path / "b.txt", "second")
        assert first.exists()
    assert (tmp_path / "a.txt").read_text() == "first"
    assert foreign.exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_temporary_folder_is_removed_after_use_and_after_a_kill(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "home" / "weights") as folder:
        assert folder.parent == tmp_path / "home"
        (folder / "a").write_text("a")
    assert list((tmp_path / "home").iterdir()) == []
    child = os.fork()
    if not child:
        with temporary_folder(tmp_path / "other" / "weights") as folder:
            (folder / "a").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (left,) = (tmp_path / "other").iterdir()
    with temporary_folder(tmp_path / "other" / "weights"):
        assert not left.exists()
    assert [path for path in open_files() if path.is_relative_to(tmp_path)] == []


def test_a_temporary_folder_spares_those_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with temporary_folder(tmp_path / "a") as first:
        monkeypatch.setattr(io, "_tidied", set())  # as another process sees it
        with temporary_folder(tmp_path / "a") as second:
            assert first.is_dir()
            assert first != second


def test_atomic_writes_long_names_and_leaves_no_descriptor(tmp_path: Path) -> None:
    for number in range(20):
        write_text(tmp_path / f"{'n' * 200}-{number}.json", "x")
    with pytest.raises(AgebenchError), atomic_write(tmp_path / "a.txt"):
        raise OSError(5, "Input/output error")
    assert len(list(tmp_path.iterdir())) == 20
    assert [path for path in open_files() if path.is_relative_to(tmp_path)] == []
