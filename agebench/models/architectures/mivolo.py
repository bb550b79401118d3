"""MiVOLO (Kuprashevich and Tolstykh 2023): age and gender from face and body.

Face and body have separate patch embeddings. With both, each attends to the other by cross-attention, and the transformer
processes one combined map. Without bodies the network is a VOLO-D1 with one output for age and two logits for gender.
"""

from collections.abc import Sequence

import torch
from timm.layers.bottleneck_attn import PosEmbedRel
from timm.layers.mlp import Mlp
from timm.models.volo import VOLO
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models.auxiliary_heads import SelectColumns
from agebench.models.heads.base import is_autocast

SIZE = 224
STEM, WIDTH = 64, 192  # channels of the stem and of a patch
PATCHES = SIZE // 8  # per side
DEPTHS = (4, 4, 8, 2)  # blocks per stage
GENDERS = ("male", "female")  # in the order of the authors' logits
TOKENS_SHARE = 0.5  # weight of the highest patch-token logit, added to that of the class token (VOLO's token labeling)


class _Stem(nn.Module):
    """Patch embedding: three convolutions and patches of eight pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, kernel, stride in ((3, 7, 2), (STEM, 3, 1), (STEM, 3, 1)):
            layers += [
                nn.Conv2d(n_in, STEM, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(STEM),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.patches = nn.Conv2d(STEM, WIDTH, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Return patches (B, 192, 28, 28) of images (B, 3, 224, 224)."""
        return self.patches(self.layers(images))  # type: ignore[no-any-return]


class _CrossAttention(nn.Module):
    """Combine face and body maps by cross-attention (section 3.2, figure 3).

    The queries of each map attend to keys and values of the other. Positions are relative (Srinivas et al. 2021); scores are
    scaled, except for their positional part. Both results are normalized together, over channels and positions, and mixed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = WIDTH**-0.5
        self.face, self.body = (nn.Conv2d(WIDTH, 3 * WIDTH, 1, bias=False) for _ in range(2))
        self.position = PosEmbedRel((PATCHES, PATCHES), dim_head=WIDTH, scale=self.scale)
        self.norm = nn.LayerNorm([2 * WIDTH, PATCHES, PATCHES])
        self.mix = Mlp(2 * WIDTH, 4 * WIDTH, WIDTH, use_conv=True)
        for module in (self.face, self.body):
            nn.init.trunc_normal_(module.weight, std=self.scale)
        for table in (self.position.height_rel, self.position.width_rel):
            nn.init.trunc_normal_(table, std=self.scale)

    def forward(self, face: Tensor, body: Tensor) -> Tensor:
        """Return one map (B, 192, 28, 28).

        Args:
            face: (B, 192, 28, 28) map of the face.
            body: (B, 192, 28, 28) map of the body.
        """
        face_query, *face_key_value = self._tokens(self.face(face))
        body_query, *body_key_value = self._tokens(self.body(body))
        attended = [self._attend(face_query, *body_key_value), self._attend(body_query, *face_key_value)]
        maps = torch.cat(attended, dim=2).transpose(1, 2).reshape(-1, 2 * WIDTH, PATCHES, PATCHES)
        return self.mix(self.norm(maps))  # type: ignore[no-any-return]

    def _tokens(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, 784, 192) each, of maps (B, 3 * 192, 28, 28)."""
        query, key, value = maps.flatten(2).transpose(1, 2).chunk(3, dim=2)
        return query, key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores: Tensor = query @ key.transpose(1, 2) * self.scale + self.position(query)
        return scores.softmax(dim=-1) @ value


class _FaceBodyStem(nn.Module):
    """Patch embedding of a face and a body."""

    def __init__(self) -> None:
        super().__init__()
        self.face, self.body, self.cross = _Stem(), _Stem(), _CrossAttention()

    def forward(self, images: Tensor) -> Tensor:
        """Return patches (B, 192, 28, 28).

        Args:
            images: (B, 6, 224, 224), the face's channels first.
        """
        return self.cross(self.face(images[:, :3]), self.body(images[:, 3:]))  # type: ignore[no-any-return]


