"""Publish a finished run on the Hugging Face hub."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal

from agebench.config.run import RunConfig
from agebench.config.toml_io import validate_model
from agebench.errors import AgebenchError, UserError
from agebench.estimators.hub import CARD, check_repo
from agebench.hub.model_card import model_card, save_card
from agebench.metrics.guarantees import CalibrationError
from agebench.registry.catalog import Catalog
from agebench.reports.manifest import RunManifest
from agebench.runs.estimators import RunEstimator
from agebench.runs.guarantees import deployment_guarantees
from agebench.runs.run_dir import RunDir
from agebench.utils.integrity import DIGESTS, MANIFEST, read_json_table
from agebench.utils.io import atomic_write, is_temporary, write_json, write_text

EXPORTS = (".ts", ".onnx", ".pt2", ".json")  # .json: the measurements of `agebench export`
README = "README.md"
# Lists the files of a folder or repository that `agebench push` wrote: it replaces and removes no others.
WRITTEN = ".agebench-push.json"


def write_repository(run: Path, repo: str, out: Path, cards: Catalog) -> list[str]:
    """Write the folder of a repository, and check its card.

    Args:
        run: the folder of a finished run.
        repo: OWNER/NAME.
        out: the folder to write.
        cards: the registered cards.

    Returns:
        The names of the files.

    Raises:
        UserError: the run is not finished, `repo` is invalid, `out` holds other files, or the card is invalid.
    """
    folder = open_finished_run(run, repo)
    check_out(out)
    estimator = RunEstimator(run, cards, "cpu")
    with suppress(CalibrationError):
        estimator.interval(0.9)  # predicts the validation part if the run did not keep its predictions
    home = estimator.card.training.dataset
    guarantees = deployment_guarantees(folder, home, folder.metrics_file().tests)
    card = estimator.card.model_copy(update={"promises": guarantees})
    manifest = validate_model(RunManifest, folder.manifest(), source=str(run / MANIFEST))
    text = model_card(card, manifest, repo, cards)
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
    names = sorted([*copied, "config.toml", "manifest.json", CARD, README, WRITTEN])
    stale = claim(out, names)
    (out / CARD).unlink(missing_ok=True)  # written last, so that an interrupted call leaves no valid repository
    for name in copied:
        with atomic_write(out / name) as temporary:
            shutil.copyfile(run / name, temporary)
    write_text(out / "config.toml", _without_paths(folder.config()).to_toml())
    # The hub's commit identifies the files; digests of labels and predictions are not published.
    write_json(out / "manifest.json", {key: value for key, value in folder.manifest().items() if key != DIGESTS})
    save_card(out / README, text)
    release(out, names, stale)
    write_json(out / CARD, card.to_json())
    return names


def open_finished_run(run: Path, repo: str) -> RunDir:
    """Open the folder of a run that is to be pushed.

    Args:
        run: the folder of a run or test.
        repo: OWNER/NAME, where it is pushed to.

    Raises:
        UserError: the run is not finished, or `repo` is invalid.
    """
    check_repo(repo)
    folder = RunDir(run)
    if not folder.manifest().get("finished"):
        raise UserError(f"{run}: no finished run is here; only finished runs can be pushed")
    return folder


def upload(folder: Path, repo: str, kind: Literal["model", "dataset"] = "model") -> str:
    """Upload a folder to the hub with the login of huggingface_hub.

    Args:
        folder: the folder that `write_repository` or `write_predictions_repository` wrote.
        repo: OWNER/NAME.
        kind: kind of the repository.

    Returns:
        The commit.

    Raises:
        UserError: the hub, which validates the card, finds a mistake in it; or the repository holds files of others.
        AgebenchError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import DatasetCard, HfApi, ModelCard

    card = ModelCard if kind == "model" else DatasetCard
    try:
        try:
            card.load(folder / README).validate()
        except ValueError as error:
            raise UserError(f"{folder / README}: the hub refuses the card: {error}") from None
        api = HfApi()
        api.create_repo(repo, repo_type=kind, exist_ok=True, private=True)
        there = set(api.list_repo_files(repo, repo_type=kind)) - {".gitattributes"}
        if there and not there & ({WRITTEN, CARD} if kind == "model" else {WRITTEN}):
            raise UserError(
                f"{repo}: holds {min(there)}, which `agebench push` did not write; choose another repository"
            )
        # Exports and tables of an earlier run are deleted in the same commit: they do not fit the new card.
        stale = "export/*" if kind == "model" else "data/*"
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            delete_patterns=[stale],
            ignore_patterns=["*.tmp", "*.tmp.*"],  # of an interrupted call
            commit_message="agebench push",
        )
        return str(commit.oid)
    except UserError:
        raise
    except Exception as error:  # of several libraries; only the type is reported, because requests hold the token
        raise AgebenchError(
            f"{repo}: the upload failed ({type(error).__name__}). Is this machine connected, and are you logged in "
            "(`hf auth login`)? `--dry-run` writes the same folder without sending it"
        ) from None


def check_out(out: Path) -> set[str]:
    """Refuse a folder with files that `agebench push` did not write.

    Args:
        out: the folder, which need not exist.

    Returns:
        The names of the files that an earlier call wrote.

    Raises:
        UserError: it is a file, or holds another file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; choose a folder with --out")
    listed = read_json_table(out / WRITTEN).get("files")
    written = {str(name) for name in listed} if isinstance(listed, list) else set()
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name not in written | {WRITTEN} and not is_temporary(path):
            raise UserError(
                f"{out}: holds {name}, which `agebench push` did not write; choose another folder with --out"
            )
    return written


def claim(out: Path, names: Iterable[str]) -> set[str]:
    """List the files that will be written to a folder, before the first of them is.

    Args:
        out: the folder.
        names: the names of the files.

    Returns:
        The names of files of an earlier call that are no longer written.

    Raises:
        UserError: the folder holds a file that `agebench push` did not write.
    """
    written = check_out(out)
    write_json(out / WRITTEN, {"files": sorted(written | set(names))})
    return written - set(names)


def release(out: Path, names: Iterable[str], stale: Iterable[str]) -> None:
    """Remove files of an earlier call, and list those that are there.

    Args:
        out: the folder.
        names: the names of the files that were written.
        stale: the names that `claim` returned.
    """
    for name in stale:
        if ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute():
            (out / name).unlink(missing_ok=True)
    write_json(out / WRITTEN, {"files": sorted(names)})


def _without_paths(config: RunConfig) -> RunConfig:
    """Remove the local paths from a config."""
    pretrained = Path(config.pretrained).name if config.pretrained else ""
    exclude = tuple(Path(name).name for name in config.data.exclude)
    return config.model_copy(
        update={"pretrained": pretrained, "data": config.data.model_copy(update={"exclude": exclude})}
    )
