"""One run over several processes: each works on its share of every batch, and all go the way that one alone would.

Whoever starts the processes (`accelerate launch`, `torchrun`) says by RANK, WORLD_SIZE and MASTER_ADDR who is who. Alone,
everything here does nothing.
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

# One process prepares faces while the others wait: longer than any dataset takes.
INIT_TIMEOUT = timedelta(hours=12)


def get_rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def get_world_size() -> int:
    """How many processes work on this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes of this run, if there are any, for the while.

    Raises:
        AgebenchError: they cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    gpus = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes")
    if gpus:
        torch.cuda.set_device(local_rank())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=INIT_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise AgebenchError(
            f"the processes of this run do not find one another: {str(error).splitlines()[0]}"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def local_rank() -> int:
    """This process's number on its host: which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_device(name: str) -> str:
    """`auto` and `cuda` where several processes are at work: each on the GPU of its own, or all on CPUs."""
    if get_world_size() == 1 or name not in ("auto", "cuda"):
        return name
    return f"cuda:{local_rank()}" if "nccl" in str(dist.get_backend_config()) else "cpu" if name == "auto" else name


def broadcast_from_main(decide: Callable[[], Result]) -> Result:
    """What the first process decides, on all of them; what stops it stops all."""
    if get_world_size() == 1:
        return decide()
    answer: list[Any] = [None, None]
    if get_rank() == 0:
        try:
            answer[0] = decide()
        except AgebenchError as error:
            answer[1] = error
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]  # type: ignore[no-any-return]


def broadcast_file(path: Path) -> None:
    """Give every process the first one's file, at the same place in its own folder; or none, where the first has none."""
    if get_world_size() == 1:
        return
    content = broadcast_from_main(lambda: path.read_bytes() if path.exists() else None)
    if get_rank() and content is not None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)


def shard_order(order: np.ndarray, batch: int) -> np.ndarray:
    """Of an epoch's order, a whole number of batches long: this process's share of each batch, batch after batch.

    Raises:
        UserError: the processes cannot share a batch evenly.
    """
    if get_world_size() == 1:
        return order
    if len(order) % batch:
        raise UserError(f"{len(order)} training images are fewer than train.batch_size = {batch}: use one process")
    if batch % get_world_size():
        raise UserError(f"train.batch_size = {batch}: {get_world_size()} processes cannot share it evenly")
    return order.reshape(-1, get_world_size(), batch // get_world_size())[:, get_rank()].ravel()


def shard_rows(count: int) -> slice:
    """Of `count` rows: those that this process predicts."""
    if count < get_world_size():
        return slice(0, count)  # each predicts all of them
    bounds = np.linspace(0, count, get_world_size() + 1).round().astype(int)
    return slice(int(bounds[get_rank()]), int(bounds[get_rank() + 1]))


def gather_rows(own: Sequence[np.ndarray | None], count: int) -> list[np.ndarray | None]:
    """The arrays of `own_rows` put together again, each of `count` rows once, on every process."""
    if count < get_world_size() or get_world_size() == 1:
        return list(own)
    parts: list[Any] = [None] * get_world_size()
    dist.all_gather_object(parts, list(own))
    return [None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True)]


def gather_batch(own: Tensor) -> Tensor:
    """(B / processes, …) -> (B, …). Gradients flow back to this process's share.

    The loss of the whole batch, on every process, and DDP's mean over the processes make exactly the gradient that one process
    would have, also where a loss is no mean over images.
    """
    if get_world_size() == 1:
        return own
    before, after = get_rank() * len(own), (get_world_size() - 1 - get_rank()) * len(own)
    rest = own.shape[1:]
    return _total(torch.cat([own.new_zeros((before, *rest)), own, own.new_zeros((after, *rest))]))


class _Total(torch.autograd.Function):
    """The sum over all processes; so is its gradient, for every process has the same loss."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _total(own: Tensor) -> Tensor:
    return _Total.apply(own)  # type: ignore[no-any-return]


def wrap_ddp(model: nn.Module) -> nn.Module:
    """The model whose gradients are the mean over all processes."""
    return model if get_world_size() == 1 else nn.parallel.DistributedDataParallel(model)


def sync_batch_stats() -> AbstractContextManager[Any]:
    """The context for forward passes in training."""
    return nullcontext() if get_world_size() == 1 else _AsOneBatch()


class _AsOneBatch(TorchFunctionMode):
    """Batch normalisation and dropout as if all processes' shares were one batch.

    Batch normalisation takes its statistics over all processes (as SyncBatchNorm does, but on CPUs as well, and in whatever
    layer calls it); dropout draws for the whole batch and takes its own rows.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Two functions differ, the rest is torch's."""
        options = kwargs or {}
        # Not torch.batch_norm, which it calls: within this function the mode is off, and nobody would see that call.
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
    centred = wide - mean.view(shape)
    variance = _total(centred.square().sum(axes)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
            running_var.lerp_((variance.detach() * (count / (count - 1))).to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    result = centred * scale.view(shape)
    moved: Tensor = result if bias is None else result + bias.view(shape)
    return moved.to(x.dtype)


def _dropout(x: Tensor, p: float) -> Tensor:
    mask = F.dropout(x.new_ones((len(x) * get_world_size(), *x.shape[1:])), p)
    return x * mask[get_rank() * len(x) : (get_rank() + 1) * len(x)]
