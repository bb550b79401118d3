"""What can be asked for ages: a run, an exported file, a model that is not ours."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates
from agebench.estimators.external.base import open_estimator
from agebench.estimators.trained import TrainedEstimator
from agebench.export.base import ExportedFile, read_card
from agebench.export.card import build_card, verify_card
from agebench.inference.untrusted_card import validate_card, validate_folder
from agebench.metrics.age_gates import DEFAULT_CHALLENGE_MARGIN
from agebench.metrics.guarantees import CalibrationError, conformal_interval, error_by_estimated_age, gate_error_rates
from agebench.registry.catalog import Catalog
from agebench.runs.guarantees import calibrated_on, tables_of_tests
from agebench.runs.loading import load_run
from agebench.runs.run_dir import RunDir
from agebench.runs.validation import validation_predictions
from agebench.training.prediction import BATCH_SIZE

__all__ = ["CARD", "CalibrationError", "Estimator", "ExportWrapper", "ExternalEstimator", "HubModel", "TrainedModel"]

# Of a repository on the hub.
CARD = "card.json"


class Estimator(Protocol):
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

    def estimate(self, faces: np.ndarray) -> AgeEstimates:
        """(N, S, S, 3) uint8 RGB faces on the template -> their ages; any N."""

    def interval(self, level: float) -> dict[str, Any]:
        """See `interval_promise`.

        Raises:
            CalibrationError: nothing, or too little, that an interval of this level could be calibrated on.
            UserError: no such level.
        """

    def gate(self, threshold: int, challenge: float | None) -> dict[str, Any]:
        """See `gate_promise`.

        Raises:
            UserError: no test that it could be measured on.
        """

    def errors(self) -> dict[str, Any]:
        """See `error_promises`.

        Raises:
            UserError: no test that they were measured on.
        """

    def close(self) -> None:
        """Let go of what it holds."""


class TrainedModel:
    """The best model of a finished run; with `stranger`, see `open_trained`."""

    def __init__(self, path: Path, catalogue: Catalog, device: str = "auto", *, stranger: bool = False) -> None:
        folder = RunDir(path)
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
        self._config, self._trained = load_run(folder, device, stranger=stranger)
        self.size, self.coverage = self._config.model.size, self._config.faces.coverage
        self.detector = self._config.faces.detector
        self._metrics = folder.metrics()
        self._intervals: dict[float, dict[str, Any]] = {}
        self.card = self._describe(manifest)

    @property
    def trained(self) -> TrainedEstimator:
        """The network, for those that look into it."""
        return self._trained

    def _describe(self, manifest: dict[str, Any]) -> dict[str, Any]:
        home = self._catalogue.datasets.get(self._config.data.train)
        return build_card(self._trained.model, self._config.model, home, manifest, self._metrics)

    def estimate(self, faces: np.ndarray) -> AgeEstimates:
        """As `Model`."""
        if not len(faces):
            return AgeEstimates(np.zeros(0, np.float32))
        parts = []
        for start in range(0, len(faces), BATCH_SIZE):
            batch = torch.from_numpy(_with_bodies(faces[start : start + BATCH_SIZE], self._config.model.channels))
            parts.append(self._trained.estimate(batch.to(self._trained.device)))
        age, probs, std = (
            None if part[0] is None else torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)
        )
        assert age is not None
        return AgeEstimates(age, std, probs)

    def interval(self, level: float) -> dict[str, Any]:
        """As `Model`."""
        if level not in self._intervals:  # a page asks for every picture
            self._intervals[level] = conformal_interval(self._validation, self._tests, level).to_json()
        return {"calibrated_on": calibrated_on(self._config.data.train), **self._intervals[level]}

    def gate(self, threshold: int, challenge: float | None) -> dict[str, Any]:
        """As `Model`."""
        return gate_error_rates(self._tests, threshold, challenge).to_json()

    def errors(self) -> dict[str, Any]:
        """As `Model`."""
        errors = error_by_estimated_age(self._tests)
        return {test: {band: entry.to_json() for band, entry in bands.items()} for test, bands in errors.items()}

    def close(self) -> None:
        """As `Model`."""

    @cached_property
    def _validation(self) -> pd.DataFrame:
        try:
            return validation_predictions(self._config, self._folder, self._trained, self._catalogue)
        except UserError as error:
            raise CalibrationError(
                f"no intervals: {self._folder.path} holds no predictions of its validation part (runs of now keep them), and "
                f"they cannot be made now: {error}"
            ) from error

    @cached_property
    def _tests(self) -> Mapping[str, pd.DataFrame]:
        return tables_of_tests(self._folder, self._config.data.train, self._metrics["tests"])


class _Promised:
    """What is promised of a model's answers, as it stands on its card."""

    card: dict[str, Any]
    _source: Path

    def interval(self, level: float) -> dict[str, Any]:
        """As `Model`; of the levels on the card."""
        known = self._promises("intervals", CalibrationError)
        promise = self._known("level", level, known, CalibrationError)
        self._check(promise, level=level)
        if promise["scaled"] and not self.card["output"]["std"]:
            raise UserError(
                f"{self._source}: its card is wrong: it counts the interval in standard deviations, and the model states none"
            )
        return dict(promise)

    def gate(self, threshold: int, challenge: float | None) -> dict[str, Any]:
        """As `Model`; of the thresholds and whole challenge ages on the card."""
        gates = self._known("threshold", threshold, self._promises("gates", UserError), UserError)
        challenge = threshold + DEFAULT_CHALLENGE_MARGIN if challenge is None else challenge
        promise = self._known("challenge", challenge, gates, UserError)
        self._check(promise, threshold=threshold, challenge=challenge)
        return dict(promise)

    def errors(self) -> dict[str, Any]:
        """As `Model`."""
        return self._promises("errors", UserError)

    def _known(self, option: str, value: float, known: dict[str, Any], error: type[UserError]) -> Any:
        key = f"{value:g}"
        if key not in known or float(key) != value:
            raise error(
                f"--{option} {value}: the card of {self._source} knows only {', '.join(known)}; a run's folder knows any"
            )
        return known[key]

    def _check(self, promise: dict[str, Any], **asked: float) -> None:
        """What a stranger's card promises must be what was asked for: its numbers decide, not its keys."""
        for option, value in asked.items():
            if promise[option] != value:
                raise UserError(
                    f"{self._source}: its card is wrong: under {option} {value:g} it promises {option} {promise[option]:g}"
                )

    def _promises(self, kind: str, error: type[UserError]) -> dict[str, Any]:
        known = self.card.get("promises", {}).get(kind)
        if not known:
            raise error(f"{self._source}: its card says nothing of {kind}; write it again from the run")
        return dict(known)


