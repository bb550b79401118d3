"""Models on the Hugging Face hub: a finished run as the folder of a repository, and such a repository as a run again."""

import json
import re
from pathlib import Path
from typing import Any

from agebench.errors import AgebenchError, UserError
from agebench.export.card import INTENDED_USE
from agebench.files import atomic, write_text
from agebench.registry.catalogue import Catalogue
from agebench.runs.folder import RunFolder

# What a run needs to answer, and nothing else: no program, no pickle, no labels of anybody's faces. Path -> bytes at most.
FILES = {
    "config.toml": 1 << 20,
    "manifest.json": 4 << 20,
    "metrics.json": 32 << 20,
    "checkpoints/best.safetensors": 2 << 30,
}
EXPORTS = (".ts", ".onnx", ".pt2")
_FIGURES = {"mae": "MAE (years)", "rmse": "RMSE (years)", "bias": "Bias (years)", "cs5": "CS@5 (share)"}
_URL = re.compile(r"hf://([\w.-]+/[\w.-]+)@([0-9a-f]{40})")


def write_repository(run: Path, repo: str, out: Path, cards: Catalogue) -> list[str]:
    """The repository's folder at `out`, its card checked; returns the files' names.

    Raises:
        UserError: the run is not finished, `repo` is no name of a repository, `out` is not empty, or the card is bad.
    """
    check_repo(repo)
    folder = RunFolder(run)
    if not folder.manifest().get("finished"):
        raise UserError(f"{run}: no finished run stands here; only finished runs can be pushed")
    missing = [name for name in FILES if not (run / name).is_file()]
    if missing:
        raise UserError(f"{run / missing[0]}: no such file; a run without it cannot answer")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not an empty folder; choose another with --out")
    card = model_card(folder, repo, cards)
    exports = sorted((run / "export").glob("*")) if (run / "export").is_dir() else []
    names = [*FILES, *(f"export/{path.name}" for path in exports if path.suffix in EXPORTS)]
    for name in names:
        with atomic(out / name) as temporary:
            temporary.write_bytes((run / name).read_bytes())
    write_text(out / "README.md", card)
    return [*names, "README.md"]


def model_card(folder: RunFolder, repo: str, cards: Catalogue) -> str:
    """The card with the figures in model-index form, as huggingface_hub itself writes and reads it.

    Raises:
        UserError: huggingface_hub refuses it, or reads other figures in it than were written.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    manifest, metrics = folder.manifest(), folder.metrics()
    results = [
        EvalResult(
            task_type="image-classification",  # the hub has no task of its own for regression on images
            task_name="Facial age estimation",
            dataset_type=name,
            dataset_name=name,
            metric_type=figure,
            metric_name=title,
            metric_value=round(test["overall"][figure]["value"], 4),
        )
        for name, test in metrics["tests"].items()
        for figure, title in _FIGURES.items()
    ]
    data = ModelCardData(
        model_name=repo.split("/")[1],
        eval_results=results,
        license="other",
        license_name="training-data-terms",
        library_name="agebench",
        tags=["age-estimation", "face", "agebench"],
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{_words(manifest, metrics, repo, cards)}"
    try:
        read = ModelCard(text, ignore_metadata_errors=False).data.eval_results or []
    except ValueError as error:
        raise UserError(f"{folder.path}: huggingface_hub refuses the card: {error}") from error
    if sorted(_said(one) for one in read) != sorted(_said(one) for one in results):
        raise UserError(f"{folder.path}: huggingface_hub reads other figures in the card than those of metrics.json")
    return text


def upload(folder: Path, repo: str) -> str:
    """Put the folder on the hub, with the login that huggingface_hub keeps; returns the commit.

    Raises:
        AgebenchError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi, ModelCard

    try:
        ModelCard.load(folder / "README.md").validate()
        api = HfApi()
        api.create_repo(repo, exist_ok=True, private=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message="agebench push").oid)
    except (
        Exception
    ) as error:  # kinds of several libraries; their requests' headers hold the token, so only the kind is said
        raise AgebenchError(
            f"{repo}: the hub did not take it ({type(error).__name__}); `hf auth login` logs in, and the folder {folder} is whole"
        ) from None


def fetch(url: str) -> Path:
    """The folder of `hf://OWNER/NAME@COMMIT`, from the hub or huggingface_hub's cache. Only FILES are read of it.

    Raises:
        UserError: no such address, no commit in it, or a file that is missing or larger than it may be.
        AgebenchError: the hub cannot be reached.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise UserError(
            f"{url}: write hf://OWNER/NAME@COMMIT, with all 40 digits of the commit: what a name holds can change"
        )
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    repo, commit = match[1], match[2]
    check_repo(repo)
    try:
        kept = snapshot_download(repo, revision=commit, allow_patterns=list(FILES), local_files_only=True)
        if all((Path(kept) / name).is_file() for name in FILES):
            return _checked(url, Path(kept))
    except OSError:  # not in the cache
        pass
    try:
        info = HfApi().model_info(repo, revision=commit, files_metadata=True)
        _check_sizes(url, {one.rfilename: one.size for one in info.siblings or []})
        paths = [Path(hf_hub_download(repo, name, revision=commit)) for name in FILES]
    except UserError:
        raise
    except Exception as error:  # as above
        raise AgebenchError(f"{url}: cannot be had from the hub ({type(error).__name__})") from None
    return _checked(url, paths[0].parent)


def check_repo(repo: str) -> None:
    """Raise UserError unless this is OWNER/NAME as the hub allows it."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--repo {repo}: {str(error).splitlines()[0]}") from error
    if repo.count("/") != 1:
        raise UserError(f"--repo {repo}: write OWNER/NAME")


def _check_sizes(url: str, sizes: dict[str, int | None]) -> None:
    for name, most in FILES.items():
        if name not in sizes:
            raise UserError(f"{url}: holds no {name}; not a repository that `agebench push` made")
        if sizes[name] is None or sizes[name] > most:  # type: ignore[operator]
            raise UserError(f"{url}: {name} has {sizes[name]} bytes; {most:,} are allowed")


def _checked(url: str, folder: Path) -> Path:
    _check_sizes(url, {name: (folder / name).stat().st_size for name in FILES if (folder / name).is_file()})
    return folder


def _said(result: Any) -> tuple[str, str, float]:
    return result.dataset_type, result.metric_type, float(result.metric_value)


def _words(manifest: dict[str, Any], metrics: dict[str, Any], repo: str, cards: Catalogue) -> str:
    home = manifest["train"]["name"]
    dataset = cards.datasets.get(home)
    lines = [f"# {repo.split('/')[1]}", "", f"Estimates ages from faces. Trained by agebench on {dataset.title}.", ""]
    lines += ["| test set | n | figure | value | 95 % interval |", "|:--|--:|:--|--:|:--|"]
    for name, test in metrics["tests"].items():
        for figure, title in _FIGURES.items():
            found = test["overall"][figure]
            low, high = (
                json.dumps(found[end] if found[end] is None else round(found[end], 3)) for end in ("low", "high")
            )
            lines.append(f"| {name} | {test['n']:,} | {title} | {found['value']:.3f} | {low} to {high} |")
    lines += ["", f"Intended use: {INTENDED_USE}", "", f"Licence of the training data: {dataset.licence}", ""]
    return "\n".join([*lines, f'Use: `agebench.load("hf://{repo}@COMMIT")`, with the commit that you trust.', ""])
