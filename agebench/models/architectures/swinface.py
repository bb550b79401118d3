"""SwinFace (Qin et al., IEEE TCSVT 2023): a Swin-T for several facial tasks.

Each group of tasks has its own attention over levels and channels.

Eleven branches use the features of all four stages. The names below are those of the authors' 42 outputs; the age and the
auxiliary targets of a run are computed and trained, and the weights of the others do not change.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from agebench.models.architectures.face_input import backbone_factory
from agebench.models.auxiliary_heads import SelectColumns

SIZE, WIDTH = 112, 512
DEPTHS = (2, 2, 6, 2)  # blocks per stage
# Output channels of each stage, and the channels of a branch for each: 512 in total, in proportion.
LEVELS = (192, 384, 768, 768)
SHARES = (47, 93, 186, 186)
REDUCTION, BATCH_NORM_EPS, DROPOUT = 16, 2e-5, 0.5
ATTRIBUTE = 2
AGE_BRANCH = 1
# For each branch: output -> number of logits.
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


class _ChannelGate(nn.Module):
    """Channel attention from mean and maximum (CBAM, Woo et al. 2018, section 3).

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (B, C, H, W), each channel times its weight in [0, 1]."""
        weight = self._score(maps.mean(dim=(2, 3))) + self._score(maps.amax(dim=(2, 3)))
        return maps * torch.sigmoid(weight)[:, :, None, None]

    def _score(self, pooled: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(pooled)))  # type: ignore[no-any-return]


class _Branch(nn.Module):
    """Multi-level channel attention (section III-C), followed by two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(level, share, 3, padding=1, bias=False) for level, share in zip(LEVELS, SHARES, strict=True)
        )
        self.gate = _ChannelGate(WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH, eps=BATCH_NORM_EPS)
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.apply(_small_start)

    def forward(self, maps: Tensor) -> Tensor:
        """Return features (B, 512) of maps (B, 2112, 7, 7)."""
        levels = torch.split(maps, list(LEVELS), dim=1)
        mixed = torch.cat([convolve(level) for convolve, level in zip(self.convolutions, levels, strict=True)], dim=1)
        pooled = self.norm(F.relu(self.gate(mixed)).amax(dim=(2, 3)))
        hidden = self.dropout(F.relu(self.first(pooled)))
        return self.dropout(F.relu(self.second(hidden)))  # type: ignore[no-any-return]


class SwinFace(nn.Module):
    """The backbone of SwinFace.

    Images (B, 3, 112, 112) in [-1, 1] -> features of the age branch (B, 512), then logits of each auxiliary target.

    Attributes:
        trunk: timm's Swin-T with patches of 2 pixels.
        recognition: the trunk's last features -> the embedding (B, 512) for face recognition.
        spare: an unused layer of the authors' weights, kept so that they load completely.
        branches: one per group of tasks, in the order of `BRANCHES`, then one per new auxiliary target.
        outputs: linear layers by the name of the output; that of the age is the head of the age model.
    """

    def __init__(self) -> None:
        super().__init__()
        # The eps of torch's LayerNorm, timm's default for Swin, is that of the authors.
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
        self.branches = nn.ModuleList(_Branch() for _ in BRANCHES)
        self.outputs = nn.ModuleDict(
            {
                name: nn.Linear(WIDTH, size)
                for group in BRANCHES
                for name, size in group.items()
                if name != "age"  # the head of the age model
            }
        )
        for layers in (self.recognition, self.spare, self.outputs):
            layers.apply(_small_start)
        self._targets: list[tuple[int, str]] = []  # branch and output of each auxiliary target
        self._n_columns = WIDTH
        # Branches without labels and the trunk's last norm, which only recognition uses, cannot be trained here.
        for module in (self.recognition, self.spare, self.outputs, self.branches, self.trunk.norm):
            module.requires_grad_(False)
        self.branches[AGE_BRANCH].requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Return age features and auxiliary logits (B, 512 + logits).

        Args:
            images: (B, 3, 112, 112) in [-1, 1].
        """
        maps = self.levels(images)[0]
        logits = [self.outputs[name](self.branches[branch](maps)) for branch, name in self._targets]
        return torch.cat([self.branches[AGE_BRANCH](maps), *logits], dim=1)

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of all stages.

        Args:
            images: (B, 3, 112, 112).

        Returns:
            All levels as one map (B, 2112, 7, 7), and the features of the last stage (B, 7, 7, 768).
        """
        stages: list[Any] = list(self.trunk.layers)
        features = stages[0](self.trunk.patch_embed(images))
        levels = []
        for stage in stages[1:]:
            # A level is the input of the next stage's blocks: merged patches.
            features = stage.downsample(features)
            levels.append(features)
            features = stage.blocks(features)
        levels.append(features)
        side = features.shape[1]
        maps = [level.permute(0, 3, 1, 2) for level in levels]
        return torch.cat([F.avg_pool2d(level, level.shape[2] // side) for level in maps], dim=1), features

    def embedding(self, images: Tensor) -> Tensor:
        """Return recognition embeddings (B, 512), to be compared by their cosine.

        Args:
            images: (B, 3, 112, 112) in [-1, 1].
        """
        return self._embed(self.levels(images)[1])

    def everything(self, images: Tensor) -> dict[str, Tensor]:
        """Return all outputs except the age.

        Args:
            images: (B, 3, 112, 112).

        Returns:
            Output -> logits (B, 2 or 7), and "embedding" -> (B, 512).
        """
        maps, last = self.levels(images)
        outputs: dict[str, Tensor] = {}
        for branch, group in zip(self.branches, BRANCHES, strict=False):
            features = branch(maps)
            outputs |= {name: self.outputs[name](features) for name in group if name in self.outputs}
        return outputs | {"embedding": self._embed(last)}

    def _embed(self, last: Tensor) -> Tensor:
        return self.recognition(self.trunk.norm(last).mean(dim=(1, 2)))  # type: ignore[no-any-return]

    def add_task(self, name: str, classes: Sequence[str]) -> nn.Module:
        """Add an auxiliary target; gender uses the published branch, others get a new one.

        Args:
            name: the target, e.g. "gender".
            classes: its classes, in the order of the logits.
        """
        is_published = name == "gender" and set(classes) <= set(GENDERS)
        branch, output = (0, name) if is_published else (len(self.branches), f"task {len(self._targets)}")
        if not is_published:
            self.branches.append(_Branch())
            self.outputs[output] = nn.Linear(WIDTH, len(classes)).apply(_small_start)
        self.branches[branch].requires_grad_(True)
        self.outputs[output].requires_grad_(True)
        self._targets.append((branch, output))
        start = self._n_columns
        self._n_columns += len(GENDERS) if is_published else len(classes)
        columns = [GENDERS.index(label) for label in classes] if is_published else range(len(classes))
        return SelectColumns([start + column for column in columns])


def _small_start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


create = backbone_factory("agebench.swinface", SwinFace, WIDTH, default=SIZE)
