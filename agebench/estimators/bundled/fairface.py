"""FairFace's ResNet-34: race, gender and age brackets from one linear layer."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from agebench.estimators.packages import FOLDER_VARIABLE

WEIGHTS = "res34_fair_align_multi_7_20190809.pt"
N_OUTPUTS = 18
# Columns of the linear layer: 7 races, then male and female, then the age brackets.
GENDER, AGES = slice(7, 9), slice(9, 18)


def _load_network(file: Path) -> nn.Module:
    """Open the authors' checkpoint, a state dict, without running code in it.

    Args:
        file: the checkpoint.
    """
    from torchvision.models import resnet34

    network: nn.Module = resnet34(weights=None, num_classes=N_OUTPUTS)
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval()


@cache
def _network() -> nn.Module:
    return _load_network(Path(os.environ[FOLDER_VARIABLE]) / WEIGHTS)


def estimate(faces: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate distributions of age brackets and gender; a callable for the model's card.

    Args:
        faces: (B, 3, 224, 224) float32, RGB, normalized as ImageNet.

    Returns:
        `age`: (B, 9) probabilities of the brackets; `gender`: (B, 2) of male and female.
    """
    with torch.inference_mode():
        outputs: torch.Tensor = _network()(torch.from_numpy(faces))
    return {"age": outputs[:, AGES].softmax(1).numpy(), "gender": outputs[:, GENDER].softmax(1).numpy()}
