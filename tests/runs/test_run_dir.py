"""A run's folder belongs to one process at a time."""

from pathlib import Path

import pytest
from filelock import FileLock

from agebench.errors import AgebenchError, UserError
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


class Settings:
    """Settings of a run."""

    def to_toml(self) -> str:
        return "seed = 1\n"


@pytest.mark.parametrize("name", ["report.md", "config.toml"])
def test_begin_removes_nothing_that_no_run_wrote(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("title = 'mine'")
    (tmp_path / "figures").mkdir()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        RunDir(tmp_path).begin(Settings())
    assert (tmp_path / name).read_text() == "title = 'mine'"
    assert (tmp_path / "figures").is_dir()
