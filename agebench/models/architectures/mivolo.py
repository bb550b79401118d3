"""MiVOLO (Kuprashevich and Tolstykh 2023): age and gender from a face, a body, or both, through one VOLO-D1.

Face and body have a patch embedding each. Where both are seen, each asks the other by cross-attention, and one map of what
came out goes through the transformer. Without bodies it is a VOLO-D1 with a number for age and two logits for gender.
"""

from collections.abc import Sequence

import torch
from timm.layers.bottleneck_attn import PosEmbedRel
from timm.layers.mlp import Mlp
from timm.models.volo import VOLO
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models.auxiliary_heads import SelectColumns

SIZE = 224
STEM, WIDTH = 64, 192  # channels of the stem, and of a patch
PATCHES = SIZE // 8  # along a side
DEPTHS = (4, 4, 8, 2)  # blocks of each stage
GENDERS = ("male", "female")  # in the order of the authors' logits
TOKENS_SHARE = 0.5  # of the best token's answer, beside the class token's (VOLO's token labelling)


class Stem(nn.Module):
    """Three convolutions and a step of eight pixels: (B, 3, 224, 224) -> (B, 192, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, kernel, stride in ((3, 7, 2), (STEM, 3, 1), (STEM, 3, 1)):
            layers += [
                nn.Conv2d(before, STEM, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(STEM),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.patches = nn.Conv2d(STEM, WIDTH, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (B, 192, 28, 28)."""
        return self.patches(self.layers(images))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Face and body maps (B, 192, 28, 28) -> one map of the same shape (section 3.2, figure 3).

    Each of them sends its queries to the other's keys and values; positions are relative (Srinivas et al. 2021), scores are
    scaled but their positional part is not. Both answers are normalised together, over channels and places, and mixed.
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
        """Two maps (B, 192, 28, 28) -> one."""
        face_query, *face_says = self._tokens(self.face(face))
        body_query, *body_says = self._tokens(self.body(body))
        answers = [self._ask(face_query, *body_says), self._ask(body_query, *face_says)]
        maps = torch.cat(answers, dim=2).transpose(1, 2).reshape(-1, 2 * WIDTH, PATCHES, PATCHES)
        return self.mix(self.norm(maps))  # type: ignore[no-any-return]

    def _tokens(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3 * 192, 28, 28) -> queries, keys and values, (B, 784, 192) each."""
        query, key, value = maps.flatten(2).transpose(1, 2).chunk(3, dim=2)
        return query, key, value

    def _ask(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores: Tensor = query @ key.transpose(1, 2) * self.scale + self.position(query)
        return scores.softmax(dim=-1) @ value


class FaceBodyStem(nn.Module):
    """(B, 6, 224, 224), the face's channels first -> (B, 192, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.face, self.body, self.cross = Stem(), Stem(), CrossAttention()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 6, 224, 224) -> (B, 192, 28, 28)."""
        return self.cross(self.face(images[:, :3]), self.body(images[:, 3:]))  # type: ignore[no-any-return]


class TokenClassifierHead(nn.Module):
    """Logits from all tokens (B, 1 + N, C): the class token's, and half the highest of the others', each logit by itself."""

    def __init__(self, features: int, count: int) -> None:
        super().__init__()
        self.whole, self.tokens = nn.Linear(features, count), nn.Linear(features, count)
        for layer in (self.whole, self.tokens):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 1 + N, F) -> (B, C)."""
        return self.whole(tokens[:, 0]) + TOKENS_SHARE * self.tokens(tokens[:, 1:]).amax(dim=1)  # type: ignore[no-any-return]


class MiVOLO(nn.Module):
    """Normalised images (B, 3 or 6, 224, 224) -> the age's number (B, 1), then the logits of each further task.

    A face or a body that is not there is a black picture, normalised like any other.

    Attributes:
        embed: images -> patches.
        trunk: timm's VOLO-D1 without its own embedding and classifiers.
        answers: what is asked of all tokens: age, gender (trained when it is a task), and whatever else a run learns.
        bodies: whether a body is seen beside the face.
    """

    def __init__(self, bodies: bool) -> None:
        super().__init__()
        self.bodies = bodies
        self.embed = FaceBodyStem() if bodies else Stem()
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
            {"age": TokenClassifierHead(self.width, 1), "gender": TokenClassifierHead(self.width, len(GENDERS))}
        )
        self.answers["gender"].requires_grad_(False)
        self._asked = ["age"]
        self._said = 1

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3 or 6, 224, 224) -> (B, 1 + further logits)."""
        tokens = self.tokens(images)
        return torch.cat([self.answers[name](tokens) for name in self._asked], dim=1)

    def tokens(self, images: Tensor) -> Tensor:
        """(B, 3 or 6, 224, 224) -> (B, 1 + 196, 384): the class token and the others, normalised."""
        patches = self.embed(images).permute(0, 2, 3, 1)
        return self.trunk.norm(self.trunk.forward_cls(self.trunk.forward_tokens(patches)))  # type: ignore[no-any-return]

    def add_task(self, name: str, classes: Sequence[str]) -> nn.Module:
        """Gender is answered already; anything else is asked of the same tokens."""
        native = name == "gender" and "gender" in self.answers and set(classes) <= set(GENDERS)
        key = name if native else f"task {len(self._asked)}"
        if not native:
            self.answers[key] = TokenClassifierHead(self.width, len(classes))
        self.answers[key].requires_grad_(True)
        self._asked.append(key)
        start = self._said
        order = [GENDERS.index(label) for label in classes] if native else range(len(classes))
        self._said += len(GENDERS) if native else len(classes)
        return SelectColumns([start + place for place in order])


def create(size: int, bodies: bool) -> tuple[nn.Module, int]:
    """MiVOLO-D1, or with faces alone VOLO-D1, randomly initialised; one of its features is the age's.

    Raises:
        UserError: not 224 pixels.
    """
    if size != SIZE:
        raise UserError(f"agebench.mivolo-d1 takes images of {SIZE} px, not of {size}: model.size = {SIZE}")
    return MiVOLO(bodies), 1
