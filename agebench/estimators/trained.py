"""A trained model with what it takes to ask it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from agebench.config.cards.model import Architecture
from agebench.models.age_model import AgeModel
from agebench.models.heads import AgeEstimate
from agebench.training.device import autocast
from agebench.training.frozen_features import model_views

# On a CPU: the activations of more faces are so large that the allocator gives them back to the system after every layer,
# and two thirds of the time go into getting the pages again.
CPU_BATCH_SIZE = 32


@dataclass(frozen=True)
class TrainedEstimator:
    """A model in evaluation mode, on its device.

    Attributes:
        model: the network.
        card: its input size and normalisation.
        device: where it stands.
        precision: as training had it.
        coverage: how much of a face its images show; 1 for UTKFace's framing.
    """

    model: AgeModel
    card: Architecture
    device: torch.device
    precision: str = "auto"
    coverage: float = 1.0

    def ages(self, faces: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 on the device -> (B,) float32 years. The same answers as `predict` gives."""
        if self.device.type == "cpu" and len(faces) > CPU_BATCH_SIZE:
            starts = range(0, len(faces), CPU_BATCH_SIZE)
            return torch.cat([self.ages(faces[start : start + CPU_BATCH_SIZE]) for start in starts])
        return self.estimate(faces).age

    def estimate(self, faces: Tensor) -> AgeEstimate:
        """(B, S, S, 3) uint8 on the device -> all that the head says of these faces."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            views = model_views(faces, self.card, mirrored=self.model.flip_tta)
            view_logits = [self.model(view) for view in views]
        with torch.inference_mode():
            return self.model.decode([logits.float() for logits in view_logits])[0]
