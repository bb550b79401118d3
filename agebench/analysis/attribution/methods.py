"""Attribution of a predicted age to pixels, by captum: layer Grad-CAM, integrated gradients and occlusion."""

import copy
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.estimators.trained import TrainedEstimator
from agebench.models.age_model import AgeModel
from agebench.training.augmentation import normalize
from agebench.training.dataloader import FaceDataset, iter_batches
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

AgeFn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AttributionTarget:
    """The network and the quantity that is explained.

    Attributes:
        model: a differentiable copy of the network, in evaluation mode.
        target: `age`, or `expectation` if the decoded age is piecewise constant and only its distribution is smooth.
        layer: the name of the backbone's layer for Grad-CAM; empty if no layer has a large enough map.
        smooth: whether the explained quantity has gradients with respect to the pixels.
    """

    model: AgeModel
    target: str
    layer: str
    smooth: bool

    def ages(self, images: Tensor) -> Tensor:
        """Return the ages (B,) in years of normalized images (B, 3, S, S), differentiable if `smooth`."""
        estimate = self.model.predict(images)
        if self.target == "age" or estimate.probs is None:
            return estimate.age
        first, last = self.model.head.ages
        grid = torch.arange(first, last + 1, dtype=estimate.probs.dtype, device=images.device)
        return (estimate.probs * grid).sum(dim=1)


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
    trained: TrainedEstimator, data: FaceDataset, methods: Sequence[str]
) -> tuple[AttributionTarget, list[str], list[str]]:
    """Determine the explained quantity and the methods that are applicable to it.

    Args:
        trained: the estimator.
        data: faces, the first of which are used to check for gradients.
        methods: the requested methods; empty for all applicable methods.

    Returns:
        The network with the explained quantity, the applicable methods, and notes on methods that are not applicable.

    Raises:
        UserError: a requested method is not applicable to the head or backbone; the message lists the applicable methods.
    """
    model = copy.deepcopy(trained.model).eval()
    model.flip_tta = False  # a map explains the image itself, not the mean with its mirror image
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # or hooks see overwritten outputs
    faces = torch.from_numpy(data.pixels[data.rows[:_N_PROBES]]).to(trained.device)
    images = normalize(faces, trained.card.mean, trained.card.std).contiguous()
    layer = _find_grad_cam_layer(model.backbone, images)
    for quantity in ("age", "expectation"):
        target = AttributionTarget(model, quantity, layer, smooth=True)
        if _has_gradients(target, images):
            break
    else:
        target = AttributionTarget(model, "age", layer, smooth=False)
    reasons: dict[str, str] = {}
    if not target.smooth:
        reason = (
            f"the head '{trained.card.head}' decodes a piecewise constant age, so that the pixels have no gradients"
        )
        reasons |= dict.fromkeys(GRADIENT_METHODS, reason)
    elif not layer:
        reasons["grad-cam"] = (
            f"the backbone '{trained.card.backbone}' has no layer with a map of {MIN_MAP_SIZE} x {MIN_MAP_SIZE} or more"
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


def compute_attributions(
    target: AttributionTarget,
    trained: TrainedEstimator,
    data: FaceDataset,
    methods: Sequence[str],
    *,
    label: str = "",
) -> dict[str, np.ndarray]:
    """Compute attribution maps, which are positive where pixels increase the predicted age.

    Integrated gradients and occlusion are in years. A map of integrated gradients sums to the difference between the
    prediction for the face and for an image of the normalization's mean color. A map of occlusion is the difference between
    the prediction for the face and for the face with a covered square around the pixel. Grad-CAM has no unit.

    Args:
        target: the network and the explained quantity.
        trained: the estimator that contains the network.
        data: N faces of side S.
        methods: the methods to apply.
        label: the label of the progress bar.

    Returns:
        The maps by method, each (N, S, S) float32.
    """
    batches: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    with progress(total=len(data) * len(methods), label=label, unit="map") as bar:
        for faces, _ in iter_batches(data, np.arange(len(data)), BATCH_SIZE, trained.device):
            images = normalize(faces, trained.card.mean, trained.card.std).contiguous()
            for method in methods:
                batches[method].append(_METHOD_FUNCTIONS[method](target, images).detach().float().cpu().numpy())
                bar.update(len(faces))
    return {method: np.concatenate(maps) for method, maps in batches.items()}


def _grad_cam(target: AttributionTarget, images: Tensor) -> Tensor:
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
