"""Record when, with which version and command, and from which files metrics are computed."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from agebench._version import __version__
from agebench.metrics.schema import MeasuredFile, Measurement


def measure_files(files: Sequence[tuple[str, Path]], command: str) -> Measurement:
    """Describe a computation from files.

    Args:
        files: role and path of each file.
        command: the command line or the function that computes the metrics.
    """
    return Measurement(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        command=command,
        files=[MeasuredFile(role=role, name=path.name, sha256=_sha256(path)) for role, path in files],
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
