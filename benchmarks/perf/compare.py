"""Compare agebench with the packages that its users would use otherwise, side by side in one run.

    OMP_NUM_THREADS=1 python benchmarks/perf/compare.py [--quick] [--only bootstrap] [--repeats 3] [--page FILE]

Each repetition calls agebench and its peers one after the other, so that all of them see the same machine; the medians of
the processor times are compared. A peer that is slow does a share of the work, and its time is scaled. Peers that are
not installed are named and skipped. The results replace the tables of docs/explanation/performance.md; `--quick` takes
small data and writes nothing.
"""

import argparse
import importlib
import importlib.metadata
import io
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from agebench.utils.marked_text import write_marked

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
LEVEL = 0.9


@dataclass(frozen=True)
class Peer:
    """Another way to do the work.

    Attributes:
        name: its name in the table.
        packages: the packages that it needs: distribution -> module.
        run: does the work; its result is the number of repetitions of the whole work that it did, such as 0.01.
    """

    name: str
    packages: Mapping[str, str]
    run: Callable[[], float]


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        name: its name for `--only`.
        title: the work and the size of the data, in words.
        run: does it with agebench.
        peers: does it otherwise.
        notes: differences between the two, in words.
    """

    name: str
    title: str
    run: Callable[[], float]
    peers: Sequence[Peer]
    notes: str = ""


@dataclass
class Timing:
    """Seconds of processor time, one entry per repetition; `error` if the work cannot be done."""

    seconds: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.seconds)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure, print the ratios, write the page; return work -> peer -> ratio of its time to agebench's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=tuple(WORKS), default=list(WORKS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    ratios: dict[str, dict[str, float]] = {}
    lines = ["| work | agebench | against | its time | ratio |", "|---|---:|---|---:|---:|"]
    notes = []
    for name in arguments.only:
        work = WORKS[name](arguments.quick)
        own, others = measure(work, 1 if arguments.quick else arguments.repeats)
        ratios[name] = {peer: timing.median / own.median for peer, timing in others.items() if not timing.error}
        for row, (peer, timing) in enumerate(others.items()):
            start = f"| {work.title} | {as_time(own.median)} " if row == 0 else "| | "
            if timing.error:
                lines.append(f"{start}| {peer} | {timing.error} | |")
            else:
                lines.append(f"{start}| {peer} | {as_time(timing.median)} | {ratios[name][peer]:,.3g} |")
            print(lines[-1], flush=True)
        notes += [f"- {work.title}: {work.notes}"] if work.notes else []
    if not arguments.quick and set(arguments.only) == set(WORKS):
        write_marked(arguments.page, "measured", "\n".join([environment(), "", *lines, "", *notes]))
        print(f"{arguments.page} is written")
    return ratios


def measure(work: Work, repeats: int) -> tuple[Timing, dict[str, Timing]]:
    """Time agebench and its peers in turn; the first call of each, which loads and compiles, does not count."""
    own, others = Timing(), {peer.name: Timing() for peer in work.peers}
    for peer in work.peers:
        for distribution, module in peer.packages.items():
            try:
                importlib.import_module(module)
            except Exception as error:  # a peer's import may fail in any way
                others[peer.name].error = f"skipped: {distribution} cannot be imported ({type(error).__name__})"
    runners = [(own, work.run)]
    runners += [(others[peer.name], peer.run) for peer in work.peers if not others[peer.name].error]
    for repetition in range(repeats + 1):
        for timing, run in runners:
            if timing.error:
                continue
            start = time.process_time()
            try:
                share = run()
            except Exception as error:
                if timing is own:
                    raise
                timing.error = f"skipped: it fails ({type(error).__name__}: {str(error)[:80]})"
                continue
            if repetition:
                timing.seconds.append((time.process_time() - start) / share)
    return own, others


def as_time(seconds: float) -> str:
    """Return a duration in words."""
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{1000 * seconds:,.3g} ms"


def environment() -> str:
    """Return the machine and the versions that matter."""
    path = Path("/proc/cpuinfo")
    info = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    names = ("numpy", "scipy", "torch", "pillow", *sorted({name for work in PEER_PACKAGES for name in work}))
    versions = [f"{name} {version}" for name in dict.fromkeys(names) if (version := version_of(name))]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return f"{model}, OMP_NUM_THREADS = {threads}, Python {platform.python_version()}; {', '.join(versions)}."


def version_of(name: str) -> str:
    """Return the version of a distribution; empty if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def predictions(rows: int, groups: int = 12, seed: int = 0) -> pd.DataFrame:
    """Return made-up labels and predictions whose errors grow with age."""
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 100, rows).astype(float)
    std = 2 + age / 20
    return pd.DataFrame(
        {
            "sample_id": np.arange(rows).astype(str),
            "age": age,
            "age_pred": age + rng.normal(0, std),
            "age_std": std,
            "group": rng.integers(0, groups, rows).astype(str),
        }
    )


