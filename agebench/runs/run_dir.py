"""The folder of one run: what stands where, and whether it is finished."""

import errno
import importlib.metadata
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from agebench._version import __version__
from agebench.config.cards.base import validate_model
from agebench.errors import AgebenchError, Damaged, UserError
from agebench.runs.config import RunConfig, read_settings
from agebench.utils.integrity import DIGESTS, FOLD, MANIFEST, checked, kept_digests, read_json_table
from agebench.utils.io import atomic_write, file_digest, is_temporary, write_error, write_json, write_text
from agebench.utils.progress import step


class Config(Protocol):
    """What decides a run, and can be written down."""

    def to_toml(self) -> str:
        """The whole of it."""


LOCK = ".lock"
# There while the run's own command goes on without --resume: it was not a person who stopped the run.
_CONTINUES = ".continues"
# What a run leaves before its first epoch is done.
_BEGINNING = (
    *(
        "config.toml",
        "manifest.json",
        "metrics.json",
        "history.json",
        "validation.parquet",
        "report.md",
        "report.html",
        _CONTINUES,
    ),
    *("samples", "lists", "predictions", "checkpoints", "folds", "tensorboard", "figures", "private", "export"),
)
# The stages of `timings`, as progress names them.
_STAGES = {
    "read_s": "reading and checking the datasets",
    "faces_s": "preparing faces",
    "features_s": "computing features",
    "train_s": "training",
    "predict_s": "predicting ages",
    "evaluate_s": "evaluating",
    "export_s": "exporting the model",
}
TRACKED_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "pillow")


