"""Resolve settings to a complete config: cards, config files, flags and --set, with names checked against the catalog."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel

from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.external import ExternalCard
from agebench.config.cards.model import Architecture, Augment, Recipe
from agebench.config.evaluate import EvalConfig, ExternalConfig, PublishedConfig
from agebench.config.run import DEFAULT_MODEL, EvaluateConfig, FacesConfig, RunConfig
from agebench.config.toml_io import Settings, deep_merge, validate_model
from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.detectors.base import default_detector
from agebench.errors import UserError
from agebench.models import architectures
from agebench.registry.builtin import detectors
from agebench.registry.catalog import Catalog

EvalConfigT = TypeVar("EvalConfigT", bound=EvalConfig[Any])


def resolve_config(catalog: Catalog, layers: Iterable[Settings]) -> RunConfig:
    """Resolve a run's settings over the defaults of its model's card.

    Args:
        catalog: the cards of datasets and models.
        layers: settings in rising order of precedence: a config file, then flags, then --set.

    Raises:
        UserError: an unknown model, dataset or protocol, or a wrong key or value; the message names the valid ones.
    """
    settings = _merge(layers)
    table = settings.get("model", {})
    card = catalog.models.get(table.get("name", DEFAULT_MODEL) if isinstance(table, dict) else DEFAULT_MODEL)
    if isinstance(card, ExternalCard):
        raise UserError(f"model '{card.name}' is external and is not trained here: agebench test --model {card.name} …")
    base = {
        "pretrained": "auto" if card.pretrained else "",
        "model": card.architecture.model_dump(mode="json"),
        "train": card.train.model_dump(mode="json"),
        "faces": {"coverage": card.crop_scale, "offset": card.offset, "visible": card.visible},
    }
    config = validate_model(RunConfig, deep_merge(base, settings), source="run settings")
    for name in config.datasets():
        catalog.datasets.get(name)
    catalog.datasets.get(config.data.train).protocol(config.data.protocol)
    _check_gates(config.evaluate)
    return config


def resolve_evaluation(catalog: Catalog, layers: Iterable[Settings]) -> ExternalConfig | PublishedConfig:
    """Resolve the settings of a test: of published weights where `pretrained` is set, else of an external model.

    Args:
        catalog: the cards of datasets and models.
        layers: settings in rising order of precedence.

    Raises:
        UserError: no model is named, a model of another kind is named, an unknown dataset, or a wrong key or value.
    """
    layers = list(layers)
    resolve = _resolve_published if "pretrained" in _merge(layers) else resolve_external
    return resolve(catalog, layers)


def resolve_external(catalog: Catalog, layers: Iterable[Settings]) -> ExternalConfig:
    """Resolve the settings of a test of an external model; its card determines the framing of faces.

    Args:
        catalog: the cards of datasets and models.
        layers: settings in rising order of precedence.

    Raises:
        UserError: no model is named, the model is trained here, an unknown dataset, or a wrong key or value.
    """
    settings, table = _model_settings(layers)
    base: Settings = {}
    if "source" not in table:  # a test's own config.toml holds the complete card
        card = catalog.models.get(table["name"])
        if not isinstance(card, ExternalCard):
            raise UserError(
                f"model '{card.name}' has to be trained first: agebench run --train DATASET --test DATASET --model {card.name} "
                "(for built-in architectures, --pretrained FILE tests their authors' weights)"
            )
        base = {"model": card.model_dump(mode="json")}
    card_input = deep_merge(base, settings).get("model", {}).get("input", {})
    framing = {"coverage": card_input.get("coverage", 1.0)}
    framing |= {key: card_input.get(key, 0.0) for key in ("offset", "visible")}
    return _validated(ExternalConfig, catalog, deep_merge({"faces": framing}, base), settings)


def _resolve_published(catalog: Catalog, layers: Iterable[Settings]) -> PublishedConfig:
    """Resolve the settings of a test of published weights.

    Args:
        catalog: the cards of datasets and models.
        layers: settings in rising order of precedence.

    Raises:
        UserError: no model is named, the model is no built-in architecture, an unknown dataset, or a wrong key or value.
    """
    settings, table = _model_settings(layers)
    card = catalog.models.get(table["name"])
    if isinstance(card, ExternalCard) or card.backbone not in architectures.NAMES:
        raise UserError(
            f"--pretrained is for the built-in architectures ({', '.join(architectures.NAMES)}), whose authors published weights; "
            f"'{card.name}' is none of them"
        )
    base = {"model": card.architecture.model_dump(mode="json"), "published": card.published.model_dump(mode="json")}
    return _validated(PublishedConfig, catalog, base, settings)


def alignment_spec(faces: FacesConfig, card: DatasetCard, size: int) -> AlignmentSpec:
    """Return how a dataset's faces become squares of pixels.

    Args:
        faces: the run's settings of face preparation.
        card: the dataset's card, which supplies what `faces` leaves unset.
        size: side of the squares, pixels.

    Raises:
        UserError: an unknown detector, or landmarks are requested and the card names no landmark_points.
    """
    mode, detector = faces.mode or card.faces, faces.detector or card.detector or default_detector()
    if mode == "landmarks" and not card.landmark_points:
        raise UserError(
            f"faces.mode = landmarks: the card of '{card.name}' names no landmark_points; take detect or none"
        )
    detectors.get(detector)
    return AlignmentSpec(
        mode, size, faces.coverage, card.landmark_points, detector, offset=faces.offset, visible=faces.visible
    )


def model_alignment_spec(faces: FacesConfig, card: DatasetCard, model: Architecture | ExternalCard) -> AlignmentSpec:
    """Return how a dataset's faces, and bodies where the model takes them, are prepared for a model.

    Args:
        faces: the run's settings of face preparation.
        card: the dataset's card.
        model: the model's card: its input size, and whether it takes bodies.

    Raises:
        UserError: an unknown detector, or landmarks are requested and the card names no landmark_points.
    """
    return replace(
        alignment_spec(faces, card, model.size),
        bodies=model.bodies,
        letterbox=bool(model.letterbox) and not faces.mode,
        mask_bodies=bool(model.mask_bodies) and model.bodies,
        **_box_settings(model),
    )


def _box_settings(model: Architecture | ExternalCard) -> Settings:
    """Return the settings of the alignment that an external model's input kind determines.

    Photographs are not aligned: their middle is shown in reports and never estimated.

    Args:
        model: the model's card.
    """
    if not isinstance(model, ExternalCard) or model.input.kind == "aligned":
        return {}
    if model.input.kind == "photo":
        return {"mode": "none"}
    return {"fit": model.input.box_fit, "margin": model.input.margin}


def _with_defaults(layer: Settings) -> Settings:
    """Return a complete config with the settings that it leaves out because they are off.

    Otherwise a card that turns them on would change a run or test that is repeated from its config.toml.

    Args:
        layer: the content of a config file, flags, or values of --set; only a whole recipe, or the card of an external model
            beside settings of faces, is completed.
    """
    train, model, faces = (layer.get(table) for table in ("train", "model", "faces"))
    if isinstance(train, dict) and _required(Recipe) <= train.keys():
        defaults = {"train": {**_defaults(Recipe), "augment": _defaults(Augment)}, "faces": _defaults(FacesConfig)}
        return deep_merge(defaults, layer)
    if isinstance(model, dict) and "source" in model and isinstance(faces, dict):
        return deep_merge({"faces": _defaults(FacesConfig)}, layer) if _required(FacesConfig) <= faces.keys() else layer
    return layer


def _required(table: type[BaseModel]) -> set[str]:
    return {name for name, field in table.model_fields.items() if field.exclude_if is None}


def _defaults(table: type[BaseModel]) -> Settings:
    return {name: field.default for name, field in table.model_fields.items() if field.exclude_if is not None}


def _merge(layers: Iterable[Settings]) -> Settings:
    settings: Settings = {}
    for layer in layers:
        settings = deep_merge(settings, _with_defaults(layer))
    return settings


def _model_settings(layers: Iterable[Settings]) -> tuple[Settings, Settings]:
    """Merge the layers; return all settings, and the table `model` of them."""
    settings = _merge(layers)
    table = settings.get("model", {})
    if not isinstance(table, dict) or "name" not in table:
        raise UserError("which model? --model NAME; `agebench list models` shows them")
    return settings, table


def _validated(kind: type[EvalConfigT], catalog: Catalog, base: Settings, settings: Settings) -> EvalConfigT:
    config = validate_model(kind, deep_merge(base, settings), source="test settings")
    for name in config.datasets():
        catalog.datasets.get(name)
    _check_gates(config.evaluate)
    return config


def _check_gates(settings: EvaluateConfig) -> None:
    """Reject gates of a wrong form before hours of work.

    Args:
        settings: the settings of the metrics.

    Raises:
        UserError: a gate or the range of ages has the wrong form.
    """
    if settings.gates or settings.gate_ages:
        from agebench.runs.gates import configured_gates  # imports scipy and the report

        configured_gates(settings)
