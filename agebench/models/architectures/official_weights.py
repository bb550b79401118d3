"""Maps from the tensor names of MiVOLO and SwinFace checkpoints to ours."""

import re
from pathlib import Path

from torch import nn

from agebench.config.cards.model import Architecture
from agebench.errors import UserError
from agebench.models.age_model import AgeModel
from agebench.models.architectures.checkpoint_io import (
    ALL_KEYS,
    Checkpoint,
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
Targets = list[tuple[str, slice]] | None


def load_published(model: AgeModel, card: Architecture, path: Path) -> WeightsSource:
    """Load the authors' weights; return their origin, for the manifest.

    Args:
        model: the model, which receives the weights.
        card: its name and head, for messages.
        path: the authors' checkpoint.

    Raises:
        UserError: the file does not exist, would run code, is of another model, or does not fit the model completely.
    """
    if not isinstance(model.head, MinMaxRegressionHead):
        raise UserError(
            f"{path}: the authors' weights need the head `normalised`, not '{card.head}'. Set `--head normalised`, or start "
            "from random weights with --no-pretrained"
        )
    content = read_checkpoint(path)
    kind = "swinface" if "state_dict_backbone" in content else "mivolo" if "min_age" in content else ""
    expected_kind = "swinface" if isinstance(model.backbone, SwinFace) else "mivolo"
    if kind != expected_kind:
        title = {"swinface": "SwinFace", "mivolo": "MiVOLO"}.get(kind, "neither MiVOLO nor SwinFace")
        raise UserError(f"{path}: contains {title}, which does not fit '{card.name}'. Its keys: {_keys(content)}")
    summary = (_load_swinface if kind == "swinface" else _load_mivolo)(model, content, str(path))
    return WeightsSource(WeightsKind.PUBLISHED, path.name, summary)


def _load_swinface(model: AgeModel, content: Checkpoint, source: str) -> str:
    published = {
        f"{part}.{name}": value
        for part in SWINFACE_PARTS
        for name, value in state_dict(content, f"state_dict_{part}", source).items()
    }
    assert isinstance(model.head, MinMaxRegressionHead)
    summary = load_state_dict_mapped(_Weights(model), published, _swinface_name, source=source)
    # The authors' output is the age in years, neither scaled nor clamped.
    model.head.publish(0.0, 1.0, 0.0)
    return summary + _unused(content, {f"state_dict_{part}" for part in SWINFACE_PARTS})


def _load_mivolo(model: AgeModel, content: Checkpoint, source: str) -> str:
    backbone = model.backbone
    assert isinstance(backbone, MiVOLO)
    assert isinstance(model.head, MinMaxRegressionHead)
    key = next((key for key in ("state_dict_ema", "model_ema") if content.get(key)), "state_dict")  # as timm chooses
    published = state_dict(content, key, source)
    # The tables of feature distribution smoothing are for training alone; the authors' code drops them too.
    published = {name: value for name, value in published.items() if "fds." not in name}
    bodies = bool(content.get("with_persons_model", "patch_embed.conv1.0.weight" in published))
    if bodies != backbone.bodies:
        name = "mivolo-d1" if bodies else "volo-d1"
        raise UserError(
            f"{source}: the weights are for {'faces and bodies' if bodies else 'faces alone'}. Set --model {name}"
        )
    youngest, oldest, mean = (plain_number(content, name, source) for name in ("min_age", "max_age", "avg_age"))
    if youngest >= oldest:
        raise UserError(f"{source}: min_age = {youngest:g} must be below max_age = {oldest:g}")
    age_only = bool(content.get("no_gender", False))
    if age_only:
        del backbone.answers["gender"]
    summary = load_state_dict_mapped(
        _Weights(model), published, lambda name: _mivolo_name(name, age_only), source=source
    )
    model.head.publish(youngest, oldest, mean)
    ages = f", ages {youngest:g} to {oldest:g}, mean {mean:g}{', no gender' if age_only else ''}"
    return summary + ages + _unused(content, {key, "min_age", "max_age", "avg_age", "no_gender", "with_persons_model"})


class _Weights(nn.Module):
    """The weights of an age model without the buffers of its head."""

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


def _swinface_name(name: str) -> Targets:
    if name.endswith(("relative_position_index", "attn_mask")):
        return None
    if match := re.fullmatch(r"backbone\.layers\.(\d+)\.downsample\.(.*)", name):
        # The authors merge patches at the end of a stage, timm at the beginning of the next.
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


def _mivolo_name(name: str, age_only: bool) -> Targets:
    if match := re.fullmatch(r"(head|aux_head)\.(weight|bias)", name):
        layer = f"{'whole' if match[1] == 'head' else 'tokens'}.{match[2]}"
        if age_only:
            return [(f"backbone.answers.age.{layer}", ALL_KEYS)]
        genders = len(GENDERS)  # the first logits; the age follows
        return [
            (f"backbone.answers.gender.{layer}", slice(0, genders)),
            (f"backbone.answers.age.{layer}", slice(genders, None)),
        ]
    return _renamed(name, _MIVOLO_NAMES)


def _renamed(name: str, rules: list[tuple[str, str]]) -> Targets:
    for pattern, target in rules:
        if match := re.fullmatch(pattern, name):
            return [(match.expand(target), ALL_KEYS)]
    return []


def _unused(content: Checkpoint, used: set[str]) -> str:
    unused = {key: value for key, value in content.items() if key not in used}
    return f"; not used: {_keys(unused)}" if unused else ""


def _keys(content: Checkpoint) -> str:
    names = [str(key)[:40] for key in content][:8]
    return ", ".join(names) + (", …" if len(content) > len(names) else "") or "none"
