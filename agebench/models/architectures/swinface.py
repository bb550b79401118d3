"""SwinFace (Qin et al., IEEE TCSVT 2023): one Swin-T, and for each group of tasks its own choice of levels and channels.

Eleven branches look at the features of all four stages. The names below are those of the authors' 42 outputs; age and what
a run asks for beside it are computed and trained, the others keep the weights they were given.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models.auxiliary_heads import SelectColumns

SIZE, WIDTH = 112, 512
DEPTHS = (2, 2, 6, 2)  # blocks of each stage
# Channels of what each stage gives on, and of what a branch makes of them: 512 in all, shared out in proportion.
LEVELS = (192, 384, 768, 768)
SHARES = (47, 93, 186, 186)
REDUCTION, BATCH_NORM_EPS, DROPOUT = 16, 2e-5, 0.5
ATTRIBUTE = 2
AGE_BRANCH = 1
# Branch -> its outputs and how many logits each has.
BRANCHES: tuple[dict[str, int], ...] = (
    {"gender": 2},
    {"age": 1, "young": 2},
    {"expression": 7, "smiling": 2},
    dict.fromkeys(("attractive", "blurry", "chubby", "heavy_makeup", "oval_face", "pale_skin"), ATTRIBUTE),
    dict.fromkeys(
        (
            *("bald", "bangs", "black_hair", "blond_hair", "brown_hair", "gray_hair"),
            *("receding_hairline", "straight_hair", "wavy_hair", "wearing_hat"),
        ),
        ATTRIBUTE,
    ),
    dict.fromkeys(("arched_eyebrows", "bags_under_eyes", "bushy_eyebrows", "eyeglasses", "narrow_eyes"), ATTRIBUTE),
    dict.fromkeys(("big_nose", "pointy_nose"), ATTRIBUTE),
    dict.fromkeys(("high_cheekbones", "rosy_cheeks", "wearing_earrings", "sideburns"), ATTRIBUTE),
    dict.fromkeys(
        ("five_o_clock_shadow", "big_lips", "mouth_slightly_open", "mustache", "wearing_lipstick", "no_beard"),
        ATTRIBUTE,
    ),
    dict.fromkeys(("double_chin", "goatee"), ATTRIBUTE),
    dict.fromkeys(("wearing_necklace", "wearing_necktie"), ATTRIBUTE),
)
GENDERS = ("female", "male")  # CelebA's attribute is `Male`


class ChannelGate(nn.Module):
    """Each channel times a weight in [0, 1], from its mean and its maximum (CBAM, Woo et al. 2018, section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        weight = self._score(maps.mean(dim=(2, 3))) + self._score(maps.amax(dim=(2, 3)))
        return maps * torch.sigmoid(weight)[:, :, None, None]

    def _score(self, pooled: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(pooled)))  # type: ignore[no-any-return]


class Branch(nn.Module):
    """Multi-level channel attention (section III-C), then the group's own two layers: maps (B, 2112, 7, 7) -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(level, share, 3, padding=1, bias=False) for level, share in zip(LEVELS, SHARES, strict=True)
        )
        self.gate = ChannelGate(WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH, eps=BATCH_NORM_EPS)
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.apply(_small_start)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, 2112, 7, 7) -> (B, 512)."""
        levels = torch.split(maps, list(LEVELS), dim=1)
        mixed = torch.cat([convolve(level) for convolve, level in zip(self.convolutions, levels, strict=True)], dim=1)
        pooled = self.norm(F.relu(self.gate(mixed)).amax(dim=(2, 3)))
        hidden = self.dropout(F.relu(self.first(pooled)))
        return self.dropout(F.relu(self.second(hidden)))  # type: ignore[no-any-return]


