"""Which cards there are: shipped ones, installed plugins, the user's own folders."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agebench.errors import UserError
from agebench.paths import shipped
from agebench.registry.cards import CardT, DatasetCard, ModelCard, SuiteCard, merge, read_table, validated
from agebench.registry.external import ExternalCard
from agebench.registry.plugins import Registry, suggest


@dataclass(frozen=True)
class Catalogue:
    """All cards that this program can see."""

    datasets: Registry[DatasetCard]
    models: Registry[ModelCard | ExternalCard]
    suites: Registry[SuiteCard]


def catalogue(extra: Iterable[Path] = ()) -> Catalogue:
    """The shipped cards, those of installed plugins, of `AGEBENCH_REGISTRY` (folders, separated as in PATH) and of `extra`.

    A folder holds `datasets/*.toml`, `models/*.toml` and `suites/*.toml`. A card may `extends` another
    of its kind, and then says only what differs. A card that cannot be read is listed as broken under its file's name.

    Raises:
        UserError: two cards have one name (both files are named), or a folder does not exist.
    """
    named = [Path(folder) for folder in os.environ.get("AGEBENCH_REGISTRY", "").split(os.pathsep) if folder]
    folders = list(dict.fromkeys(folder.resolve() for folder in (shipped("registry"), *named, *extra)))
    found = Catalogue(
        Registry("dataset", group="agebench.datasets"), Registry("model", group="agebench.models"), Registry("suite")
    )
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such registry folder (from --registry or AGEBENCH_REGISTRY)")
    suites = [shipped("benchmarks/suites"), *(folder / "suites" for folder in folders)]
    _read_cards(suites, SuiteCard, found.suites)
    _read_cards([folder / "datasets" for folder in folders], DatasetCard, found.datasets)
    _read_cards([folder / "models" for folder in folders], ModelCard, found.models)
    return found


def _read_cards(folders: Iterable[Path], kind: type[CardT], registry: Registry[CardT]) -> None:
    tables: dict[Path, dict[str, Any]] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.toml"))):
        try:
            tables[path] = read_table(path)
        except UserError as error:
            registry.register_broken(path.stem, str(error), origin=str(path))
    named = {str(table.get("name", "")): table for table in tables.values()}
    for path, table in tables.items():
        try:
            content = _extended(table, named, path)
            if kind is ModelCard and content.get("kind") == "external":
                card: Any = validated(ExternalCard, content, source=str(path)).located(path.parent)
            else:
                card = validated(kind, content, source=str(path))
            if isinstance(card, DatasetCard):
                card = card.located(path.parent)
        except UserError as error:
            registry.register_broken(path.stem, str(error), origin=str(path))
        else:
            registry.register(card.name, card, origin=str(path))


def _extended(table: dict[str, Any], named: dict[str, dict[str, Any]], path: Path) -> dict[str, Any]:
    """`table` laid over the card that it `extends`, and that one over the one that it extends in turn."""
    layers, passed = [table], {table.get("name")}
    while "extends" in layers[0]:
        base = layers[0]["extends"]
        if base in passed:
            raise UserError(f"{path}: extends = {base!r} leads back to itself")
        if base not in named:
            raise UserError(f"{path}: extends = {base!r}: no card of this name{suggest(str(base), sorted(named))}")
        passed.add(base)
        layers.insert(0, named[base])
    whole: dict[str, Any] = {}
    for layer in layers:
        whole = merge(whole, {key: value for key, value in layer.items() if key != "extends"})
    return whole
