"""Sanity checks of attribution maps: weight randomization, deletion and insertion."""

import copy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from agebench.analysis.attribution.methods import AttributionTarget, NetworkTarget, compute_attributions
from agebench.analysis.attribution.schema import CoveringCheck, RandomWeightsCheck, SanityChecks
from agebench.metrics.bootstrap import ClusterBootstrap, Floats, Ints
from agebench.metrics.confidence_intervals import metric_values
from agebench.metrics.schema import AnalysisMetricValue
from agebench.training.dataloader import FaceDataset, derive_seed, iter_batches

N_RANDOMIZATIONS = 2  # networks with random weights
GRID_SIZE = 8  # cells per side that are compared, covered and uncovered
DELETION_STEP = 4  # cells that are covered or uncovered together
# A higher rank correlation with the maps of random weights means that the map does not depend on the learned weights.
MAX_RANDOM_CORRELATION = 0.5


def _randomize_weights(target: NetworkTarget, images: Tensor, seed: int) -> NetworkTarget:
    """Copy a network and reinitialize all its weights (Adebayo et al. 2018, "Sanity checks for saliency maps", section 3).

    Args:
        target: the network.
        images: (B, 3, S, S) normalized images, from which the statistics of batch normalization are estimated, so that the
            activations of a deep network neither vanish nor explode.
        seed: the seed of the weights.

    Returns:
        The network with random weights.
    """
    model = copy.deepcopy(target.model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            parameters = list(module.parameters(recurse=False))
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            else:
                for parameter in parameters:
                    parameter.normal_(0.0, float(parameter.std()) if parameter.numel() > 1 else 1.0)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # use the plain mean of all batches
        model.backbone.train()
        model.backbone(images)
    return replace(target, model=model.eval())


def sanity_check(
    target: AttributionTarget,
    data: FaceDataset,
    maps: dict[str, np.ndarray],
    clusters: Ints,
    *,
    seed: int = 0,
    label: str = "",
) -> tuple[dict[str, SanityChecks], dict[str, np.ndarray]]:
    """Run the sanity checks for each method.

    Args:
        target: the estimator and the explained quantity. Without a network, there is no check by random weights.
        data: the faces to check on.
        maps: the maps of these faces by method, each (N, S, S).
        clusters: (N,) the subject of each face, which the bootstrap resamples.
        seed: the seed of the random weights and of the random order.
        label: the label of the progress bar.

    Returns:
        The checks by method; and by method, the maps (N, S, S) of the first network with random weights.
    """
    random = [
        compute_attributions(network, data, list(maps), label=label) for network in _random_networks(target, data, seed)
    ]
    order = np.argsort(np.random.default_rng(seed).random((len(data), GRID_SIZE**2)), axis=1)
    random_curves = _curves(target, data, order)
    checks = {}
    for method, method_maps in maps.items():
        map_order = np.argsort(-pool_to_cells(method_maps).reshape(len(data), -1), axis=1)
        curves = _curves(target, data, map_order)
        randomized = _check_random_weights(method_maps, [other[method] for other in random], clusters)
        deletion, insertion = (
            _check_covering(curve, random_curve, clusters, sign)
            for curve, random_curve, sign in zip(curves, random_curves, (1, -1), strict=True)
        )
        passed = None
        if _has_several(clusters):
            passed = bool(deletion.passed and insertion.passed and (randomized is None or randomized.passed))
        optional = {} if randomized is None else {"randomised": randomized}
        checks[method] = SanityChecks(**optional, deletion=deletion, insertion=insertion, passed=passed)
    return checks, random[0] if random else {}


def _check_random_weights(maps: np.ndarray, random: list[np.ndarray], clusters: Ints) -> RandomWeightsCheck | None:
    if not random:
        return None
    similarity = np.mean([rank_correlation(maps, other) for other in random], axis=0)
    correlation = _mean(similarity, clusters)
    upper = 1.0 if correlation.ci_high is None else correlation.ci_high
    passed = upper < MAX_RANDOM_CORRELATION if _has_several(clusters) else None
    return RandomWeightsCheck(rank_correlation=correlation, draws=N_RANDOMIZATIONS, passed=passed)


def _check_covering(curve: Floats, random: Floats, clusters: Ints, sign: int) -> CoveringCheck:
    """Compare curves with those of a random order; `sign` is that of a difference which passes."""
    difference = _mean((curve - random).mean(axis=1), clusters)
    passed = difference.has_interval and min(sign * end for end in difference.ends) > 0
    return CoveringCheck(
        share=np.linspace(0, 1, curve.shape[1]).tolist(),
        curve=curve.mean(axis=0).tolist(),
        random=random.mean(axis=0).tolist(),
        difference=difference,
        passed=passed if _has_several(clusters) else None,
    )


def _has_several(clusters: Ints) -> bool:
    """Return whether the faces are of several people; one person gives no interval, so that no check is determined."""
    return len(np.unique(clusters)) > 1


def _random_networks(target: AttributionTarget, data: FaceDataset, seed: int) -> list[NetworkTarget]:
    """Return networks with random weights; none for an estimator without a network."""
    if not isinstance(target, NetworkTarget):
        return []
    images = target.normalize(torch.from_numpy(data.pixels[data.rows]).to(target.device))
    return [_randomize_weights(target, images, derive_seed(seed, "sanity", draw)) for draw in range(N_RANDOMIZATIONS)]


def pool_to_cells(maps: np.ndarray) -> np.ndarray:
    """Return the absolute mean attribution of each cell.

    The mean is taken before the absolute value, because the absolute attributions of integrated gradients follow the
    contrast of the image for any weights.

    Args:
        maps: (N, S, S) signed maps.

    Returns:
        (N, GRID_SIZE, GRID_SIZE).
    """
    pooled: np.ndarray = F.adaptive_avg_pool2d(torch.from_numpy(maps)[:, None], GRID_SIZE)[:, 0].abs().numpy()
    return pooled


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Floats:
    """Compute Spearman's rank correlation over the cells of two maps of the same face.

    Args:
        first: (N, S, S) signed maps.
        second: (N, S, S) signed maps of the same faces.

    Returns:
        (N,) correlations; 0 if one of the maps is constant.
    """
    ranks = [stats.rankdata(pool_to_cells(maps).reshape(len(maps), -1), axis=1) for maps in (first, second)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    rho: Floats = np.where(spread > 0, (a * b).sum(axis=1) / np.where(spread > 0, spread, 1), 0.0)
    return rho


def _curves(target: AttributionTarget, data: FaceDataset, order: np.ndarray) -> tuple[Floats, Floats]:
    """Compute deletion and insertion curves.

    Deletion covers cells with the mean color of the normalization; insertion starts from a covered image and uncovers cells.

    Args:
        target: the network and the explained quantity.
        data: N faces.
        order: (N, GRID_SIZE²) the cells in the order in which they are covered or uncovered.

    Returns:
        The deletion and the insertion curves, each (N, 1 + GRID_SIZE² / DELETION_STEP): the absolute difference in years from
        the prediction for the uncovered face.
    """
    size = data.pixels.shape[1]
    rank = np.argsort(order, axis=1).reshape(len(data), GRID_SIZE, GRID_SIZE)
    rank_maps = F.interpolate(torch.from_numpy(rank).float()[:, None], (size, size), mode="nearest")
    curves: tuple[list[Tensor], list[Tensor]] = ([], [])
    start = 0
    for faces, _ in iter_batches(data, np.arange(len(data)), 64, target.device):
        images = target.normalize(faces)
        batch_ranks = rank_maps[start : start + len(faces)].to(images.device)
        start += len(faces)
        with torch.inference_mode():
            full = target.ages(images)
            for ages, covers in zip(curves, (True, False), strict=True):
                points = [
                    (target.ages(images * ((batch_ranks >= count) if covers else (batch_ranks < count))) - full).abs()
                    for count in range(0, GRID_SIZE**2 + 1, DELETION_STEP)
                ]
                ages.append(torch.stack(points, dim=1).cpu())
    deletion, insertion = (torch.cat(ages).double().numpy() for ages in curves)
    return deletion, insertion


def _mean(values: Floats, clusters: Ints, resamples: int = 1000) -> AnalysisMetricValue:
    """Return the mean of `values` (N,) with its bootstrap interval."""
    features = np.stack([np.ones(len(values)), values], axis=1)
    bootstrap = ClusterBootstrap(features, [np.zeros(len(values), dtype=np.int64)], clusters).replicates(
        lambda sums: sums[0][0, 1:] / sums[0][0, :1], resamples=resamples, seed=0
    )
    people = np.array([bootstrap.clusters])
    (mean,) = metric_values([("0", "mean_change")], bootstrap, clusters=people).values()
    return AnalysisMetricValue(value=mean.value, ci_low=mean.ci_low, ci_high=mean.ci_high)