class SwinFace(nn.Module):
    """Images (B, 3, 112, 112) scaled to [-1, 1] -> the features of the age's branch (B, 512), then each further task's logits.

    Attributes:
        trunk: timm's Swin-T with patches of 2 pixels.
        recognition: the trunk's last features -> the 512 numbers that faces are compared by.
        spare: in the authors' weights, of no effect; kept so that these come back whole.
        branches: one a group of tasks, see `BRANCHES`.
        outputs: linear layers by the output's name; the age's is the age model's head.
    """

    def __init__(self) -> None:
        super().__init__()
        # torch's own LayerNorm has the eps that the authors use; timm's default for Swin is the same.
        self.trunk = SwinTransformer(
            img_size=SIZE, patch_size=2, num_classes=0, depths=DEPTHS, window_size=7, drop_path_rate=0.1
        )
        width = self.trunk.num_features
        self.recognition = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, eps=BATCH_NORM_EPS),
            nn.Linear(width, WIDTH, bias=False),
            nn.BatchNorm1d(WIDTH, eps=BATCH_NORM_EPS),
        )
        self.spare = nn.Linear(width, WIDTH)
        self.branches = nn.ModuleList(Branch() for _ in BRANCHES)
        self.outputs = nn.ModuleDict(
            {
                name: nn.Linear(WIDTH, size)
                for group in BRANCHES
                for name, size in group.items()
                if name != "age"  # that one is the head
            }
        )
        for fresh in (self.recognition, self.spare, self.outputs):
            fresh.apply(_small_start)
        self._asked: list[tuple[int, str]] = []  # branch and output of each task beside age
        self._said = WIDTH
        # Neither branches without labels nor the trunk's last norm, which serves recognition alone, can be trained here.
        for part in (self.recognition, self.spare, self.outputs, self.branches, self.trunk.norm):
            part.requires_grad_(False)
        self.branches[AGE_BRANCH].requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 112, 112) -> (B, 512 + the tasks' logits)."""
        maps = self.levels(images)[0]
        said = [self.outputs[name](self.branches[place](maps)) for place, name in self._asked]
        return torch.cat([self.branches[AGE_BRANCH](maps), *said], dim=1)

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All levels as one map (B, 2112, 7, 7), and the last stage's features (B, 7, 7, 768)."""
        stages: list[Any] = list(self.trunk.layers)
        features = stages[0](self.trunk.patch_embed(images))
        levels = []
        for stage in stages[1:]:
            # A level is what its stage hands on: merged patches, not yet seen by the next stage's blocks.
            features = stage.downsample(features)
            levels.append(features)
            features = stage.blocks(features)
        levels.append(features)
        side = features.shape[1]
        maps = [level.permute(0, 3, 1, 2) for level in levels]
        return torch.cat([F.avg_pool2d(level, level.shape[2] // side) for level in maps], dim=1), features

    def embedding(self, images: Tensor) -> Tensor:
        """(B, 3, 112, 112) -> (B, 512): faces of one person lie close to one another by the cosine."""
        return self._recognise(self.levels(images)[1])

    def everything(self, images: Tensor) -> dict[str, Tensor]:
        """All that the authors' weights say but the age: each output's logits (B, 2 or 7), and `embedding` (B, 512)."""
        maps, last = self.levels(images)
        said: dict[str, Tensor] = {}
        for branch, group in zip(self.branches, BRANCHES, strict=False):
            features = branch(maps)
            said |= {name: self.outputs[name](features) for name in group if name in self.outputs}
        return said | {"embedding": self._recognise(last)}

    def _recognise(self, last: Tensor) -> Tensor:
        return self.recognition(self.trunk.norm(last).mean(dim=(1, 2)))  # type: ignore[no-any-return]

    def add_task(self, name: str, classes: Sequence[str]) -> nn.Module:
        """Gender has a branch already; anything else gets a new one."""
        native = name == "gender" and set(classes) <= set(GENDERS)
        place, output = (0, name) if native else (len(self.branches), f"task {len(self._asked)}")
        if not native:
            self.branches.append(Branch())
            self.outputs[output] = nn.Linear(WIDTH, len(classes)).apply(_small_start)
        self.branches[place].requires_grad_(True)
        self.outputs[output].requires_grad_(True)
        self._asked.append((place, output))
        start = self._said
        self._said += len(GENDERS) if native else len(classes)
        return SelectColumns(
            [start + at for at in ([GENDERS.index(one) for one in classes] if native else range(len(classes)))]
        )


def _small_start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def create(size: int, bodies: bool) -> tuple[nn.Module, int]:
    """SwinFace, randomly initialised, and the width of its features of age.

    Raises:
        UserError: not 112 pixels, or with bodies.
    """
    if size != SIZE:
        raise UserError(f"agebench.swinface takes faces of {SIZE} px, not of {size}: model.size = {SIZE}")
    if bodies:
        raise UserError("agebench.swinface sees faces alone; bodies = true is for agebench.mivolo-d1")
    return SwinFace(), WIDTH
