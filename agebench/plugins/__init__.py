"""Names for plugin authors: `from agebench.plugins import DatasetCard, Reader, read_card`. Each is loaded on first use.

These names stay where they are when modules of agebench move.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from agebench.config.cards.dataset import DatasetCard
    from agebench.config.cards.external import ExternalCard
    from agebench.config.cards.model import ModelCard
    from agebench.data.faces.detectors.base import Detection, Detector
    from agebench.data.readers import Reader
    from agebench.data.readers.base import list_images, to_samples
    from agebench.data.readers.vocabulary import normalize_labels
    from agebench.data.samples import Rejected, Samples, validate_samples
    from agebench.errors import RejectReason
    from agebench.models.heads import AgeEstimate, Head

CardT = TypeVar("CardT", bound="DatasetCard | ModelCard | ExternalCard")

__all__ = [
    "AgeEstimate",
    "DatasetCard",
    "Detection",
    "Detector",
    "ExternalCard",
    "Head",
    "ModelCard",
    "Reader",
    "RejectReason",
    "Rejected",
    "Samples",
    "list_images",
    "normalize_labels",
    "read_card",
    "to_samples",
    "validate_samples",
]

_MODULES = {
    "agebench.config.cards.dataset": ("DatasetCard",),
    "agebench.config.cards.external": ("ExternalCard",),
    "agebench.config.cards.model": ("ModelCard",),
    "agebench.data.faces.detectors.base": ("Detection", "Detector"),
    "agebench.data.readers": ("Reader",),
    "agebench.data.readers.base": ("list_images", "to_samples"),
    "agebench.data.readers.vocabulary": ("normalize_labels",),
    "agebench.data.samples": ("Rejected", "Samples", "validate_samples"),
    "agebench.errors": ("RejectReason",),
    "agebench.models.heads": ("AgeEstimate", "Head"),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}


def read_card(kind: type[CardT], path: Path) -> CardT:
    """Read the card of a plugin. Files that it names beside itself, and `{here}`, are found as in a folder of cards.

    Args:
        kind: DatasetCard, ModelCard or ExternalCard.
        path: the card's TOML file.

    Returns:
        The card.

    Raises:
        UserError: the file cannot be read, or a key or value is wrong.
    """
    from agebench.config.cards.model import ModelCard
    from agebench.config.toml_io import read_toml, validate_model

    card = validate_model(kind, read_toml(path), source=str(path))
    return card if isinstance(card, ModelCard) else card.located(Path(path).resolve().parent)  # type: ignore[return-value]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'agebench.plugins' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)
