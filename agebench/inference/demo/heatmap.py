"""Occlusion maps of faces for the demo page."""

import numpy as np
from PIL import Image

from agebench.analysis.attribution.methods import compute_attributions, load_captum, select_methods
from agebench.analysis.attribution.plots import DIVERGING_CMAP, blur_for_display
from agebench.estimators.base import AgeEstimator
from agebench.runs.estimators import network_of
from agebench.training.dataloader import FaceDataset

METHOD = "occlusion"  # applies to every estimator, and its maps are in years
WORDS = (
    "Orange: covering this region lowers the estimated age, so the region makes the face look older; blue: younger. At most "
    "{reach:.1f} years, with a square of a quarter of the side covered. A map shows what the model uses, not why it is right; "
    "`agebench explain` reports whether this model's maps pass their sanity checks."
)
_SIDE = 280  # of a drawn face, pixels
_MAP_OPACITY = 0.6


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
        np.hstack([_enlarge(face), _enlarge(_overlay(face, attribution / reach))])
        for face, attribution in zip(faces, maps, strict=True)
    ]
    return Image.fromarray(np.vstack(rows)), WORDS.format(reach=reach)


def _overlay(face: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Draw a map over a face in gray.

    Args:
        face: (S, S, 3) uint8 RGB.
        attribution: (S, S) from -1 to 1.

    Returns:
        (S, S, 3) uint8 RGB.
    """
    colors = np.asarray(DIVERGING_CMAP(attribution / 2 + 0.5))[..., :3] * 255
    gray = face.mean(axis=2, keepdims=True)
    mixed: np.ndarray = (_MAP_OPACITY * colors + (1 - _MAP_OPACITY) * gray).round().astype(np.uint8)
    return mixed


def _enlarge(face: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(face).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
