"""Schemas of the settings of a test without training: of an external model, or of published weights."""

from pathlib import Path
from typing import Generic, TypeVar

import tomli_w
from pydantic import Field

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.model import Architecture, Training
from agebench.config.run import ConfigTable, EvaluateConfig, FacesConfig, TestDataConfig, limit_suffix

ModelCardT = TypeVar("ModelCardT", Architecture, ExternalCard)


class EvalConfig(ConfigTable, Generic[ModelCardT]):
    """The settings of one test. Running a run folder's config.toml again repeats it."""

    __test__ = False  # not a pytest class

    seed: int = Field(default=0, ge=0, description="of the bootstrap; nothing else is random here")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    data: TestDataConfig
    model: ModelCardT
    faces: FacesConfig = FacesConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def datasets(self) -> list[str]:
        """Return the names of all datasets, each once."""
        return list(dict.fromkeys(self.data.test))

    def name(self, system: str = "") -> str:
        """Return the default name of the test's folder.

        Args:
            system: name of what is tested; "": that of the model's card.
        """
        return f"{system or self._system()}-on-{'-'.join(self.datasets())}{limit_suffix(self.data.limit)}"

    def _system(self) -> str:
        return self.model.name

    def to_toml(self) -> str:
        """Return the config as a TOML file that reads back unchanged."""
        return tomli_w.dumps(self.model_dump(mode="json"))


class ExternalConfig(EvalConfig[ExternalCard]):
    """The settings of one test of an external model."""


class PublishedConfig(EvalConfig[Architecture]):
    """The settings of one test of weights that a model's authors published."""

    pretrained: str = Field(min_length=1, description="the authors' checkpoint")
    # Left out of config.toml where the card is silent, so that earlier tests keep their config.
    published: Training = Field(
        default=Training(),
        exclude_if=lambda value: value == Training(),
        description="what the weights were trained with",
    )

    def _system(self) -> str:
        return f"{self.model.name}-{Path(self.pretrained).stem}"
