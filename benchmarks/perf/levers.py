"""Changes that may make a training step faster on CPUs: each alone against the step that agebench takes, in one run.

    python benchmarks/perf/levers.py [--model efficientnet_lite0] [--steps 4] [--rounds 5] [--threads 2]

The step: forward, backward and optimizer step of the card's model on one batch in memory, float32, channels_last, AdamW as
`agebench run` makes it. Rounds take every variant in turn, so that all see the same machine; the table gives the median wall-clock
time an image, and the median of the ratios of each round: above 1, the change is faster. Speed is not accuracy: larger batches
and frozen layers also change what is learned.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from agebench.config.cards.model import ModelCard
from agebench.models.age_model import create_model
from agebench.models.architectures.prelu import ChannelPReLU
from agebench.registry.catalog import load_catalog
from agebench.training.optim import create_optimizer


@dataclass(frozen=True)
class Lever:
    """One change of the step.

    Attributes:
        title: the change, in words.
        batch: images a step, as a multiple of the card's.
        channels_last: the memory format.
        bf16: whether the forward pass is in bfloat16 (autocast).
        compiled: whether torch.compile makes the step's kernels (inductor).
        frozen_norm: whether BatchNorm uses its running statistics and does not learn.
        frozen_share: share of the backbone's parameters, from the input on, that do not learn.
        fused: whether AdamW is the fused one; None: as agebench makes it.
        torch_prelu: whether PReLU is PyTorch's own instead of that of `agebench.models.architectures.prelu`.
    """

    title: str
    batch: int = 1
    channels_last: bool = True
    bf16: bool = False
    compiled: bool = False
    frozen_norm: bool = False
    frozen_share: float = 0.0
    fused: bool | None = None
    torch_prelu: bool = False


LEVERS = (
    Lever("as agebench trains"),
    Lever("contiguous (NCHW) memory", channels_last=False),
    Lever("torch.compile (inductor)", compiled=True),
    Lever("bf16 autocast", bf16=True),
    Lever("batch of twice the size", batch=2),
    Lever("batch of four times the size", batch=4),
    Lever("BatchNorm frozen", frozen_norm=True),
    Lever("first half of the parameters frozen", frozen_share=0.5),
    Lever("fused AdamW", fused=True),
    Lever("AdamW without foreach or fused kernels", fused=False),
    Lever("PyTorch's PReLU", torch_prelu=True),
)


def make_step(card: ModelCard, lever: Lever) -> Callable[[], None]:
    """Return a function that takes one training step."""
    torch.manual_seed(0)
    layout = torch.channels_last if lever.channels_last else torch.contiguous_format
    model = create_model(card).to(memory_format=layout).train()
    if lever.frozen_norm:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.requires_grad_(False)
    if lever.torch_prelu:
        found = [module for module in model.modules() if isinstance(module, ChannelPReLU)]
        if not found:
            raise LookupError("the network has none")
        for prelu in found:
            prelu.__class__ = nn.PReLU  # type: ignore[assignment]
    freeze_first(model.backbone, lever.frozen_share)
    optimizer = create_optimizer(model, card.train)
    if lever.fused is not None:
        for group in optimizer.param_groups:
            group.update(fused=lever.fused, foreach=False)
    forward = torch.compile(model) if lever.compiled else model
    count = card.train.batch_size * lever.batch
    images = torch.randn(count, 3, card.size, card.size).contiguous(memory_format=layout)
    ages = torch.rand(count) * 80

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if lever.bf16 else nullcontext():
            outputs = forward(images)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(model.head.loss(outputs.float(), ages))
        optimizer.step()

    return step


def freeze_first(backbone: nn.Module, share: float) -> None:
    """Freeze parameters from the input on, up to a share of all."""
    parameters = list(backbone.parameters())
    left = share * sum(parameter.numel() for parameter in parameters)
    for parameter in parameters:
        left -= parameter.numel()
        if left < 0:
            return
        parameter.requires_grad_(False)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="changes whose title has this word (repeatable)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    card = load_catalog().network(options.model)
    wanted = [lever for lever in LEVERS[1:] if not options.only or any(word in lever.title for word in options.only)]
    steps = {}
    for lever in (LEVERS[0], *wanted):
        try:
            step = make_step(card, lever)
            step()  # compiles, and finds the kernels
            step()
        except (
            Exception
        ) as error:  # a compiler that is not there, a kernel that does not exist, a layer that the network has not
            print(f"{lever.title}: not possible here ({type(error).__name__})", flush=True)
            continue
        steps[lever] = step
    times: dict[Lever, list[float]] = {lever: [] for lever in steps}
    for _ in range(options.rounds):
        for lever, step in steps.items():
            start = time.perf_counter()
            for _ in range(options.steps):
                step()
            images = options.steps * card.train.batch_size * lever.batch
            times[lever].append((time.perf_counter() - start) / images)
    print(
        f"{card.name}, {card.size} px, batches of {card.train.batch_size}, {options.threads} threads, torch {torch.__version__}"
    )
    print("| change | ms an image | ratio |\n|---|---:|---:|")
    base = times[LEVERS[0]]
    for lever, seconds in times.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(base, seconds, strict=True))
        print(f"| {lever.title} | {1000 * statistics.median(seconds):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
