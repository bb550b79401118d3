"""A whole stress test's asking against plain passes of the same model, in one run.

    python benchmarks/perf/stress.py [--model efficientnet_lite0] [--size 64] [--images 128] [--device auto]

Plain: one evaluation pass for each corrupted one, on batches that are normalized already and on the device.
Stressed: `agebench.analysis.robustness.evaluate.predict_corrupted`, with corrupting, rounding and
normalizing. Untrained weights: the work is the same.
"""

import argparse
import time

import numpy as np
import torch

from agebench.analysis.robustness import evaluate
from agebench.analysis.robustness.corruptions import CORRUPTIONS
from agebench.estimators.trained import TrainedEstimator
from agebench.models.age_model import create_model
from agebench.registry.catalog import load_catalog
from agebench.training.augmentation import normalize
from agebench.training.dataloader import FaceDataset
from agebench.training.device import autocast, resolve_device


def main() -> None:
    """Print both times, on the wall and of the processor, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--corruptions", type=int, default=14)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    card = load_catalog().network(options.model).architecture.model_copy(update={"size": options.size})
    device = resolve_device(options.device)
    trained = TrainedEstimator(create_model(card).to(device).eval(), card, device)
    shape = (options.images, card.size, card.size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = FaceDataset(pixels, np.arange(options.images), np.full(options.images, 30, np.float32))
    chosen = CORRUPTIONS[: options.corruptions]
    passes = sum(len(corruption.severities) for corruption in chosen)
    images = [
        normalize(torch.from_numpy(part).to(device), card.mean, card.std)
        for part in np.array_split(pixels, -(-options.images // evaluate.BATCH_SIZE))
    ]

    def plain() -> None:
        with torch.inference_mode(), autocast(device, trained.precision):
            for part in images:
                trained.model(part)
        if device.type == "cuda":
            torch.cuda.synchronize()

    plain()
    start, busy = time.perf_counter(), time.process_time()
    for _ in range(passes):
        plain()
    model, model_busy = time.perf_counter() - start, time.process_time() - busy
    start, busy = time.perf_counter(), time.process_time()
    evaluate.predict_corrupted(trained, data, chosen)
    whole, whole_busy = time.perf_counter() - start, time.process_time() - busy
    print(
        f"{card.name} at {card.size} px, {options.images} faces, {len(chosen)} corruptions, {passes} passes, {device}"
    )
    print(f"plain passes: {model:.1f} s (processor {model_busy:.1f} s)")
    print(f"stress:       {whole:.1f} s (processor {whole_busy:.1f} s)")
    print(f"stress / plain = {whole / model:.2f} (processor {whole_busy / model_busy:.2f})")


if __name__ == "__main__":
    main()
