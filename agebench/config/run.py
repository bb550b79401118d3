"""Schema of a run's settings: everything that decides its result, as one typed table."""

import hashlib
from typing import Annotated, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agebench.config.cards.base import is_unset
from agebench.config.cards.model import Architecture, Recipe
from agebench.config.cards.protocol import DEFAULT

DEFAULT_MODEL = "mobilefacenet"

# Fields with `exclude_if` are left out of config.toml while unset: earlier runs keep their config, hash and folder.
ExcludedFiles = Annotated[
    tuple[str, ...], Field(exclude_if=is_unset, description="CSV files of sample ids that are left out")
]
Limit = Annotated[
    int,
    Field(
        ge=0,
        exclude_if=is_unset,
        description="images of each dataset, a seeded subset stratified by age band; 0: all. Such a run is never ranked",
    ),
]


class ConfigTable(BaseModel):
    """A frozen table of settings that accepts no unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TestDataConfig(ConfigTable):
    """The test sets, and the images that are left out of all datasets."""

    __test__ = False  # not a pytest class

    test: tuple[str, ...] = Field(min_length=1, description="the test sets")
    exclude: ExcludedFiles = ()
    limit: Limit = 0


class DataConfig(ConfigTable):
    """The datasets, and the division of the training set."""

    train: str = Field(min_length=1, description="the dataset to train and validate on")
    test: tuple[str, ...] = Field(
        min_length=1, description="the test sets; the training set's name selects its held-out part"
    )
    test_share: float = Field(default=0.2, gt=0, lt=1, description="of the training set's images, held out")
    val_share: float = Field(default=0.15, gt=0, lt=1, description="of what is left, for validation")
    protocol: str = Field(
        default="", exclude_if=is_unset, description="of the training set's card; empty: the default one"
    )
    exclude: ExcludedFiles = ()
    limit: Limit = 0

    @field_validator("protocol")
    @classmethod
    def _one_name_for_the_default(cls, name: str) -> str:
        return "" if name == DEFAULT else name


class FacesConfig(ConfigTable):
    """Settings of the face preparation of every dataset; the model determines the output size."""

    coverage: float = Field(
        default=1.0, gt=0.2, le=4, description="1: the framing of UTKFace's crops; 1.5 shows half as much again"
    )
    offset: float = Field(
        default=0.0,
        ge=-0.5,
        le=0.5,
        exclude_if=is_unset,
        description="share of the side by which the face lies lower than in UTKFace's crops; negative: higher",
    )
    visible: float = Field(
        default=0.0,
        ge=0,
        le=4,
        exclude_if=is_unset,
        description="side of the region that is shown, 1 for that of UTKFace's crops; outside it, its edge is repeated. 0: all",
    )
    mode: Literal["", "none", "landmarks", "detect", "boxes"] = Field(
        default="", exclude_if=is_unset, description="of every dataset; empty: each card's own"
    )
    detector: str = Field(
        default="", exclude_if=is_unset, description="see `agebench list detectors`; empty: each card's own"
    )


class EvaluateConfig(ConfigTable):
    """Settings of the metrics."""

    resamples: int = Field(default=1000, ge=100, description="bootstrap resamples behind each interval")
    gates: tuple[str, ...] = Field(
        default=(), exclude_if=is_unset, description="further age gates, legal age and challenge age, such as 18@25"
    )
    gate_ages: str = Field(
        default="",
        exclude_if=is_unset,
        description="ages of the minors that count at the gates, such as 13-17; empty: all",
    )


class RunConfig(ConfigTable):
    """The settings of one run. Running a run folder's config.toml again repeats the run."""

    seed: int = Field(default=0, ge=0, description="of splits, initial weights and image order")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    pretrained: str = Field(
        default="", description="source of the backbone's weights: auto, timm, a package, a file; empty: random"
    )
    data: DataConfig
    model: Architecture
    train: Recipe = Recipe()
    faces: FacesConfig = FacesConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def datasets(self) -> list[str]:
        """Return the names of all datasets of the run, the training set first."""
        return list(dict.fromkeys([self.data.train, *self.data.test]))

    def name(self) -> str:
        """Return the default name of the run's folder."""
        protocol = f"-{self.data.protocol}" if self.data.protocol else ""
        targets = "+".join([self.model.head, *self.model.targets])
        return f"{self.data.train}{protocol}-{self.model.name}-{targets}-s{self.seed}{limit_suffix(self.data.limit)}"

    def to_toml(self) -> str:
        """Return the config as a TOML file that reads back unchanged."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def config_hash(config: RunConfig) -> str:
    """Return eight hexadecimal digits that differ where any setting differs.

    Args:
        config: the run's settings.
    """
    return hashlib.sha256(config.to_toml().encode()).hexdigest()[:8]


def limit_suffix(limit: int) -> str:
    """Return the end of a limited run's default name, so that it never meets the complete run's folder."""
    return f"-limit{limit}" if limit else ""
