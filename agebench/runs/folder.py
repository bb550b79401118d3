"""The folder of one run: what stands where, and whether it is finished."""

import importlib.metadata
import json
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from filelock import FileLock, Timeout

from agebench import __version__
from agebench.errors import AgebenchError, UserError
from agebench.files import atomic, write_json, write_text
from agebench.registry.cards import validated
from agebench.runs.config import RunConfig, read_settings


class Config(Protocol):
    """What decides a run, and can be written down."""

    def to_toml(self) -> str:
        """The whole of it."""


VERSIONS = ("torch", "torchvision", "timm", "numpy", "pandas", "pillow")


class RunFolder:
    """One run on disk. Every file is written whole or not at all.

    Args:
        path: the folder.
        kept: the URL of which it is but a copy on this machine, if it is.
    """

    def __init__(self, path: Path, kept: str = "") -> None:
        self.path = path
        self.place = kept or str(path)  # as a person knows it
        self.timings: dict[str, float] = {}

    @property
    def checkpoints(self) -> Path:
        """Where last.safetensors and best.safetensors stand."""
        return self.path / "checkpoints"

    def manifest(self) -> dict[str, Any]:
        """The manifest, or an empty one before the first is written."""
        return self._read("manifest.json")

    def metrics(self) -> dict[str, Any]:
        """The figures of a finished run."""
        return self._read("metrics.json")

    def config(self) -> RunConfig:
        """What determined the run.

        Raises:
            AgebenchError: no config stands here, or none of this version.
        """
        file = self.path / "config.toml"
        return validated(RunConfig, read_settings(file), source=str(file))

    def finished(self, config: Config) -> bool:
        """Whether this very run stands here finished.

        Raises:
            UserError: another run stands here.
        """
        file = self.path / "config.toml"
        if not file.exists():
            if self.path.exists() and any(entry.name != ".lock" for entry in self.path.iterdir()):
                raise UserError(f"{self.place} is not empty and holds no run; choose another folder with --out")
            return False
        if file.read_text(encoding="utf-8") != config.to_toml():
            raise UserError(
                f"{self.place} holds a run with other settings (compare its config.toml); choose another folder with --out, "
                "or delete that one"
            )
        return bool(self.manifest().get("finished"))

    def started(self) -> bool:
        """Whether an earlier call left something to continue."""
        return (self.checkpoints / "last.safetensors").exists() or (self.path / "folds").exists()

    def fold(self, number: int, count: int) -> "RunFolder":
        """The folder of a fold, `folds/01` and on; its seconds are counted with this one's."""
        own = RunFolder(self.path / "folds" / f"{number + 1:0{len(str(count))}}")
        own.timings = self.timings
        return own

    def done_fold(self) -> list[dict[str, float]]:
        """The history of a fold that is done, of one that is not an empty list."""
        return list(self._read("fold.json").get("history", []))

    def close_fold(self, name: str, history: list[dict[str, float]]) -> None:
        """Say that a fold is done. What only serves to go on with its training goes: of many folds it would fill disks."""
        write_json(self.path / "fold.json", {"fold": name, "history": history})
        (self.checkpoints / "last.safetensors").unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of this folder.

        Raises:
            AgebenchError: another process is at work here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise AgebenchError(
                f"{self.path}: another process is working on this run; wait for it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            lock.release()  # the file stays: removed, it would be locked by one process while another makes and locks a new one

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to the stage's timing."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = round(self.timings.get(stage, 0.0) + time.perf_counter() - start, 2)

    def write_config(self, config: Config) -> None:
        """The resolved config."""
        write_text(self.path / "config.toml", config.to_toml())

    def write_manifest(self, content: dict[str, Any]) -> None:
        """`content` beside what is known of this program and machine."""
        versions = {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONS},
        }
        about = {
            "schema": 1,
            "name": self.path.name,
            "agebench": __version__,
            "versions": versions,
            "git": git_commit(),
        }
        write_json(self.path / "manifest.json", about | content)

    def write_json(self, name: str, content: Any) -> None:
        """A JSON file of the folder."""
        write_json(self.path / name, content)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """A Parquet file of the folder."""
        with atomic(self.path / name) as temporary:
            table.to_parquet(temporary, index=False)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:  # also what is not UTF-8
            raise AgebenchError(f"{self.path / name}: damaged: {error}") from error
        if not isinstance(content, dict):
            raise AgebenchError(f"{self.path / name}: damaged: a table is expected, not a {type(content).__name__}")
        return content


def git_commit() -> str | None:
    """The commit that this code stands at, with `+changes` where files differ from it; None outside a repository."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():  # installed: a repository around the environment is somebody else's
        return None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--", "agebench"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
