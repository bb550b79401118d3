"""Calls of npm and pip: without the scripts of packages, with few retries, and with one sentence about a failure."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agebench.errors import AgebenchError

# npm's own retries keep a machine without network waiting for minutes, and end in an error of many lines.
NPM_OPTIONS = (
    *("--ignore-scripts", "--json", "--silent", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"),
    *("--fetch-retry-maxtimeout=2000", "--fetch-timeout=20000"),
)
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--retries=1")
_TIMEOUT_S = 1800.0
_MAX_REASON = 300  # characters


def call_client(words: Sequence[str], folder: Path, client: str) -> None:
    """Call a package manager in a folder.

    Args:
        words: the program and its arguments; of npm, with `NPM_OPTIONS`.
        folder: the working directory.
        client: name of the package manager, for messages.

    Raises:
        AgebenchError: it failed; the message has its reason.
    """
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AgebenchError(f"{client} was stopped after {_TIMEOUT_S:g} seconds") from error
    except OSError as error:
        raise AgebenchError(f"{client} cannot be started: {error.strerror or error}") from error
    if done.returncode:
        reason = _json_reason(done.stdout) or _last_line(done.stderr or done.stdout) or "no reason given"
        raise AgebenchError(f"{client} ended with exit code {done.returncode}: {reason[:_MAX_REASON]}")


def _json_reason(text: str) -> str:
    """Return the reason in the output of `npm --json`; empty if there is none."""
    try:
        summary = json.loads(text)["error"]["summary"]
    except (ValueError, LookupError, TypeError):
        return ""
    return " ".join(summary.split()) if isinstance(summary, str) else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
