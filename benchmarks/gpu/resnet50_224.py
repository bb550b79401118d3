"""ResNet-50 at 224 px in bf16 on a GPU: images per second of the engine and of the bare model, and the errors of a short training.

    python benchmarks/gpu/resnet50_224.py [--minutes 8] [--out runs/gpu-resnet50-224]

The whole script stays below `--minutes`. Throughput needs no data. Where the datasets utk and fgnet are imported, the
remaining time trains on UTKFace and tests on both; the number of epochs follows from the measured throughput. Without a GPU it
needs `--device cpu`, which is for testing the script itself. The results are printed, and written to OUT/gpu.json.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from agebench.cli import main as agebench
from agebench.config.cards.model import ModelCard
from agebench.data.storage.locate import dataset_dir
from agebench.registry.catalog import Catalog, load_catalog
from agebench.training.device import hardware_info
from agebench.utils.io import write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "perf"))
from training import bare, through_the_engine

N_TRAIN = 15_800  # images of UTKFace's training part
# Seconds for reading and aligning the faces once, testing, exporting and the report.
OVERHEAD_S = 150


def throughput(card: ModelCard, device: torch.device, batches: int, rounds: int) -> dict[str, float]:
    """Return the median images per second of both, in alternating rounds."""
    speeds: dict[str, list[float]] = {"bare": [], "engine": []}
    with tempfile.TemporaryDirectory() as temporary:
        for _ in range(rounds):
            speeds["bare"].append(bare(card, device, batches))
            speeds["engine"].append(through_the_engine(card, device, batches, Path(temporary)))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return medians | {"share": medians["engine"] / medians["bare"]}


def train(args: argparse.Namespace, catalog: Catalog, speed: float, seconds: float) -> dict[str, object]:
    """Train as long as the time allows, and return the metrics of both test sets; {} without data or time."""
    if not all(dataset_dir(catalog.datasets.get(name)).exists() for name in ("utk", "fgnet")):
        print("utk and fgnet are not imported (agebench data import): throughput only", file=sys.stderr)
        return {}
    epochs = min(20, int((seconds - OVERHEAD_S) * speed / N_TRAIN))
    if epochs < 1:
        print("no time is left for an epoch: throughput only", file=sys.stderr)
        return {}
    settings = [
        f"model.size={args.size}",
        f"train.epochs={epochs}",
        "train.precision=bf16",
        f"train.batch_size={args.batch}",
    ]
    words = [
        "run",
        "--train",
        "utk",
        "--test",
        "utk",
        "--test",
        "fgnet",
        "--model",
        "resnet50",
        "--device",
        args.device,
    ]
    words += [word for setting in settings for word in ("--set", setting)] + ["--out", str(args.out)]
    if not args.pretrained:
        words.append("--no-pretrained")
    if agebench(words):
        raise SystemExit("the training failed")
    metrics = json.loads((args.out / "metrics.json").read_text())
    tests = {name: test["overall"]["mae"] for name, test in metrics["tests"].items()}
    return {"epochs": epochs, "pretrained": args.pretrained or "random weights", "mae": tests}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of the whole script (default: 8)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-resnet50-224"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=40, help="batches of a round of the throughput")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pretrained", default="", help="weights as of `agebench run --pretrained` (default: random)")
    args = parser.parse_args()
    started = time.perf_counter()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no GPU is here; --device cpu tests the script itself")
    device, catalog = torch.device(args.device), load_catalog()
    card = catalog.models.get("resnet50")
    assert isinstance(card, ModelCard)
    recipe = card.train.model_copy(update={"batch_size": args.batch, "precision": "bf16"})
    card = card.model_copy(update={"size": args.size, "train": recipe})
    speeds = throughput(card, device, args.batches, args.rounds)
    print(f"bare {speeds['bare']:,.0f}, engine {speeds['engine']:,.0f} images/s: {speeds['share']:.1%}")
    result = {
        "hardware": hardware_info(device),
        "size": args.size,
        "batch": args.batch,
        "precision": "bf16",
        "images_per_s": speeds,
        "training": train(args, catalog, speeds["engine"], 60 * args.minutes - (time.perf_counter() - started)),
        "minutes": (time.perf_counter() - started) / 60,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "gpu.json", result)
    print(json.dumps(result, indent=2, default=str))


if __name__ == "__main__":
    main()
