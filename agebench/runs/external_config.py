"""The whole of what decides the result of testing a model that is not ours."""

from collections.abc import Iterable
from typing import Any

from agebench.config.cards.base import deep_merge
from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.registry.catalog import Catalog
from agebench.runs.evaluate_config import EvalConfig, merge_layers


class ExternalConfig(EvalConfig[ExternalCard]):
    """One test of an external model."""

    def name(self) -> str:
        """What the folder is called unless told otherwise."""
        return f"{self.model.name}-on-{'-'.join(self.datasets())}"


def resolve_external(catalogue: Catalog, layers: Iterable[dict[str, Any]]) -> ExternalConfig:
    """The config that the external model's card gives, overlaid with `layers`; faces are framed as the card asks.

    Raises:
        UserError: no model named, one that is trained here, an unknown dataset, or a wrong key or value.
    """
    settings, table = merge_layers(layers)
    base: dict[str, Any] = {}
    if "source" not in table:  # a run's own config.toml holds the whole card
        card = catalogue.models.get(table["name"])
        if not isinstance(card, ExternalCard):
            raise UserError(
                f"model '{card.name}' has to be trained first: agebench run --train DATASET --test DATASET --model {card.name} "
                "(of models of the zoo, --pretrained FILE tests their authors' weights)"
            )
        base = {"model": card.model_dump(mode="json")}
    framing = deep_merge(base, settings).get("model", {}).get("input", {}).get("coverage", 1.0)
    return ExternalConfig.resolved(catalogue, deep_merge({"faces": {"coverage": framing}}, base), settings)
