"""The whole of what decides the result of testing a zoo model with its authors' weights."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from agebench.config.cards.base import Architecture, Training
from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.models import architectures
from agebench.registry.catalog import Catalog
from agebench.runs.evaluate_config import EvalConfig, merge_layers


class PublishedConfig(EvalConfig[Architecture]):
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


def resolve_published(catalogue: Catalog, layers: Iterable[dict[str, Any]]) -> PublishedConfig:
    """The config of the model's card, overlaid with `layers`.

    Raises:
        UserError: no model named, one that is not of the zoo, an unknown dataset, or a wrong key or value.
    """
    settings, table = merge_layers(layers)
    card = catalogue.models.get(table["name"])
    if isinstance(card, ExternalCard) or card.backbone not in architectures.NAMES:
        raise UserError(
            f"--pretrained is for the models of the zoo ({', '.join(architectures.NAMES)}), whose authors published weights; "
            f"'{card.name}' is none of them"
        )
    base = {"model": card.architecture.model_dump(mode="json"), "published": card.published.model_dump(mode="json")}
    return PublishedConfig.resolved(catalogue, base, settings)
