"""The base class of all cards, and field types that several cards share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from agebench.config.cards.protocol import NAME

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
