"""Attribution methods of captum: layer Grad-CAM, integrated gradients, and, for any estimator, occlusion."""

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
IG_STEPS = 24  # of the path of integrated gradients
MIN_MAP_SIZE = 4  # Grad-CAM's layer: the last whose map is at least so many cells wide
_PROBES = 8

AgeFn = Callable[[Tensor], Tensor]


# Mean color and standard deviation of ImageNet, 0 to 1: what covers the faces of an estimator whose normalization is unknown.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AttributionTarget(ABC):
    """The function that is explained: normalized images in, years out.

    Attributes:
        target: `age`, or `expectation` where the decoded age is a step function and only its distribution is smooth.
        layer: name of Grad-CAM's layer in the backbone; empty if there is none with a feature map.
        smooth: whether gradients reach the pixels.
        device: device of the images.
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
        """Return (B,) years for (B, C, S, S) normalized images, differentiable if `smooth`."""
        estimate = self.model.predict(images)
        if self.target == "age" or estimate.probs is None:
            return estimate.age
        first, last = self.model.head.ages
        grid = torch.arange(first, last + 1, dtype=estimate.probs.dtype, device=images.device)
        return (estimate.probs * grid).sum(dim=1)

    def predict(self, data: FaceDataset) -> np.ndarray:
        """Return the (N,) ages in years that the network predicts."""
        return predict(self.model, data, self.estimator.card, self.device, precision=self.estimator.precision).age


class BlackBoxTarget(AttributionTarget):
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
    """captum.attr.

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
    """Select the methods that can explain an estimator.

    Args:
        estimator: any estimator; all methods but occlusion need a trained network.
        data: some faces, to test whether gradients reach the pixels.
        methods: names of `METHODS` that the user requested; empty: all that apply.

    Returns:
        The function to explain, the names of the methods, and notes on methods that do not apply.

    Raises:
        UserError: a requested method does not apply; the message names those that do.
    """
    reasons: dict[str, str] = {}
    target: AttributionTarget
    if not isinstance(estimator, TrainedEstimator):
        target = BlackBoxTarget(estimator)
        reasons |= dict.fromkeys(
            GRADIENT_METHODS, "it needs the network of a run, and this estimator can only be called"
        )
    else:
        target = _network_target(estimator, data)
        if not target.smooth:
            head = f"the head '{estimator.card.head}' decodes its age in steps, so that no gradient reaches the pixels"
            reasons |= dict.fromkeys(GRADIENT_METHODS, head)
        elif not target.layer:
            reasons["grad-cam"] = (
                f"the backbone '{estimator.card.backbone}' has no layer with a map of {MIN_MAP_SIZE} x {MIN_MAP_SIZE} or more"
            )
    applicable = [method for method in METHODS if method not in reasons]
    for method in methods:
        if method in reasons:
            raise UserError(f"--method {method}: {reasons[method]}; these can explain it: {', '.join(applicable)}")
    notes = [f"{METHODS[method]} is left out: {reason}" for method, reason in reasons.items()] if not methods else []
    if target.target == "expectation":
        notes.append("the decoded age moves in steps; gradients explain the expectation of its distribution instead")
    return target, [method for method in METHODS if method in (methods or applicable)], notes


def _network_target(estimator: TrainedEstimator, data: FaceDataset) -> NetworkTarget:
    model = copy.deepcopy(estimator.model).eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # an in-place operation would overwrite a hook's output
    target = NetworkTarget(estimator, model, "age", "", smooth=True, device=estimator.device)
    faces = torch.from_numpy(data.pixels[data.rows[:_PROBES]]).to(estimator.device)
    images = target.normalize(faces)
    target = replace(target, layer=_layer(model.backbone, images))
    for name in ("age", "expectation"):
        if _moves(candidate := replace(target, target=name), images):
            return candidate
    return replace(target, smooth=False)


def compute_attributions(
    target: AttributionTarget, data: FaceDataset, methods: Sequence[str], *, label: str = ""
) -> dict[str, np.ndarray]:
    """Compute attribution maps: positive where the pixels make the face look older.

    Integrated gradients and occlusion are in years: a map of integrated gradients sums up to the age minus that of a
    plain face of the covering color; occlusion is the age minus that of the face with a square around the pixel
    covered. Grad-CAM has no unit.

    Args:
        target: the function to explain.
        data: N faces.
        methods: names of `METHODS` that apply to the target.
        label: text before the progress bar.

    Returns:
        Method -> (N, S, S) float32 maps.
    """
    maps: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    with progress(total=len(data) * len(methods), label=label, unit="map") as bar:
        for faces, _ in iter_batches(data, np.arange(len(data)), BATCH_SIZE, target.device):
            images = target.normalize(faces)
            for method in methods:
                maps[method].append(_MAKERS[method](target, images).detach().float().cpu().numpy())
                bar.update(len(faces))
    return {method: np.concatenate(parts) for method, parts in maps.items()}


def _grad_cam(explained: AttributionTarget, images: Tensor) -> Tensor:
    assert isinstance(explained, NetworkTarget)
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


def _moves(explained: NetworkTarget, images: Tensor) -> bool:
    """Whether gradients reach the pixels; a head that decodes in steps has none, or zeros."""
    images = images.clone().requires_grad_()
    ages = explained.ages(images)
    if not ages.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(ages.sum(), images, allow_unused=True)
    return gradient is not None and bool(gradient.abs().sum() > 0)
