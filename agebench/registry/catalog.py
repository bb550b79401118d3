"""The catalog of cards: shipped ones, those of installed plugins, and those of the user's folders."""

import os
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.external import ExternalCard
from agebench.config.cards.model import ModelCard
from agebench.config.cards.suite import SuiteCard
from agebench.config.toml_io import ModelT, Settings, deep_merge, read_toml, validate_model
from agebench.errors import UserError
from agebench.registry.registry import Registry, reason
from agebench.utils.paths import shipped
from agebench.utils.text import did_you_mean


@dataclass(frozen=True)
class Catalog:
    """All available cards."""

    datasets: Registry[DatasetCard]
    models: Registry[ModelCard | ExternalCard]
    suites: Registry[SuiteCard]

    def network(self, name: str) -> ModelCard:
        """Return the card of a model whose network is built and trained here.

        Args:
            name: the model's name.

        Raises:
            UserError: no such model, or an external one.
        """
        card = self.models.get(name)
        if isinstance(card, ExternalCard):
            raise UserError(
                f"model '{name}' is external and has no network here. Use agebench.load_estimator('{name}')."
            )
        return card


def load_catalog(extra: Iterable[Path] = ()) -> Catalog:
    """Load the shipped cards, those of plugins, of `AGEBENCH_REGISTRY` (folders, separated as in PATH) and of `extra`.

    A folder contains `datasets/*.toml`, `models/*.toml` and `suites/*.toml`. A card that `extends` another one of its kind
    contains only the differences. A card that cannot be read is listed as broken under its file's name.

    Args:
        extra: more folders.

    Raises:
        UserError: two cards have the same name (the message names both files), or a folder does not exist.
    """
    folders = list(dict.fromkeys((shipped("registry").resolve(), *user_folders(extra))))
    catalog = Catalog(
        Registry("dataset", group="agebench.datasets", check=partial(_check_card, (DatasetCard,))),
        Registry("model", group="agebench.models", check=partial(_check_card, (ModelCard, ExternalCard))),
        Registry("suite"),
    )
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such registry folder (from --registry or AGEBENCH_REGISTRY)")
    suites = [shipped("benchmarks/suites"), *(folder / "suites" for folder in folders)]
    _read_cards(suites, SuiteCard, catalog.suites)
    _read_cards([folder / "datasets" for folder in folders], DatasetCard, catalog.datasets)
    _read_cards([folder / "models" for folder in folders], ModelCard, catalog.models)
    return catalog


def user_folders(extra: Iterable[Path] = ()) -> list[Path]:
    """Return the absolute folders of the user's cards: those of `AGEBENCH_REGISTRY`, and `extra`.

    Args:
        extra: more folders.
    """
    from_environment = [Path(folder) for folder in os.environ.get("AGEBENCH_REGISTRY", "").split(os.pathsep) if folder]
    return list(dict.fromkeys(folder.resolve() for folder in (*from_environment, *extra)))


def _check_card(kinds: tuple[type[Any], ...], name: str, item: Any) -> str:
    """Return the problem with the object of an entry point; "" if none."""
    if not isinstance(item, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        return f"it hands over {type(item).__name__}, where a {expected} is required"
    if item.name != name:
        return f"its card is called '{item.name}'; entry point and card must have one name"
    return ""


def _read_cards(folders: Iterable[Path], kind: type[ModelT], registry: Registry[ModelT]) -> None:
    tables: dict[Path, Settings] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.toml"))):
        try:
            tables[path] = read_toml(path)
        except UserError as error:
            registry.register_broken(path.stem, str(error), origin=str(path))
    by_name = {name: table for table in tables.values() if isinstance(name := table.get("name"), str)}
    for path, table in tables.items():
        try:
            card = _card(kind, _extended(table, by_name, path), path)
        except Exception as error:  # no file may prevent the other cards from being read
            message = reason(error)
            message_with_path = message if message.startswith(str(path)) else f"{path}: {message}"
            registry.register_broken(path.stem, message_with_path, origin=str(path))
        else:
            registry.register(card.name, card, origin=str(path))


def _card(kind: type[Any], content: Settings, path: Path) -> Any:
    if kind is ModelCard and content.get("kind") == "external":
        return validate_model(ExternalCard, content, source=str(path)).located(path.parent)
    card = validate_model(kind, content, source=str(path))
    return card.located(path.parent) if isinstance(card, DatasetCard) else card


def _extended(table: Settings, by_name: dict[str, Settings], path: Path) -> Settings:
    """Return a card merged over the card that it `extends`, and so on."""
    layers, visited = [table], [table.get("name")]
    while "extends" in layers[0]:
        base = layers[0]["extends"]
        if not isinstance(base, str):
            raise UserError(f"{path}: extends = {reprlib.repr(base)}: one name of a card is required, as text")
        if base in visited:
            raise UserError(f"{path}: extends = {base!r} leads back to itself")
        if base not in by_name:
            raise UserError(
                f"{path}: extends = {base[:80]!r}: no card of this name{did_you_mean(base[:80], sorted(by_name))}"
            )
        visited.append(base)
        layers.insert(0, by_name[base])
    merged: Settings = {}
    for layer in layers:
        merged = deep_merge(merged, {key: value for key, value in layer.items() if key != "extends"})
    return merged
