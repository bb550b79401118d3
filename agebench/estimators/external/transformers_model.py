"""Image classifiers and regressors of the library transformers: from a local folder, or from the hub at a commit."""

from pathlib import Path
from typing import Any

import numpy as np

from agebench.config.cards.external import HUB_MODEL, ExternalCard
from agebench.errors import AgebenchError, UserError
from agebench.estimators.external.decoding import softmax
from agebench.estimators.external.label_ages import label_brackets
from agebench.estimators.external.model_files import OpenModel, accepted, readable

# The files that are read from a repository: no program and no pickle.
FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
)


def find_folder(card: ExternalCard) -> Path:
    """Return the folder of the model, which is downloaded from the hub where the source is OWNER/NAME@COMMIT.

    Args:
        card: the model's card.

    Raises:
        UserError: there is no such folder, or it holds no config.json.
        AgebenchError: the hub cannot be reached, or refuses.
    """
    match = HUB_MODEL.fullmatch(card.source)
    folder = Path(card.source) if match is None else _download(card, match[1], match[2])
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model '{card.name}': {folder} holds no config.json; source is a folder that save_pretrained wrote, or "
            "OWNER/NAME@COMMIT with all 40 digits of the commit"
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"model '{card.name}': {folder} holds no .safetensors file; weights in other files are pickles, which can run code"
        )
    return folder


def _download(card: ExternalCard, repo: str, commit: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=commit, allow_patterns=list(FILES)))
    except Exception as error:  # its text may contain the request, and with it the token
        raise AgebenchError(
            f"model '{card.name}': {repo}@{commit} cannot be had from the hub ({type(error).__name__}). Are name and commit right, "
            "and is this machine connected?"
        ) from None


def open_transformers(card: ExternalCard, path: Path, device: str) -> OpenModel:
    """Open a model of transformers. Code in the repository is never run.

    A classifier's answer is read as a distribution whose ages are on the card, else parsed from its labels; a model with one
    output is a regressor.

    Args:
        card: the model's card.
        path: the model's folder.
        device: device of the model.

    Raises:
        UserError: transformers is not installed, the folder cannot be read, or no ages are known for the classes.
    """
    try:
        from transformers import AutoModelForImageClassification
    except ImportError as error:
        raise UserError(
            f"model '{card.name}' needs transformers, which is not installed: pip install 'agebench[transformers]'"
        ) from error
    import torch

    with readable(card, path, "a model of transformers"):
        model: Any = AutoModelForImageClassification.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    model = model.to(device).eval()
    is_distribution = card.output.kind == "distribution"
    if is_distribution == (model.config.num_labels == 1):
        kind = "age" if is_distribution else "distribution"
        raise UserError(
            f"model '{card.name}' has {model.config.num_labels} outputs; write output.kind = \"{kind}\" on its card"
        )

    def call(batch: np.ndarray) -> list[np.ndarray]:
        with accepted(card, batch), torch.inference_mode():
            logits = model(pixel_values=torch.from_numpy(batch).to(device)).logits.float().cpu().numpy()
        values = softmax(logits.astype(np.float64)) if is_distribution and not card.output.logits else logits
        return [values for _ in card.output.reads]

    return OpenModel(call, _class_ages(card, path, model.config.id2label) if is_distribution else ())


def _class_ages(card: ExternalCard, path: Path, id2label: dict[int, str]) -> tuple[float, ...]:
    if card.output.class_ages:
        return ()
    try:
        brackets = label_brackets([str(id2label[number]) for number in sorted(id2label)], card.output.open_ages)
    except UserError as error:
        raise UserError(f"model '{card.name}': {path / 'config.json'}: {error}") from error
    return tuple((low + high) / 2 for low, high in brackets)
