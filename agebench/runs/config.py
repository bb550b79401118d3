"""The whole of what decides a run's result, as one typed, resolved table."""

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agebench.config.cards.base import Architecture, DatasetCard, Recipe, deep_merge, validate_model
from agebench.config.cards.external import ExternalCard
from agebench.config.cards.protocol import DEFAULT
from agebench.config.toml_io import MAX_DEPTH, parse_toml
from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.detectors.base import DEFAULT_DETECTOR as DEFAULT_DETECTOR
from agebench.errors import UserError
from agebench.registry.builtin import detectors
from agebench.registry.catalog import Catalog
from agebench.utils.io import read_limited

_LARGEST_CONFIG = 1 << 20  # bytes
DEFAULT_MODEL = "efficientnet_lite0"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Table):
    """Which datasets, and how the training set is divided."""

    train: str = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)
    test_share: float = Field(default=0.2, gt=0, lt=1, description="of the training set's images, held out")
    val_share: float = Field(default=0.15, gt=0, lt=1, description="of what is left, for validation")
    # Left out of config.toml while it is unset: runs and records from before there were protocols stay what they are.
    protocol: str = Field(
        default="", exclude_if=lambda name: not name, description="of the training set's card; empty: the default one"
    )

    @field_validator("protocol")
    @classmethod
    def _one_name_for_the_default(cls, name: str) -> str:
        return "" if name == DEFAULT else name

    exclude: tuple[str, ...] = Field(
        default=(), exclude_if=lambda files: not files, description="CSV files of sample ids that are put aside"
    )


class FacesConfig(_Table):
    """How every face of every dataset is prepared; the output size is the model's."""

    coverage: float = Field(
        default=1.0, gt=0.2, le=4, description="1: the framing of UTKFace's crops; 1.5 shows half as much again"
    )
    # Left out of config.toml while they are unset: runs from before there were such settings stay what they are.
    mode: Literal["", "none", "landmarks", "detect", "boxes"] = Field(
        default="", exclude_if=lambda value: not value, description="of every dataset; empty: each card's own"
    )
    detector: str = Field(
        default="",
        exclude_if=lambda value: not value,
        description="see `agebench list detectors`; empty: each card's own",
    )

    def spec_for(self, card: DatasetCard, model: Architecture | ExternalCard) -> AlignmentSpec:
        """How a dataset's faces, and bodies where the model sees them, are prepared for a model.

        Raises:
            UserError: as `spec`.
        """
        return replace(
            self.spec(card, model.size),
            bodies=model.bodies,
            letterbox=bool(model.letterbox) and not self.mode,
            mask_bodies=bool(model.mask_bodies) and model.bodies,
        )

    def spec(self, card: DatasetCard, size: int) -> AlignmentSpec:
        """How a dataset's faces become `size` x `size` pixels.

        Raises:
            UserError: no such detector, or annotated points are asked for and the card names none.
        """
        mode, detector = self.mode or card.faces, self.detector or card.detector or DEFAULT_DETECTOR
        if mode == "landmarks" and not card.landmark_points:
            raise UserError(
                f"faces.mode = landmarks: the card of '{card.name}' names no landmark_points; take detect or none"
            )
        detectors.get(detector)
        return AlignmentSpec(mode, size, self.coverage, card.landmark_points, detector)


class EvaluateConfig(_Table):
    """How figures are computed."""

    resamples: int = Field(default=1000, ge=100, description="bootstrap resamples behind each interval")


class RunConfig(_Table):
    """One run. Running a run folder's config.toml again repeats the run."""

    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    pretrained: str = Field(
        default="", description="source of the backbone's weights: auto, timm, a package, a file; empty: random"
    )
    data: DataConfig
    model: Architecture
    train: Recipe = Recipe()
    faces: FacesConfig = FacesConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def datasets(self) -> list[str]:
        """The names of all datasets of the run, the training set first."""
        return list(dict.fromkeys([self.data.train, *self.data.test]))

    def name(self) -> str:
        """What the run's folder is called unless told otherwise."""
        protocol = f"-{self.data.protocol}" if self.data.protocol else ""
        said = "+".join([self.model.head, *self.model.targets])
        return f"{self.data.train}{protocol}-{self.model.name}-{said}-s{self.seed}"

    def to_toml(self) -> str:
        """The config as a file that `read_settings` and `resolve` take back unchanged."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a config file, not yet checked.

    Raises:
        UserError: no such file, a far too large one, or not TOML.
    """
    try:
        return tomllib.loads(read_limited(path, _LARGEST_CONFIG).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # also what is not UTF-8
        raise UserError(f"--config {path}: not a readable TOML file: {error}") from error


def parse_setting(text: str) -> dict[str, Any]:
    """`train.lr=0.01` -> {"train": {"lr": 0.01}}; the value is read as TOML, else taken as text.

    Raises:
        UserError: no `=` in it, or a value that no setting takes: nested too deeply, not finite, more than 64 bits.
    """
    key, sign, raw = text.partition("=")
    if not sign or not key.strip():
        raise UserError(f"--set {text}: write it as key=value, e.g. --set train.lr=0.001")
    try:
        value: Any = parse_toml(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    except ValueError as error:
        raise UserError(f"--set {text[:200]}: {error}") from error
    parts = key.strip().split(".")
    if len(parts) > MAX_DEPTH:
        raise UserError(f"--set {text[:200]}: a key has more than {MAX_DEPTH} parts")
    for part in reversed(parts):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def resolve_config(catalogue: Catalog, layers: Iterable[dict[str, Any]]) -> RunConfig:
    """The config that the model's card gives, overlaid with `layers`: a config file, then flags, then --set.

    Raises:
        UserError: an unknown model, dataset or protocol, or a key or value that is wrong; the message says what would be right.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        settings = deep_merge(settings, layer)
    table = settings.get("model", {})
    card = catalogue.models.get(table.get("name", DEFAULT_MODEL) if isinstance(table, dict) else DEFAULT_MODEL)
    if isinstance(card, ExternalCard):
        raise UserError(f"model '{card.name}' is external and is not trained here: agebench test --model {card.name} …")
    base = {
        "pretrained": "auto" if card.pretrained else "",
        "model": card.architecture.model_dump(mode="json"),
        "train": card.train.model_dump(mode="json"),
    }
    config = validate_model(RunConfig, deep_merge(base, settings), source="run settings")
    for name in config.datasets():
        catalogue.datasets.get(name)
    catalogue.datasets.get(config.data.train).protocol(config.data.protocol)
    return config
