"""Models on the Hugging Face hub: a finished run as the folder of a repository, and such a repository as a run again."""

import shutil
from contextlib import suppress
from pathlib import Path

from agebench.errors import AgebenchError, UserError
from agebench.estimators.hub import CARD, FILES, check_repo
from agebench.hub.model_card import model_card, save_card
from agebench.metrics.guarantees import CalibrationError
from agebench.registry.catalog import Catalog
from agebench.runs.config import RunConfig
from agebench.runs.estimators import RunEstimator
from agebench.runs.guarantees import deployment_guarantees
from agebench.runs.run_dir import RunDir
from agebench.utils.integrity import DIGESTS
from agebench.utils.io import atomic_write, is_temporary, write_json, write_text

EXPORTS = (".ts", ".onnx", ".pt2", ".json")  # the last: what `agebench export` measured of each
README = "README.md"


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
    model = RunEstimator(run, cards, "cpu")
    with suppress(CalibrationError):
        model.interval(0.9)  # of runs that kept no predictions of their validation part these are made now
    card = dict(model.info.card) | {
        "promises": deployment_guarantees(folder, model.info.card["training"]["dataset"], folder.metrics()["tests"])
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
