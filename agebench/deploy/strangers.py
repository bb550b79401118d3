"""What a card from a stranger says of a model's figures and promises: whether it has the shape that they have here."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from agebench.registry.cards import validated


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Figure(_Table):
    value: FiniteFloat | None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None


class _Group(_Table):
    n: int | None
    mae: _Figure | None = None
    mae_standardised: _Figure | None = None
    bias: _Figure | None = None
    cs5: _Figure | None = None


class _Test(_Table):
    n: int
    overall: dict[str, _Figure]
    groups: dict[str, dict[str, _Group]] = {}


class _Figures(_Table):
    tests: dict[str, _Test] = {}


class _Held(_Figure):
    n: int


class _Interval(_Table):
    level: FiniteFloat
    radius: FiniteFloat = Field(ge=0)
    scaled: bool
    n: int
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


class _Said(_Table):
    figures: _Figures = _Figures()
    promises: _Promises = _Promises()
    training: _Training = _Training()
    intended_use: str = ""


def check_said(source: Path, card: dict[str, Any]) -> None:
    """Whether what is shown of a card can be shown, before anything is.

    Raises:
        UserError: a key is missing or a value is of another kind; the message says which.
    """
    validated(_Said, card, source=str(source))
