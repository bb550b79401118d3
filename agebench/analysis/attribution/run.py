"""Attribution analysis: maps of single faces, mean maps by age band and group, and sanity checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agebench.analysis.attribution.methods import METHODS, compute_attributions, select_methods
from agebench.analysis.attribution.sanity_checks import sanity_check
from agebench.analysis.attribution.schema import (
    AttributionFile,
    ExplainedFace,
    GroupAttribution,
    MethodAttribution,
    RegionShare,
    SanityChecks,
)
from agebench.analysis.robustness import operators
from agebench.data.faces.regions import FACE, Box, missing_regions, region_boxes, region_mask, region_notes
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimator
from agebench.metrics.bootstrap import Ints, reindex
from agebench.metrics.clustered_rates import row_clusters
from agebench.metrics.groups import Grouping, age_bands, groupings
from agebench.training.dataloader import FaceDataset, derive_seed
from agebench.utils.text import did_you_mean

N_SANITY_FACES = 24
MIN_MAPS_PER_GROUP = 10  # the mean of fewer maps depends on the individual faces
N_EXAMPLES = 6
SMOOTHING_SIGMA = 0.04  # standard deviation, as a fraction of the side

_Areas = Mapping[str, tuple[Box, ...]]  # region -> its boxes


@dataclass(frozen=True)
class AttributionResult:
    """The result of an attribution analysis, with the data of its figures.

    Attributes:
        summary: the results.
        faces: (N, S, S, 3) uint8, the explained faces.
        maps: the maps by method, each (N, S, S).
        random: the maps of a network with random weights by method, each (n, S, S), one per face of `checked`.
        checked: (n,) the indices in `faces` of the faces of the sanity checks.
        singles: the indices in `faces` of the faces that are shown individually.
        groups: the groupings of `faces`.
    """

    summary: AttributionFile
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
    test: str = "",
) -> AttributionResult:
    """Explain a sample of faces that is balanced over age bands.

    Args:
        estimator: any estimator; only a trained network allows methods with gradients and the check by random weights.
        samples: the images of the faces, with their labels.
        data: the aligned faces, in the order of `samples`.
        methods: names of `METHODS`; empty for all applicable methods.
        images: the maximum number of faces.
        wanted: sample_ids of faces to show individually; empty for a selection of all ages.
        seed: the seed of the sample and of the random weights.
        minimum: the number of faces below which a group has no mean map.
        label: the label of the progress bars.
        test: name of the dataset.

    Returns:
        The maps, their summary and the results of the sanity checks.

    Raises:
        UserError: a wanted image does not exist or has no aligned face, or a method is not applicable to the estimator.
    """
    chosen, singles = _sample(samples, images, wanted, seed)
    faces = FaceDataset(data.pixels, data.rows[chosen], data.ages[chosen])
    target, applicable, notes = select_methods(estimator, faces, methods)
    maps = compute_attributions(target, faces, applicable, label=f"{label}: maps")
    table = samples.table.iloc[chosen].reset_index(drop=True)
    checked = np.sort(np.random.default_rng([seed, 7]).permutation(len(faces))[:N_SANITY_FACES])
    checked_faces = FaceDataset(faces.pixels, faces.rows[checked], faces.ages[checked])
    checked_maps = {method: method_maps[checked] for method, method_maps in maps.items()}
    clusters = reindex(row_clusters(table)[checked])
    sanity, random = sanity_check(target, checked_faces, checked_maps, clusters, seed=seed, label=f"{label}: checks")
    groups = [age_bands(table["age"].to_numpy(float)), *groupings(table, samples.groups)]
    pixels: np.ndarray = np.ascontiguousarray(faces.pixels[faces.rows])
    predicted, framing = target.predict(faces), estimator.input_spec
    missing = missing_regions(data.mode, framing.crop_scale, framing.offset)
    areas = {
        name: region_boxes(name, framing.crop_scale, framing.offset)
        for name in (*FACE, "corners")
        if name not in missing
    }
    summary = AttributionFile(
        test=test,
        n=len(faces),
        of=len(data),
        checked=len(checked_faces),
        target=target.target,
        layer=target.layer,
        methods={
            method: _method_entry(method, method_maps, sanity[method], groups, areas, minimum)
            for method, method_maps in maps.items()
        },
        singles=[
            ExplainedFace(sample_id=str(name), age=float(age), age_pred=float(age_pred))
            for name, age, age_pred in zip(
                table["sample_id"].iloc[singles], table["age"].iloc[singles], predicted[singles], strict=True
            )
        ],
        notes=notes + region_notes(missing, FACE),
    )
    return AttributionResult(summary, pixels, maps, random, checked, singles, groups)


def normalize_maps(maps: np.ndarray) -> np.ndarray:
    """Smooth maps, take their absolute value, and scale each map to a mean of 1, so that all faces have equal weight.

    Smoothing precedes the absolute value for the reason given in `agebench.analysis.attribution.sanity_checks.pool_to_cells`.

    Args:
        maps: (N, S, S) signed maps.

    Returns:
        (N, S, S): the attribution relative to a uniform map.
    """
    blur = operators.gaussian_matrix(maps.shape[-1], SMOOTHING_SIGMA * maps.shape[-1])
    magnitude = operators.apply_separable(torch.from_numpy(maps), blur).abs().numpy()
    mean = magnitude.mean(axis=(1, 2), keepdims=True)
    normalized: np.ndarray = np.where(mean > 0, magnitude / np.where(mean > 0, mean, 1), 1.0)
    return normalized


def _sample(samples: Samples, images: int, wanted: Sequence[str], seed: int) -> tuple[Ints, Ints]:
    """Return the rows to explain, and the indices among them of the faces to show individually."""
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
    # Bands alternate: the k-th face of each band precedes the (k + 1)-th face of any band.
    shuffled = generator.permutation(len(table))
    rank_in_band = np.empty(len(table), dtype=np.int64)
    for code in np.unique(codes):
        members = shuffled[codes[shuffled] == code]
        rank_in_band[members] = np.arange(len(members))
    order = shuffled[np.argsort(rank_in_band[shuffled], kind="stable")]
    first = [rows[name] for name in dict.fromkeys(wanted)]
    chosen = np.array(list(dict.fromkeys([*first, *order[:images].tolist()]))[: max(images, len(first))])
    if first:
        return chosen, np.arange(len(first))
    by_age = np.argsort(table["age"].to_numpy(float)[chosen], kind="stable")
    evenly_spaced = np.unique(np.linspace(0, len(chosen) - 1, min(N_EXAMPLES, len(chosen))).round().astype(int))
    return chosen, by_age[evenly_spaced]


def _method_entry(
    method: str, maps: np.ndarray, sanity: SanityChecks, groups: Sequence[Grouping], areas: _Areas, minimum: int
) -> MethodAttribution:
    """Summarize one method: its sanity checks, and its region shares overall and by group."""
    return MethodAttribution(
        title=METHODS[method],
        passed=sanity.passed,
        sanity=sanity,
        regions=_regions(maps, areas),
        groups={grouping.name: _group_entries(grouping, maps, areas, minimum) for grouping in groups},
    )


def _regions(maps: np.ndarray, areas: _Areas) -> dict[str, RegionShare]:
    """Return each region's share of the area and of the attribution."""
    mean = normalize_maps(maps).mean(axis=0)
    regions = {}
    for name, boxes in areas.items():
        inside = region_mask(boxes, maps.shape[-1]).numpy()
        area, share = float(inside.mean()), float((inside * mean).mean())
        regions[name] = RegionShare(area=area, share=share, times=share / area)
    return regions


def _group_entries(grouping: Grouping, maps: np.ndarray, areas: _Areas, minimum: int) -> dict[str, GroupAttribution]:
    entries = {}
    for code, (name, n) in enumerate(zip(grouping.names, grouping.counts, strict=True)):
        entries[name] = GroupAttribution(n=int(n), shown=False)
        if n >= minimum:
            regions = _regions(maps[grouping.codes == code], areas)
            entries[name] = GroupAttribution(n=int(n), shown=True, regions=regions)
    return entries
