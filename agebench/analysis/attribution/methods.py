"""Attribution of a predicted age to pixels, by captum: layer Grad-CAM, integrated gradients and, for any estimator, occlusion."""

import copy
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.errors import AgebenchError, UserError
from agebench.estimators.base import AgeEstimator
from agebench.estimators.trained import TrainedEstimator, predict_tensor
from agebench.models.age_model import AgeModel
from agebench.runs.estimators import network_of
from agebench.training.augmentation import normalize
from agebench.training.dataloader import FaceDataset, iter_batches
from agebench.training.prediction import predict
from agebench.utils.progress import progress

METHODS = {
    "grad-cam": "Grad-CAM",
    "integrated-gradients": "Integrated gradients",
    "occlusion": "Occlusion",
}
GRADIENT_METHODS = ("grad-cam", "integrated-gradients")
BATCH_SIZE = 16
IG_STEPS = 24  # steps of the path of integrated gradients
MIN_MAP_SIZE = 4  # cells per side; Grad-CAM uses the last layer whose map is at least this large
_N_PROBES = 8  # faces


# Mean color and standard deviation of ImageNet, 0 to 1: they replace the normalization of an estimator that does not state one.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AttributionTarget(ABC):
    """The estimator and the quantity that is explained: normalized images in, years out.

    Attributes:
        target: `age`, or `expectation` if the decoded age is piecewise constant and only its distribution is smooth.
        layer: the name of the backbone's layer for Grad-CAM; empty if no layer has a large enough map.
        smooth: whether the explained quantity has gradients with respect to the pixels.
        device: the device of the images.
    """

    target: str
    layer: str
    smooth: bool
    device: torch.device

    @abstractmethod
    def normalize(self, faces: Tensor) -> Tensor:
        """Normalize (B, S, S, C) uint8 faces to (B, C, S, S); 0 is the color that covers pixels."""

    @abstractmethod
    def ages(self, images: Tensor) -> Tensor:
        """Return (B,) years for (B, C, S, S) normalized images, differentiable if `smooth`."""

    @abstractmethod
    def predict(self, data: FaceDataset) -> np.ndarray:
        """Return the (N,) ages in years that the estimator predicts for uncovered faces."""


@dataclass(frozen=True)
class NetworkTarget(AttributionTarget):
    """A trained network, which gradients pass through.

    Attributes:
        estimator: the trained estimator.
        model: a copy of its network, in evaluation mode, without in-place operations.
    """

    estimator: TrainedEstimator
    model: AgeModel
    target: str
    layer: str
    smooth: bool
    device: torch.device

    def normalize(self, faces: Tensor) -> Tensor:
        """Normalize (B, S, S, C) uint8 faces to (B, C, S, S), as in training."""
        return normalize(faces, self.estimator.card.mean, self.estimator.card.std).contiguous()

    def ages(self, images: Tensor) -> Tensor:
        """Return the ages (B,) in years of normalized images (B, 3, S, S), differentiable if `smooth`."""
        estimate = self.model.predict(images)
        if self.target == "age" or estimate.probs is None:
            return estimate.age
        first, last = self.model.head.ages
        grid = torch.arange(first, last + 1, dtype=estimate.probs.dtype, device=images.device)
        return (estimate.probs * grid).sum(dim=1)

    def predict(self, data: FaceDataset) -> np.ndarray:
        """Return the (N,) ages in years that the network predicts."""
        return predict(self.model, data, self.estimator.card, self.device, precision=self.estimator.precision).age


class _BlackBoxTarget(AttributionTarget):
    """Any estimator, which is only called: for methods without gradients.

    Args:
        estimator: the estimator.
    """

    def __init__(self, estimator: AgeEstimator) -> None:
        self.estimator = estimator
        self.target, self.layer, self.smooth, self.device = "age", "", False, torch.device("cpu")

    def normalize(self, faces: Tensor) -> Tensor:
        """Normalize (B, S, S, 3) uint8 faces to (B, 3, S, S) by the statistics of ImageNet."""
        return normalize(faces, _MEAN, _STD).contiguous()

    def ages(self, images: Tensor) -> Tensor:
        """Return (B,) years for (B, 3, S, S) normalized images; they are rounded to uint8 first."""
        pixels = (images.permute(0, 2, 3, 1) * torch.tensor(_STD) + torch.tensor(_MEAN)) * 255
        return self._ages(pixels.round().clamp(0, 255).to(torch.uint8))

    def predict(self, data: FaceDataset) -> np.ndarray:
        """Return the (N,) ages in years that the estimator predicts."""
        batches = [faces for faces, _ in iter_batches(data, np.arange(len(data)), BATCH_SIZE, self.device)]
        return np.concatenate([self._ages(faces).numpy() for faces in batches])

    def _ages(self, faces: Tensor) -> Tensor:
        ages = predict_tensor(self.estimator, faces)
        n_failed = int((~torch.isfinite(ages)).sum())
        if n_failed:
            raise AgebenchError(
                f"estimator '{self.estimator.info.name}' returned no estimate for {n_failed} of {len(ages)} faces; a map needs "
                "one for every covered face"
            )
        return ages.float()


def load_captum() -> Any:
    """Import captum.attr.

    Returns:
        The module.

    Raises:
        UserError: captum is not installed.
    """
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise UserError("heatmaps need captum, which is not installed: pip install 'agebench[explain]'") from error


