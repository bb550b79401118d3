"""Run folders that are kept at a URL: any file system that fsspec knows (file, s3, gs, hf, …).

A run works in a scratch folder of its host. What stands at the URL is fetched first; what the run writes is sent there while it
works, each file whole, and the manifest that calls it finished last. So it goes on wherever the next attempt is made.
"""

import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from agebench.errors import AgebenchError, RunLockedError, UserError
from agebench.runs.run_dir import RunDir
from agebench.utils.io import atomic_write, write_text
from agebench.utils.paths import cache_home
from agebench.utils.progress import progress

LOCK_LEASE_S = ".lease.json"
# Seconds between two looks at what is new, and for how long a lease must stay as it is until its holder is taken for dead.
LOOK_EVERY_S, LEASE_S = 1.0, 30.0


def is_url(place: str | Path) -> bool:
    """Whether runs are kept at `place` by fsspec, and not in a folder."""
    return "://" in str(place)


class RemoteDir:
    """A folder at a URL.

    Raises:
        UserError: a protocol that is unknown here, or whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(f"{url}: this kind of URL cannot be used: {str(error).splitlines()[0]}") from error

    def names(self) -> list[str]:
        """All files under it, relative to it."""
        with self._told("cannot be listed"):
            try:
                found = self._fs.find(self._root)
            except FileNotFoundError:
                return []
            base = self._root.rstrip("/") + "/"
            relative = [path[len(base) :] for path in found if path.startswith(base)]
            # A listing comes from outside: no name may lead out of the folder that it is copied to.
            return [name for name in relative if name and ".." not in PurePosixPath(name).parts and name[0] != "/"]

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        with self._told(f"{name} cannot be read"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def fetch(self, folder: Path, names: Iterable[str]) -> None:
        """Copy files into `folder`, each whole."""
        for name in names:
            with self._told(f"{name} cannot be fetched"), suppress(FileNotFoundError):
                content = self._fs.cat_file(f"{self._root}/{name}")
                with atomic_write(folder / name) as temporary:
                    temporary.write_bytes(content)

    def send(self, folder: Path, names: Iterable[str]) -> None:
        """Copy files out of `folder`, each whole."""
        for name in names:
            target = f"{self._root}/{name}"
            with self._told(f"{name} cannot be written"):
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                if self._renames():
                    self._fs.put_file(str(folder / name), f"{target}.part")
                    self._fs.mv(f"{target}.part", target)
                else:
                    self._fs.put_file(str(folder / name), target)

    def write(self, name: str, text: str) -> None:
        """Write a small file."""
        with self._told(f"{name} cannot be written"):
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{name}", text.encode())

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        with self._told(f"{name} cannot be deleted"), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def _renames(self) -> bool:
        """An object store shows an object when it is whole; on a disk, or a server with one, a rename does that."""
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        return bool(protocols & {"file", "local", "dir", "sftp", "ssh", "smb"})

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, AgebenchError):
            raise
        except Exception as error:  # Every file system has errors of its own.
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise AgebenchError(f"{self.url}: {what}: {reason}") from error


@contextmanager
def run_folder(place: str | Path) -> Iterator[RunDir]:
    """The run folder at a path; for a URL, its scratch copy, which is kept in step while the block lasts.

    Raises:
        AgebenchError: another process is working on this run, or the URL cannot be read or written. What could not be sent
            stays on this machine and is sent first by the next call.
    """
    if not is_url(place):
        yield RunDir(Path(place))
        return
    remote = RemoteDir(str(place))
    scratch = cache_home(lasting=True) / "scratch" / _digest(remote.url) / PurePosixPath(remote.url).name
    unsent = scratch.parent / "unsent"
    with _leased(remote, scratch.parent) as lease:
        if unsent.exists():
            _send_all(remote, scratch)
            unsent.unlink()
        shutil.rmtree(scratch, ignore_errors=True)
        remote.fetch(scratch, progress([name for name in remote.names() if _kept(name)], label="fetching", unit="file"))
        sync = _Sync(remote, scratch, lease)
        try:
            yield RunDir(scratch, remote.url)
        finally:
            sync.stop()
            if scratch.exists():
                write_text(unsent, remote.url)
                _send_all(remote, scratch, known=sync.sent)
                unsent.unlink()
                shutil.rmtree(scratch, ignore_errors=True)


class RemoteMirror:
    """What a suite must know of runs that are kept at a URL, in a folder of this machine."""

    FILES = ("config.toml", "manifest.json", "metrics.json")

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
    """Sends checkpoints as they are written, and shows that this process lives, from a thread of its own."""

    def __init__(self, remote: RemoteDir, folder: Path, lease: str) -> None:
        self.sent: dict[str, tuple[int, int]] = {}
        self._remote, self._folder, self._lease = remote, folder, lease
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        beat = 0
        while not self._over.wait(LOOK_EVERY_S):
            beat += 1
            with suppress(AgebenchError):  # a network that is away for a while: the next look, or the end, sends it
                if beat % max(1, int(LEASE_S / LOOK_EVERY_S / 4)) == 0:
                    self._remote.write(LOCK_LEASE_S, json.dumps({"owner": self._lease, "beat": beat}))
                found = _files(self._folder)
                # Checkpoints after the manifest, which says what they were made of.
                for name, state in sorted(found.items(), key=lambda file: file[0].startswith("checkpoints/")):
                    if self.sent.get(name) == state:
                        continue
                    if name == "config.toml" or name.startswith("checkpoints/"):
                        self._remote.send(self._folder, [name])
                        self.sent[name] = state
                    elif name == "manifest.json" and self._send_begun():
                        self.sent[name] = state

    def _send_begun(self) -> bool:
        """What the run was begun with, for a host that goes on with it; not that it is finished, which is sent last."""
        content = (self._folder / "manifest.json").read_bytes()
        if _json(content).get("finished"):
            return False
        with tempfile.TemporaryDirectory() as copy:  # as it was read: the file may be another by the time it is sent
            (Path(copy) / "manifest.json").write_bytes(content)
            self._remote.send(Path(copy), ["manifest.json"])
        return True


@contextmanager
def _leased(remote: RemoteDir, scratch: Path) -> Iterator[str]:
    """Keep other hosts out of the run; this host's own dead processes are known by their number."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
    seen = remote.read(LOCK_LEASE_S)
    deadline = time.monotonic() + LEASE_S
    while seen is not None and _may_live(seen):
        if time.monotonic() > deadline:
            break  # it has not moved for as long as nobody who lives would be silent
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
    try:
        yield owner
    finally:
        with suppress(AgebenchError):
            remote.remove(LOCK_LEASE_S)


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
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _send_all(remote: RemoteDir, folder: Path, known: dict[str, tuple[int, int]] | None = None) -> None:
    """What is new, the manifest last: it is what calls a run finished."""
    files = _files(folder)
    new = [name for name in files if (known or {}).get(name) != files[name]]
    remote.send(folder, progress(sorted(new, key=lambda name: name == "manifest.json"), label="sending", unit="file"))


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """What is kept of a run, and when it was written last."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        with suppress(FileNotFoundError):
            if path.is_file() and _kept(name):
                found[name] = (path.stat().st_mtime_ns, path.stat().st_size)
    return found


def _kept(name: str) -> bool:
    last = PurePosixPath(name).name
    return last not in (".lock", LOCK_LEASE_S) and ".tmp" not in last and not last.endswith(".part")


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]
