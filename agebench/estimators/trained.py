"""A trained network with its preprocessing, device and precision."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from agebench.config.cards.model import Architecture
from agebench.estimators.base import (
    AgeEstimates,
    AgeEstimator,
    BaseEstimator,
    EstimatorInfo,
    InputSpec,
    concat_estimates,
    pad_planes,
)
from agebench.models.age_model import AgeModel
from agebench.models.heads import AgeEstimate
from agebench.training.device import autocast
from agebench.training.frozen_features import model_views
from agebench.training.prediction import BATCH_SIZE

# With more faces, the activations are so large that the allocator of the CPU returns their pages after every layer;
# getting them again takes two thirds of the time.
CPU_BATCH_SIZE = 32


@dataclass(frozen=True)
class TrainedEstimator(BaseEstimator):
    """A network in evaluation mode, on its device.

    Attributes:
        model: the network.
        card: its architecture, with input size and normalization.
        device: the device that holds the network.
        precision: numeric precision, as in training.
        crop_scale: framing of its images; 1 is that of UTKFace's crops.
        offset: vertical offset of the faces in its images, as `InputSpec.offset`.
        visible: the visible region of its images, as `InputSpec.visible`.
    """

    model: AgeModel
    card: Architecture
    device: torch.device
    precision: str = "auto"
    crop_scale: float = 1.0
    offset: float = 0.0
    visible: float = 0.0

    @cached_property
    def input_spec(self) -> InputSpec:
        """The images that `estimate` expects."""
        return InputSpec(
            self.card.size, self.crop_scale, planes=self.card.channels, offset=self.offset, visible=self.visible
        )

    @cached_property
    def info(self) -> EstimatorInfo:
        """Identity of the architecture; a bare network does not state its training data."""
        return EstimatorInfo(self.card.name, self.card.title)

    def ages(self, faces: Tensor) -> Tensor:
        """Estimate ages on the device; equal to those of `agebench.training.prediction.predict`.

        Args:
            faces: (B, S, S, C) uint8 on the device.

        Returns:
            (B,) float32 years.
        """
        if self.device.type == "cpu" and len(faces) > CPU_BATCH_SIZE:
            starts = range(0, len(faces), CPU_BATCH_SIZE)
            return torch.cat([self.ages(faces[start : start + CPU_BATCH_SIZE]) for start in starts])
        return self.decode(faces).age

    def decode(self, faces: Tensor) -> AgeEstimate:
        """Return all outputs of the head.

        Args:
            faces: (B, S, S, C) uint8 on the device.
        """
        with torch.inference_mode(), autocast(self.device, self.precision):
            views = model_views(faces, self.card, mirrored=self.model.flip_tta)
            view_logits = [self.model(view) for view in views]
        with torch.inference_mode():
            return self.model.decode([logits.float() for logits in view_logits])[0]

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N images.

        Args:
            images: (N, S, S, 3) uint8 RGB, aligned; N may be 0.
        """
        batches = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.from_numpy(pad_planes(images[start : start + BATCH_SIZE], self.card.channels))
            age, probs, std = self.decode(batch.to(self.device))
            batches.append(
                AgeEstimates(
                    age.cpu().numpy(),
                    None if std is None else std.cpu().numpy(),
                    None if probs is None else probs.cpu().numpy(),
                    self.model.head.ages[0],
                )
            )
        return concat_estimates(batches)


def predict_tensor(estimator: AgeEstimator, faces: Tensor) -> Tensor:
    """Estimate ages from a tensor with any estimator; a trained network is called on its device, without a copy.

    Args:
        estimator: the estimator.
        faces: (B, S, S, 3) uint8 RGB.

    Returns:
        (B,) years on the device of `faces`; float32 of a trained network, else float64. NaN where it failed.
    """
    if isinstance(estimator, TrainedEstimator):
        return estimator.ages(faces)
    ages = estimator.estimate(faces.cpu().numpy()).age.astype(np.float64)
    return torch.from_numpy(ages).to(faces.device)
