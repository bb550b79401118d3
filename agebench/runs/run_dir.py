"""The folder of one run: its files, its lock, and whether the run is finished. Every file is written atomically."""

import errno
import importlib.metadata
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

from agebench._version import __version__
from agebench.config.run import RunConfig
from agebench.config.toml_io import read_settings, validate_model
from agebench.errors import Damaged, RunLockedError, UserError
from agebench.metrics.schema import MetricsFile
from agebench.runs.manifest import Manifest
from agebench.utils.integrity import (
    DIGESTS,
    FOLD,
    MANIFEST,
    checked,
    checkpoint_metadata,
    kept_digests,
    read_json_table,
)
from agebench.utils.io import atomic_write, file_digest, is_temporary, write_error, write_json, write_text
from agebench.utils.progress import step


class Config(Protocol):
    """Settings that determine a run."""

    def to_toml(self) -> str:
        """Return the settings as TOML."""


LOCK = ".lock"
# Marker file: the run's command resumes without --resume, because no user stopped the run.
_CONTINUES = ".continues"
# Files and folders of a run whose first epoch is not complete.
_UNTRAINED_FILES = (
    *(
        "config.toml",
        "manifest.json",
        "metrics.json",
        "history.json",
        "trackers.json",
        "validation.parquet",
        "report.md",
        "report.html",
        _CONTINUES,
    ),
    *("samples", "lists", "predictions", "checkpoints", "folds", "tensorboard", "figures", "private", "export"),
)
# Stage of `timings` -> its name in progress messages.
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
    """The folder of one run.

    Args:
        path: the folder.
        url: the URL of which the folder is a local copy; "": the folder itself is the run's.
    """

    def __init__(self, path: Path, url: str = "") -> None:
        self.path = path
        self.location = url or str(path)  # as the user knows it
        self.timings: dict[str, float] = {}

    @property
    def checkpoints(self) -> Path:
        """The folder of last.safetensors and best.safetensors."""
        return self.path / "checkpoints"

    def manifest(self) -> dict[str, Any]:
        """Return the content of manifest.json; an empty table before it is written.

        Raises:
            Damaged: the file cannot be read.
        """
        return read_json_table(self.path / MANIFEST)

    def metrics_file(self) -> MetricsFile:
        """Return the content of metrics.json; without tests before it is written.

        Raises:
            Damaged: the file was changed, or a finished run has none.
            UserError: the file does not have the schema.
        """
        metrics = read_json_table(checked(self.path, "metrics.json"))
        if not isinstance(metrics.get("tests"), dict) and self.manifest().get("finished"):
            raise Damaged(
                f"{self.path / 'metrics.json'}: holds no figures, though the run is finished. Delete {MANIFEST} beside it, "
                "and the run's command with --resume writes them again"
            )
        return MetricsFile.from_json(metrics, self.path / "metrics.json")

    def metrics(self) -> dict[str, Any]:
        """Return the content of metrics.json as plain values; an empty table before it is written.

        Raises:
            Damaged: the file was changed, or a finished run has none.
            UserError: the file does not have the schema.
        """
        metrics = self.metrics_file()
        return metrics.to_json() if metrics.model_fields_set else {}

    def config(self) -> RunConfig:
        """Return the run's settings.

        Raises:
            AgebenchError: config.toml does not exist, or is not valid in this version.
        """
        file = self.path / "config.toml"
        return validate_model(RunConfig, read_settings(checked(self.path, file.name)), source=str(file))

    def finished(self, config: Config) -> bool:
        """Return whether the folder contains this run, finished.

        Args:
            config: the run's settings.

        Raises:
            UserError: the folder contains another run or other files, or cannot be read.
        """
        file = self.path / "config.toml"
        try:
            if not file.exists():
                if self.path.exists() and any(not _is_leftover(entry) for entry in self.path.iterdir()):
                    raise self._holds_no_run()
                return False
            is_same = file.read_bytes() == config.to_toml().encode()
        except NotADirectoryError:
            raise UserError(f"{self.location} is a file, not a folder; choose another folder with --out") from None
        except OSError as error:
            raise UserError(
                f"{self.location}: cannot be read: {error.strerror or error}; choose another folder with --out"
            ) from error
        if not is_same:
            if not self.started() and not self.manifest().get("finished"):
                if _is_of_something_else(file):
                    raise self._holds_no_run()
                return False  # that run failed before its first epoch: nothing is lost
            raise UserError(
                f"{self.location} holds a run with other settings (compare its config.toml); choose another folder with --out, "
                "or delete that one"
            )
        return bool(self.manifest().get("finished"))

    def _holds_no_run(self) -> UserError:
        return UserError(f"{self.location} is not empty and holds no run; choose another folder with --out")

    def started(self) -> bool:
        """Return whether an earlier call completed an epoch, so that the run can be resumed."""
        folders = [self.path, *(self.path / "folds").glob("*")]
        return any((folder / FOLD).exists() or epochs_done(folder / "checkpoints") != 0 for folder in folders)

    def begin(self, config: Config) -> None:
        """Write the config. Removes files of an earlier call that completed no epoch: its settings or data may differ.

        Args:
            config: the run's settings.

        Raises:
            UserError: the folder contains another run or other files, which stay as they are.
        """
        self.finished(config)
        if not self.started():
            for name in _UNTRAINED_FILES:
                entry = self.path / name
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
        (self.path / _CONTINUES).unlink(missing_ok=True)
        self.write_config(config)

    def continues(self) -> bool:
        """Return whether the run's command resumes without --resume."""
        return (self.path / _CONTINUES).exists()

    def let_continue(self) -> bool:
        """Let the same command resume without --resume; return whether the marker could be written."""
        try:
            (self.path / _CONTINUES).touch()
        except OSError:
            return False
        return True

    def fold(self, number: int, count: int) -> "RunDir":
        """Return the folder of a fold, such as `folds/01`; it shares this folder's timings.

        Args:
            number: the fold, from 0.
            count: the number of folds.
        """
        fold_dir = RunDir(self.path / "folds" / f"{number + 1:0{len(str(count))}}")
        fold_dir.timings = self.timings
        return fold_dir

    def fold_history(self) -> list[dict[str, float]]:
        """Return the epochs of a finished fold; an empty list for an unfinished one.

        Raises:
            Damaged: a file of the fold was changed.
        """
        content = read_json_table(self.path / FOLD)
        for name in content.get(DIGESTS) or ():
            checked(self.path, name)
        return list(content.get("history", []))

    def mark_fold_done(self, name: str, history: list[dict[str, float]]) -> None:
        """Mark a fold as finished, and delete the checkpoint that only resuming needs: many folds would fill the disk.

        Args:
            name: the fold's name.
            history: its epochs.
        """
        content = {"fold": name, "history": history, DIGESTS: kept_digests(self.path)}
        write_json(self.path / FOLD, content)
        (self.checkpoints / "last.safetensors").unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, so that no second process works on the run.

        Raises:
            RunLockedError: another process holds the lock.
            UserError: the folder cannot be written.
        """
        lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise RunLockedError(
                f"{self.path}: another process is working on this run; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise write_error(self.path, error) from error
            raise UserError(
                f"{self.location}: no run can be written there: {error.strerror or error}; choose another folder with --out"
            ) from error
        try:
            for leftover in [path for path in self.path.rglob(".*") if is_temporary(path)]:
                leftover.unlink(missing_ok=True)
            yield
        finally:
            # The file stays: if it were removed, a waiting process and one that creates it anew would both hold a lock.
            lock.release()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to the stage's timing, and show the stage as progress.

        Args:
            stage: a key of `timings`, such as `train_s`.
        """
        start = time.perf_counter()
        try:
            with step(_STAGES.get(stage, stage)):
                yield
        finally:
            self.timings[stage] = round(self.timings.get(stage, 0.0) + time.perf_counter() - start, 2)

    def write_config(self, config: Config) -> None:
        """Write config.toml.

        Args:
            config: the run's settings.
        """
        write_text(self.path / "config.toml", config.to_toml())

    def write_manifest(self, manifest: Manifest) -> None:
        """Write manifest.json: `manifest`, the versions of the software, and of a finished run its files' digests.

        Args:
            manifest: the content that the run determined.
        """
        versions = {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in TRACKED_PACKAGES},
        }
        software = {
            "schema": 1,
            "name": self.path.name,
            "agebench": __version__,
            "versions": versions,
            "git": _git_commit(),
        }
        digests = {DIGESTS: kept_digests(self.path)} if manifest.finished else {}
        write_json(self.path / MANIFEST, software | manifest.to_json() | digests)

    def renew_digest(self, name: str) -> None:
        """Update the manifest's digest of a file that was computed again; a manifest without digests stays as it is.

        Args:
            name: the file, relative to the folder.
        """
        manifest = self.manifest()
        if isinstance(manifest.get(DIGESTS), dict):
            manifest[DIGESTS][name] = file_digest(self.path / name)
            write_json(self.path / MANIFEST, manifest)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file.

        Args:
            name: the file, relative to the folder.
            content: plain values.
        """
        write_json(self.path / name, content)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a Parquet file.

        Args:
            name: the file, relative to the folder.
            table: its content.
        """
        with atomic_write(self.path / name) as temporary:
            table.to_parquet(temporary, index=False)


def _is_leftover(entry: Path) -> bool:
    """Return whether a file may be left by a call that stopped before it wrote its config."""
    return entry.name in (LOCK, _CONTINUES) or is_temporary(entry)


def _is_of_something_else(file: Path) -> bool:
    """Return whether a config.toml holds no settings of a run or test; an empty one is left by a call that stopped."""
    if not file.stat().st_size:
        return False
    try:
        data = read_settings(file).get("data")
    except UserError:
        return True
    return not isinstance(data, dict) or "test" not in data


def epochs_done(checkpoints: Path) -> int | None:
    """Return the number of complete epochs; None for an unreadable checkpoint, which its reader then reports.

    Args:
        checkpoints: the folder of last.safetensors.
    """
    file = checkpoints / "last.safetensors"
    if not file.exists():
        return 0
    try:
        history = checkpoint_metadata(file).get("history")
    except Damaged:
        return None
    return len(history) if isinstance(history, list) else None


def _git_commit() -> str | None:
    """Return the commit of this code, with `+changes` where files differ from it; None outside a repository."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():  # installed: a repository around the environment is another project's
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
