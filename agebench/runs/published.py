"""One test of a zoo model with its authors' weights: faces, figures and report as elsewhere, without the training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field

from agebench.errors import UserError
from agebench.models import zoo
from agebench.registry.cards import Architecture, merge, validated
from agebench.registry.catalogue import Catalogue
from agebench.registry.external import ExternalCard
from agebench.runs.config import EvaluateConfig, FacesConfig, _Table
from agebench.runs.external_config import TestsConfig


class PublishedConfig(_Table):
    """One test of published weights. Running a run folder's config.toml again repeats it."""

    seed: int = Field(default=0, ge=0, description="of the bootstrap; nothing else is random here")
    device: str = "auto"
    pretrained: str = Field(min_length=1, description="the authors' checkpoint")
    data: TestsConfig
    model: Architecture
    faces: FacesConfig = FacesConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def datasets(self) -> list[str]:
        """The names of all datasets, each once."""
        return list(dict.fromkeys(self.data.test))

    def name(self) -> str:
        """What the folder is called unless told otherwise."""
        return f"{self.model.name}-{Path(self.pretrained).stem}-on-{'-'.join(self.datasets())}"

    def to_toml(self) -> str:
        """The config as a file that `resolve_published` takes back unchanged."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def resolve_published(catalogue: Catalogue, layers: Iterable[dict[str, Any]]) -> PublishedConfig:
    """The config of the model's card, overlaid with `layers`.

    Raises:
        UserError: no model named, one that is not of the zoo, an unknown dataset, or a wrong key or value.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        settings = merge(settings, layer)
    table = settings.get("model", {})
    if not isinstance(table, dict) or "name" not in table:
        raise UserError("which model? --model NAME; `agebench list models` shows them")
    card = catalogue.models.get(table["name"])
    if isinstance(card, ExternalCard) or card.backbone not in zoo.NAMES:
        raise UserError(
            f"--pretrained is for the models of the zoo ({', '.join(zoo.NAMES)}), whose authors published weights; "
            f"'{card.name}' is none of them"
        )
    base = {"model": card.architecture.model_dump(mode="json")}
    config = validated(PublishedConfig, merge(base, settings), source="test settings")
    for name in config.datasets():
        catalogue.datasets.get(name)
    return config
