"""Speed of exported files, for one face at a time and for batches."""

import time

import numpy as np

from agebench.estimators.exported.base import BATCH_SIZE, ExportedFile
from agebench.export.schema import SpeedSummary

# TorchScript profiles its first calls with each shape, and recompiles after them.
_WARM_UP = 3
_MIN_CALLS, _MAX_CALLS = 5, 200


def measure_speed(
    file: ExportedFile, faces: np.ndarray, *, seconds: float = 1.0, batch: int = BATCH_SIZE
) -> dict[str, SpeedSummary]:
    """Measure estimation alone, from uint8 pixels in memory to ages in memory, after a warm-up.

    Args:
        file: the opened file.
        faces: (n, S, S, 3) uint8 of the network's size; repeated to fill a batch.
        seconds: approximate duration of each of the two measurements.
        batch: batch size.

    Returns:
        `batch_1`, with the 95th percentile, and `batch_<batch>`.
    """
    planar = np.ascontiguousarray(np.resize(faces, (batch, *faces.shape[1:])).transpose(0, 3, 1, 2))
    single, batched = _time_calls(file, planar[:1], seconds), _time_calls(file, planar, seconds)
    return {
        "batch_1": SpeedSummary(**_summary(single, 1), p95_ms=_ms(float(np.percentile(single, 95)))),
        f"batch_{batch}": SpeedSummary(**_summary(batched, batch)),
    }


def _time_calls(file: ExportedFile, images: np.ndarray, seconds: float) -> list[float]:
    for _ in range(_WARM_UP):
        _time_call(file, images)
    durations: list[float] = []
    while len(durations) < _MIN_CALLS or (sum(durations) < seconds and len(durations) < _MAX_CALLS):
        durations.append(_time_call(file, images))
    return durations


def _time_call(file: ExportedFile, images: np.ndarray) -> float:
    start = time.perf_counter()
    file.run(images)
    return time.perf_counter() - start


def _summary(durations: list[float], batch: int) -> dict[str, float]:
    median = float(np.median(durations))
    return {"median_ms": _ms(median), "images_per_s": round(batch / median, 1)}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
