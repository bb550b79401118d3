"""Frames a second from end to end, stage by stage, of a video and of a camera; and estimation alone, in every format.

    python benchmarks/perf/realtime.py [--model efficientnet_lite0] [--video FILE] [--frames 300] [--format onnx]

Video: the work of `agebench predict FILE --annotate-dir DIR`, by `agebench.inference.batch_predict`. Without --video
it is made here: 1280 x 720,
two generated faces that move. Camera: the same frames, offered 30 times a second; one that is not taken in time is lost, as
a camera loses it. Untrained weights: the work is the same.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from agebench.data.readers.synth import SynthReader
from agebench.estimators.exported.loading import open_exported
from agebench.export.benchmark import measure_speed
from agebench.export.card import RunFacts, build_card
from agebench.export.writer import ExportVariant, write_export
from agebench.inference.batch_predict import PredictOptions, predict_all
from agebench.inference.formatting import format_timing
from agebench.inference.input_sources import InputItem
from agebench.inference.predictor import Predictor, load
from agebench.inference.video import VideoWriter, open_video
from agebench.metrics.schema import MetricsFile
from agebench.models.age_model import create_model
from agebench.registry.catalog import load_catalog

RATE = 30
FORMATS = ("torchscript", "onnx", "pt2")
# (search, every), as the options of these names
WAYS = ((0, 1), (640, 1), (0, 5), (640, 5))


def main() -> None:
    """Print the frames a second of each way to look for faces, then the faces a second of each format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--video", metavar="FILE")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="of the model that sees the video")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = export(options.model, Path(folder))
        film = options.video or str(make_film(Path(folder, "film.mp4"), options.frames))
        with load(files[options.format], trusted=True) as predictor:
            for search, every in WAYS:
                job = PredictOptions(
                    search=search, every=every, frames=options.frames, draw=Path(folder, "drawn"), level=None
                )
                done = predict_all(predictor, [InputItem("video", (film,), 1)], job, lambda rows: None)
                print(f"--detect-size {search} --detect-every {every}: {done.faces / done.images:.2f} faces a frame")
                print(f"  video:  {format_timing(done.videos[0]).removeprefix(f'{film}: ')}")
                print(f"  camera: {camera_in_words(predictor, job, film)}", flush=True)
        threads = f"{torch.get_num_threads()} thread(s), {len(os.sched_getaffinity(0))} core(s)"
        print(f"estimation alone, {options.model}, {threads}: faces/s")
        for kind, file in files.items():
            speed = measure_speed(open_exported(file, trusted=True), generated_faces(32), seconds=3, batch=32)
            print(f"  {kind:<12} one by one {speed['batch_1'].images_per_s:7.1f}, 32 at once ", end="")
            print(f"{speed['batch_32'].images_per_s:7.1f}", flush=True)


def export(name: str, folder: Path) -> dict[str, Path]:
    """Format -> file."""
    card = load_catalog().network(name).architecture
    model = create_model(card).eval()
    model.head.init_from_ages(torch.tensor([10.0, 30.0, 80.0]))
    files = {}
    for kind in FORMATS:
        variant = ExportVariant(kind, "fp32")
        files[kind] = folder / variant.file
        about = build_card(model, card, load_catalog().datasets.get("synth"), RunFacts(seed=0), MetricsFile())
        write_export(model, card, about, files[kind], examples=generated_faces(8), variant=variant)
    return files


def camera_in_words(predictor: Predictor, job: PredictOptions, film: str, seconds: float = 15.0) -> str:
    """Measure a camera: frames a second, and how old a frame is when its answer is there."""
    with open_video(film) as video:
        frames = [frame.pixels for frame in video.frames(30)]
    taken: list[float] = []
    answered: list[float] = []

    def camera() -> Iterator[np.ndarray]:
        """Until `seconds` after the first answer; before it, processes start."""
        start, last = time.perf_counter(), -1
        while not answered or time.perf_counter() < answered[0] + seconds:
            passed = time.perf_counter() - start
            number = int(passed * RATE)
            if number == last:
                time.sleep(max(0.0, (number + 1) / RATE - passed))
                continue
            last = number
            taken.append(time.perf_counter())
            yield frames[number % len(frames)]

    for _ in job.stream(predictor, camera(), every=job.every):
        answered.append(time.perf_counter())  # noqa: PERF401 - the camera reads it meanwhile
    late = [done - came for came, done in zip(taken, answered, strict=True) if came > answered[0]]
    rate = (len(answered) - 1) / (answered[-1] - answered[0])
    return f"{rate:.1f} of {RATE} frames/s are answered, {statistics.median(late):.2f} s after they were taken (median)"


def make_film(path: Path, frames: int) -> Path:
    """Two generated faces that move before an image of noise."""
    generator = np.random.default_rng(0)
    noise = generator.integers(60, 200, (9, 16, 3), dtype=np.uint8)
    background = Image.fromarray(noise).resize((1280, 720), Image.Resampling.BICUBIC)
    faces = [Image.fromarray(face).resize((320, 320)) for face in generated_faces(2, 200)]
    film = VideoWriter(path, Fraction(RATE))
    for number in range(frames):
        picture = background.copy()
        for place, face in enumerate(faces):
            sway = round(80 * np.sin(number / 15 + place))
            picture.paste(face, (140 + 600 * place + sway, 180 + sway // 2))
        film.write(picture)
    film.close()
    return path


def generated_faces(count: int, size: int = 112) -> np.ndarray:
    """(count, size, size, 3) uint8."""
    reader = SynthReader(None, count=count, size=size)
    pictures = [Image.open(io.BytesIO(reader.image_bytes(path))) for path in reader.read().table["path"]]
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])


if __name__ == "__main__":
    main()
