"""Options of a run and of a test, as the command line and the library pass them, and the settings that they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agebench.config.grid import GridPoint
from agebench.config.toml_io import Settings, read_settings
from agebench.errors import UserError

_NO_POINT = GridPoint((), {})


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of a test; None and empty values leave a setting as the config file or the model's card has it.

    Attributes:
        model: name of the model's card.
        test: names of the datasets to test on.
        exclude: CSV files of sample ids to exclude.
        limit: number of images of each dataset, a random subset.
        pretrained: source of the weights; "": random weights.
        seed: seed of all random choices.
        device: `auto`, `cpu`, `cuda`, …
        gates: age gates, such as `18@25`.
        gate_ages: ages of the minors that the gates count, such as `13-17`.
        config: a TOML file of settings; all options take precedence over it.
        settings: further settings, in rising order of precedence.
    """

    model: str | None = None
    test: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    limit: int | None = None
    pretrained: str | None = None
    seed: int | None = None
    device: str | None = None
    gates: Sequence[str] = ()
    gate_ages: str | None = None
    config: Path | None = None
    settings: Sequence[Settings] = ()

    def layers(self, point: GridPoint = _NO_POINT) -> list[Settings]:
        """Return settings in rising order of precedence: the config file, the options, further settings, the grid's.

        Args:
            point: the combination of a grid.

        Raises:
            UserError: the config file cannot be read.
        """
        file = read_settings(self.config) if self.config is not None else {}
        return [file, _drop_unset(self._table()), *self.settings, point.settings]

    def _table(self) -> Settings:
        return {
            "seed": self.seed,
            "device": self.device,
            "pretrained": self.pretrained,
            "data": {"test": list(self.test or ()) or None, "exclude": list(self.exclude) or None, "limit": self.limit},
            "model": {"name": self.model},
            "evaluate": {"gates": list(self.gates) or None, "gate_ages": self.gate_ages or None},
        }


@dataclass(frozen=True, kw_only=True)
class RunOptions(EvalOptions):
    """Options of a run, those of a test among them.

    Attributes:
        train: name of the dataset to train and validate on.
        protocol: name of the training dataset's split protocol.
        head: name of another head than the card's.
        tasks: further labels to learn -> their weights in the loss, as numbers or as text.
        epochs: number of training epochs.
    """

    train: str | None = None
    protocol: str | None = None
    head: str | None = None
    tasks: Mapping[str, float | str] = field(default_factory=dict)
    epochs: int | None = None

    def layers(self, point: GridPoint = _NO_POINT) -> list[Settings]:
        """Return settings in rising order of precedence; see `EvalOptions.layers`.

        Args:
            point: the combination of a grid.

        Raises:
            UserError: no training dataset is named, or the config file cannot be read.
        """
        file, options, *further = super().layers(point)
        in_file, chosen = _model_name(file), _model_name(point.settings) or self.model
        # Every point of a grid over models has the recipe of its own card.
        if in_file and (point.sets("model.name") or (chosen and chosen != in_file)):
            file = _without_model(file)
        if self.train and not self.test and "data" not in file:
            options["data"]["test"] = [self.train]
        layers = [file, options, *further]
        tables = [layer.get("data") for layer in layers]
        if not any(isinstance(table, dict) and "train" in table for table in tables):
            raise UserError(
                "--train DATASET is missing: which dataset to train on? (Where settings come from a file, the key 'data.train' is "
                "missing.) `agebench list datasets` shows those that can be named"
            )
        return layers

    def _table(self) -> Settings:
        table = super()._table()
        table["data"] |= {"train": self.train, "protocol": self.protocol}
        table["model"] |= {"head": self.head, "tasks": dict(self.tasks)}
        return table | {"train": {"epochs": self.epochs}}


def _model_name(settings: Settings) -> str:
    table = settings.get("model")
    return str(table.get("name", "")) if isinstance(table, dict) else ""


def _without_model(file: Settings) -> Settings:
    """Return the settings of a file without the backbone, the recipe and the framing of its model, for another model."""
    kept = {key: value for key, value in file.items() if key not in ("model", "train", "pretrained")}
    if isinstance(faces := kept.get("faces"), dict):
        framing = ("coverage", "offset", "visible")
        kept["faces"] = {key: value for key, value in faces.items() if key not in framing}
    return kept


def _drop_unset(settings: Settings) -> Settings:
    """Return the settings without options that were not given."""
    nested = {key: _drop_unset(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}
