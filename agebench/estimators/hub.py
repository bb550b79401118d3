"""Fetch models that `agebench push` wrote from the Hugging Face hub."""

import logging
import re
from pathlib import Path
from typing import Any

from agebench.errors import AgebenchError, UserError
from agebench.estimators.exported.base import MAX_CARD_BYTES, MAX_FILE_BYTES

logger = logging.getLogger(__name__)
CARD = "card.json"
# The files that are read from a repository, with their largest sizes in bytes: no program, no pickle, no labels.
FILES = {
    "config.toml": 1 << 20,
    "manifest.json": 4 << 20,
    "metrics.json": 32 << 20,
    CARD: MAX_CARD_BYTES,
    "checkpoints/best.safetensors": MAX_FILE_BYTES,
}
_URL = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([0-9a-f]{40}))?")


def fetch(url: str) -> Path:
    """Fetch a model from the hub or from the cache of huggingface_hub; only `FILES` are read.

    Args:
        url: hf://OWNER/NAME@COMMIT. Without a commit the newest one is used and reported on standard error.

    Returns:
        The folder with the files.

    Raises:
        UserError: the address is invalid, or a file is missing or too large.
        AgebenchError: the hub cannot be reached, or refuses.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise UserError(
            f"{url}: write hf://OWNER/NAME@COMMIT, with all 40 digits of the commit; without @COMMIT the newest is taken"
        )
    repo, commit = match[1], match[2]
    check_repo(repo)
    if commit is None:
        commit = _newest(url, repo)
        logger.warning(
            "%s: took its newest commit. What a name holds can change: hf://%s@%s gives this one again",
            url,
            repo,
            commit,
        )
    return _cached(url, repo, commit) or _download(url, repo, commit)


def check_repo(repo: str) -> None:
    """Check the name of a repository.

    Args:
        repo: OWNER/NAME.

    Raises:
        UserError: the hub does not allow this name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo}: no name of a repository: {str(error).splitlines()[0]}") from error
    if repo.count("/") != 1:
        raise UserError(f"{repo}: no name of a repository; write OWNER/NAME")


def _newest(url: str, repo: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().model_info(repo).sha)
    except Exception as error:
        raise _unreachable(url, error) from None


def _cached(url: str, repo: str, commit: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=commit, allow_patterns=list(FILES), local_files_only=True))
    except OSError:  # not in the cache
        return None
    sizes = {name: (folder / name).stat().st_size for name in FILES if (folder / name).is_file()}
    if len(sizes) < len(FILES):
        return None
    _check_sizes(url, sizes)
    return folder


def _download(url: str, repo: str, commit: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    try:
        info = HfApi().model_info(repo, revision=commit, files_metadata=True)
        _check_sizes(url, {file.rfilename: file.size for file in info.siblings or []})  # before the download
        paths = [Path(hf_hub_download(repo, name, revision=commit)) for name in FILES]
    except UserError:
        raise
    except Exception as error:
        raise _unreachable(url, error) from None
    folder = paths[0].parent
    _check_sizes(url, {name: (folder / name).stat().st_size for name in FILES})
    return folder


def _unreachable(url: str, error: Exception) -> AgebenchError:
    """Report the type of an error only: its text may contain the request, and with it the token."""
    return AgebenchError(
        f"{url}: cannot be had from the hub ({type(error).__name__}). Is the name right, this machine connected, and, where "
        "the repository is private, are you logged in (`hf auth login`)?"
    )


def _check_sizes(url: str, sizes: dict[str, Any]) -> None:
    for name, limit in FILES.items():
        if name not in sizes:
            raise UserError(f"{url}: holds no {name}; not a repository that `agebench push` made")
        if not isinstance(sizes[name], int):
            raise UserError(f"{url}: the hub does not state the size of {name}; {limit:,} bytes are allowed")
        if sizes[name] > limit:
            raise UserError(f"{url}: {name} has {sizes[name]:,} bytes; {limit:,} are allowed")