def select_methods(
    estimator: AgeEstimator, data: FaceDataset, methods: Sequence[str]
) -> tuple[AttributionTarget, list[str], list[str]]:
    """Determine the explained quantity and the methods that are applicable to it.

    Args:
        estimator: any estimator; all methods but occlusion need a trained network, as runs and pushed models have.
        data: faces, the first of which are used to check for gradients.
        methods: the requested methods; empty for all applicable methods.

    Returns:
        The estimator with the explained quantity, the applicable methods, and notes on methods that are not applicable.

    Raises:
        UserError: a requested method is not applicable to the estimator; the message lists the applicable methods.
    """
    reasons: dict[str, str] = {}
    target: AttributionTarget
    network = network_of(estimator)
    if network is None:
        target = _BlackBoxTarget(estimator)
        reasons |= dict.fromkeys(
            GRADIENT_METHODS, "it needs the network of a run, and this estimator returns ages without gradients"
        )
    else:
        target = _network_target(network, data)
        if not target.smooth:
            reason = (
                f"the head '{network.card.head}' decodes a piecewise constant age, so that the pixels have no gradients"
            )
            reasons |= dict.fromkeys(GRADIENT_METHODS, reason)
        elif not target.layer:
            reasons["grad-cam"] = (
                f"the backbone '{network.card.backbone}' has no layer with a map of {MIN_MAP_SIZE} x {MIN_MAP_SIZE} or more"
            )
    applicable = [method for method in METHODS if method not in reasons]
    for method in methods:
        if method in reasons:
            raise UserError(f"--method {method}: {reasons[method]}; applicable methods: {', '.join(applicable)}")
    notes = [f"{METHODS[method]} is omitted: {reason}" for method, reason in reasons.items()] if not methods else []
    if target.target == "expectation":
        notes.append(
            "the decoded age is piecewise constant; the maps explain the expectation of its distribution instead"
        )
    return target, [method for method in METHODS if method in (methods or applicable)], notes


def _network_target(estimator: TrainedEstimator, data: FaceDataset) -> NetworkTarget:
    model = copy.deepcopy(estimator.model).eval()
    model.flip_tta = False  # a map explains the image itself, not the mean with its mirror image
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # or hooks see overwritten outputs
    target = NetworkTarget(estimator, model, "age", "", smooth=True, device=estimator.device)
    images = target.normalize(torch.from_numpy(data.pixels[data.rows[:_N_PROBES]]).to(estimator.device))
    target = replace(target, layer=_find_grad_cam_layer(model.backbone, images))
    for quantity in ("age", "expectation"):
        if _has_gradients(candidate := replace(target, target=quantity), images):
            return candidate
    return replace(target, smooth=False)


def compute_attributions(
    target: AttributionTarget, data: FaceDataset, methods: Sequence[str], *, label: str = ""
) -> dict[str, np.ndarray]:
    """Compute attribution maps, which are positive where pixels increase the predicted age.

    Integrated gradients and occlusion are in years. A map of integrated gradients sums to the difference between the
    prediction for the face and for an image of the normalization's mean color. A map of occlusion is the difference between
    the prediction for the face and for the face with a covered square around the pixel. Grad-CAM has no unit.

    Args:
        target: the estimator and the explained quantity.
        data: N faces of side S.
        methods: the methods to apply, all of them applicable to the target.
        label: the label of the progress bar.

    Returns:
        The maps by method, each (N, S, S) float32.
    """
    batches: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    with progress(total=len(data) * len(methods), label=label, unit="map") as bar:
        for faces, _ in iter_batches(data, np.arange(len(data)), BATCH_SIZE, target.device):
            images = target.normalize(faces)
            for method in methods:
                batches[method].append(_METHOD_FUNCTIONS[method](target, images).detach().float().cpu().numpy())
                bar.update(len(faces))
    return {method: np.concatenate(maps) for method, maps in batches.items()}


def _grad_cam(target: AttributionTarget, images: Tensor) -> Tensor:
    assert isinstance(target, NetworkTarget)
    layer = target.model.backbone.get_submodule(target.layer)
    maps = load_captum().LayerGradCam(target.ages, layer).attribute(images)
    return F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _integrated_gradients(target: AttributionTarget, images: Tensor) -> Tensor:
    method = load_captum().IntegratedGradients(target.ages)
    maps: Tensor = method.attribute(images, baselines=0, n_steps=IG_STEPS, internal_batch_size=4 * BATCH_SIZE)
    return maps.sum(dim=1)


def _occlusion(target: AttributionTarget, images: Tensor) -> Tensor:
    window, stride = images.shape[-1] // 4, images.shape[-1] // 8
    with torch.no_grad():
        maps: Tensor = (
            load_captum()
            .Occlusion(target.ages)
            .attribute(
                images,
                sliding_window_shapes=(3, window, window),
                strides=(3, stride, stride),
                baselines=0,
                perturbations_per_eval=4,
            )
        )
    return maps[:, 0]


_METHOD_FUNCTIONS: dict[str, Callable[[AttributionTarget, Tensor], Tensor]] = {
    "grad-cam": _grad_cam,
    "integrated-gradients": _integrated_gradients,
    "occlusion": _occlusion,
}


def _find_grad_cam_layer(backbone: nn.Module, images: Tensor) -> str:
    """Return the name of the last executed module with a square map of sufficient size, or ""."""
    candidates: list[str] = []

    def make_hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] == output.shape[3] >= MIN_MAP_SIZE:
                candidates.append(name)

        return hook

    hooks = [module.register_forward_hook(make_hook(name)) for name, module in backbone.named_modules() if name]
    with torch.no_grad():
        backbone(images)
    for hook in hooks:
        hook.remove()
    return candidates[-1] if candidates else ""


def _has_gradients(target: AttributionTarget, images: Tensor) -> bool:
    """Return whether the pixels have gradients; they are missing or zero for a piecewise constant age."""
    images = images.clone().requires_grad_()
    ages = target.ages(images)
    if not ages.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(ages.sum(), images, allow_unused=True)
    return gradient is not None and bool(gradient.abs().sum() > 0)