FAIRLEARN = {"fairlearn": "fairlearn.metrics"}


def bootstrap_work(quick: bool) -> Work:
    """MAE overall and by 12 groups with 95 % intervals."""
    from agebench.metrics.bootstrap import ClusterBootstrap

    rows, resamples = (2_000, 200) if quick else (20_000, 1000)
    table = predictions(rows)
    age, predicted = table["age"].to_numpy(), table["age_pred"].to_numpy()
    codes = table["group"].astype(int).to_numpy()
    subsets = [np.arange(rows), *(np.flatnonzero(codes == group) for group in range(12))]

    def own() -> float:
        features = np.column_stack([np.ones(rows), np.abs(predicted - age)])
        groupings = [np.zeros(rows, dtype=np.int64), codes]
        ClusterBootstrap(features, groupings, np.arange(rows)).replicates(
            lambda sums: np.concatenate([of[:, 1] / of[:, 0] for of in sums]), resamples=resamples, seed=0
        )
        return 1.0

    def fairlearn() -> float:
        from fairlearn.metrics import MetricFrame
        from sklearn.metrics import mean_absolute_error

        MetricFrame(
            metrics=mean_absolute_error,
            y_true=age,
            y_pred=predicted,
            sensitive_features=codes,
            n_boot=3,
            ci_quantiles=[0.025, 0.975],
            random_state=0,
        )
        return 4 / resamples  # three resamples, and the data themselves

    def scipy_bootstrap() -> float:
        from scipy.stats import bootstrap

        for subset in subsets:
            errors = np.abs(predicted - age)[subset]
            bootstrap((errors,), np.mean, n_resamples=20, batch=20, method="percentile", rng=0)
        return 20 / resamples

    def confidence_interval() -> float:
        from confidenceinterval.bootstrap import bootstrap_ci
        from sklearn.metrics import mean_absolute_error

        for subset in subsets:
            bootstrap_ci(
                age[subset], predicted[subset], mean_absolute_error, n_resamples=10, method="bootstrap_percentile"
            )
        return 10 / resamples

    def torchmetrics() -> float:
        import torch
        from torchmetrics import MeanAbsoluteError
        from torchmetrics.wrappers import BootStrapper

        for subset in subsets:
            metric = BootStrapper(MeanAbsoluteError(), num_bootstraps=20, sampling_strategy="multinomial")
            metric.update(torch.from_numpy(predicted[subset]), torch.from_numpy(age[subset]))
            metric.compute()
        return 20 / resamples

    peers = (
        Peer("fairlearn MetricFrame", FAIRLEARN, fairlearn),
        Peer("scipy.stats.bootstrap", {"scipy": "scipy.stats"}, scipy_bootstrap),
        Peer("confidenceinterval", {"confidenceinterval": "confidenceinterval.bootstrap"}, confidence_interval),
        Peer("torchmetrics BootStrapper", {"torchmetrics": "torchmetrics"}, torchmetrics),
    )
    title = f"bootstrap of MAE, {rows:,} rows, overall and 12 groups, B = {resamples:,}"
    return Work("bootstrap", title, own, peers, "The peers compute a share of the resamples; their time is scaled.")


