"""Models on the Hugging Face hub: a finished run as the folder of a repository, and such a repository as a run again."""

import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from agebench.config.run import RunConfig
from agebench.errors import AgebenchError, UserError
from agebench.export.base import MAX_CARD_BYTES, MAX_FILE_BYTES
from agebench.inference.model_card import model_card, save_card
from agebench.inference.models import CARD, CalibrationError, TrainedModel
from agebench.registry.catalog import Catalog
from agebench.runs.guarantees import deployment_guarantees
from agebench.runs.run_dir import RunDir
from agebench.utils.integrity import DIGESTS
from agebench.utils.io import atomic_write, is_temporary, write_json, write_text

# What a model needs to answer, and nothing else: no program, no pickle, no labels of anybody's faces. Path -> bytes at most.
FILES = {
    "config.toml": 1 << 20,
    "manifest.json": 4 << 20,
    "metrics.json": 32 << 20,
    CARD: MAX_CARD_BYTES,
    "checkpoints/best.safetensors": MAX_FILE_BYTES,
}
EXPORTS = (".ts", ".onnx", ".pt2", ".json")  # the last: what `agebench export` measured of each
README = "README.md"
_URL = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([0-9a-f]{40}))?")


def write_repository(run: Path, repo: str, out: Path, cards: Catalog) -> list[str]:
    """The repository's folder at `out`, its card checked; returns the files' names.

    Raises:
        UserError: the run is not finished, `repo` is no name of a repository, other things stand in `out`, or the card is bad.
    """
    check_repo(repo)
    folder = RunDir(run)
    if not folder.manifest().get("finished"):
        raise UserError(f"{run}: no finished run stands here; only finished runs can be pushed")
    _check_out(out)
    model = TrainedModel(run, cards, "cpu")
    with suppress(CalibrationError):
        model.interval(0.9)  # of runs that kept no predictions of their validation part these are made now
    card = model.card | {
        "promises": deployment_guarantees(folder, model.card["training"]["dataset"], folder.metrics()["tests"])
    }
    text = model_card(card, repo, cards)
    exports = sorted((run / "export").glob("*")) if (run / "export").is_dir() else []
    copied = [
        "metrics.json",
        "checkpoints/best.safetensors",
        *(
            f"export/{path.name}"
            for path in exports
            if path.suffix in EXPORTS and path.is_file() and not is_temporary(path)
        ),
    ]
    (out / CARD).unlink(missing_ok=True)  # until all is written, half of two models is no repository
    for name in copied:
        with atomic_write(out / name) as temporary:
            shutil.copyfile(run / name, temporary)
    write_text(out / "config.toml", _without_places(folder.config()).to_toml())
    # The hub's commit stands for the files' content; digests of labels and predictions stay at home.
    write_json(out / "manifest.json", {key: value for key, value in folder.manifest().items() if key != DIGESTS})
    save_card(out / README, text)
    for stale in (out / "export").glob("*"):  # of an earlier call, when the run had other exports
        if f"export/{stale.name}" not in copied:
            stale.unlink()
    write_json(out / CARD, card)
    return sorted([*copied, "config.toml", "manifest.json", CARD, README])


def upload(folder: Path, repo: str) -> str:
    """Put the folder on the hub, with the login that huggingface_hub keeps; returns the commit.

    Raises:
        UserError: the hub's own check of the card, which runs on its machines, finds a mistake.
        AgebenchError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi, ModelCard

    try:
        try:
            ModelCard.load(folder / README).validate()
        except ValueError as error:
            raise UserError(f"{folder / README}: the hub refuses the card: {error}") from None
        api = HfApi()
        api.create_repo(repo, exist_ok=True, private=True)
        # What an earlier model had in export/ goes in the same commit: beside another model's card it would be wrong.
        sent = api.upload_folder(
            repo_id=repo, folder_path=folder, delete_patterns=["export/*"], commit_message="agebench push"
        )
        return str(sent.oid)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # kinds of several libraries; their requests' headers hold the token: only the kind is said
        raise AgebenchError(
            f"{repo}: the hub did not take it ({type(error).__name__}). Is this machine connected, and are you logged in "
            "(`hf auth login`)? `--dry-run` writes the same folder without sending it"
        ) from None


def fetch(url: str) -> Path:
    """The folder of `hf://OWNER/NAME@COMMIT`, from the hub or huggingface_hub's cache. Only FILES are read of it.

    Without a commit the newest one is taken, and which that was goes to standard error.

    Raises:
        UserError: no such address, or a file that is missing or larger than it may be.
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
        print(
            f"agebench: {url}: took its newest commit. What a name holds can change: hf://{repo}@{commit} gives this "
            "one again",
            file=sys.stderr,
        )
    return _cached(url, repo, commit) or _download(url, repo, commit)


def check_repo(repo: str) -> None:
    """Raise UserError unless this is OWNER/NAME as the hub allows it."""
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
        kept = Path(snapshot_download(repo, revision=commit, allow_patterns=list(FILES), local_files_only=True))
    except OSError:  # not in the cache
        return None
    sizes = {name: (kept / name).stat().st_size for name in FILES if (kept / name).is_file()}
    if len(sizes) < len(FILES):
        return None
    _check_sizes(url, sizes)
    return kept


def _download(url: str, repo: str, commit: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    try:
        info = HfApi().model_info(repo, revision=commit, files_metadata=True)
        _check_sizes(url, {one.rfilename: one.size for one in info.siblings or []})  # before a byte of them is fetched
        paths = [Path(hf_hub_download(repo, name, revision=commit)) for name in FILES]
    except UserError:
        raise
    except Exception as error:
        raise _unreachable(url, error) from None
    folder = paths[0].parent
    _check_sizes(url, {name: (folder / name).stat().st_size for name in FILES})
    return folder


def _unreachable(url: str, error: Exception) -> AgebenchError:
    """Only the kind of error: the text of some holds the request, and with it the token."""
    return AgebenchError(
        f"{url}: cannot be had from the hub ({type(error).__name__}). Is the name right, this machine connected, and, where "
        "the repository is private, are you logged in (`hf auth login`)?"
    )


def _check_sizes(url: str, sizes: dict[str, Any]) -> None:
    for name, most in FILES.items():
        if name not in sizes:
            raise UserError(f"{url}: holds no {name}; not a repository that `agebench push` made")
        if not isinstance(sizes[name], int):
            raise UserError(f"{url}: the hub does not say how large {name} is; {most:,} bytes are allowed")
        if sizes[name] > most:
            raise UserError(f"{url}: {name} has {sizes[name]:,} bytes; {most:,} are allowed")


def _check_out(out: Path) -> None:
    """What an earlier call wrote is replaced; what anybody else wrote is not touched."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file stands there; choose a folder with --out")
    own = {*FILES, README}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name not in own and not (name.startswith("export/") and path.suffix in EXPORTS):
            raise UserError(
                f"{out}: holds {name}, which `agebench push` did not write; choose another folder with --out"
            )


def _without_places(config: RunConfig) -> RunConfig:
    """Where files lie on this machine is nobody else's business."""
    pretrained = Path(config.pretrained).name if config.pretrained else ""
    exclude = tuple(Path(name).name for name in config.data.exclude)
    return config.model_copy(
        update={"pretrained": pretrained, "data": config.data.model_copy(update={"exclude": exclude})}
    )
