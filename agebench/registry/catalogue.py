"""Which cards there are: shipped ones, installed plugins, the user's own folders."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agebench.errors import UserError
from agebench.paths import shipped
from agebench.registry.cards import CardT, DatasetCard, ModelCard, SuiteCard, read_card
from agebench.registry.plugins import Registry


@dataclass(frozen=True)
class Catalogue:
    """All cards that this program can see."""

    datasets: Registry[DatasetCard]
    models: Registry[ModelCard]
    suites: Registry[SuiteCard]


def catalogue(extra: Iterable[Path] = ()) -> Catalogue:
    """The shipped cards, those of installed plugins, of `AGEBENCH_REGISTRY` (folders, separated as in PATH) and of `extra`.

    A folder holds `datasets/*.toml` and `models/*.toml`. A card that cannot be read is listed as broken under its file's name.

    Raises:
        UserError: two cards have one name (both files are named), or a folder does not exist.
    """
    named = [Path(folder) for folder in os.environ.get("AGEBENCH_REGISTRY", "").split(os.pathsep) if folder]
    folders = list(dict.fromkeys(folder.resolve() for folder in (shipped("registry"), *named, *extra)))
    found = Catalogue(
        Registry("dataset", group="agebench.datasets"), Registry("model", group="agebench.models"), Registry("suite")
    )
    _read_folder(shipped("benchmarks/suites"), SuiteCard, found.suites)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such registry folder (from --registry or AGEBENCH_REGISTRY)")
        _read_folder(folder / "datasets", DatasetCard, found.datasets)
        _read_folder(folder / "models", ModelCard, found.models)
    return found


def _read_folder(folder: Path, kind: type[CardT], registry: Registry[CardT]) -> None:
    for path in sorted(folder.glob("*.toml")):
        try:
            card = read_card(path, kind)
        except UserError as error:
            registry.register_broken(path.stem, str(error), origin=str(path))
        else:
            registry.register(card.name, card, origin=str(path))  # type: ignore[attr-defined]
