"""Run folders at a URL: any file system that fsspec supports (file, s3, gs, hf, …).

A run works in a scratch folder of its host. The files at the URL are fetched first; files that the run writes are sent there
while it works, each atomically, and the final manifest last. So any host can make the next attempt.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import fsspec

from agebench.errors import AgebenchError, RunLockedError, UserError
from agebench.runs.run_dir import RunDir, epochs_done
from agebench.utils.integrity import FOLD, MANIFEST
from agebench.utils.io import atomic_write, temporary_folder, write_text
from agebench.utils.paths import cache_home
from agebench.utils.progress import progress

logger = logging.getLogger(__name__)

LOCK_LEASE_S = ".lease.json"
# Seconds between two checks for new files, and after which a lease without a change counts as abandoned.
LOOK_EVERY_S, LEASE_S = 1.0, 30.0

_LAST = "checkpoints/last.safetensors"
# The files that are sent after all others, in this order.
_SENT_LAST = ("last.safetensors", FOLD, MANIFEST)


def is_url(location: str | Path) -> bool:
    """Return whether `location` is a URL and not a local path.

    Args:
        location: the folder or URL of a run, or of all runs.
    """
    return "://" in str(location)


class RemoteDir:
    """A folder at a URL.

    Args:
        url: the folder's URL.

    Raises:
        UserError: the protocol is unknown, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(f"{url}: this kind of URL cannot be used: {str(error).splitlines()[0]}") from error

    def names(self) -> list[str]:
        """Return the names of all files, relative to the folder."""
        with self._errors("cannot be listed"):
            try:
                paths = self._fs.find(self._root)
            except FileNotFoundError:
                return []
            base = self._root.rstrip("/") + "/"
            relative = [path[len(base) :] for path in paths if path.startswith(base)]
            # A listing is not trusted: no name may leave the folder that it is copied to.
            return [name for name in relative if name and ".." not in PurePosixPath(name).parts and name[0] != "/"]

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where the file does not exist.

        Args:
            name: the file, relative to the folder.
        """
        with self._errors(f"{name} cannot be read"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def fetch(self, folder: Path, names: Iterable[str]) -> None:
        """Download files that exist, each atomically.

        Args:
            folder: the local folder.
            names: the files, relative to both folders.
        """
        for name in names:
            with self._errors(f"{name} cannot be fetched"), suppress(FileNotFoundError):
                content = self._fs.cat_file(f"{self._root}/{name}")
                with atomic_write(folder / name) as temporary:
                    temporary.write_bytes(content)

    def send(self, folder: Path, names: Iterable[str]) -> None:
        """Upload files, each atomically.

        Args:
            folder: the local folder.
            names: the files, relative to both folders.
        """
        for name in names:
            target = f"{self._root}/{name}"
            with self._errors(f"{name} cannot be written"):
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                if self._renames():
                    self._fs.put_file(str(folder / name), f"{target}.part")
                    self._fs.mv(f"{target}.part", target)
                else:
                    self._fs.put_file(str(folder / name), target)

    def write(self, name: str, text: str) -> None:
        """Write a small file.

        Args:
            name: the file, relative to the folder.
            text: its content.
        """
        with self._errors(f"{name} cannot be written"):
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{name}", text.encode())

    def remove(self, name: str) -> None:
        """Delete a file if it exists.

        Args:
            name: the file, relative to the folder.
        """
        with self._errors(f"{name} cannot be deleted"), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def _renames(self) -> bool:
        """Return whether atomic writing needs a rename, as on disks; object stores show complete objects only."""
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        return bool(protocols & {"file", "local", "dir", "sftp", "ssh", "smb"})

    @contextmanager
    def _errors(self, problem: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, AgebenchError):
            raise
        except Exception as error:  # each file system has its own exceptions
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise AgebenchError(f"{self.url}: {problem}: {reason}") from error


@contextmanager
def run_folder(location: str | Path) -> Iterator[RunDir]:
    """Yield the run folder at a path; for a URL, a scratch copy that is synchronized while the block lasts.

    Without its checkpoints, the copy stays on this machine until the next call, for callers that read or print the results.

    Args:
        location: the run's folder or URL.

    Raises:
        RunLockedError: another process is working on this run.
        AgebenchError: the URL cannot be read or written. Unsent files stay on this machine; the next call sends them first,
            unless another host has done more of the run since.
    """
    if not is_url(location):
        yield RunDir(Path(location))
        return
    remote = RemoteDir(str(location))
    scratch = cache_home(lasting=True) / "scratch" / _digest(remote.url) / PurePosixPath(remote.url).name
    unsent = scratch.parent / "unsent"
    with _leased(remote, scratch.parent):
        if unsent.exists():
            _send_leftovers(remote, scratch)
            unsent.unlink()
        shutil.rmtree(scratch, ignore_errors=True)
        remote.fetch(scratch, progress([name for name in remote.names() if _kept(name)], label="fetching", unit="file"))
        write_text(unsent, remote.url)  # now: a killed process writes nothing more
        sync = _Sync(remote, scratch, fetched=_files(scratch))
        try:
            yield RunDir(scratch, remote.url)
        finally:
            sync.stop()
            if scratch.exists():
                _send_all(remote, scratch, known=sync.sent)
            unsent.unlink(missing_ok=True)
            for checkpoints in (scratch / "checkpoints", *scratch.glob("folds/*/checkpoints")):
                shutil.rmtree(checkpoints, ignore_errors=True)  # the largest files, which are at the URL


class RemoteMirror:
    """A local copy of the files that determine the states of runs at a URL.

    Args:
        url: the URL of all runs.
    """

    FILES = ("config.toml", MANIFEST, "metrics.json")

    def __init__(self, url: str) -> None:
        self.remote = RemoteDir(url)
        self.folder = cache_home(lasting=True) / "mirrors" / _digest(self.remote.url)
        names = [name for name in self.remote.names() if self._wanted(name)]
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.remote.fetch(self.folder, progress(names, label="looking at what is there", unit="file"))

    def _wanted(self, name: str) -> bool:
        parts = PurePosixPath(name).parts
        return len(parts) == 2 and (parts[1] in self.FILES or parts[0] == ".logs")


class _Sync:
    """A thread that sends checkpoints as they are written.

    Args:
        remote: the run's folder at the URL.
        folder: the scratch folder.
        fetched: the files that both folders have, with their states.
    """

    def __init__(self, remote: RemoteDir, folder: Path, fetched: dict[str, tuple[int, int]]) -> None:
        self.sent = dict(fetched)
        self._remote, self._folder = remote, folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending."""
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            with suppress(OSError):  # a folder was deleted while it was listed
                # Before all files are listed, so that none of a finished fold is missing in that list.
                finished = {path.parent.name for path in self._folder.glob(f"folds/*/{FOLD}")}
                self._send_new(_files(self._folder), finished)

    def _send_new(self, files: dict[str, tuple[int, int]], finished: set[str]) -> None:
        """Send the files that another host needs to resume: checkpoints, and all files of finished folds."""
        # Checkpoints after the manifest, which describes their inputs.
        for name in sorted(files, key=lambda name: ("/" in name, _order(name))):
            if self._over.is_set():
                return
            # The network is away, or the file was deleted after it was listed: the next check, or the end of the run, sends it.
            with suppress(AgebenchError, OSError):
                if self.sent.get(name) != files[name]:
                    self._send(name, files, finished)

    def _send(self, name: str, files: dict[str, tuple[int, int]], finished: set[str]) -> None:
        """Send a new file if another host needs it to resume."""
        path = PurePosixPath(name)
        in_fold = path.parts[0] == "folds" and len(path.parts) > 2
        if in_fold and path.parts[1] in finished:
            others = [other for other in files if other.startswith(f"{path.parent}/") and other != name]
            if path.name == FOLD and any(self.sent.get(other) != files[other] for other in others):
                return  # a fold with this file counts as complete
            _send_file(self._remote, self._folder, name)
            self.sent[name] = files[name]
        elif path.parts[2 if in_fold else 0] == "checkpoints":
            self._send_checkpoints(str(path.parent))
        elif name in ("config.toml", "trackers.json"):
            self._remote.send(self._folder, [name])
            self.sent[name] = files[name]
        elif name == MANIFEST and self._send_unfinished_manifest():
            self.sent[name] = files[name]

    def _send_checkpoints(self, checkpoints: str) -> None:
        """Send the new ones of best.safetensors and last.safetensors, so that `best` is never of an earlier epoch than `last`.

        Training that resumes from `last` writes a `best` of a later epoch again, but cannot restore an earlier one's.
        """
        states = {}
        with temporary_folder(self._folder) as copies:
            # Training writes `best` first, so it is copied second, and sent first.
            for name in (f"{checkpoints}/last.safetensors", f"{checkpoints}/best.safetensors"):
                state = _state(self._folder / name)
                if state is not None and self.sent.get(name) != state:
                    (copies / checkpoints).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self._folder / name, copies / name)
                    states[name] = state
            for name in reversed(states):
                self._remote.send(copies, [name])
                self.sent[name] = states[name]

    def _send_unfinished_manifest(self) -> bool:
        """Send the manifest of an unfinished run, for a host that resumes it; a finished one is sent last."""
        content = (self._folder / MANIFEST).read_bytes()
        if _json(content).get("finished"):
            return False
        with tempfile.TemporaryDirectory() as copy:  # a copy: the file may change while it is sent
            (Path(copy) / MANIFEST).write_bytes(content)
            self._remote.send(Path(copy), [MANIFEST])
        return True


