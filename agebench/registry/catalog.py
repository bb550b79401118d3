"""Which cards there are: shipped ones, installed plugins, the user's own folders."""

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
from agebench.config.toml_io import ModelT, deep_merge, read_toml, validate_model
from agebench.errors import UserError
from agebench.registry.registry import Registry, reason
from agebench.utils.paths import shipped
from agebench.utils.text import did_you_mean


@dataclass(frozen=True)
class Catalog:
    """All cards that this program can see."""

    datasets: Registry[DatasetCard]
    models: Registry[ModelCard | ExternalCard]
    suites: Registry[SuiteCard]


def load_catalog(extra: Iterable[Path] = ()) -> Catalog:
    """The shipped cards, those of installed plugins, of `AGEBENCH_REGISTRY` (folders, separated as in PATH) and of `extra`.

    A folder holds `datasets/*.toml`, `models/*.toml` and `suites/*.toml`. A card may `extends` another
    of its kind, and then says only what differs. A card that cannot be read is listed as broken under its file's name.

    Raises:
        UserError: two cards have one name (both files are named), or a folder does not exist.
    """
    named = [Path(folder) for folder in os.environ.get("AGEBENCH_REGISTRY", "").split(os.pathsep) if folder]
    folders = list(dict.fromkeys(folder.resolve() for folder in (shipped("registry"), *named, *extra)))
    found = Catalog(
        Registry("dataset", group="agebench.datasets", check=partial(_check_card, (DatasetCard,))),
        Registry("model", group="agebench.models", check=partial(_check_card, (ModelCard, ExternalCard))),
        Registry("suite"),
    )
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such registry folder (from --registry or AGEBENCH_REGISTRY)")
    suites = [shipped("benchmarks/suites"), *(folder / "suites" for folder in folders)]
    _read_cards(suites, SuiteCard, found.suites)
    _read_cards([folder / "datasets" for folder in folders], DatasetCard, found.datasets)
    _read_cards([folder / "models" for folder in folders], ModelCard, found.models)
    return found


def _check_card(kinds: tuple[type[Any], ...], name: str, item: Any) -> str:
    """Return what is wrong with the object of an entry point, "" where nothing is."""
    if not isinstance(item, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        return f"it hands over {type(item).__name__}, where a {wanted} is required"
    if item.name != name:
        return f"its card is called '{item.name}'; entry point and card must have one name"
    return ""


def _read_cards(folders: Iterable[Path], kind: type[ModelT], registry: Registry[ModelT]) -> None:
    tables: dict[Path, dict[str, Any]] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.toml"))):
        try:
            tables[path] = read_toml(path)
        except UserError as error:
            registry.register_broken(path.stem, str(error), origin=str(path))
    named = {name: table for table in tables.values() if isinstance(name := table.get("name"), str)}
    for path, table in tables.items():
        try:
            card = _card(kind, _extended(table, named, path), path)
        except Exception as error:  # whatever a file holds, it must not keep the other cards from being read
            message = reason(error)
            named_file = message if message.startswith(str(path)) else f"{path}: {message}"
            registry.register_broken(path.stem, named_file, origin=str(path))
        else:
            registry.register(card.name, card, origin=str(path))


def _card(kind: type[Any], content: dict[str, Any], path: Path) -> Any:
    if kind is ModelCard and content.get("kind") == "external":
        return validate_model(ExternalCard, content, source=str(path)).located(path.parent)
    card = validate_model(kind, content, source=str(path))
    return card.located(path.parent) if isinstance(card, DatasetCard) else card


def _extended(table: dict[str, Any], named: dict[str, dict[str, Any]], path: Path) -> dict[str, Any]:
    """Return `table` laid over the card that it `extends`, and that one over the one that it extends in turn."""
    layers, passed = [table], [table.get("name")]
    while "extends" in layers[0]:
        base = layers[0]["extends"]
        if not isinstance(base, str):
            raise UserError(f"{path}: extends = {reprlib.repr(base)}: one name of a card is required, as text")
        if base in passed:
            raise UserError(f"{path}: extends = {base!r} leads back to itself")
        if base not in named:
            raise UserError(
                f"{path}: extends = {base[:80]!r}: no card of this name{did_you_mean(base[:80], sorted(named))}"
            )
        passed.append(base)
        layers.insert(0, named[base])
    whole: dict[str, Any] = {}
    for layer in layers:
        whole = deep_merge(whole, {key: value for key, value in layer.items() if key != "extends"})
    return whole
