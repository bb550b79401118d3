"""The interface of everything that estimates ages: trained runs, exported files, external models, functions."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np

from agebench.errors import UserError
from agebench.estimators.exported.card import ExportCard
from agebench.metrics.schema import CalibratedInterval, EstimateErrors, GateGuarantee
from agebench.models.estimates import AgeEstimates, concat_estimates

__all__ = [
    "AgeEstimates",
    "AgeEstimator",
    "BaseEstimator",
    "EstimatorInfo",
    "Guarantees",
    "InputSpec",
    "check_crops",
    "concat_estimates",
    "pad_planes",
    "training_overlap",
]


@dataclass(frozen=True)
class InputSpec:
    """The images that an estimator expects, as (N, size, size, 3) uint8 RGB arrays.

    Attributes:
        size: side of the square image, pixels.
        crop_scale: framing; 1 is that of UTKFace's crops, 1.5 shows half as much again around the same center.
        kind: `aligned` (eyes and nose on the template), `box` (the detector's box with a margin) or `photo` (the whole
            photograph).
        planes: channels of the network, 3, or 6 if a body crop follows the face; an absent body is black.
        detector: name of the face detector; empty: the default one.
        offset: share of the side by which the face lies lower than in UTKFace's framing; negative: higher.
        visible: side of the region that is shown, 1 for that of UTKFace's crops; 0: all is shown.
        margin: of kind `box`, added on each side, as a share of the longer side.
        fit: of kind `box`, how the box becomes a square.
        mode: how every dataset's faces are framed, as `AlignmentSpec.mode`; empty: as each dataset's card states.
    """

    size: int
    crop_scale: float = 1.0
    kind: Literal["aligned", "box", "photo"] = "aligned"
    planes: int = 3
    detector: str = ""
    offset: float = 0.0
    visible: float = 0.0
    margin: float = 0.0
    fit: Literal["", "square", "letterbox", "stretch"] = ""
    mode: Literal["", "none", "landmarks", "detect", "boxes"] = ""


@dataclass(frozen=True)
class EstimatorInfo:
    """Identity of an estimator and what is known of its training.

    Attributes:
        name: short name, used for file names.
        title: name for people.
        version: version of the model or of the file that holds it; empty if unknown.
        licence: terms of use.
        training_data: the data that it was trained on, in words.
        trained_on: names of registered datasets that were in its training set.
        card: the full card of a model that agebench trained; None for others.
    """

    name: str
    title: str = ""
    version: str = ""
    licence: str = "unknown"
    training_data: str = "unknown"
    trained_on: tuple[str, ...] = ()
    card: ExportCard | None = None

    def contamination(self, dataset: str) -> str:
        """Return whether the estimator may have seen `dataset` in training: `known`, `unknown` or `none stated`.

        Args:
            dataset: name of a registered dataset.
        """
        return training_overlap(self.trained_on, self.training_data, dataset)


def training_overlap(trained_on: Collection[str], training_data: str, dataset: str) -> str:
    """Return whether a model may have seen `dataset` in training: `known`, `unknown` or `none stated`.

    Args:
        trained_on: names of registered datasets that were in its training set.
        training_data: its training data, in words; cards of models with unknown training data begin with `unknown`.
        dataset: name of a registered dataset.
    """
    if dataset in trained_on:
        return "known"
    return "unknown" if training_data.lower().startswith("unknown") else "none stated"


class AgeEstimator(Protocol):
    """An open estimator; close it, or use it as a context manager."""

    @property
    def input_spec(self) -> InputSpec:
        """The images that `estimate` expects."""

    @property
    def info(self) -> EstimatorInfo:
        """Identity of the estimator."""

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N images.

        Args:
            images: (N, S, S, 3) uint8 RGB, prepared as `input_spec` states; N may be 0.
        """

    def close(self) -> None:
        """Release processes, memory and files."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@runtime_checkable
class Guarantees(Protocol):
    """Per-prediction guarantees that were measured on the estimator's own validation and test sets."""

    def interval(self, level: float) -> CalibratedInterval:
        """Return the conformal interval of this level, see `agebench.metrics.guarantees.conformal_interval`.

        Args:
            level: share of true ages that the interval is to contain.

        Raises:
            CalibrationError: there are no calibration data, or too few for this level.
            UserError: the level is out of range.
        """

    def gate(self, threshold: int, challenge: float | None) -> GateGuarantee:
        """Return the error rates of an age gate, see `agebench.metrics.guarantees.gate_error_rates`.

        Args:
            threshold: legal age, years.
            challenge: estimated age from which a person passes, years; None: the threshold plus the default margin.

        Raises:
            UserError: there is no test set on which the rates were measured.
        """

    def errors(self) -> EstimateErrors:
        """Return errors by estimated age, see `agebench.metrics.guarantees.error_by_estimated_age`.

        Raises:
            UserError: there is no test set on which the errors were measured.
        """


class BaseEstimator:
    """Context management for estimators; `close` does nothing unless a subclass overrides it."""

    def close(self) -> None:
        """Release processes, memory and files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_crops(images: np.ndarray, size: int) -> None:
    """Check that images have the shape and the type that an estimator expects.

    Args:
        images: the array to check.
        size: expected side, pixels.

    Raises:
        UserError: the array is not (N, size, size, 3) uint8.
    """
    if not isinstance(images, np.ndarray):
        raise UserError(f"faces of type {type(images).__name__}; they must be an array (N, {size}, {size}, 3), uint8")
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
        raise UserError(
            f"faces of shape {images.shape} and type {images.dtype}; they must be (N, {size}, {size}, 3), uint8"
        )


def pad_planes(images: np.ndarray, planes: int) -> np.ndarray:
    """Append black planes, which state that no body is visible, for models that see bodies too.

    Args:
        images: (N, S, S, 3) uint8 RGB.
        planes: number of channels of the result.

    Returns:
        (N, S, S, planes) uint8.
    """
    if planes == images.shape[3]:
        return images
    padded = np.zeros((*images.shape[:3], planes), np.uint8)
    padded[..., : images.shape[3]] = images
    return padded