def score_work(quick: bool) -> Work:
    """Everything that `evaluate` computes, against MAE alone."""
    from agebench.metrics.evaluate import evaluate

    rows, resamples = (2_000, 200) if quick else (20_000, 1000)
    table = predictions(rows).drop(columns="age_std")

    def own() -> float:
        evaluate(table, groups=["group"], resamples=resamples)
        return 1.0

    peers = bootstrap_work(quick).peers[:2]
    note = "agebench computes every metric, gap and test of `agebench score`; the peers compute the MAE alone."
    return Work("score", f"all of `score`, {rows:,} rows, 12 groups, B = {resamples:,}", own, peers, note)


def corruption_work(quick: bool) -> Work:
    """Corrupt aligned faces at five strengths."""
    import torch

    from agebench.analysis.robustness.corruptions import CORRUPTIONS, CorruptionContext, to_float_images, to_uint8

    broken: set[str] = set()
    faces = drawn_faces(8 if quick else 64, 112)
    used = CORRUPTIONS[:3] if quick else CORRUPTIONS

    def own() -> float:
        images = to_float_images(torch.from_numpy(faces))
        for corruption in used:
            for strength in corruption.severities:
                generator = torch.Generator().manual_seed(0)
                draws = torch.rand(len(images), generator=generator)
                to_uint8(corruption.change(images, strength, CorruptionContext(1.0, draws, generator)))
        return len(faces) * sum(len(corruption.severities) for corruption in used) / 1000

    def imagecorruptions() -> float:
        from imagecorruptions import corrupt, get_corruption_names

        names = get_corruption_names()[:3] if quick else get_corruption_names()
        for name in [name for name in names if name not in broken]:
            for severity in range(1, 6):
                try:
                    corrupt(faces[0], severity, corruption_name=name)
                except (TypeError, AttributeError):  # it was written for an earlier scikit-image and numpy
                    broken.add(name)
                    break
        return (len(names) - len(broken)) * 5 / 1000

    peers = (Peer("imagecorruptions", {"imagecorruptions": "imagecorruptions"}, imagecorruptions),)
    note = f"{len(used)} corruptions here, 15 there without those that fail with the installed scikit-image, five strengths."
    return Work("corruptions", "1,000 corrupted faces of 112 px, mean over corruptions", own, peers, note)


def conformal_work(quick: bool) -> Work:
    """Split-conformal intervals and their coverage on a test set."""
    from agebench.metrics.uncertainty import conformal

    rows = 2_000 if quick else 20_000
    calibration, test = (predictions(rows, seed=seed).drop(columns="age_std") for seed in (1, 2))
    ages = [table["age"].to_numpy() for table in (calibration, test)]
    estimates = [table["age_pred"].to_numpy() for table in (calibration, test)]

    def own() -> float:
        conformal(calibration, test, levels=(LEVEL,))
        return 1.0

    def mapie() -> float:
        from mapie.regression import SplitConformalRegressor
        from sklearn.dummy import DummyRegressor

        class Identity(DummyRegressor):  # type: ignore[misc]
            """A fitted model whose prediction is its only feature."""

            def predict(self, features: Any) -> Any:
                """Return the feature."""
                return np.asarray(features)[:, 0]

        model = Identity().fit(estimates[0][:, None], ages[0])
        regressor = SplitConformalRegressor(model, confidence_level=LEVEL, prefit=True)
        regressor.conformalize(estimates[0][:, None], ages[0])
        _, intervals = regressor.predict_interval(estimates[1][:, None])
        coverage(intervals[:, :, 0])
        return 1.0

    def crepes() -> float:
        from crepes import ConformalRegressor

        regressor = ConformalRegressor().fit(ages[0] - estimates[0])
        coverage(np.asarray(regressor.predict_int(estimates[1], confidence=LEVEL)))
        return 1.0

    def coverage(intervals: np.ndarray) -> float:
        return float(np.mean((intervals[:, 0] <= ages[1]) & (ages[1] <= intervals[:, 1])))

    peers = (
        Peer("MAPIE", {"mapie": "mapie.regression"}, mapie),
        Peer("crepes", {"crepes": "crepes"}, crepes),
    )
    note = "agebench adds the interval of the coverage, and weighs people where subjects are known."
    return Work("conformal", f"conformal intervals, {rows:,} + {rows:,} rows", own, peers, note)


