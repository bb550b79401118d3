"""The whole of what decides the result of testing a zoo model with its authors' weights."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from agebench.errors import UserError
from agebench.models import zoo
from agebench.registry.cards import Architecture, Training
from agebench.registry.catalogue import Catalogue
from agebench.registry.external import ExternalCard
from agebench.runs.untrained_config import TestConfig, settings_of


class PublishedConfig(TestConfig[Architecture]):
    """One test of published weights."""

    pretrained: str = Field(min_length=1, description="the authors' checkpoint")
    # Left out of config.toml where the card says nothing, so that earlier tests keep their config.
    published: Training = Field(
        default=Training(),
        exclude_if=lambda value: value == Training(),
        description="what the weights were trained with",
    )

    def name(self) -> str:
        """What the folder is called unless told otherwise."""
        return f"{self.model.name}-{Path(self.pretrained).stem}-on-{'-'.join(self.datasets())}"


def resolve_published(catalogue: Catalogue, layers: Iterable[dict[str, Any]]) -> PublishedConfig:
    """The config of the model's card, overlaid with `layers`.

    Raises:
        UserError: no model named, one that is not of the zoo, an unknown dataset, or a wrong key or value.
    """
    settings, table = settings_of(layers)
    card = catalogue.models.get(table["name"])
    if isinstance(card, ExternalCard) or card.backbone not in zoo.NAMES:
        raise UserError(
            f"--pretrained is for the models of the zoo ({', '.join(zoo.NAMES)}), whose authors published weights; "
            f"'{card.name}' is none of them"
        )
    base = {"model": card.architecture.model_dump(mode="json"), "published": card.published.model_dump(mode="json")}
    return PublishedConfig.resolved(catalogue, base, settings)
