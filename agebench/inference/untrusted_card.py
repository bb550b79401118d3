"""What somebody else's files say of a model, its figures and its promises: whether it has the shape that it has here."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from agebench.config.toml_io import validate_model
from agebench.runs.run_dir import RunDir
from agebench.utils.integrity import read_json_table


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
    people: int | None = None  # files of before people were counted do not say
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


class UntrustedCard(_Table):
    """What is used of a card."""

    model: _Model
    input: _Input
    figures: _Figures = _Figures()
    promises: _Promises = _Promises()
    training: _Training = _Training()
    intended_use: str = ""


class _Network(_Table):
    classes: dict[str, Annotated[list[str], Field(min_length=1)]] = {}


class _Manifest(_Table):
    model: _Network | None = None


class _Protocol(_Table):
    folds: int = 1


class _Metrics(_Table):
    protocol: _Protocol = _Protocol()


def validate_card(source: Path, card: dict[str, Any]) -> UntrustedCard:
    """What is used and shown of a card, before anything is.

    Raises:
        UserError: a key is missing or a value is of another kind; the message says which.
    """
    return validate_model(UntrustedCard, card, source=str(source))


def validate_folder(folder: RunDir) -> None:
    """Whether what is used of a run's manifest and metrics beside its card can be used.

    Raises:
        UserError: likewise.
        AgebenchError: one of them is damaged.
    """
    validate_model(_Manifest, folder.manifest(), source=str(folder.path / "manifest.json"))
    validate_model(_Metrics, read_json_table(folder.path / "metrics.json"), source=str(folder.path / "metrics.json"))