def calibration_work(quick: bool) -> Work:
    """Coverage and likelihood of predicted normal distributions."""
    from agebench.metrics.uncertainty import score_gaussian

    rows = 2_000 if quick else 20_000
    table = predictions(rows)
    age, mean, std = (table[name].to_numpy() for name in ("age", "age_pred", "age_std"))
    levels = [round(0.05 * step, 2) for step in range(1, 20)]

    def own() -> float:
        scores = score_gaussian(age, mean, std)
        scores.nll.mean()
        for level in levels:
            scores.covered(level).mean()
        return 1.0

    def netcal() -> float:
        from netcal.metrics.regression import NLL, PICP

        NLL().measure((mean, std), age, reduction="mean")
        PICP(bins=1).measure((mean, std), age, q=levels, kind="meanstd")
        return 1.0

    peers = (Peer("netcal NLL and PICP", {"netcal": "netcal.metrics.regression"}, netcal),)
    return Work("calibration", f"likelihood and coverage at 19 levels, {rows:,} rows", own, peers)


def duplicate_work(quick: bool) -> Work:
    """Find planted copies of faces: encoded again, reduced, mirrored and cropped."""
    from agebench.data.audit.near_duplicates import near_duplicates
    from agebench.data.audit.thumbnails import THUMBNAIL_SIDE, to_gray_square

    originals, source = faces_of_people(60 if quick else 1_000)
    images = [*originals, *(copy for image in originals[: len(originals) // 4] for copy in copies_of(image))]
    arrays = [np.asarray(image) for image in images]
    found: dict[str, str] = {}

    def note(name: str, pairs: set[tuple[int, int]]) -> None:
        found[name] = f"{name} {100 * recall(pairs, len(originals)):.0f} % ({len(pairs):,} pairs)"

    def own() -> float:
        pairs, _ = near_duplicates(np.stack([to_gray_square(image, THUMBNAIL_SIDE) for image in images]))
        matches = pairs.similarity >= 0.88
        note("agebench", set(zip(pairs.first[matches].tolist(), pairs.second[matches].tolist(), strict=True)))
        return 1.0

    def imagededup(distance: int) -> float:
        from imagededup.methods import PHash

        hasher = PHash(verbose=False)
        codes = {str(row): hasher.encode_image(image_array=array) for row, array in enumerate(arrays)}
        others = hasher.find_duplicates(encoding_map=codes, max_distance_threshold=distance, num_dist_workers=0)
        pairs = {(int(row), int(other)) for row, names in others.items() for other in names if int(row) < int(other)}
        note(f"PHash up to {distance} bits", pairs)
        return 1.0

    peers = [
        Peer(
            f"imagededup PHash, up to {distance} bits",
            {"imagededup": "imagededup.methods"},
            partial(imagededup, distance),
        )
        for distance in (10, 28)
    ]
    own()
    with suppress(ImportError):
        for peer in peers:
            peer.run()
    title = f"near duplicates of {len(images):,} {source}, a quarter of them copied in four ways"
    return Work("duplicates", title, own, peers, f"of the planted copies are found by {', '.join(found.values())}.")


def faces_of_people(count: int) -> tuple[list[Image.Image], str]:
    """Return faces of UTKFace where AGEBENCH_TEST_DATA holds it, else generated ones, which look more alike; and their name."""
    archive = Path(os.environ.get("AGEBENCH_TEST_DATA", ""), "UTKFace.tar.gz")
    if not archive.is_file():
        return [Image.fromarray(face) for face in drawn_faces(count, 128)], "generated faces"
    faces: list[Image.Image] = []
    with tarfile.open(archive) as members:
        for member in members:
            file = members.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                faces.append(Image.open(io.BytesIO(file.read())).convert("RGB"))
            if len(faces) == count:
                break
    return faces, "faces of UTKFace"


def copies_of(image: Image.Image) -> Iterator[Image.Image]:
    """Yield an image encoded again, reduced, mirrored and cropped by 8 % a side."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    yield Image.open(buffer).convert("RGB")
    yield image.resize((64, 64))
    yield image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    edge = round(0.08 * image.width)
    yield image.crop((edge, edge, image.width - edge, image.height - edge))


def recall(pairs: set[tuple[int, int]], n_originals: int) -> float:
    """Return the share of the planted copies that are paired with their original."""
    planted = [(row // 4, n_originals + row) for row in range(n_originals // 4 * 4)]
    return sum(pair in pairs or pair[::-1] in pairs for pair in planted) / len(planted)


def training_work(quick: bool, *, model: str = "efficientnet_lite0", size: int = 112, count: int = 64) -> Work:
    """An epoch of training, images on disk against a face cache that is there already."""
    import torch

    from agebench.registry.catalog import load_catalog
    from agebench.training.callbacks import ConsoleCallback
    from agebench.training.dataloader import FaceDataset
    from agebench.training.trackers import TensorBoardTracker
    from agebench.training.trainer import Trainer

    card = load_catalog().network("tiny" if quick else model)
    architecture = card if quick else card.model_copy(update={"size": size})
    device = torch.device("cpu")
    recipe = card.train.model_copy(update={"batch_size": count // 2})
    folder = Path(tempfile.mkdtemp(prefix="agebench-compare-"))
    faces = drawn_faces(count, 200)
    paths = [folder / f"{row}.jpg" for row in range(count)]
    for face, path in zip(faces, paths, strict=True):
        Image.fromarray(face).save(path, quality=92)
    small = np.stack([np.asarray(Image.fromarray(face).resize((architecture.size,) * 2)) for face in faces])
    ages = np.linspace(1, 90, count, dtype=np.float32)
    data = FaceDataset(small, np.arange(count), ages)
    trainer = Trainer(new_model(architecture), architecture, recipe, seed=0, device=device, folder=folder)

    def own() -> float:
        with (
            closing(TensorBoardTracker(folder / "tensorboard")) as tracker,
            ConsoleCallback([tracker], quiet=True) as events,
        ):
            trainer.train_epoch(data, 1, events)
        return 1.0

    loop = Loop(architecture, recipe.batch_size, paths, ages)
    peers = (
        Peer("plain loop (PIL, torchvision, DataLoader)", {}, loop.plain()),
        Peer("Lightning, torchvision.transforms.v2", {"lightning": "lightning"}, loop.lightning()),
        Peer("loop of the CVPR 2024 benchmark", {"albumentations": "albumentations"}, loop.benchmark()),
    )
    note = (
        "the plain loop (AdamW, L1) and Lightning decode every image in every epoch. The benchmark's loop (Adam, cross-entropy) "
        "holds decoded images of 1.1 times the side in memory, augments them with albumentations (jitter, crop, flip), and "
        "computes an error in every step."
    )
    return Work("training", f"training {count} images, {card.name} at {architecture.size} px", own, peers, note)


def new_model(card: Any) -> Any:
    """Return an untrained model."""
    from agebench.models.age_model import create_model

    return create_model(card)


@dataclass(frozen=True)
class Loop:
    """Training loops that users would write, on the same images and network.

    Attributes:
        card: the network.
        batch: images a batch.
        paths: the image files.
        ages: their ages.
    """

    card: Any
    batch: int
    paths: Sequence[Path]
    ages: np.ndarray

    def plain(self) -> Callable[[], float]:
        """The loop of a PyTorch tutorial, written down again: PIL, torchvision's transforms, a DataLoader."""
        import torch
        from torchvision import transforms

        transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(10),
                transforms.ColorJitter(0.2, 0.2),
                transforms.Resize((self.card.size, self.card.size)),
                transforms.ToTensor(),
                transforms.Normalize(self.card.mean, self.card.std),
            ]
        )
        loader = self._loader(lambda row: transform(Image.open(self.paths[row]).convert("RGB")))
        model = new_model(self.card).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def epoch() -> float:
            for images, targets in loader:
                loss = model.head.loss(model(images), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return 1.0

        return epoch

    def lightning(self) -> Callable[[], float]:
        """An epoch of Lightning's Trainer, with torchvision's second transforms."""
        import torch
        from torchvision.transforms import v2

        transform = v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize((self.card.size, self.card.size), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomRotation(10),
                v2.ColorJitter(0.2, 0.2),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(self.card.mean, self.card.std),
            ]
        )
        loader = self._loader(lambda row: transform(Image.open(self.paths[row]).convert("RGB")))
        network = new_model(self.card)

        def epoch() -> float:
            import lightning

            class Module(lightning.LightningModule):
                """The network with its loss."""

                def __init__(self) -> None:
                    super().__init__()
                    self.network = network

                def training_step(self, batch: Any, index: int) -> Any:
                    """The loss of a batch."""
                    return self.network.head.loss(self.network(batch[0]), batch[1])

                def configure_optimizers(self) -> Any:
                    """AdamW."""
                    return torch.optim.AdamW(self.parameters(), lr=1e-4)

            trainer = lightning.Trainer(
                max_epochs=1,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(Module(), loader)
            return 1.0

        return epoch

    def benchmark(self) -> Callable[[], float]:
        """The loop of Paplham and Franc's Facial Age Estimation Benchmark (CVPR 2024), written down again."""
        import torch

        side = round(1.1 * self.card.size)
        network = new_model(self.card.model_copy(update={"head": "classification", "head_options": {}})).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        # The benchmark loads images once: their decoding does not count.
        images = [Image.open(path).convert("RGB").resize((side, side)) for path in self.paths]

        def epoch() -> float:
            import albumentations as al

            pipeline = al.Compose(
                [
                    al.ColorJitter(0.2, 0.2, 0.2, 0.05),
                    al.RandomCrop(self.card.size, self.card.size),
                    al.HorizontalFlip(),
                    al.Normalize(self.card.mean, self.card.std),
                ]
            )

            def image(row: int) -> Any:
                pixels = pipeline(image=np.array(images[row]))["image"]
                return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

            for faces, targets in self._loader(image):
                logits = network(faces)
                loss = network.head.loss(logits, targets)
                with torch.no_grad():
                    posterior = logits.softmax(1)
                    classes = torch.arange(posterior.shape[1], dtype=torch.float32)
                    errors = (classes[:, None] - classes).abs()
                    errors[targets.long(), (posterior @ errors).argmin(1)].mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return 1.0

        return epoch

    def _loader(self, image: Callable[[int], Any]) -> Any:
        """A DataLoader without workers over images and ages."""
        import torch
        from torch.utils.data import DataLoader
        from torch.utils.data import Dataset as TorchDataset

        paths, ages = self.paths, self.ages

        class Images(TorchDataset):  # type: ignore[type-arg]
            """Images with their ages."""

            def __len__(self) -> int:
                return len(paths)

            def __getitem__(self, row: int) -> tuple[Any, Any]:
                return image(row), torch.tensor(ages[row])

        return DataLoader(Images(), batch_size=self.batch, shuffle=True)


def drawn_faces(count: int, size: int) -> np.ndarray:
    """Return (count, size, size, 3) uint8 drawn faces."""
    from agebench.data.readers.synth import SynthReader

    reader = SynthReader(None, count=count, size=size)
    return np.stack(
        [np.asarray(Image.open(io.BytesIO(reader.image_bytes(path)))) for path in reader.read().table["path"]]
    )


WORKS: dict[str, Callable[[bool], Work]] = {
    "bootstrap": bootstrap_work,
    "score": score_work,
    "corruptions": corruption_work,
    "conformal": conformal_work,
    "calibration": calibration_work,
    "duplicates": duplicate_work,
    "training": training_work,
    "training-resnet50": partial(training_work, model="resnet50", size=128, count=32),
}
PEER_PACKAGES: tuple[tuple[str, ...], ...] = (
    ("fairlearn", "confidenceinterval", "torchmetrics", "scikit-learn"),
    ("imagecorruptions", "scikit-image", "numba", "opencv-python-headless"),
    ("mapie", "crepes", "netcal", "imagededup", "torchvision"),
    ("lightning", "albumentations"),
)

if __name__ == "__main__":
    main(sys.argv[1:])
