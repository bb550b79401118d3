"""Is a heatmap about the model at all? Random weights must destroy it, and what it marks must matter."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from agebench.analysis.attribution.methods import AttributionTarget, NetworkTarget, compute_attributions
from agebench.metrics.bootstrap import ClusterBootstrap, Floats, Ints
from agebench.metrics.confidence_intervals import metric_values
from agebench.training.dataloader import FaceDataset, derive_seed, iter_batches

N_RANDOMIZATIONS = 2  # random networks
GRID_SIZE = 8  # a side: what is compared, covered and uncovered
DELETION_STEP = 4  # cells at a time
# Maps of a network with random weights that still rank the cells like this are not about what the network learned.
MAX_RANDOM_CORRELATION = 0.5


def randomize_weights(explained: NetworkTarget, images: Tensor, seed: int) -> NetworkTarget:
    """The same network with every weight drawn anew as before training (Adebayo et al. 2018, full randomisation).

    Batch normalisation then sees `images`, so that a deep network's signal neither dies nor explodes.
    """
    model = copy.deepcopy(explained.model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            else:
                for parameter in own:
                    parameter.normal_(0.0, float(parameter.std()) if parameter.numel() > 1 else 1.0)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the plain mean over what it sees
        model.backbone.train()
        model.backbone(images)
    return replace(explained, model=model.eval())


def sanity_check(
    explained: AttributionTarget,
    data: FaceDataset,
    maps: dict[str, np.ndarray],
    clusters: Ints,
    *,
    seed: int = 0,
    label: str = "",
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Both checks of every method, and the maps of the first random network, to be looked at.

    Args:
        explained: the function whose maps are checked. Without a network, there is no check by random weights.
        data: faces to check on.
        maps: method -> (N, S, S), the maps of these faces.
        clusters: (N,) whose faces they are, for the intervals.
        seed: of the random networks.
        label: of the progress bar.

    Returns:
        method -> `randomised` (rank_correlation, passed), `deletion` and `insertion` (curve, random, difference, passed),
        `passed`; and method -> (N, S, S).
    """
    random = [
        compute_attributions(network, data, list(maps), label=label)
        for network in _random_networks(explained, data, seed)
    ]
    order = np.argsort(np.random.default_rng(seed).random((len(data), GRID_SIZE**2)), axis=1)
    by_chance = _curves(explained, data, order)
    found = {}
    for method, of in maps.items():
        curves = _curves(explained, data, np.argsort(-pool_to_cells(of).reshape(len(of), -1), axis=1))
        entry: dict[str, Any] = {}
        if random:
            similarity = np.mean([rank_correlation(of, one[method]) for one in random], axis=0)
            correlation = _means(similarity[None], clusters)[0]
            entry["randomised"] = {
                "rank_correlation": correlation,
                "draws": N_RANDOMIZATIONS,
                "passed": (correlation["high"] if correlation["high"] is not None else 1.0) < MAX_RANDOM_CORRELATION,
            }
        for way, sign, curve, chance in zip(("deletion", "insertion"), (1, -1), curves, by_chance, strict=True):
            difference = _means((curve - chance).mean(axis=1)[None], clusters)[0]
            ends = (difference["low"], difference["high"])
            shown = None not in ends and min(sign * ends[0], sign * ends[1]) > 0  # type: ignore[operator]
            entry[way] = {
                "share": [float(share) for share in np.linspace(0, 1, curve.shape[1])],
                "curve": [float(value) for value in curve.mean(axis=0)],
                "random": [float(value) for value in chance.mean(axis=0)],
                "difference": difference,
                "passed": bool(shown),
            }
        entry["passed"] = all(check["passed"] for check in entry.values())
        found[method] = entry
    return found, random[0] if random else {}


def _random_networks(explained: AttributionTarget, data: FaceDataset, seed: int) -> list[NetworkTarget]:
    """Return networks with random weights; none for an estimator that can only be called."""
    if not isinstance(explained, NetworkTarget):
        return []
    images = explained.normalize(torch.from_numpy(data.pixels[data.rows]).to(explained.device))
    seeds = [derive_seed(seed, "sanity", draw) for draw in range(N_RANDOMIZATIONS)]
    return [randomize_weights(explained, images, each) for each in seeds]


def pool_to_cells(maps: np.ndarray) -> np.ndarray:
    """(N, S, S) -> (N, CELLS, CELLS): what every cell adds or takes on balance, without its sign.

    On balance, because pixel by pixel |map| of integrated gradients follows the picture's contrast whatever the weights.
    """
    pooled: np.ndarray = F.adaptive_avg_pool2d(torch.from_numpy(maps)[:, None], GRID_SIZE)[:, 0].abs().numpy()
    return pooled


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Floats:
    """(N,) Spearman's rho of two maps of the same face, over their cells; 0 where one of them is flat."""
    ranks = [stats.rankdata(pool_to_cells(maps).reshape(len(maps), -1), axis=1) for maps in (first, second)]
    a, b = (of - of.mean(axis=1, keepdims=True) for of in ranks)
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    rho: Floats = np.where(spread > 0, (a * b).sum(axis=1) / np.where(spread > 0, spread, 1), 0.0)
    return rho


def _curves(explained: AttributionTarget, data: FaceDataset, order: np.ndarray) -> tuple[Floats, Floats]:
    """Deletion and insertion, each (N, 1 + CELLS² / STEP): |age - the whole face's age| in years.

    Deletion covers cells with the normalisation's mean colour, the marked ones first; insertion uncovers them.
    """
    size = data.pixels.shape[1]
    rank = np.argsort(order, axis=1).reshape(len(data), GRID_SIZE, GRID_SIZE)  # when a cell's turn is
    turn = F.interpolate(torch.from_numpy(rank).float()[:, None], (size, size), mode="nearest")
    curves: tuple[list[Tensor], list[Tensor]] = ([], [])
    place = 0
    for faces, _ in iter_batches(data, np.arange(len(data)), 64, explained.device):
        images = explained.normalize(faces)
        here = turn[place : place + len(faces)].to(images.device)
        place += len(faces)
        with torch.inference_mode():
            whole = explained.ages(images)
            for ages, covers in zip(curves, (True, False), strict=True):
                points = [
                    (explained.ages(images * ((here >= count) if covers else (here < count))) - whole).abs()
                    for count in range(0, GRID_SIZE**2 + 1, DELETION_STEP)
                ]
                ages.append(torch.stack(points, dim=1).cpu())
    deletion, insertion = (torch.cat(parts).double().numpy() for parts in curves)
    return deletion, insertion


def _means(values: Floats, clusters: Ints, resamples: int = 1000) -> list[dict[str, float | None]]:
    """The means of values (K, N) with their bootstrap intervals."""
    features = np.concatenate([np.ones((1, values.shape[1])), values]).T
    whole = np.zeros(values.shape[1], dtype=np.int64)
    found = ClusterBootstrap(features, [whole], clusters).replicates(
        lambda sums: sums[0][0, 1:] / sums[0][0, :1], resamples=resamples, seed=0
    )
    return list(metric_values([(str(idx), "mean_change") for idx in range(len(values))], found).values())


def format_verdict(entry: dict[str, Any]) -> str:
    """In a few words, as pictures have it."""
    failed = [_WORDS[part] for part in _WORDS if part in entry and not entry[part]["passed"]]
    return f"fails: {', '.join(failed)}" if failed else "passes its checks"


_WORDS = {"randomised": "random weights", "deletion": "deletion", "insertion": "insertion"}
