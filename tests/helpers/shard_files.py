"""Shards of generated faces."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from agebench.data.readers.synth import SynthReader


def face_files(count: int) -> dict[str, bytes]:
    """Return name -> encoded face, `0.png`, `1.png`, ….

    Args:
        count: the number of faces.
    """
    reader = SynthReader(None, count=count, size=64)
    paths = reader.read().table["path"]
    return {f"{number}.png": reader.image_bytes(path) for number, path in enumerate(paths)}


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a tar, compressed as its suffix tells, and return its path.

    Args:
        path: the file.
        members: name -> content, in the order of the tar.
    """
    compression = {".gz": "gz", ".tgz": "gz", ".xz": "xz"}.get(path.suffix, "")
    with tarfile.open(path, f"w:{compression}") as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
