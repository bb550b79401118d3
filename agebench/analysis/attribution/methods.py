"""Which pixels an age comes from, by three methods of captum: layer Grad-CAM, integrated gradients, occlusion."""

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
IG_STEPS = 24  # of the path of integrated gradients
MIN_MAP_SIZE = 4  # Grad-CAM's layer: the last whose map is at least so many cells wide
_PROBES = 8

AgeFn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AttributionTarget:
    """What is explained, and of which network.

    Attributes:
        model: a copy that gradients go through, in evaluation mode.
        target: `age`, or `expectation` where the decoded age moves in steps and only its distribution is smooth.
        layer: the name of Grad-CAM's layer in the backbone; empty: it has none with a map.
        smooth: whether gradients say anything.
    """

    model: AgeModel
    target: str
    layer: str
    smooth: bool

    def ages(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> (B,) years, differentiable where `smooth`."""
        estimate = self.model.predict(images)
        if self.target == "age" or estimate.probs is None:
            return estimate.age
        first, last = self.model.head.ages
        grid = torch.arange(first, last + 1, dtype=estimate.probs.dtype, device=images.device)
        return (estimate.probs * grid).sum(dim=1)


def load_captum() -> Any:
    """captum.attr.

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
    """What can be explained, the methods that can do it, and why others cannot.

    Args:
        trained: the model.
        data: some faces, to see whether the age moves with the pixels.
        methods: those that were asked for by name; none: all that can.

    Raises:
        UserError: a method that was asked for cannot explain this head or this backbone; the message says which can.
    """
    model = copy.deepcopy(trained.model).eval()
    model.flip_tta = False  # a map explains the image itself, not the mean with its mirror image
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # or what a hook has seen is overwritten
    faces = torch.from_numpy(data.pixels[data.rows[:_PROBES]]).to(trained.device)
    images = normalize(faces, trained.card.mean, trained.card.std).contiguous()
    layer = _layer(model.backbone, images)
    for target in ("age", "expectation"):
        explained = AttributionTarget(model, target, layer, smooth=True)
        if _moves(explained, images):
            break
    else:
        explained = AttributionTarget(model, "age", layer, smooth=False)
    reasons: dict[str, str] = {}
    if not explained.smooth:
        head = f"the head '{trained.card.head}' decodes its age in steps, so that no gradient reaches the pixels"
        reasons |= dict.fromkeys(GRADIENT_METHODS, head)
    elif not layer:
        reasons["grad-cam"] = (
            f"the backbone '{trained.card.backbone}' has no layer with a map of {MIN_MAP_SIZE} x {MIN_MAP_SIZE} or more"
        )
    can = [method for method in METHODS if method not in reasons]
    for method in methods:
        if method in reasons:
            raise UserError(f"--method {method}: {reasons[method]}; these can explain it: {', '.join(can)}")
    notes = [f"{METHODS[method]} is left out: {reason}" for method, reason in reasons.items()] if not methods else []
    if explained.target == "expectation":
        notes.append("the decoded age moves in steps; gradients explain the expectation of its distribution instead")
    return explained, [method for method in METHODS if method in (methods or can)], notes


def compute_attributions(
    explained: AttributionTarget,
    trained: TrainedEstimator,
    data: FaceDataset,
    methods: Sequence[str],
    *,
    label: str = "",
) -> dict[str, np.ndarray]:
    """Method -> (N, S, S) float32 maps: positive where the pixels make the face look older.

    Integrated gradients and occlusion are in years: a map of the first sums up to the age less that of a plain face of the
    normalisation's mean colour; the second is the age less that of the face with a square about the pixel covered. Grad-CAM
    has no unit.
    """
    found: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    with progress(total=len(data) * len(methods), label=label, unit="map") as bar:
        for faces, _ in iter_batches(data, np.arange(len(data)), BATCH_SIZE, trained.device):
            images = normalize(faces, trained.card.mean, trained.card.std).contiguous()
            for method in methods:
                found[method].append(_MAKERS[method](explained, images).detach().float().cpu().numpy())
                bar.update(len(faces))
    return {method: np.concatenate(parts) for method, parts in found.items()}


def _grad_cam(explained: AttributionTarget, images: Tensor) -> Tensor:
    layer = explained.model.backbone.get_submodule(explained.layer)
    maps = load_captum().LayerGradCam(explained.ages, layer).attribute(images)
    return F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _integrated_gradients(explained: AttributionTarget, images: Tensor) -> Tensor:
    method = load_captum().IntegratedGradients(explained.ages)
    maps: Tensor = method.attribute(images, baselines=0, n_steps=IG_STEPS, internal_batch_size=4 * BATCH_SIZE)
    return maps.sum(dim=1)


def _occlusion(explained: AttributionTarget, images: Tensor) -> Tensor:
    window, stride = images.shape[-1] // 4, images.shape[-1] // 8
    with torch.no_grad():
        maps: Tensor = (
            load_captum()
            .Occlusion(explained.ages)
            .attribute(
                images,
                sliding_window_shapes=(3, window, window),
                strides=(3, stride, stride),
                baselines=0,
                perturbations_per_eval=4,
            )
        )
    return maps[:, 0]


_MAKERS: dict[str, Callable[[AttributionTarget, Tensor], Tensor]] = {
    "grad-cam": _grad_cam,
    "integrated-gradients": _integrated_gradients,
    "occlusion": _occlusion,
}


def _layer(backbone: nn.Module, images: Tensor) -> str:
    """The last module, in the order of work, that gives a square map wide enough."""
    found: list[str] = []

    def seen(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] == output.shape[3] >= MIN_MAP_SIZE:
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(seen(name)) for name, module in backbone.named_modules() if name]
    with torch.no_grad():
        backbone(images)
    for hook in hooks:
        hook.remove()
    return found[-1] if found else ""


def _moves(explained: AttributionTarget, images: Tensor) -> bool:
    """Whether gradients reach the pixels; a head that decodes in steps has none, or zeros."""
    images = images.clone().requires_grad_()
    ages = explained.ages(images)
    if not ages.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(ages.sum(), images, allow_unused=True)
    return gradient is not None and bool(gradient.abs().sum() > 0)