@contextmanager
def _leased(remote: RemoteDir, scratch: Path) -> Iterator[None]:
    """Hold and renew the lease of the run, so that no other host works on it.

    Dead processes of this host are known by their id.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
    seen = remote.read(LOCK_LEASE_S)
    deadline = time.monotonic() + LEASE_S
    while seen is not None and _may_live(seen):
        if time.monotonic() > deadline:
            break  # the holder did not renew it in time
        time.sleep(min(1.0, LEASE_S / 10))
        now = remote.read(LOCK_LEASE_S)
        if now is not None and now != seen:
            raise RunLockedError(
                f"{remote.url}: another process is working on this run; wait for it, or choose another --out"
            )
        seen = now
    remote.write(LOCK_LEASE_S, json.dumps({"owner": owner, "beat": 0}))
    if owner.encode() not in (remote.read(LOCK_LEASE_S) or b""):
        raise RunLockedError(f"{remote.url}: another process is working on this run; wait for it")
    scratch.mkdir(parents=True, exist_ok=True)
    over = threading.Event()
    # A thread of its own: no large file that is being fetched or sent may delay it.
    renewal = threading.Thread(target=_renew_lease, args=(remote, owner, over), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        over.set()
        renewal.join()
        with suppress(AgebenchError):
            remote.remove(LOCK_LEASE_S)


def _renew_lease(remote: RemoteDir, owner: str, over: threading.Event) -> None:
    """Write the lease anew several times within its term, until the work is over."""
    beat = 0
    while not over.wait(LEASE_S / 4):
        beat += 1
        with suppress(AgebenchError, OSError):  # the network is away: the next beat may get through
            remote.write(LOCK_LEASE_S, json.dumps({"owner": owner, "beat": beat}))


def _may_live(lease: bytes) -> bool:
    host, _, rest = str(_json(lease).get("owner", "")).partition(":")
    number = rest.partition(":")[0]
    if host != socket.gethostname() or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class _WorkDone(NamedTuple):
    """The finished part of a run; a larger part compares as greater."""

    finished: bool
    folds: int
    epochs: int  # of the fold in training; -1: its checkpoint cannot be read

    @classmethod
    def read(cls, folder: Path) -> "_WorkDone":
        """Read it from the files that `_shows_work` names.

        Args:
            folder: the run's folder.
        """
        manifest, folds = folder / MANIFEST, list(folder.glob("folds/*"))
        unfinished = [fold for fold in folds if not (fold / FOLD).exists()]
        epochs = [epochs_done(part / "checkpoints") for part in (folder, *unfinished)]
        return cls(
            finished=manifest.exists() and bool(_json(manifest.read_bytes()).get("finished")),
            folds=len(folds) - len(unfinished),
            epochs=max(-1 if count is None else count for count in epochs),
        )

    def __str__(self) -> str:
        return "finished" if self.finished else f"finished folds: {self.folds}, epochs: {max(0, self.epochs)}"


def _shows_work(name: str) -> bool:
    return name == MANIFEST or name.endswith(_LAST) or PurePosixPath(name).name == FOLD


def _send_leftovers(remote: RemoteDir, scratch: Path) -> None:
    """Send the files that an earlier call could not send, unless the run at the URL has more finished work."""
    if not _files(scratch):
        return
    with temporary_folder(scratch) as copies:
        remote.fetch(copies, filter(_shows_work, remote.names()))
        there = _WorkDone.read(copies)
    here = _WorkDone.read(scratch)
    # A finished run is complete at the URL, because its manifest is sent last.
    if there.finished or there > here:
        logger.warning(
            "%s: kept as it is there (%s); unsent files of an earlier call on this machine (%s) are deleted",
            *(remote.url, there, here),
        )
        return
    if here > there:
        logger.info(
            "%s: unsent files of an earlier call on this machine (%s) replace those there (%s)", remote.url, here, there
        )
    _send_all(remote, scratch)


def _send_all(remote: RemoteDir, folder: Path, known: dict[str, tuple[int, int]] | None = None) -> None:
    """Send new files in the order in which a host that fetches a part of them can continue."""
    files = _files(folder)
    new = [name for name in files if (known or {}).get(name) != files[name]]
    for name in progress(sorted(new, key=_order), label="sending", unit="file"):
        _send_file(remote, folder, name)


def _send_file(remote: RemoteDir, folder: Path, name: str) -> None:
    """Send a file; with a fold's end, delete the checkpoint that only resuming the fold needs."""
    remote.send(folder, [name])
    path = PurePosixPath(name)
    if path.name == FOLD:
        remote.remove(f"{path.parent}/{_LAST}")


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the files to synchronize, with modification time and size."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    # Training deletes these checkpoints.
    superseded = {f"{path.parent}/{_LAST}" for path in map(PurePosixPath, names) if path.name == FOLD}
    states = {name: _state(folder / name) for name in names if _kept(name) and name not in superseded}
    return {name: state for name, state in states.items() if state is not None}


def _state(path: Path) -> tuple[int, int] | None:
    """Return modification time and size of a file; None where there is none."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None
    return None


def _order(name: str) -> int:
    """Return the place of a file among those to send: `best` before `last`, and last what marks a fold or run as finished."""
    last = PurePosixPath(name).name
    return _SENT_LAST.index(last) + 1 if last in _SENT_LAST else 0


def _kept(name: str) -> bool:
    last = PurePosixPath(name).name
    return last not in (".lock", LOCK_LEASE_S) and ".tmp" not in last and not last.endswith(".part")


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]
