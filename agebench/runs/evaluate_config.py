"""What every test without training is given: datasets, faces, bootstrap; whose model it is, its own module adds."""

from collections.abc import Iterable
from typing import Any, Generic, Self, TypeVar

import tomli_w
from pydantic import Field

from agebench.config.cards.base import Architecture, deep_merge, validate_model
from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.registry.catalog import Catalog
from agebench.runs.config import EvaluateConfig, FacesConfig, _Table

M = TypeVar("M", Architecture, ExternalCard)


class EvalDataConfig(_Table):
    """Which datasets; every usable image of each."""

    __test__ = False  # pytest: this is no test

    test: tuple[str, ...] = Field(min_length=1)
    exclude: tuple[str, ...] = Field(
        default=(), exclude_if=lambda files: not files, description="CSV files of sample ids that are put aside"
    )


class EvalConfig(_Table, Generic[M]):
    """One test of a model that is not trained for it. Running a run folder's config.toml again repeats it."""

    __test__ = False

    seed: int = Field(default=0, ge=0, description="of the bootstrap; nothing else is random here")
    device: str = "auto"
    data: EvalDataConfig
    model: M
    faces: FacesConfig = FacesConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def datasets(self) -> list[str]:
        """The names of all datasets, each once."""
        return list(dict.fromkeys(self.data.test))

    def to_toml(self) -> str:
        """The config as a file that is taken back unchanged."""
        return tomli_w.dumps(self.model_dump(mode="json"))

    @classmethod
    def resolved(cls, catalogue: Catalog, base: dict[str, Any], settings: dict[str, Any]) -> Self:
        """What a model's card gives, overlaid with the settings.

        Raises:
            UserError: an unknown dataset, or a wrong key or value.
        """
        config = validate_model(cls, deep_merge(base, settings), source="test settings")
        for name in config.datasets():
            catalogue.datasets.get(name)
        return config


def merge_layers(layers: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All layers in one, the later over the earlier, and its part `model`.

    Raises:
        UserError: no model named.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        settings = deep_merge(settings, layer)
    table = settings.get("model", {})
    if not isinstance(table, dict) or "name" not in table:
        raise UserError("which model? --model NAME; `agebench list models` shows them")
    return settings, table
