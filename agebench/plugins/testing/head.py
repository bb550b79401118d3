"""The contract of heads: `agebench.models.heads.Head`."""

import traceback
import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models import heads
from agebench.models.checkpoint_file import first_line
from agebench.models.heads import AgeEstimate, Head
from agebench.plugins.testing.violation import violation

FEATURES, BATCH = 16, 12


def check_head(head: str | type[Head], *, ages: tuple[int, int] = (0, 100), **options: Any) -> str:
    """Check a head against the contract in `agebench.models.heads.base.Head`.

    Args:
        head: name of a head, or its class.
        ages: lowest and highest age of the head, in years.
        options: options of the head.

    Returns:
        A description of the checks.

    Raises:
        ContractViolation: a rule of the contract is violated.
    """
    kind = heads.heads.get(head) if isinstance(head, str) else head
    name = head if isinstance(head, str) else head.__name__
    _require(
        isinstance(kind, type) and issubclass(kind, Head),
        name,
        "is no subclass of agebench.models.heads.Head: derive it from there",
    )
    torch.manual_seed(0)
    try:
        # Lazily: later checks may fail to run after a violation.
        problem = next(_problems(kind, ages, options), None)
    except UserError:
        raise
    except Exception as error:  # A third party's code may raise anything.
        problem = f"{_raised_in(error)} raises {type(error).__name__}: {first_line(error)}"
    if problem is not None:
        raise violation("head", name, problem)
    return f"loss, decoding and TorchScript, for ages {ages[0]} to {ages[1]}"


def _raised_in(error: Exception) -> str:
    """Return the method of the head in which an error was raised: the first below this file's code and torch's."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = (frame for frame in frames if frame.filename != __file__ and "torch" not in Path(frame.filename).parts)
    return next((frame.name for frame in theirs), "a call")


def _problems(kind: type[Head], ages: tuple[int, int], options: Mapping[str, Any]) -> Iterator[str]:
    head = kind(FEATURES, ages, **options)
    head.init_from_ages(torch.linspace(float(ages[0]), float(ages[1]), 50))
    head.eval()
    features, age = torch.randn(BATCH, FEATURES), torch.linspace(float(ages[0]), float(ages[1]), BATCH)
    logits = head(features)
    width = (BATCH, head.out_features)
    if logits.shape != width:
        yield f"forward gives {tuple(logits.shape)} for {BATCH} faces; it must be (B, out_features) = {width}"
    yield from chain(_loss(head, logits, age), _decode(head, logits), _script(head, features))


def _loss(head: Head, logits: Tensor, age: Tensor) -> Iterator[str]:
    loss = head.loss(logits, age)
    if loss.shape != torch.Size([]) or not loss.is_floating_point():
        yield f"loss has the shape {tuple(loss.shape)}; it must be one number, the mean over the batch"
    order = torch.randperm(len(age))
    if not torch.allclose(head.loss(logits[order], age[order]), loss, rtol=1e-4):
        yield "loss depends on the order of the batch; all faces must have equal weight"
    if not torch.allclose(head.loss(torch.cat([logits, logits]), torch.cat([age, age])), loss, rtol=1e-4):
        yield "loss of every face twice is another; it must be the mean over the batch, not a sum"
    each = torch.stack([head.loss(logits[row : row + 1], age[row : row + 1]) for row in range(len(age))])
    if not torch.isfinite(each).all():
        yield "loss of a batch of one face is not finite"
    for extreme in (-1e4, 1e4):
        wild = torch.full_like(logits, extreme) * torch.randn_like(logits).sign()
        wild.requires_grad_()
        value = head.loss(wild, age)
        value.backward()  # type: ignore[no-untyped-call]
        if not torch.isfinite(value) or wild.grad is None or not torch.isfinite(wild.grad).all():
            yield f"loss or its gradient is not finite for logits of {extreme:g}; use log_softmax, logsigmoid or a clamp"
    half = head.loss(logits.bfloat16(), age)
    if half.dtype == torch.bfloat16 or not torch.isclose(half.float(), loss.float(), rtol=0.05, atol=0.05):
        yield "loss computes in bfloat16 where the logits are; make them float32 first"
    fractional = head.loss(logits, (age + 0.5).clamp(max=float(head.ages[1])))
    if not torch.isfinite(fractional):
        yield "loss of fractional ages is not finite; labels may be the middles of ranges"
    try:
        is_finite = bool(torch.isfinite(head.loss(logits, age + 1000)))
    except Exception as error:
        yield f"loss of an age outside the head's range raises {type(error).__name__}; clamp the age"
        return
    if not is_finite:
        yield "loss of an age outside the head's range is not finite; clamp the age"
    generator = torch.Generator().manual_seed(1)
    trained = logits.detach().clone().requires_grad_()
    before = float(head.loss(trained, age).detach())
    optimizer = torch.optim.Adam([trained], lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        rows = torch.randperm(len(age), generator=generator)
        head.loss(trained[rows], age[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if not float(head.loss(trained, age).detach()) < before:
        yield "fifty steps down its gradient do not lower the loss; does the loss depend on the logits?"


def _decode(head: Head, logits: Tensor) -> Iterator[str]:
    estimate = head.decode(logits)
    if type(estimate) is not AgeEstimate:
        yield f"decode gives {type(estimate).__name__}; it must be an AgeEstimate(age, probs, std)"
        return
    count, ages = len(logits), head.ages[1] - head.ages[0] + 1
    if estimate.age.shape != (count,):
        yield f"decode's age has the shape {tuple(estimate.age.shape)}; it must be (B,) = ({count},)"
    if not torch.allclose(head.decode(logits[:1]).age, estimate.age[:1], atol=1e-3):
        yield "decode gives a face another age alone than among others"
    for extreme in (logits, torch.full_like(logits, 1e4), torch.full_like(logits, -1e4)):
        bounded = head.decode(extreme)
        if not ((bounded.age >= head.ages[0] - 1e-3) & (bounded.age <= head.ages[1] + 1e-3)).all():
            yield f"decode leaves the head's ages {head.ages}: clamp its estimate"
        if bounded.probs is not None:
            if bounded.probs.shape != (count, ages):
                yield f"decode's probs have the shape {tuple(bounded.probs.shape)}; they must be (B, A) = ({count}, {ages})"
            elif (bounded.probs < -1e-6).any() or not torch.allclose(
                bounded.probs.sum(1), torch.ones(count), atol=1e-5
            ):
                yield "decode's probs are not a distribution: none below 0, and a sum of 1 within 1e-5"
        if bounded.std is not None and (bounded.std.shape != (count,) or not (bounded.std >= 0).all()):
            yield "decode's std must be (B,) and nowhere negative"


class _Decoding(nn.Module):
    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        return self.head.decode(self.head(features)).age


def _script(head: Head, features: Tensor) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scripted = torch.jit.script(_Decoding(head))
        except Exception as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            yield f"forward and decode do not script under TorchScript, so that no export can be made: {reason.strip()}"
            return
    if not torch.allclose(scripted(features), head.decode(head(features)).age, atol=1e-4):
        yield "returns other ages under TorchScript"


def _require(holds: bool, name: str, problem: str) -> None:
    if not holds:
        raise violation("head", name, problem)
