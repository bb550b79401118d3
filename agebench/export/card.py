"""The card inside an exported file: training data, metrics, license, input and output."""

from pathlib import Path
from typing import Any

import torch

from agebench._version import __version__
from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.model import Architecture
from agebench.data.faces.alignment import template_positions
from agebench.errors import UserError
from agebench.estimators.exported.base import INPUT_SIDE_RANGE
from agebench.models.age_model import AgeModel

KIND = "agebench-export"
INTENDED_USE = (
    "Research on age estimation: measuring and comparing estimators, also by group, before anything is built on them. An estimate "
    "is not a person's age: the metrics describe its error, overall and by group. Not meant for decisions about a "
    "single person (access, asylum, law, medicine, employment), nor for faces of people who have not agreed."
)
BODIES = (
    " This model sees bodies too, (N, 6, H, W): after the face the whole person, unstretched, in the middle of black; whichever "
    "of the two is not there is black."
)


def build_card(
    model: AgeModel, card: Architecture, dataset: DatasetCard, about: dict[str, Any], metrics: dict[str, Any]
) -> dict[str, Any]:
    """Build the card of a model; the format, the precision and the checks are added when a file is written.

    Args:
        model: the trained network.
        card: the architecture.
        dataset: card of the training set.
        about: the run's manifest, which need not be complete.
        metrics: content of the run's metrics.json.
    """
    return {
        "schema": 1,
        "kind": KIND,
        "agebench": __version__,
        "model": card.model_dump(mode="json") | about.get("model", {}),
        "training": {
            "dataset": dataset.name,
            "title": dataset.title,
            "homepage": dataset.homepage,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "seed": about.get("seed"),
            **{key: about.get("samples", {}).get(dataset.name, {}).get(key) for key in ("train", "val", "fingerprint")},
        },
        "figures": metrics,
        "licence": (
            f"The weights were learned from {dataset.title} and may be used as its terms allow: {dataset.licence}. Of the weights "
            f"that training began from: {about.get('model', {}).get('weights', 'unknown')}."
        ),
        "intended_use": INTENDED_USE,
        "input": _input(card, about.get("faces", {})),
        "output": _output(model),
    }


def verify_card(source: Path, claimed: dict[str, Any], model: AgeModel, card: Architecture) -> None:
    """Check that an untrusted card describes the model beside it.

    Args:
        source: the card's file, for messages.
        claimed: content of the card.
        model: the network.
        card: the architecture that the network was built from.

    Raises:
        UserError: the card describes another model; the message names every difference.
    """
    actual = {"model": card.model_dump(mode="json"), "output": _output(model)}
    differences = []
    for table, keys in (("model", ("backbone", "head", "size")), ("output", ("ages", "std", "probs"))):
        for key in keys:
            value = claimed[table].get(key)
            if value != actual[table][key]:
                differences.append(f"{table}.{key} is {value!r} on the card and {actual[table][key]!r} in the model")
    if claimed["input"]["size"] != card.size:
        differences.append(f"input.size is {claimed['input']['size']!r} on the card and {card.size!r} in the model")
    if differences:
        raise UserError(f"{source}: does not fit the model beside it: {'; '.join(differences)}")


def _input(card: Architecture, faces: dict[str, Any]) -> dict[str, Any]:
    coverage = faces.get("coverage", 1.0)
    offset, visible = faces.get("offset", 0.0), faces.get("visible", 0.0)
    points = template_positions(coverage, offset).round(4).tolist()
    eyes = " and ".join(f"({100 * x:.4g} %, {100 * y:.4g} %)" for x, y in points[:2])
    hidden = f"; outside {visible:g} times the region of UTKFace's crops, its edge is repeated" if visible else ""
    nose = f"({100 * points[2][0]:.4g} %, {100 * points[2][1]:.4g} %)"
    return {
        "name": "images",
        "dtype": "uint8",
        "layout": "NCHW",
        "channels": "RGB",
        "planes": card.channels,
        "sides": list(INPUT_SIDE_RANGE),
        "size": card.size,
        "coverage": coverage,
        **({"offset": offset} if offset else {}),
        **({"visible": visible} if visible else {}),
        "points": points,
        "prepared": faces.get("datasets", {}),
        "detectors": faces.get("detectors", {}),
        "text": (
            f"uint8 RGB faces (N, 3, H, W), H and W from {INPUT_SIDE_RANGE[0]} to {INPUT_SIDE_RANGE[1]}, best "
            f"{card.size} x {card.size}, framed like the "
            f"training faces: eye centers at {eyes} of width and height, nose base at {nose}{hidden}. Nothing else is to be done "
            "to them."
            f"{BODIES * card.bodies}"
        ),
    }


def _output(model: AgeModel) -> dict[str, Any]:
    """Call the head to find out whether it predicts a standard deviation or a distribution."""
    weight = next(model.parameters())  # the head may have no parameters
    with torch.no_grad():
        estimate = model.head.decode(model.head(torch.zeros(1, model.head.in_features, device=weight.device)))
    low, high = model.head.ages
    return {
        "names": ["age", "std", "probs"],
        "ages": [low, high],
        "std": estimate.std is not None,
        "probs": estimate.probs is not None,
        "text": (
            "float32: age (N,) years; std (N,) years, the standard deviation that the model states, empty (0,) where it states "
            f"none; probs (N, {high - low + 1}), one probability for each whole age from {low} to {high}, empty (0, 0) where "
            "the model gives no distribution."
        ),
    }
