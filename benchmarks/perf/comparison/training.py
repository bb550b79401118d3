"""Work on training: an image through agebench's engine, and through the loops that users write, on the same files and network."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from agebench.config.cards.model import ModelCard
from agebench.models.age_model import AgeModel, create_model
from agebench.registry.catalog import load_catalog
from agebench.training.callbacks import ConsoleCallback
from agebench.training.dataloader import FaceDataset
from agebench.training.device import resolve_device
from agebench.training.optim import create_optimizer
from agebench.training.trackers import TensorBoardTracker
from agebench.training.trainer import Trainer
from comparison.faces import faces_of_people, resized, write_faces
from comparison.timing import Done, Peer, Work

BATCH = 32


def training(model: str, size: int, count: int, quick: bool) -> Work:
    """An epoch of training, an image of it: images on disk against a face cache that is there already.

    Args:
        model: the card's name.
        size: side of the faces, pixels.
        count: images of the epoch.
        quick: a tiny network and two batches.
    """
    card = load_catalog().network("tiny" if quick else model)
    card = card if quick else card.model_copy(update={"size": size})
    card = card.model_copy(update={"train": card.train.model_copy(update={"batch_size": BATCH})})
    faces, source = faces_of_people(2 * BATCH if quick else count)
    folder = tempfile.TemporaryDirectory(prefix="agebench-compare-")
    loops = Loops(card, write_faces(faces, Path(folder.name)), np.linspace(1, 90, len(faces), dtype=np.float32), folder)
    peers = (
        Peer("agebench", loops.agebench()),
        Peer("the bare step, one batch in memory", loops.bare()),
        Peer("plain loop (PIL, torchvision, DataLoader)", loops.plain()),
        Peer("Lightning, torchvision.transforms.v2", loops.lightning(), {"lightning": "lightning"}),
        Peer("loop of the CVPR 2024 benchmark", loops.benchmark(), {"albumentations": "albumentations"}),
    )
    note = (
        "agebench reads its face cache, which is filled once, and augments as `agebench run` does; the bare step is its model, "
        "memory format and optimizer without data. The plain loop (AdamW, L1) and Lightning (the same, one call of `fit`) decode "
        "and augment every image in every epoch. The benchmark's loop (Adam, cross-entropy) holds decoded images of 1.1 times "
        "the side in memory, augments them with albumentations (jitter, crop, flip), and computes an error in every step."
    )
    title = f"training, an image of {len(faces):,} {source}: {card.name} at {card.size} px, batches of {BATCH}"
    return Work(title, peers, note, folder)


lite0 = partial(training, "efficientnet_lite0", 112, 256)
resnet50 = partial(training, "resnet50", 128, 64)


@dataclass(frozen=True)
class Loops:
    """Epochs over the same images and network, each by another loop.

    Attributes:
        card: the network.
        paths: the image files.
        ages: their ages, years.
        folder: where the files are.
    """

    card: ModelCard
    paths: Sequence[Path]
    ages: np.ndarray
    folder: tempfile.TemporaryDirectory[str]

    def agebench(self) -> Callable[[], Done]:
        """The engine of `agebench run`, from faces in memory."""
        pixels = resized([Image.open(path).convert("RGB") for path in self.paths], self.card.size)
        data = FaceDataset(pixels, np.arange(len(pixels)), self.ages)
        folder = Path(self.folder.name)

        made: list[Trainer] = []

        def epoch() -> Done:
            if not made:
                # In the call that does not count, as the peers' networks are made before. And only here, because it makes this
                # process keep freed memory, and the processes of the peers are as PyTorch leaves them.
                device = resolve_device("cpu")
                model = create_model(self.card)
                made.append(Trainer(model, self.card, self.card.train, seed=0, device=device, folder=folder))
            with (
                closing(TensorBoardTracker(folder / "tensorboard")) as tracker,
                ConsoleCallback([tracker], quiet=True) as events,
            ):
                made[0].train_epoch(data, 1, events)
            return Done(len(pixels))

        return epoch

    def bare(self) -> Callable[[], Done]:
        """The same step on one batch in memory."""
        model = create_model(self.card).to(memory_format=torch.channels_last).train()
        optimizer = create_optimizer(model, self.card.train)
        images = torch.randn(BATCH, 3, self.card.size, self.card.size).contiguous(memory_format=torch.channels_last)
        ages = torch.from_numpy(self.ages[:BATCH])

        def epoch() -> Done:
            resolve_device("cpu")
            for _ in range(len(self.paths) // BATCH):
                _step(model, optimizer, images, ages)
            return Done(len(self.paths) // BATCH * BATCH)

        return epoch

    def plain(self) -> Callable[[], Done]:
        """The loop of a PyTorch tutorial, written down again: PIL, torchvision's transforms, a DataLoader."""
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
        model = create_model(self.card).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def epoch() -> Done:
            for images, ages in loader:
                _step(model, optimizer, images, ages)
            return Done(len(self.paths))

        return epoch

    def lightning(self) -> Callable[[], Done]:
        """An epoch of Lightning's Trainer, with torchvision's second transforms."""
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
        network = create_model(self.card)

        def epoch() -> Done:
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
            return Done(len(self.paths))

        return epoch

    def benchmark(self) -> Callable[[], Done]:
        """The loop of Paplham and Franc's Facial Age Estimation Benchmark (CVPR 2024), written down again."""
        side = round(1.1 * self.card.size)
        network = create_model(self.card.model_copy(update={"head": "classification", "head_options": {}})).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        # The benchmark loads images once: their decoding does not count.
        images = [Image.open(path).convert("RGB").resize((side, side)) for path in self.paths]

        def epoch() -> Done:
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

            for faces, ages in self._loader(image):
                logits = _step(network, optimizer, faces, ages)
                with torch.no_grad():
                    posterior = logits.softmax(1)
                    classes = torch.arange(posterior.shape[1], dtype=torch.float32)
                    errors = (classes[:, None] - classes).abs()
                    errors[ages.long(), (posterior @ errors).argmin(1)].mean()
            return Done(len(self.paths))

        return epoch

    def _loader(self, image: Callable[[int], Any]) -> Any:
        """A DataLoader without workers over images and ages."""
        from torch.utils.data import DataLoader
        from torch.utils.data import Dataset as TorchDataset

        ages = self.ages

        class Images(TorchDataset):  # type: ignore[type-arg]
            """Images with their ages."""

            def __len__(self) -> int:
                return len(ages)

            def __getitem__(self, row: int) -> tuple[Any, Any]:
                return image(row), torch.tensor(ages[row])

        return DataLoader(Images(), batch_size=BATCH, shuffle=True)


def _step(model: AgeModel, optimizer: torch.optim.Optimizer, images: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
    """Take one training step; return the detached logits."""
    logits = model(images)
    loss = model.head.loss(logits, ages)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    return logits.detach()  # type: ignore[no-any-return]
