"""What can be asked for ages: a run, a model that is not ours."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from agebench.engine.predict import BATCH
from agebench.errors import UserError
from agebench.evaluation.promises import gate_promise, interval_promise
from agebench.export.answers import Answers
from agebench.models.external.estimate import opened
from agebench.registry.catalogue import Catalogue
from agebench.registry.external import ExternalCard
from agebench.runs.finished import open_trained
from agebench.runs.folder import RunFolder
from agebench.runs.validation import validation_predictions


class NoCalibration(UserError):
    """Nothing is there that intervals could be calibrated on; the message says what is missing."""


class Model(Protocol):
    """A model that is open.

    Attributes:
        size: side of its faces, pixels.
        coverage: how much of a face they show; 1 for UTKFace's framing.
        detector: what finds its faces; empty: the default.
        card: what is known of it.
    """

    size: int
    coverage: float
    detector: str
    card: dict[str, Any]

    def estimate(self, faces: np.ndarray) -> Answers:
        """(N, S, S, 3) uint8 RGB faces on the template -> their ages; any N."""

    def interval(self, level: float) -> dict[str, Any]:
        """See `interval_promise`.

        Raises:
            NoCalibration: nothing that an interval could be calibrated on.
            UserError: a level that cannot be promised.
        """

    def gate(self, threshold: int, challenge: float | None) -> dict[str, Any]:
        """See `gate_promise`.

        Raises:
            UserError: no test that it could be measured on.
        """

    def close(self) -> None:
        """Let go of what it holds."""


class RunModel:
    """The best model of a finished run."""

    def __init__(self, path: Path, catalogue: Catalogue, device: str = "auto") -> None:
        folder = RunFolder(path)
        self._folder, self._catalogue = folder, catalogue
        manifest = folder.manifest()
        if (path / "config.toml").exists() and not manifest.get("finished"):
            raise UserError(
                f"{path}: this run is not finished, so nothing is known of its errors; go on with "
                f"`agebench run --config {path / 'config.toml'} --out {path} --resume`"
            )
        folds = folder.metrics().get("protocol", {}).get("folds", 1)
        if folds > 1:
            raise UserError(f"{path}: this run has {folds} models, one a fold, and none of them is the run's")
        self._config, self._trained = open_trained(folder, device)
        self.size, self.coverage = self._config.model.size, self._config.faces.coverage
        self.detector = self._config.faces.detector
        self.card: dict[str, Any] = {
            "name": manifest["name"],
            "model": manifest["model"],
            "train": manifest["train"],
            "tests": folder.metrics()["tests"],
            "faces": {"size": self.size, "coverage": self.coverage},
        }

    def estimate(self, faces: np.ndarray) -> Answers:
        """As `Model`."""
        if not len(faces):
            return Answers(np.zeros(0, np.float32))
        parts = []
        for start in range(0, len(faces), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(faces[start : start + BATCH]))
            parts.append(self._trained.estimate(batch.to(self._trained.device)))
        age, probs, std = (
            None if part[0] is None else torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)
        )
        assert age is not None
        return Answers(age, std, probs)

    def interval(self, level: float) -> dict[str, Any]:
        """As `Model`."""
        home = self._config.data.train
        promise = interval_promise(self._validation, self._tests, level)
        return {"calibrated_on": f"{home} (validation part)", **promise}

    def gate(self, threshold: int, challenge: float | None) -> dict[str, Any]:
        """As `Model`."""
        return gate_promise(self._tests, threshold, challenge)

    def close(self) -> None:
        """As `Model`."""

    @cached_property
    def _validation(self) -> pd.DataFrame:
        try:
            return validation_predictions(self._config, self._folder, self._trained, self._catalogue)
        except UserError as error:
            raise NoCalibration(
                f"no intervals: {self._folder.path} holds no predictions of its validation part (runs of now keep them), and "
                f"they cannot be made now: {error}"
            ) from error

    @cached_property
    def _tests(self) -> Mapping[str, pd.DataFrame]:
        files = {name: self._folder.path / "predictions" / f"{name}.parquet" for name in self.card["tests"]}
        missing = [str(file) for file in files.values() if not file.exists()]
        if missing:
            raise UserError(f"{missing[0]}: gone, so the run's errors cannot be measured")
        return {self._label(name): pd.read_parquet(file) for name, file in files.items()}

    def _label(self, test: str) -> str:
        return f"{test} (held-out part)" if test == self._config.data.train else test


class ExternalModel:
    """A model that is not ours, by its card. Of its errors nothing is known here."""

    detector = ""

    def __init__(self, card: ExternalCard, device: str = "auto") -> None:
        self._name, self._stack = card.name, ExitStack()
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._call: Callable[[np.ndarray], Any] = self._stack.enter_context(opened(card, device))
        self.size, self.coverage = card.size, card.input.coverage
        self.card: dict[str, Any] = card.model_dump(mode="json")

    def estimate(self, faces: np.ndarray) -> Answers:
        """As `Model`."""
        if not len(faces):
            return Answers(np.zeros(0, np.float32))
        found = self._call(faces)
        return Answers(found.age.astype(np.float32), found.std, found.probs)

    def interval(self, level: float) -> dict[str, Any]:
        """As `Model`."""
        raise NoCalibration(
            f"model '{self._name}' is not ours, so there is no validation part to calibrate intervals on"
        )

    def gate(self, threshold: int, challenge: float | None) -> dict[str, Any]:
        """As `Model`."""
        raise UserError(
            f"model '{self._name}' has no test here that a gate could be measured on; `agebench test --model {self._name} "
            "--test DATASET` and `agebench score` measure it"
        )

    def close(self) -> None:
        """As `Model`."""
        self._stack.close()