class _TokenClassifierHead(nn.Module):
    """A classifier of all tokens.

    Each logit is that of the class token plus half the highest of the patch tokens.

    Args:
        features: width of a token.
        n_classes: number of logits.
    """

    def __init__(self, features: int, n_classes: int) -> None:
        super().__init__()
        self.whole, self.tokens = nn.Linear(features, n_classes), nn.Linear(features, n_classes)
        for layer in (self.whole, self.tokens):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, C) of tokens (B, 1 + N, F), the class token first; in float32 also under autocast."""
        if is_autocast(tokens):  # as the heads of other models, see `AgeModel.forward`
            with torch.autocast(tokens.device.type, enabled=False):
                return self._logits(tokens.float())
        return self._logits(tokens)

    def _logits(self, tokens: Tensor) -> Tensor:
        return self.whole(tokens[:, 0]) + TOKENS_SHARE * self.tokens(tokens[:, 1:]).amax(dim=1)  # type: ignore[no-any-return]


class MiVOLO(nn.Module):
    """MiVOLO-D1, or VOLO-D1 without bodies.

    Normalized images (B, 3 or 6, 224, 224) -> scaled age (B, 1), followed by the logits of each auxiliary target.

    A missing face or body is a black image, normalized like the others.

    Args:
        bodies: whether the input has a body beside the face.

    Attributes:
        embed: images -> patches.
        trunk: timm's VOLO-D1 without its own embedding and classifiers.
        answers: classifiers of the tokens: age, gender (trained if it is an auxiliary target), and other auxiliary targets.
        bodies: as given.
    """

    def __init__(self, bodies: bool) -> None:
        super().__init__()
        self.bodies = bodies
        self.embed = _FaceBodyStem() if bodies else _Stem()
        self.trunk = VOLO(
            layers=list(DEPTHS),
            img_size=SIZE,
            num_classes=0,
            embed_dims=[WIDTH, 384, 384, 384],
            num_heads=[6, 12, 12, 12],
            drop_path_rate=0.1,
        )
        self.trunk.patch_embed = nn.Identity()  # type: ignore[assignment]
        self.width = self.trunk.num_features
        self.answers = nn.ModuleDict(
            {"age": _TokenClassifierHead(self.width, 1), "gender": _TokenClassifierHead(self.width, len(GENDERS))}
        )
        self.answers["gender"].requires_grad_(False)
        self._outputs = ["age"]
        self._n_logits = 1

    def forward(self, images: Tensor) -> Tensor:
        """Return scaled age and auxiliary logits (B, 1 + logits).

        Args:
            images: (B, 3 or 6, 224, 224), normalized.
        """
        tokens = self.tokens(images)
        return torch.cat([self.answers[name](tokens) for name in self._outputs], dim=1)

    def tokens(self, images: Tensor) -> Tensor:
        """Return normalized tokens (B, 1 + 196, 384), the class token first.

        Args:
            images: (B, 3 or 6, 224, 224), normalized.
        """
        patches = self.embed(images).permute(0, 2, 3, 1)
        return self.trunk.norm(self.trunk.forward_cls(self.trunk.forward_tokens(patches)))  # type: ignore[no-any-return]

    def add_task(self, name: str, classes: Sequence[str]) -> nn.Module:
        """Add an auxiliary target.

        Gender uses the published classifier; others get a new one on the same tokens.

        Args:
            name: the target, e.g. "gender".
            classes: its classes, in the order of the logits.
        """
        is_published = name == "gender" and "gender" in self.answers and set(classes) <= set(GENDERS)
        key = name if is_published else f"task {len(self._outputs)}"
        if not is_published:
            self.answers[key] = _TokenClassifierHead(self.width, len(classes))
        self.answers[key].requires_grad_(True)
        self._outputs.append(key)
        start = self._n_logits
        order = [GENDERS.index(label) for label in classes] if is_published else range(len(classes))
        self._n_logits += len(GENDERS) if is_published else len(classes)
        return SelectColumns([start + column for column in order])


def create(size: int, bodies: bool) -> tuple[nn.Module, int]:
    """Create MiVOLO-D1, or VOLO-D1 for faces alone, with random weights.

    Args:
        size: the side of the input, pixels; must be 224.
        bodies: whether the input has a body beside the face.

    Returns:
        The backbone, and the number of its features of the age, 1.

    Raises:
        UserError: `size` is not 224.
    """
    if size != SIZE:
        raise UserError(f"agebench.mivolo-d1 accepts images of {SIZE} px, not of {size}. Set model.size = {SIZE}")
    return MiVOLO(bodies), 1