class ExportWrapper(_Promised):
    """A file that `agebench export` wrote. What is promised of its answers stands on the card inside."""

    detector = ""

    def __init__(self, file: ExportedFile) -> None:
        self._file, self._source, self.card = file, file.path, file.card
        said = validate_card(file.path, file.card)
        self.size, self.coverage = int(file.card["input"]["size"]), said.input.coverage

    def estimate(self, faces: np.ndarray) -> AgeEstimates:
        """As `Model`."""
        return self._file.estimate(_with_bodies(faces, int(self.card["input"]["planes"])))

    def close(self) -> None:
        """As `Model`."""


class HubModel(_Promised, TrainedModel):
    """A run as `agebench push` put it on the hub: without the labels that its promises came from, with a card that holds them.

    Whoever wrote it, it is somebody else's: what its card says of the model must be true of the model.
    """

    def __init__(self, path: Path, catalogue: Catalog, device: str = "auto") -> None:
        self._source = path / CARD
        validate_folder(RunDir(path))
        TrainedModel.__init__(self, path, catalogue, device, stranger=True)

    def _describe(self, manifest: dict[str, Any]) -> dict[str, Any]:
        card = read_card(self._source, self._source.read_bytes())
        validate_card(self._source, card)
        verify_card(self._source, card, self._trained.model, self._config.model)
        return card


class ExternalEstimator:
    """A model that is not ours, by its card. Of its errors nothing is known here."""

    detector = ""

    def __init__(self, card: ExternalCard, device: str = "auto") -> None:
        self._name, self._stack = card.name, ExitStack()
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._call: Callable[[np.ndarray], Any] = self._stack.enter_context(open_estimator(card, device))
        self.size, self.coverage = card.size, card.input.coverage
        self.card: dict[str, Any] = card.model_dump(mode="json")

    def estimate(self, faces: np.ndarray) -> AgeEstimates:
        """As `Model`."""
        if not len(faces):
            return AgeEstimates(np.zeros(0, np.float32))
        found = self._call(faces)
        return AgeEstimates(found.age.astype(np.float32), found.std, found.probs)

    def interval(self, level: float) -> dict[str, Any]:
        """As `Model`."""
        raise CalibrationError(
            f"model '{self._name}' is not ours, so there is no validation part to calibrate intervals on"
        )

    def gate(self, threshold: int, challenge: float | None) -> dict[str, Any]:
        """As `Model`."""
        raise UserError(
            f"model '{self._name}' has no test here that a gate could be measured on; `agebench test --model {self._name} "
            "--test DATASET` and `agebench score` measure it"
        )

    def errors(self) -> dict[str, Any]:
        """As `Model`."""
        raise UserError(f"model '{self._name}' is not ours: how far off it is, `agebench test` measures")

    def close(self) -> None:
        """As `Model`."""
        self._stack.close()


def _with_bodies(faces: np.ndarray, channels: int) -> np.ndarray:
    """(N, S, S, 3) -> (N, S, S, channels): a model that sees bodies too is shown a black one, which says that there is none."""
    wide = np.zeros((*faces.shape[:3], channels), np.uint8)
    wide[..., :3] = faces
    return wide
