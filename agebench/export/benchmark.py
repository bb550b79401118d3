"""How fast an exported file answers: one face at a time, and many."""

import time
from typing import Any

import numpy as np

from agebench.estimators.exported.base import BATCH_SIZE, ExportedFile

# TorchScript watches its first calls and compiles again after them, for every shape.
_WARM_UP = 3
_FEWEST, _MOST = 5, 200


def measure_speed(
    file: ExportedFile, faces: np.ndarray, *, seconds: float = 1.0, batch: int = BATCH_SIZE
) -> dict[str, Any]:
    """Estimation alone, from uint8 pixels in memory to answers in memory, when the runtime is warm.

    Args:
        file: opened.
        faces: (n, S, S, 3) uint8 of the network's size; repeated to fill a batch.
        seconds: about so long each of both is measured.
        batch: how many faces are many.

    Returns:
        batch_1: {median_ms, images_per_s, p95_ms}, batch_64 (or what `batch` is): {median_ms, images_per_s}.
    """
    planar = np.ascontiguousarray(np.resize(faces, (batch, *faces.shape[1:])).transpose(0, 3, 1, 2))
    one, many = _repeated(file, planar[:1], seconds), _repeated(file, planar, seconds)
    return {
        "batch_1": _summary(one, 1) | {"p95_ms": _ms(float(np.percentile(one, 95)))},
        f"batch_{batch}": _summary(many, batch),
    }


def _repeated(file: ExportedFile, images: np.ndarray, seconds: float) -> list[float]:
    for _ in range(_WARM_UP):
        _once(file, images)
    taken: list[float] = []
    while len(taken) < _FEWEST or (sum(taken) < seconds and len(taken) < _MOST):
        taken.append(_once(file, images))
    return taken


def _once(file: ExportedFile, images: np.ndarray) -> float:
    start = time.perf_counter()
    file.run(images)
    return time.perf_counter() - start


def _summary(taken: list[float], batch: int) -> dict[str, float]:
    median = float(np.median(taken))
    return {"median_ms": _ms(median), "images_per_s": round(batch / median, 1)}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
