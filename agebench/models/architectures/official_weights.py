"""From the names and dictionaries of the official repositories to ours: facts about files, no more."""

import re
from pathlib import Path
from typing import Any

from torch import nn

from agebench.config.cards.base import Architecture
from agebench.errors import UserError
from agebench.models.age_model import AgeModel
from agebench.models.architectures.checkpoint_io import (
    ALL_KEYS,
    load_state_dict_mapped,
    plain_number,
    read_checkpoint,
    state_dict,
)
from agebench.models.architectures.mivolo import GENDERS, MiVOLO
from agebench.models.architectures.swinface import BRANCHES, SwinFace
from agebench.models.heads.minmax_regression import MinMaxRegressionHead
from agebench.types import WeightsKind, WeightsSource

SWINFACE_PARTS = ("backbone", "fam", "tss", "om")
Places = list[tuple[str, slice]] | None


def load_published(model: AgeModel, card: Architecture, path: Path) -> WeightsSource:
    """Load their authors' weights into a model of the zoo; returns what was taken from where, for the manifest.

    Raises:
        UserError: no such file, one that would run code, one of another model, or one that does not fit altogether.
    """
    if not isinstance(model.head, MinMaxRegressionHead):
        raise UserError(
            f"{path}: the authors' weights say the age by the head 'normalised'; with --head {card.head} the model starts at random"
        )
    content = read_checkpoint(path)
    kind = "swinface" if "state_dict_backbone" in content else "mivolo" if "min_age" in content else ""
    wanted = "swinface" if isinstance(model.backbone, SwinFace) else "mivolo"
    if kind != wanted:
        holds = {"swinface": "SwinFace", "mivolo": "MiVOLO"}.get(kind, "neither MiVOLO nor SwinFace")
        raise UserError(f"{path}: holds {holds}, not what '{card.name}' is; it has the keys {_keys(content)}")
    done = (_load_swinface if kind == "swinface" else _load_mivolo)(model, content, str(path))
    return WeightsSource(WeightsKind.PUBLISHED, path.name, done)


def _load_swinface(model: AgeModel, content: dict[str, Any], source: str) -> str:
    theirs = {
        f"{part}.{name}": value
        for part in SWINFACE_PARTS
        for name, value in state_dict(content, f"state_dict_{part}", source).items()
    }
    assert isinstance(model.head, MinMaxRegressionHead)
    done = load_state_dict_mapped(_Weights(model), theirs, _swinface_name, source=source)
    # The four numbers of the head are no weights of theirs: they say years, unscaled and unclamped.
    model.head.publish(0.0, 1.0, 0.0)
    return done + _aside(content, {f"state_dict_{part}" for part in SWINFACE_PARTS})


def _load_mivolo(model: AgeModel, content: dict[str, Any], source: str) -> str:
    backbone = model.backbone
    assert isinstance(backbone, MiVOLO)
    assert isinstance(model.head, MinMaxRegressionHead)
    key = next((key for key in ("state_dict_ema", "model_ema") if content.get(key)), "state_dict")  # as timm chooses
    theirs = state_dict(content, key, source)
    # The tables of feature distribution smoothing serve training alone; the authors' own loading drops them too.
    theirs = {name: value for name, value in theirs.items() if "fds." not in name}
    bodies = bool(content.get("with_persons_model", "patch_embed.conv1.0.weight" in theirs))
    if bodies != backbone.bodies:
        fits = "mivolo-d1" if bodies else "volo-d1"
        raise UserError(
            f"{source}: is of the model that sees {'faces and bodies' if bodies else 'faces alone'}: --model {fits}"
        )
    youngest, oldest, mean = (plain_number(content, name, source) for name in ("min_age", "max_age", "avg_age"))
    if youngest >= oldest:
        raise UserError(f"{source}: min_age = {youngest:g} is not below max_age = {oldest:g}")
    age_only = bool(content.get("no_gender", False))
    if age_only:
        del backbone.answers["gender"]
    done = load_state_dict_mapped(_Weights(model), theirs, lambda name: _mivolo_name(name, age_only), source=source)
    model.head.publish(youngest, oldest, mean)
    said = f", ages {youngest:g} to {oldest:g}, mean {mean:g}{', no gender' if age_only else ''}"
    return done + said + _aside(content, {key, "min_age", "max_age", "avg_age", "no_gender", "with_persons_model"})


class _Weights(nn.Module):
    """An age model without its head's numbers: what weights are loaded into."""

    def __init__(self, model: AgeModel) -> None:
        super().__init__()
        assert isinstance(model.head, MinMaxRegressionHead)
        self.backbone, self.linear = model.backbone, model.head.linear


