"""A run's folder belongs to one process at a time."""

from pathlib import Path

import pytest
from filelock import FileLock

from agebench.errors import AgebenchError
from agebench.runs.run_dir import RunDir


def test_locked_keeps_its_file_so_that_one_process_owns_a_run(tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "run")
    late = FileLock(folder.path / ".lock")
    with folder.locked():
        inode = (folder.path / ".lock").stat().st_ino
    assert (folder.path / ".lock").stat().st_ino == inode
    with late, pytest.raises(AgebenchError, match="another process is working"), folder.locked():
        pass
    with folder.locked():
        pass
