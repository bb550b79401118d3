"""The shape of a record: what is used of it, checked once, so that nothing behind need doubt a stranger's file."""

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from agebench.metrics.confidence_intervals import IntervalKind
from agebench.reports.formatting import sanitize

# Beside its figures a record is a few tables in tables; what is nested deeper breaks whatever walks it.
_LEVELS = 20
_MOST = 10**12  # whatever is counted or measured here is less, and can be divided and drawn
Number = Annotated[float, Field(allow_inf_nan=False, ge=-_MOST, le=_MOST)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
# Such a name becomes part of a path.
Name = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,200}$")]


# Further keys are allowed, and not looked at: that is what makes it fast.
_STRICT = ConfigDict(strict=True, extra="ignore")


class _Table(BaseModel):
    model_config = _STRICT


# Figures and groups are by far the most: as such dictionaries they take a third of a model's time.
@with_config(_STRICT)
class _Figure(TypedDict, total=False):
    value: Number | None
    low: Number | None
    high: Number | None


@with_config(_STRICT)
class _Group(TypedDict, total=False):
    n: Count | None
    ranked: bool
    mae: _Figure | None
    bias: _Figure | None


class _Known(_Table):
    value: Number
    low: Number | None = None
    high: Number | None = None


class _Overall(_Table):
    mae: _Known
    rmse: _Figure | None = None
    bias: _Figure | None = None
    cs5: _Figure | None = None


class _Even(_Table):
    worst: str
    best: str
    difference: _Figure
    p_holm: Number | None = None
    worst_groups: list[str] | None = None


class _Gap(_Table):
    standardised: _Even | None = None


class _Method(_Table):
    resamples: int
    seed: int = Field(ge=0)
    interval: IntervalKind
    version: int = 1


class _Test(_Table):
    n: Count
    subjects: Count | None = None
    overall: _Overall
    groups: dict[str, dict[str, _Group]]
    gaps: dict[str, _Gap] | None = None
    baseline_mae: Number | None = None
    train_ages: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    method: _Method | None = None


class _Protocol(_Table):
    name: str = ""
    split_scheme: Count | None = None
    folds: Count | None = None


class _Metrics(_Table):
    train: str | None
    tests: dict[Name, _Test]
    protocol: _Protocol | None = None


class _Cited(_Table):
    citation: str | None = None


class _Config(_Table):
    seed: int | None = None
    data: dict[str, Any] = {}
    model: _Cited = _Cited()
    train: dict[str, Any] | None = None


class _Model(_Table):
    name: str
    title: str | None = None
    head: str | None = None
    size: Count | None = None
    weights: str | None = None
    parameters: Count | None = None
    citation: str | None = None
    initial: dict[str, Any] | None = None


class _Samples(_Table):
    read: Count | None = None
    train: Count | None = None
    val: Count | None = None
    test: Count | None = None
    quarantined: dict[str, Count] | None = None
    rejected: dict[str, Count] | None = None
    fingerprint: str | None = None


class _Excluded(_Table):
    images: Count | None = None


class _Faces(_Table):
    datasets: dict[str, Any] | None = None
    sha256: dict[str, Any] | None = None


class _Timings(_Table):
    predict_s: Annotated[Number, Field(ge=0)] | None = None


class _Summary(_Table):
    relative_error: _Figure | None = None
    corruptions: list[str] | None = None
    strengths: Count | None = None


class _Clean(_Table):
    mae: _Known


class _Stress(_Table):
    summary: _Summary
    clean: _Clean


class _Record(_Table):
    """What is used of a record, wherever that is."""

    id: Name
    config: _Config
    model: _Model
    metrics: _Metrics
    predictions: dict[str, dict[str, Any]]
    sha256: str
    config_sha256: str | None = None
    excluded: dict[str, _Excluded] | None = None
    samples: dict[str, _Samples] = {}
    faces: _Faces = _Faces()
    timings: _Timings | None = None
    protocol: _Protocol | None = None
    datasets: dict[str, dict[str, Any]] = {}
    stress: dict[str, _Stress] | None = None
    hardware: dict[str, Any] | None = None
    versions: dict[str, Any] | None = None
    plugins: dict[str, Any] | None = None


def schema_error(record: Mapping[str, Any]) -> str | None:
    """The first thing in a record that does not have the shape it needs, as a sentence; None where all has it."""
    deep = next((key for key, value in record.items() if key != "metrics" and not _shallow(value, _LEVELS)), None)
    if deep is not None:
        return f"{_its(deep)}: it is nested more than {_LEVELS} levels deep"
    try:
        _Record.model_validate(record)
    except ValidationError as error:
        return _sentence(error.errors(include_url=False, include_context=False)[0])
    return None


def _sentence(problem: Any) -> str:
    location, last = list(map(str, problem["loc"])), str(problem["loc"][-1])
    if problem["type"] != "missing":
        said = problem["msg"][0].lower() + problem["msg"][1:]
        return f"{_its('.'.join(location))}: it is {reprlib.repr(problem['input'])}, and the {said}"
    if len(location) == 1:
        return f"it has no '{last}'; `agebench results add RUN` makes a record with it"
    return f"{_its('.'.join(location[:-1]))}: it has no '{last}'"


def _its(key: str) -> str:
    if key.startswith("metrics.tests."):
        return f"its figures, '{sanitize(key[:300])}', do not have the shape that `agebench results add` gives them"
    return f"its '{sanitize(key[:300])}' does not have the shape that `agebench results add` gives it"


def _shallow(value: Any, levels: int) -> bool:
    """Whether tables and lists stand at most so deep in one another; what is no table and no list is."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_shallow(one, levels - 1) for one in inner if isinstance(one, (dict, list)))
