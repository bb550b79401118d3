"""The base class of all cards, and field types that several cards share."""

import importlib
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from agebench.config.cards.protocol import NAME

if TYPE_CHECKING:
    from agebench.config.cards.dataset import AGE_BAND_COLUMN as AGE_BAND_COLUMN
    from agebench.config.cards.dataset import DatasetCard as DatasetCard
    from agebench.config.cards.model import Architecture as Architecture
    from agebench.config.cards.model import Augment as Augment
    from agebench.config.cards.model import ModelCard as ModelCard
    from agebench.config.cards.model import Recipe as Recipe
    from agebench.config.cards.model import Training as Training
    from agebench.config.cards.suite import PublishedResult as PublishedResult
    from agebench.config.cards.suite import SuiteCard as SuiteCard
    from agebench.config.cards.suite import Variant as Variant
    from agebench.config.toml_io import deep_merge as deep_merge
    from agebench.config.toml_io import validate_model as validate_model

Name = Annotated[str, Field(pattern=NAME)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Std = Annotated[float, Field(gt=0, description="pixels are divided by it")]


class Card(BaseModel):
    """A frozen table of a TOML file that accepts no unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def is_unset(value: Any) -> bool:
    """Return whether a field holds its empty default and is left out of config.toml."""
    return not value


# Names that moved to modules of their own; imports from here keep working.
_MOVED = {
    "AGE_BAND_COLUMN": "agebench.config.cards.dataset",
    "DatasetCard": "agebench.config.cards.dataset",
    "Architecture": "agebench.config.cards.model",
    "Augment": "agebench.config.cards.model",
    "ModelCard": "agebench.config.cards.model",
    "Recipe": "agebench.config.cards.model",
    "Training": "agebench.config.cards.model",
    "PublishedResult": "agebench.config.cards.suite",
    "SuiteCard": "agebench.config.cards.suite",
    "Variant": "agebench.config.cards.suite",
    "deep_merge": "agebench.config.toml_io",
    "validate_model": "agebench.config.toml_io",
}


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        return getattr(importlib.import_module(_MOVED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
