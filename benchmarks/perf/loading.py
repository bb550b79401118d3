"""From cache to training batch, against the per-image PIL pipeline, in one run.

    python benchmarks/perf/loading.py [--size 128] [--count 600] [--threads 1]

PIL: JPEG of 200 px -> Resize, flip, rotation, ColorJitter, ToTensor, Normalize, image by image (torchvision).
Here: random rows of the memory-mapped cache -> the same changes, batch by batch; and without any change.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from agebench.config.cards.model import Augment
from agebench.data.readers import readers
from agebench.training.augmentation import Augmenter, normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 64


def rate(work: Callable[[], int]) -> float:
    """Images a second of one call."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def main() -> None:
    """Print three speeds and the ratios, medians over five rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reader = readers.get("synth")(None, (), count=options.count, size=200)
    jpegs, faces = [], []
    for path in reader.read().table["path"]:
        image, file = Image.open(io.BytesIO(reader.image_bytes(path))), io.BytesIO()
        image.save(file, "JPEG", quality=92)
        jpegs.append(file.getvalue())
        faces.append(np.asarray(image.resize((options.size, options.size))))
    pipeline = transforms.Compose(
        [
            transforms.Resize((options.size, options.size)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(15),
            transforms.ColorJitter(brightness=0.5, saturation=0.5, hue=0.1),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    augment, generator = Augmenter(Augment(), MEAN, STD), torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        np.stack(faces).tofile(Path(folder, "faces.u8"))
        cache = np.memmap(Path(folder, "faces.u8"), np.uint8, "r").reshape(-1, options.size, options.size, 3)

        def per_image() -> int:
            for jpeg in jpegs:
                pipeline(Image.open(io.BytesIO(jpeg)).convert("RGB"))
            return len(jpegs)

        def batched(change: Callable[[torch.Tensor], torch.Tensor], repeats: int) -> int:
            done = 0
            for number in range(repeats):
                order = np.random.default_rng(number).permutation(len(cache))
                for start in range(0, len(order), BATCH):
                    done += len(change(torch.from_numpy(cache[order[start : start + BATCH]])))
            return done

        rounds = [
            (
                rate(per_image),
                rate(lambda: batched(lambda images: augment(images, generator), 4)),
                rate(lambda: batched(lambda images: normalize(images, MEAN, STD), 8)),
            )
            for _ in range(5)
        ]
    pil, augmented, plain = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{options.size} px, {options.threads} thread(s), medians of {len(rounds)} rounds")
    print(f"PIL, image by image:       {pil:8.0f} images/s")
    print(f"batched, augmented:        {augmented:8.0f} images/s, {augmented / pil:.1f} x PIL")
    print(f"batched, not augmented:    {plain:8.0f} images/s, {plain / pil:.1f} x PIL")


if __name__ == "__main__":
    main()