class RunDir:
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
        """The manifest, or an empty one before the first is written.

        Raises:
            Damaged: it cannot be read.
        """
        return read_json_table(self.path / MANIFEST)

    def metrics(self) -> dict[str, Any]:
        """The figures of a run, or an empty table before there are any.

        Raises:
            Damaged: they are not those that the run wrote, or a finished run has none.
        """
        metrics = read_json_table(checked(self.path, "metrics.json"))
        if not isinstance(metrics.get("tests"), dict) and self.manifest().get("finished"):
            raise Damaged(
                f"{self.path / 'metrics.json'}: holds no figures, though the run is finished. Delete {MANIFEST} beside it, "
                "and the run's command with --resume writes them again"
            )
        return metrics

    def config(self) -> RunConfig:
        """What determined the run.

        Raises:
            AgebenchError: no config stands here, or none of this version.
        """
        file = self.path / "config.toml"
        return validate_model(RunConfig, read_settings(checked(self.path, file.name)), source=str(file))

    def finished(self, config: Config) -> bool:
        """Whether this very run stands here finished.

        Raises:
            UserError: another run stands here, or no run can.
        """
        file = self.path / "config.toml"
        try:
            if not file.exists():
                if self.path.exists() and any(not _is_leftover(entry) for entry in self.path.iterdir()):
                    raise UserError(f"{self.place} is not empty and holds no run; choose another folder with --out")
                return False
            is_same = file.read_bytes() == config.to_toml().encode()
        except NotADirectoryError:
            raise UserError(f"{self.place} is a file, not a folder; choose another folder with --out") from None
        except OSError as error:
            raise UserError(
                f"{self.place}: cannot be read: {error.strerror or error}; choose another folder with --out"
            ) from error
        if not is_same:
            if not self.started() and not self.manifest().get("finished"):
                return False  # of a run that failed before it began: nothing is lost
            raise UserError(
                f"{self.place} holds a run with other settings (compare its config.toml); choose another folder with --out, "
                "or delete that one"
            )
        return bool(self.manifest().get("finished"))

    def started(self) -> bool:
        """Whether an earlier call left something to continue: an epoch that was trained."""
        folders = [self.path, *(self.path / "folds").glob("*")]
        return any((folder / FOLD).exists() or _has_epochs(folder / "checkpoints") for folder in folders)

    def begin(self, config: Config) -> None:
        """Write the config; what a call left that trained nothing is removed, it may be of another config or other data."""
        if not self.started():
            for name in _BEGINNING:
                entry = self.path / name
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
        (self.path / _CONTINUES).unlink(missing_ok=True)
        self.write_config(config)

    def continues(self) -> bool:
        """Whether the run's own command goes on with it as it is."""
        return (self.path / _CONTINUES).exists()

    def let_continue(self) -> bool:
        """Let the same command go on without --resume; returns whether that could be noted."""
        try:
            (self.path / _CONTINUES).touch()
        except OSError:
            return False
        return True

    def fold(self, number: int, count: int) -> "RunDir":
        """The folder of a fold, `folds/01` and on; its seconds are counted with this one's."""
        own = RunDir(self.path / "folds" / f"{number + 1:0{len(str(count))}}")
        own.timings = self.timings
        return own

    def fold_history(self) -> list[dict[str, float]]:
        """The history of a fold that is done, of one that is not an empty list.

        Raises:
            Damaged: a file of the fold is not the one that it wrote.
        """
        content = read_json_table(self.path / FOLD)
        for name in content.get(DIGESTS) or ():
            checked(self.path, name)
        return list(content.get("history", []))

    def mark_fold_done(self, name: str, history: list[dict[str, float]]) -> None:
        """Say that a fold is done. What only serves to go on with its training goes: of many folds it would fill disks."""
        content = {"fold": name, "history": history, DIGESTS: kept_digests(self.path)}
        write_json(self.path / FOLD, content)
        (self.checkpoints / "last.safetensors").unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of this folder.

        Raises:
            AgebenchError: another process is at work here.
        """
        lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise AgebenchError(
                f"{self.path}: another process is working on this run; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise write_error(self.path, error) from error
            raise UserError(
                f"{self.place}: no run can be written there: {error.strerror or error}; choose another folder with --out"
            ) from error
        try:
            for leftover in [path for path in self.path.rglob(".*") if is_temporary(path)]:
                leftover.unlink(missing_ok=True)
            yield
        finally:
            # The file stays: were it removed, a process that waits for it and one that makes a new one would both hold "the" lock.
            lock.release()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to the stage's timing, and show the stage while it lasts."""
        start = time.perf_counter()
        try:
            with step(_STAGES.get(stage, stage)):
                yield
        finally:
            self.timings[stage] = round(self.timings.get(stage, 0.0) + time.perf_counter() - start, 2)

    def write_config(self, config: Config) -> None:
        """The resolved config."""
        write_text(self.path / "config.toml", config.to_toml())

    def write_manifest(self, content: dict[str, Any]) -> None:
        """Write `content` beside what is known of this program and machine; of a finished run with its files' digests."""
        versions = {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in TRACKED_PACKAGES},
        }
        about = {
            "schema": 1,
            "name": self.path.name,
            "agebench": __version__,
            "versions": versions,
            "git": git_commit(),
        }
        digests = {DIGESTS: kept_digests(self.path)} if content.get("finished") else {}
        write_json(self.path / MANIFEST, about | content | digests)

    def renew_digest(self, name: str) -> None:
        """Record the digest of a file that was made again, in a manifest that holds digests."""
        manifest = self.manifest()
        if isinstance(manifest.get(DIGESTS), dict):
            manifest[DIGESTS][name] = file_digest(self.path / name)
            write_json(self.path / MANIFEST, manifest)

    def write_json(self, name: str, content: Any) -> None:
        """A JSON file of the folder."""
        write_json(self.path / name, content)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """A Parquet file of the folder."""
        with atomic_write(self.path / name) as temporary:
            table.to_parquet(temporary, index=False)


def _is_leftover(entry: Path) -> bool:
    """Whether a file in an otherwise empty folder is one that a call left which did not come to its config."""
    return entry.name in (LOCK, _CONTINUES) or is_temporary(entry)


def _has_epochs(checkpoints: Path) -> bool:
    """Whether training has ended an epoch; True where a checkpoint cannot be read, which its reader then reports."""
    file = checkpoints / "last.safetensors"
    if not file.exists():
        return False
    try:
        with safe_open(file, framework="numpy") as content:
            return bool(json.loads((content.metadata() or {})["agebench"])["history"] != [])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return True


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
