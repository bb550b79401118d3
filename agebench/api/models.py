"""Models: list, create and load them."""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from agebench.estimators.function import FunctionEstimator
from agebench.estimators.released import NAME as RELEASED_MODEL
from agebench.inference.predictor import Predictor
from agebench.inference.predictor import load as open_predictor
from agebench.models.age_model import AgeModel
from agebench.models.age_model import create_model as create_age_model
from agebench.models.weights import load_pretrained
from agebench.registry.builtin import heads
from agebench.registry.catalog import load_catalog

AgeFunction = Callable[[np.ndarray], Any]


def list_models(*, registry: Iterable[str | Path] = ()) -> list[str]:
    """List the names of all model cards.

    Args:
        registry: further folders of cards.

    Returns:
        The names, sorted.

    Raises:
        UserError: a folder does not exist, or two cards have one name.

    Examples:
        >>> import agebench as ab
        >>> "resnet50" in ab.list_models()
        True
    """
    return load_catalog(map(Path, registry)).models.names()


def list_heads() -> list[str]:
    """List the names of all heads.

    Returns:
        The names, sorted.

    Examples:
        >>> import agebench as ab
        >>> "coral" in ab.list_heads()
        True
    """
    return heads.names()


def create_model(
    name: str, *, head: str | None = None, pretrained: bool | str = False, registry: Iterable[str | Path] = ()
) -> AgeModel:
    """Create the network of a model card: a backbone followed by an age head.

    Args:
        name: name of the model's card.
        head: name of another head than the card's; it gets its default options.
        pretrained: False: random weights; True: the pretrained weights of the backbone; or a source of weights: `timm`, the
            name of an installed package, or a file.
        registry: further folders of cards.

    Returns:
        The model, a `torch.nn.Module`.

    Raises:
        UserError: no such model or head, an external model, or weights that cannot be found.

    Examples:
        >>> import agebench as ab
        >>> network = ab.create_model("tiny", head="coral")
        >>> type(network.head).__name__
        'CORALHead'
    """
    architecture = load_catalog(map(Path, registry)).network(name).architecture
    if head is not None:
        architecture = architecture.model_copy(update={"head": head, "head_options": {}})
    model = create_age_model(architecture)
    if pretrained:
        load_pretrained(model.backbone, architecture, "auto" if pretrained is True else pretrained)
    return model


def load_estimator(
    source: str | Path | AgeFunction = RELEASED_MODEL,
    *,
    device: str = "auto",
    allow_code_execution: bool = False,
    registry: Iterable[str | Path] = (),
) -> Predictor:
    """Load a model that estimates ages.

    Args:
        source: folder of a finished run, an exported file, name of an external model's card, hf://OWNER/NAME@COMMIT,
            `agebench-base` (the model that ships with agebench), or a Python function of (N, 112, 112, 3) uint8 RGB faces that
            returns N ages in years, NaN where it fails.
        device: `auto`, `cpu`, `cuda`, …
        allow_code_execution: whether files may be opened that run code when they are opened.
        registry: further folders of cards.

    Returns:
        The estimator: `estimate(faces)` takes aligned faces, `predict(images)` takes photographs. Close it, or use it as a
        context.

    Raises:
        UserError: no such model, or a run that is not finished.

    Examples:
        >>> import agebench as ab
        >>> import numpy as np
        >>> estimator = ab.load_estimator(lambda faces: [30.0] * len(faces))
        >>> estimator.estimate(np.zeros((2, 112, 112, 3), np.uint8)).age.tolist()
        [30.0, 30.0]
    """
    if callable(source):
        return Predictor(FunctionEstimator(source))
    catalog = load_catalog(map(Path, registry))
    return open_predictor(source, trusted=allow_code_execution, device=device, cards=catalog)


def load(model: str | Path, *, trusted: bool = False, device: str = "auto") -> Predictor:
    """Load a model; deprecated, use `load_estimator`.

    Args:
        model: folder of a finished run, an exported file, name of an external model's card, or hf://OWNER/NAME@COMMIT.
        trusted: whether files may be opened that run code when they are opened.
        device: `auto`, `cpu`, `cuda`, …

    Returns:
        The model with face detection and alignment.

    Raises:
        UserError: no such model, or a run that is not finished.
    """
    warnings.warn("agebench.load is deprecated; use agebench.load_estimator.", DeprecationWarning, stacklevel=2)
    return open_predictor(model, trusted=trusted, device=device)
