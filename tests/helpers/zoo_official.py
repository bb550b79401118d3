"""Names and shapes of the tensors in the authors' checkpoints, and made-up numbers to fill them with."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def filled(shapes: Shapes) -> dict[str, Tensor]:
    """The same numbers on every machine, of a size that keeps signals alive."""
    made = {}
    for place, (name, shape) in enumerate(shapes):
        wave = torch.from_numpy(np.random.RandomState(place).uniform(-1, 1, math.prod(shape)))
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(7)
        elif name.endswith(("relative_position_index", "attn_mask")):
            made[name] = torch.zeros(shape)
        elif name.endswith("running_var"):
            made[name] = (1 + 0.5 * wave).float().reshape(shape)
        elif len(shape) < 2:
            made[name] = (("norm" in name and name.endswith("weight")) + 0.1 * wave).float().reshape(shape)
        else:
            made[name] = (3.0 * wave / math.prod(shape[1:]) ** 0.5).float().reshape(shape)
    return made


def linear(name: str, into: int, out: int, *, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def norm(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape


def batch_norm(name: str, width: int) -> Shapes:
    yield from norm(name, width)
    yield f"{name}.running_mean", (width,)
    yield f"{name}.running_var", (width,)
    yield f"{name}.num_batches_tracked", ()


def stem(name: str, patches: str) -> Shapes:
    for place, before, kernel in ((0, 3, 7), (3, 64, 3), (6, 64, 3)):
        yield f"{name}.{place}.weight", (64, before, kernel, kernel)
        yield from batch_norm(f"{name}.{place + 1}", 64)
    yield f"{patches}.weight", (192, 64, 4, 4)
    yield f"{patches}.bias", (192,)


def volo_d1(outputs: int, *, bodies: bool) -> Shapes:
    yield "pos_embed", (1, 14, 14, 384)
    yield "cls_token", (1, 1, 384)
    if bodies:
        yield from stem("patch_embed.conv1", "patch_embed.proj1")
        yield from stem("patch_embed.conv2", "patch_embed.proj2")
        for side in "fp":
            yield f"patch_embed.map.qkv_{side}.weight", (576, 192, 1, 1)
        for axis in ("height", "width"):
            yield f"patch_embed.map.pos_embed.{axis}_rel", (55, 192)
        yield from norm("patch_embed.map.norm", 384, 28, 28)
        for layer, into, out in (("fc1", 384, 768), ("fc2", 768, 192)):
            yield f"patch_embed.map.mlp.{layer}.weight", (out, into, 1, 1)
            yield f"patch_embed.map.mlp.{layer}.bias", (out,)
    else:
        yield from stem("patch_embed.conv", "patch_embed.proj")
    for stage, blocks, width in ((0, 4, 192), (2, 4, 384), (3, 8, 384), (4, 2, 384)):
        for place in range(blocks):
            yield from _block(f"network.{stage}.{place}", width, outlook=stage == 0)
    yield "network.1.proj.weight", (384, 192, 2, 2)
    yield "network.1.proj.bias", (384,)
    for place in range(2):
        name = f"post_network.{place}"
        yield from norm(f"{name}.norm1", 384)
        yield from linear(f"{name}.attn.kv", 384, 768, bias=False)
        yield from linear(f"{name}.attn.q", 384, 384, bias=False)
        yield from linear(f"{name}.attn.proj", 384, 384)
        yield from _mlp(name, 384, 3)
    yield from linear("aux_head", 384, outputs)
    yield from norm("norm", 384)
    yield from linear("head", 384, outputs)


def _block(name: str, width: int, *, outlook: bool) -> Shapes:
    yield from norm(f"{name}.norm1", width)
    if outlook:
        yield from linear(f"{name}.attn.v", width, width, bias=False)
        yield from linear(f"{name}.attn.attn", width, 3**4 * 6)
    else:
        yield from linear(f"{name}.attn.qkv", width, 3 * width, bias=False)
    yield from linear(f"{name}.attn.proj", width, width)
    yield from _mlp(name, width, 3)


def _mlp(name: str, width: int, ratio: int) -> Shapes:
    yield from norm(f"{name}.norm2", width)
    yield from linear(f"{name}.mlp.fc1", width, ratio * width)
    yield from linear(f"{name}.mlp.fc2", ratio * width, width)


@cache
def _mivolo(outputs: int, bodies: bool) -> dict[str, Tensor]:
    return filled(volo_d1(outputs, bodies=bodies))


def mivolo(*, bodies: bool = True, gender: bool = True, **changed: Any) -> dict[str, Any]:
    """A whole checkpoint dictionary; its tensors are made once and shared."""
    state = {} if "state_dict" in changed else dict(_mivolo(3 if gender else 1, bodies))
    about = {"min_age": 1, "max_age": 95, "avg_age": 36.5, "no_gender": not gender, "with_persons_model": bodies}
    return {"state_dict": state, **about, **changed}


def swin_t() -> Shapes:
    yield "patch_embed.proj.weight", (96, 3, 2, 2)
    yield "patch_embed.proj.bias", (96,)
    yield from norm("patch_embed.norm", 96)
    for stage, (depth, heads) in enumerate(((2, 3), (2, 6), (6, 12), (2, 24))):
        width = 96 * 2**stage
        for place in range(depth):
            name = f"layers.{stage}.blocks.{place}"
            if place % 2 and stage < 3:
                yield f"{name}.attn_mask", ((56 // 2**stage // 7) ** 2, 49, 49)
            yield from norm(f"{name}.norm1", width)
            yield f"{name}.attn.relative_position_bias_table", (13 * 13, heads)
            yield f"{name}.attn.relative_position_index", (49, 49)
            yield from linear(f"{name}.attn.qkv", width, 3 * width)
            yield from linear(f"{name}.attn.proj", width, width)
            yield from _mlp(name, width, 4)
        if stage < 3:
            yield from linear(f"layers.{stage}.downsample.reduction", 4 * width, 2 * width, bias=False)
            yield from norm(f"layers.{stage}.downsample.norm", 4 * width)
    yield from norm("norm", 768)
    yield from linear("head", 768, 512)
    for place, out in ((0, 768), (2, 512)):
        yield from linear(f"feature.{place}", 768, out, bias=False)
        yield from batch_norm(f"feature.{place + 1}", out)


def attention() -> Shapes:
    for branch in range(11):
        name = f"nets.{branch}"
        for level, (into, out) in enumerate(((192, 47), (384, 93), (768, 186), (768, 186))):
            yield f"{name}.conv.convs.{level}.weight", (out, into, 3, 3)
        yield from linear(f"{name}.channel_attention.mlp.1", 512, 32)
        yield from linear(f"{name}.channel_attention.mlp.3", 32, 512)
        yield from batch_norm(f"{name}.norm", 512)


def subnets() -> Shapes:
    for branch in range(11):
        for layer in (0, 3):
            yield from linear(f"nets.{branch}.feature.{layer}", 512, 512)


def outputs() -> Shapes:
    for place, size in enumerate([2, 1, 2, 7, 2, *[2] * 37]):
        yield from linear(f"output_fcs.{place}", 512, size)


@cache
def _swinface() -> dict[str, dict[str, Tensor]]:
    parts = {"backbone": swin_t(), "fam": attention(), "tss": subnets(), "om": outputs()}
    return {f"state_dict_{part}": filled(shapes) for part, shapes in parts.items()}


def swinface(**changed: Any) -> dict[str, Any]:
    """A whole checkpoint dictionary; its tensors are made once and shared."""
    return {key: dict(part) for key, part in _swinface().items()} | changed


def picture(channels: int, size: int) -> Tensor:
    """(1, channels, size, size): coarse patches, as normalised pixels are."""
    patches = np.random.RandomState(99).uniform(-2, 2, (1, channels, 7, 7))
    return torch.from_numpy(np.kron(patches, np.ones((size // 7, size // 7)))).float()
