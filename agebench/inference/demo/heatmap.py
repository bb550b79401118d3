"""Which parts of a face its estimated age comes from, as a picture for one look."""

import numpy as np
from PIL import Image

from agebench.analysis.attribution.methods import compute_attributions, load_captum, select_methods
from agebench.analysis.attribution.plots import DIVERGING_CMAP, blur_for_display
from agebench.estimators.base import AgeEstimator
from agebench.runs.estimators import network_of
from agebench.training.dataloader import FaceDataset

METHOD = "occlusion"  # the only one that every head allows, and whose maps are in years
WORDS = (
    "Orange: covering this place makes the model say a younger age, so it speaks for age; blue: it speaks for youth. At most "
    "{reach:.1f} years, a square of a quarter of the side covered. A map shows what the model uses, not why it is right; "
    "whether this model's maps pass their sanity checks, `agebench explain` says."
)
_SIDE = 280
_OVER = 0.6


def occlusion_heatmap(estimator: AgeEstimator, faces: np.ndarray) -> tuple[Image.Image, str]:
    """Draw faces beside their occlusion maps, one row per face, and explain the colors.

    Args:
        estimator: any estimator.
        faces: (N, S, S, 3) uint8 RGB faces on the template.

    Raises:
        UserError: captum is not installed.
    """
    load_captum()
    estimator = network_of(estimator) or estimator
    data = FaceDataset(faces, np.arange(len(faces)), np.zeros(len(faces), np.float32))
    target, _, _ = select_methods(estimator, data, [METHOD])
    maps = [blur_for_display(attribution) for attribution in compute_attributions(target, data, [METHOD])[METHOD]]
    reach = max(float(np.abs(attribution).max()) for attribution in maps) or 1.0
    rows = [
        np.hstack([_large(face), _large(overlay(face, one / reach))]) for face, one in zip(faces, maps, strict=True)
    ]
    return Image.fromarray(np.vstack(rows)), WORDS.format(reach=reach)


def overlay(face: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 and a map (S, S) from -1 to 1 -> (S, S, 3) uint8: the map over the face in grey."""
    colours = np.asarray(DIVERGING_CMAP(drawn / 2 + 0.5))[..., :3] * 255
    grey = face.mean(axis=2, keepdims=True)
    mixed: np.ndarray = (_OVER * colours + (1 - _OVER) * grey).round().astype(np.uint8)
    return mixed


def _large(face: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(face).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