_SWINFACE_NAMES = [
    (r"backbone\.(patch_embed|norm)\.(.*)", r"backbone.trunk.\1.\2"),
    (r"backbone\.(layers\.\d+\.blocks\..*)", r"backbone.trunk.\1"),
    (r"backbone\.head\.(.*)", r"backbone.spare.\1"),
    (r"backbone\.feature\.(.*)", r"backbone.recognition.\1"),
    (r"fam\.nets\.(\d+)\.conv\.convs\.(.*)", r"backbone.branches.\1.convolutions.\2"),
    (r"fam\.nets\.(\d+)\.channel_attention\.mlp\.1\.(.*)", r"backbone.branches.\1.gate.squeeze.\2"),
    (r"fam\.nets\.(\d+)\.channel_attention\.mlp\.3\.(.*)", r"backbone.branches.\1.gate.excite.\2"),
    (r"fam\.nets\.(\d+)\.norm\.(.*)", r"backbone.branches.\1.norm.\2"),
    (r"tss\.nets\.(\d+)\.feature\.0\.(.*)", r"backbone.branches.\1.first.\2"),
    (r"tss\.nets\.(\d+)\.feature\.3\.(.*)", r"backbone.branches.\1.second.\2"),
]
_OUTPUTS = [name for group in BRANCHES for name in group]


def _swinface_name(name: str) -> Places:
    if name.endswith(("relative_position_index", "attn_mask")):
        return None
    if match := re.fullmatch(r"backbone\.layers\.(\d+)\.downsample\.(.*)", name):
        # They merge patches at the end of a stage, timm at the beginning of the next.
        return [(f"backbone.trunk.layers.{int(match[1]) + 1}.downsample.{match[2]}", ALL_KEYS)]
    if match := re.fullmatch(r"om\.output_fcs\.(\d+)\.(.*)", name):
        if int(match[1]) >= len(_OUTPUTS):
            return []
        output = _OUTPUTS[int(match[1])]
        return [(f"linear.{match[2]}" if output == "age" else f"backbone.outputs.{output}.{match[2]}", ALL_KEYS)]
    return _renamed(name, _SWINFACE_NAMES)


_MIVOLO_NAMES = [
    (r"((?:pos_embed|cls_token|network|post_network|norm)\b.*)", r"backbone.trunk.\1"),
    (r"patch_embed\.conv\.(.*)", r"backbone.embed.layers.\1"),
    (r"patch_embed\.proj\.(.*)", r"backbone.embed.patches.\1"),
    (r"patch_embed\.conv1\.(.*)", r"backbone.embed.face.layers.\1"),
    (r"patch_embed\.conv2\.(.*)", r"backbone.embed.body.layers.\1"),
    (r"patch_embed\.proj1\.(.*)", r"backbone.embed.face.patches.\1"),
    (r"patch_embed\.proj2\.(.*)", r"backbone.embed.body.patches.\1"),
    (r"patch_embed\.map\.qkv_f\.(.*)", r"backbone.embed.cross.face.\1"),
    (r"patch_embed\.map\.qkv_p\.(.*)", r"backbone.embed.cross.body.\1"),
    (r"patch_embed\.map\.pos_embed\.(.*)", r"backbone.embed.cross.position.\1"),
    (r"patch_embed\.map\.norm\.(.*)", r"backbone.embed.cross.norm.\1"),
    (r"patch_embed\.map\.mlp\.(.*)", r"backbone.embed.cross.mix.\1"),
]


def _mivolo_name(name: str, age_only: bool) -> Places:
    if match := re.fullmatch(r"(head|aux_head)\.(weight|bias)", name):
        layer = f"{'whole' if match[1] == 'head' else 'tokens'}.{match[2]}"
        if age_only:
            return [(f"backbone.answers.age.{layer}", ALL_KEYS)]
        genders = len(GENDERS)  # the first logits; then the age
        return [
            (f"backbone.answers.gender.{layer}", slice(0, genders)),
            (f"backbone.answers.age.{layer}", slice(genders, None)),
        ]
    return _renamed(name, _MIVOLO_NAMES)


def _renamed(name: str, rules: list[tuple[str, str]]) -> Places:
    for pattern, ours in rules:
        if match := re.fullmatch(pattern, name):
            return [(match.expand(ours), ALL_KEYS)]
    return []


def _aside(content: dict[str, Any], used: set[str]) -> str:
    rest = {key: value for key, value in content.items() if key not in used}
    return f"; left aside, of no use here: {_keys(rest)}" if rest else ""


def _keys(content: dict[str, Any]) -> str:
    shown = [str(key)[:40] for key in content][:8]
    return ", ".join(shown) + (", …" if len(content) > len(shown) else "") or "none"
