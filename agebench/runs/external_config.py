"""The whole of what decides the result of testing a model that is not ours."""

from collections.abc import Iterable
from typing import Any

import tomli_w
from pydantic import Field

from agebench.errors import UserError
from agebench.registry.cards import merge, validated
from agebench.registry.catalogue import Catalogue
from agebench.registry.external import ExternalCard
from agebench.runs.config import EvaluateConfig, FacesConfig, _Table


class TestsConfig(_Table):
    """Which datasets; every usable image of each."""

    __test__ = False  # pytest: this is no test

    test: tuple[str, ...] = Field(min_length=1)
    exclude: tuple[str, ...] = Field(
        default=(), exclude_if=lambda files: not files, description="CSV files of sample ids that are put aside"
    )


class ExternalConfig(_Table):
    """One test of an external model. Running a run folder's config.toml again repeats it."""

    seed: int = Field(default=0, ge=0, description="of the bootstrap; nothing else is random here")
    device: str = "auto"
    data: TestsConfig
    model: ExternalCard
    faces: FacesConfig
    evaluate: EvaluateConfig = EvaluateConfig()

    def datasets(self) -> list[str]:
        """The names of all datasets, each once."""
        return list(dict.fromkeys(self.data.test))

    def name(self) -> str:
        """What the folder is called unless told otherwise."""
        return f"{self.model.name}-on-{'-'.join(self.datasets())}"

    def to_toml(self) -> str:
        """The config as a file that `resolve_external` takes back unchanged."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def resolve_external(catalogue: Catalogue, layers: Iterable[dict[str, Any]]) -> ExternalConfig:
    """The config that the external model's card gives, overlaid with `layers`; faces are framed as the card asks.

    Raises:
        UserError: no model named, one that is trained here, an unknown dataset, or a wrong key or value.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        settings = merge(settings, layer)
    table = settings.get("model", {})
    if not isinstance(table, dict) or "name" not in table:
        raise UserError("which model? --model NAME; `agebench list models` shows them")
    base: dict[str, Any] = {}
    if "source" not in table:  # a run's own config.toml holds the whole card
        card = catalogue.models.get(table["name"])
        if not isinstance(card, ExternalCard):
            raise UserError(
                f"model '{card.name}' has to be trained first: agebench run --train DATASET --test DATASET --model {card.name} "
                "(of models of the zoo, --pretrained FILE tests their authors' weights)"
            )
        base = {"model": card.model_dump(mode="json")}
    framing = merge(base, settings).get("model", {}).get("input", {}).get("coverage", 1.0)
    base = merge({"faces": {"coverage": framing}}, base)
    config = validated(ExternalConfig, merge(base, settings), source="test settings")
    for name in config.datasets():
        catalogue.datasets.get(name)
    return config
