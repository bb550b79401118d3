"""Distributed training: each batch is sharded across processes.

The results match those of a single process.

The launcher (`accelerate launch`, `torchrun`) sets RANK, WORLD_SIZE and MASTER_ADDR. In a single process the functions of this
module have no effect.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from agebench.errors import AgebenchError, UserError
from agebench.utils.io import atomic_write

Result = TypeVar("Result")

# The other processes wait while one prepares the faces; no dataset takes longer.
INIT_TIMEOUT = timedelta(hours=12)


def get_rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def get_world_size() -> int:
    """Return the number of processes of the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group of the run for the body of the `with` statement.

    Raises:
        AgebenchError: the other processes cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    use_gpus = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in (
        "1",
        "true",
        "yes",
    )
    if use_gpus:
        torch.cuda.set_device(_local_rank())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if use_gpus else "gloo", timeout=INIT_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise AgebenchError(f"the processes of this run cannot connect: {str(error).splitlines()[0]}") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def _local_rank() -> int:
    """Return the rank of this process on its host, which is the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_device(name: str) -> str:
    """Return the device of this process in a run over several processes.

    In a single process it is `name`.

    Args:
        name: a device name; `auto` and `cuda` become the GPU of this process, or `auto` the CPU without GPUs.
    """
    if get_world_size() == 1 or name not in ("auto", "cuda"):
        return name
    return f"cuda:{_local_rank()}" if "nccl" in str(dist.get_backend_config()) else "cpu" if name == "auto" else name


def broadcast_from_main(decide: Callable[[], Result]) -> Result:
    """Run a function on rank 0; return its result on all processes.

    All processes raise its exception.

    Args:
        decide: the function.

    Raises:
        AgebenchError: `decide` raised it.
    """
    if get_world_size() == 1:
        return decide()
    outcome: list[Any] = [None, None]
    if get_rank() == 0:
        try:
            outcome[0] = decide()
        except AgebenchError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]  # type: ignore[no-any-return]


def broadcast_file(path: Path) -> None:
    """Copy a file of rank 0, if it exists, to the same path on all processes.

    Args:
        path: the file.
    """
    if get_world_size() == 1:
        return
    content = broadcast_from_main(lambda: path.read_bytes() if path.exists() else None)
    if get_rank() and content is not None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)


def shard_order(order: np.ndarray, batch: int) -> np.ndarray:
    """Return this process's shard of each batch of an epoch.

    Args:
        order: indices of the faces, a whole number of batches.
        batch: the size of a batch of all processes.

    Raises:
        UserError: the processes cannot share a batch evenly.
    """
    if get_world_size() == 1:
        return order
    if len(order) % batch:
        raise UserError(f"{len(order)} training images are fewer than train.batch_size = {batch}. Use one process")
    if batch % get_world_size():
        raise UserError(
            f"train.batch_size = {batch} is not a multiple of the {get_world_size()} processes. Change one of them"
        )
    return order.reshape(-1, get_world_size(), batch // get_world_size())[:, get_rank()].ravel()


def shard_rows(count: int) -> slice:
    """Return the rows that this process predicts.

    Args:
        count: the number of all rows.
    """
    if count < get_world_size():
        return slice(0, count)  # each process predicts all rows
    bounds = np.linspace(0, count, get_world_size() + 1).round().astype(int)
    return slice(int(bounds[get_rank()]), int(bounds[get_rank() + 1]))


def gather_rows(shard: Sequence[np.ndarray | None], count: int) -> list[np.ndarray | None]:
    """Return the arrays of all processes, concatenated, on every process.

    Args:
        shard: arrays of the rows of `shard_rows(count)`; None is returned as None.
        count: the number of all rows.
    """
    if count < get_world_size() or get_world_size() == 1:
        return list(shard)
    shards: list[Any] = [None] * get_world_size()
    dist.all_gather_object(shards, list(shard))
    return [None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*shards, strict=True)]


def gather_batch(shard: Tensor) -> Tensor:
    """Return the concatenated shards of all processes.

    Gradients flow back to this process's shard.

    Every process computes the loss of the whole batch, and DDP averages over the processes. The gradient therefore equals that of
    a single process, also if the loss is not a mean over images.

    Args:
        shard: (B / processes, ...), contiguous.

    Returns:
        (B, ...).
    """
    if get_world_size() == 1:
        return shard
    n_before, n_after = get_rank() * len(shard), (get_world_size() - 1 - get_rank()) * len(shard)
    shape = shard.shape[1:]
    return _total(torch.cat([shard.new_zeros((n_before, *shape)), shard, shard.new_zeros((n_after, *shape))]))


class _Total(torch.autograd.Function):
    """The sum over all processes, in the forward and in the backward pass, because every process has the same loss."""

    @staticmethod
    def forward(ctx: Any, shard: Tensor) -> Tensor:
        total = shard.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _total(shard: Tensor) -> Tensor:
    return _Total.apply(shard)  # type: ignore[no-any-return]


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return the module whose gradients are averaged over all processes.

    Args:
        model: the model; a single process gets it back.
    """
    return model if get_world_size() == 1 else nn.parallel.DistributedDataParallel(model)


def sync_batch_stats() -> AbstractContextManager[Any]:
    """Return the context of forward passes in training.

    Batch statistics and dropout are those of the whole batch.
    """
    return nullcontext() if get_world_size() == 1 else _WholeBatchMode()


class _WholeBatchMode(TorchFunctionMode):
    """Compute batch normalization and dropout as if the shards of all processes were one batch.

    Batch normalization uses statistics over all processes (as SyncBatchNorm does, but also on CPUs and for every layer that
    calls it); dropout draws for the whole batch and uses the rows of this process.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace batch normalization and dropout; call all other functions as they are."""
        options = kwargs or {}
        # F.batch_norm instead of torch.batch_norm, which it calls while the mode is disabled.
        if func is F.batch_norm and options.get("training", False):
            return _batch_norm(*args, **{name: value for name, value in options.items() if name != "training"})
        if func is F.dropout and options.get("training", True):
            return _dropout(args[0], options.get("p", 0.5))
        return func(*args, **options)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    count = x.numel() // x.shape[1] * get_world_size()
    wide = x.float()
    mean = _total(wide.sum(axes)) / count
    centered = wide - mean.view(shape)
    variance = _total(centered.square().sum(axes)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
            running_var.lerp_((variance.detach() * (count / (count - 1))).to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    normalized: Tensor = centered * scale.view(shape)
    return (normalized if bias is None else normalized + bias.view(shape)).to(x.dtype)


def _dropout(x: Tensor, p: float) -> Tensor:
    mask = F.dropout(x.new_ones((len(x) * get_world_size(), *x.shape[1:])), p)
    return x * mask[get_rank() * len(x) : (get_rank() + 1) * len(x)]
