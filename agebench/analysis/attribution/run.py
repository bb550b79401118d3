"""Where a model looks: maps of single faces, mean maps by age band and group, and what they are worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from agebench.analysis.attribution.methods import METHODS, compute_attributions, select_methods
from agebench.analysis.attribution.sanity_checks import sanity_check
from agebench.analysis.robustness import operators
from agebench.data.faces.regions import FACE, region_boxes, region_mask
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimator
from agebench.metrics.bootstrap import Ints, reindex
from agebench.metrics.clustered_rates import row_clusters
from agebench.metrics.groups import Grouping, age_bands, groupings
from agebench.training.dataloader import FaceDataset, derive_seed
from agebench.utils.text import did_you_mean

SCHEMA = 1
N_SANITY_FACES = 24  # faces that the sanity checks look at
MIN_MAPS_PER_GROUP = 10  # a mean of fewer maps is a picture of these faces, not of the group
N_EXAMPLES = 6
SMOOTHING_SIGMA = 0.04  # of the side, standard deviation


@dataclass(frozen=True)
class AttributionResult:
    """What was found, and what pictures need.

    Attributes:
        found: ready for JSON.
        faces: (N, S, S, 3) uint8 those that were explained.
        maps: method -> (N, S, S).
        random: method -> (n, S, S), the maps of a random network for the first n faces of `checked`.
        checked: (n,) places in `faces` that the sanity checks looked at.
        singles: places in `faces` to be shown one by one.
        groups: the groupings of `faces`.
    """

    summary: dict[str, Any]
    faces: np.ndarray
    maps: dict[str, np.ndarray]
    random: dict[str, np.ndarray]
    checked: Ints
    singles: Ints
    groups: list[Grouping]


def explain(
    estimator: AgeEstimator,
    samples: Samples,
    data: FaceDataset,
    *,
    methods: Sequence[str] = (),
    images: int = 120,
    wanted: Sequence[str] = (),
    seed: int = 0,
    minimum: int = MIN_MAPS_PER_GROUP,
    label: str = "",
) -> AttributionResult:
    """Explain a sample of the faces that has every age band alike.

    Args:
        estimator: any estimator; only a trained network allows methods with gradients and the check by random weights.
        samples: whose faces these are.
        data: the faces, row by row.
        methods: of `METHODS`; none: all that can explain the model.
        images: how many faces at most.
        wanted: sample_ids to be shown one by one; none: some of every age.
        seed: of the sample and of the random networks.
        minimum: groups with fewer faces in the sample have no mean map.
        label: of progress bars.

    Raises:
        UserError: a wanted image is not there or has no face, or a method cannot explain the model.
    """
    chosen, singles = _sample(samples, images, wanted, seed)
    few = FaceDataset(data.pixels, data.rows[chosen], data.ages[chosen])
    target, applicable, notes = select_methods(estimator, few, methods)
    maps = compute_attributions(target, few, applicable, label=f"{label}: maps")
    table = samples.table.iloc[chosen].reset_index(drop=True)
    checked = np.sort(np.random.default_rng([seed, 7]).permutation(len(few))[:N_SANITY_FACES])
    part = FaceDataset(few.pixels, few.rows[checked], few.ages[checked])
    theirs = {name: of[checked] for name, of in maps.items()}
    codes = reindex(row_clusters(table)[checked])
    sanity, random = sanity_check(target, part, theirs, codes, seed=seed, label=f"{label}: checks")
    made = [age_bands(table["age"].to_numpy(float)), *groupings(table, samples.groups)]
    pixels: np.ndarray = np.ascontiguousarray(few.pixels[few.rows])
    predicted = target.predict(few)
    found = {
        "schema": SCHEMA,
        "n": len(few),
        "of": len(data),
        "checked": len(part),
        "target": target.target,
        "layer": target.layer,
        "methods": {
            method: _of_method(method, of, sanity[method], made, estimator.input_spec.crop_scale, minimum)
            for method, of in maps.items()
        },
        "singles": _of_singles(table.iloc[singles], predicted[singles]),
        "notes": notes,
    }
    return AttributionResult(found, pixels, maps, random, checked, singles, made)


def normalize_maps(maps: np.ndarray) -> np.ndarray:
    """(N, S, S) -> how much is marked, as a multiple of an even spread: each has a mean of 1, so that every face counts alike.

    What a neighbourhood of a pixel adds or takes on balance, without its sign (see `agebench.analysis.tuning.diagnostics.cells`).
    """
    blur = operators.gaussian_matrix(maps.shape[-1], SMOOTHING_SIGMA * maps.shape[-1])
    size = operators.apply_separable(torch.from_numpy(maps), blur).abs().numpy()
    mean = size.mean(axis=(1, 2), keepdims=True)
    made: np.ndarray = np.where(mean > 0, size / np.where(mean > 0, mean, 1), 1.0)
    return made


def _sample(samples: Samples, images: int, wanted: Sequence[str], seed: int) -> tuple[Ints, Ints]:
    """Rows to explain, and places among them to show: the wanted ones, else some spread over the ages."""
    table = samples.table
    rows = {str(name): row for row, name in enumerate(table["sample_id"])}
    reasons = dict(zip(samples.rejected["sample_id"], samples.rejected["reason"], strict=True))
    for name in wanted:
        if name in reasons:
            raise UserError(f"--image {name}: cannot be explained: {reasons[name]}")
        if name not in rows:
            raise UserError(f"--image {name}: no such image in the test set{did_you_mean(name, rows)}")
    generator = np.random.default_rng(derive_seed(seed, "explain"))
    codes = age_bands(table["age"].to_numpy(float)).codes
    # In turns from every band: the k-th of each band comes before the (k + 1)-th of any.
    shuffled = generator.permutation(len(table))
    turn = np.empty(len(table), dtype=np.int64)
    for code in np.unique(codes):
        members = shuffled[codes[shuffled] == code]
        turn[members] = np.arange(len(members))
    order = shuffled[np.argsort(turn[shuffled], kind="stable")]
    first = [rows[name] for name in dict.fromkeys(wanted)]
    chosen = np.array(list(dict.fromkeys([*first, *order[:images].tolist()]))[: max(images, len(first))])
    if first:
        return chosen, np.arange(len(first))
    by_age = np.argsort(table["age"].to_numpy(float)[chosen], kind="stable")
    places = np.unique(np.linspace(0, len(chosen) - 1, min(N_EXAMPLES, len(chosen))).round().astype(int))
    return chosen, by_age[places]


def _of_method(
    method: str, maps: np.ndarray, sanity: dict[str, Any], made: Sequence[Grouping], coverage: float, minimum: int
) -> dict[str, Any]:
    """What one method found: whether it may be believed, and where it looks, over all faces and by group."""
    return {
        "title": METHODS[method],
        "passed": sanity["passed"],
        "sanity": sanity,
        "regions": _regions(maps, coverage),
        "groups": {grouping.name: _groups(grouping, maps, coverage, minimum) for grouping in made},
    }


def _of_singles(rows: pd.DataFrame, predicted: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"sample_id": str(name), "age": float(age), "age_pred": float(said)}
        for name, age, said in zip(rows["sample_id"], rows["age"], predicted, strict=True)
    ]


def _regions(maps: np.ndarray, coverage: float) -> dict[str, Any]:
    """Region -> its share of the area, and of all that is marked; `times` is their ratio, 1 for an even spread."""
    mean = normalize_maps(maps).mean(axis=0)
    found = {}
    for name in (*FACE, "corners"):
        inside = region_mask(region_boxes(name, coverage), maps.shape[-1]).numpy()
        area, marked = float(inside.mean()), float((inside * mean).mean())
        found[name] = {"area": area, "share": marked, "times": marked / area}
    return found


def _groups(grouping: Grouping, maps: np.ndarray, coverage: float, minimum: int) -> dict[str, Any]:
    made = {}
    for place, (name, n) in enumerate(zip(grouping.names, grouping.counts, strict=True)):
        entry: dict[str, Any] = {"n": int(n), "shown": bool(n >= minimum)}
        if entry["shown"]:
            entry["regions"] = _regions(maps[grouping.codes == place], coverage)
        made[name] = entry
    return made
