"""Schema of the cards of exported and pushed models; cards come from untrusted sources."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from agebench.config.toml_io import validate_model


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Figure(_Table):
    value: FiniteFloat | None
    ci_low: FiniteFloat | None = None
    ci_high: FiniteFloat | None = None
    low: FiniteFloat | None = None  # schema 1
    high: FiniteFloat | None = None


class _Group(_Table):
    n: int | None
    mae: _Figure | None = None
    age_standardized_mae: _Figure | None = None
    mae_standardised: _Figure | None = None  # schema 1
    bias: _Figure | None = None
    cs5: _Figure | None = None


class _Test(_Table):
    n: int
    overall: dict[str, _Figure]
    groups: dict[str, dict[str, _Group]]


class _Figures(_Table):
    tests: dict[str, _Test] = {}


class _Held(_Figure):
    n: int


class _Interval(_Table):
    level: FiniteFloat
    radius: FiniteFloat = Field(ge=0)
    scaled: bool
    n: int
    people: int | None = None  # absent in older files
    calibrated_on: str
    coverage: dict[str, _Held]


class _Rates(_Table):
    n_under: int
    n_over: int
    fpr: _Figure
    fnr: _Figure


class _Gate(_Table):
    threshold: int
    challenge: FiniteFloat
    tests: dict[str, _Rates | None]


class _Errors(_Table):
    n: int
    mae: _Figure
    p95_ae: _Figure


class _Promises(_Table):
    intervals: dict[str, _Interval] = {}
    gates: dict[str, dict[str, _Gate]] = {}
    errors: dict[str, dict[str, _Errors]] = {}


class _Training(_Table):
    dataset: str = ""
    title: str = ""


class _Model(_Table):
    name: str = ""
    title: str = ""


class _Input(_Table):
    coverage: FiniteFloat = Field(gt=0.2, le=4)  # as in a run's config
    offset: FiniteFloat = Field(default=0.0, ge=-0.5, le=0.5)  # absent in older files and where it is 0
    visible: FiniteFloat = Field(default=0.0, ge=0, le=4)  # absent in older files and where it is 0


class UntrustedCard(_Table):
    """The entries of a card that are used or shown."""

    model: _Model
    input: _Input
    figures: _Figures = _Figures()
    promises: _Promises = _Promises()
    training: _Training = _Training()
    intended_use: str = ""


def validate_card(source: Path, card: dict[str, Any]) -> UntrustedCard:
    """Validate a card before it is used.

    Args:
        source: the file that holds the card, for messages.
        card: the card.

    Raises:
        UserError: a key is missing or a value has another type; the message names it.
    """
    return validate_model(UntrustedCard, card, source=str(source))
