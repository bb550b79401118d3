"""Predict images and shards on a Ray cluster; the predictions are those of one machine with as many threads."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from agebench.inference.batch_predict import LocalCompute, PredictedImages, PredictOptions
from agebench.inference.input_sources import InputItem, refuse_videos
from agebench.inference.predictor import Predictor, load
from agebench.registry.catalog import load_catalog
from agebench.utils.ray_cluster import RayCluster

# Image files of one task: 16 forward passes.
_CHUNKS_PER_TASK = 16


@dataclass
class PredictTask:
    """Opens a model at the first call, and predicts the images of items; sent to each actor once.

    Attributes:
        model: the model, as `load` takes it; its files are on every host at the same path.
        options: options of prediction.
        registry: folders of further cards, on every host at the same path.
        trusted: whether files that can run code when they are opened may be opened.
        device: `auto`, `cpu`, `cuda`, …
        threads: CPU threads of a forward pass.
    """

    model: str | Path
    options: PredictOptions
    registry: tuple[Path, ...] = ()
    trusted: bool = False
    device: str = "auto"
    threads: int = 1
    _predictor: Predictor | None = field(default=None, init=False, repr=False)

    def __call__(self, item: InputItem) -> list[PredictedImages]:
        """Predict all images of an item.

        Args:
            item: images or shards.
        """
        if self._predictor is None:
            import torch

            torch.set_num_threads(self.threads)
            cards = load_catalog(self.registry)
            self._predictor = load(self.model, trusted=self.trusted, device=self.device, cards=cards)
        return list(LocalCompute(self._predictor, self.options)(item))


@dataclass(frozen=True)
class ClusterCompute:
    """Predicts on a Ray cluster: a task for each shard, or for some chunks of image files.

    Attributes:
        cluster: the cluster.
        task: the model and its options; processes, threads and device are those that the cluster has for each task.
    """

    cluster: RayCluster
    task: PredictTask

    def __call__(self, item: InputItem, *, ordered: bool = True) -> Iterator[PredictedImages]:
        """Predict all images of an item.

        Args:
            item: images or shards.
            ordered: whether the predictions have the order of the input; otherwise only the images of one shard are
                together and in order.

        Yields:
            Predictions for the images of one chunk.

        Raises:
            UserError: the item is a video, or a host cannot open a shard or the model.
        """
        refuse_videos([item])
        cpus, device = self.cluster.cpus, self.task.device
        task = replace(
            self.task,
            options=replace(self.task.options, workers=cpus),
            threads=cpus,
            # A GPU that Ray did not assign to the task may be in use.
            device="cpu" if device == "auto" and not self.cluster.gpus else device,
        )
        for _, predicted in self.cluster.map(task, _tasks(item, self.task.options.chunk_size), ordered=ordered):
            yield from predicted


def _tasks(item: InputItem, chunk_size: int) -> Iterator[InputItem]:
    """Divide an item into tasks; image files are divided at the bounds of chunks."""
    size = 1 if item.kind == "shards" else _CHUNKS_PER_TASK * chunk_size
    remaining = iter(item.paths)
    while paths := tuple(islice(remaining, size)):
        yield InputItem(item.kind, paths, len(paths))
