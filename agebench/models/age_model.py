"""AgeModel: a backbone, a head, and nothing hidden between them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from agebench.config.cards.base import Architecture
from agebench.errors import UserError
from agebench.models import heads
from agebench.models.auxiliary_heads import SupportsAuxiliaryTargets, cross_entropy, split_logits
from agebench.models.backbones import create_backbone
from agebench.models.heads import AgeEstimate, Head

AGES = (0, 100)


class AgeModel(nn.Module):
    """Normalised images (B, C, S, S) -> logits; `predict` goes on to ages.

    Attributes:
        backbone: images -> features; the age's are the first `head.in_features` of them.
        head: what is said about age. Age is the benchmark.
        tasks: one module a further target, features -> logits of its classes.
        classes: target -> its classes, in the order of their logits.
    """

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.tasks = nn.ModuleList()
        self.classes: dict[str, tuple[str, ...]] = {}

    def add_task(self, name: str, classes: Sequence[str]) -> None:
        """Learn to tell `classes` too, on the same features."""
        if isinstance(self.backbone, SupportsAuxiliaryTargets):
            made = self.backbone.add_task(name, classes)
        else:
            made = nn.Linear(self.head.in_features, len(classes))
        self.tasks.append(made)
        self.classes[name] = tuple(classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) float, normalised -> (B, head.out_features) logits, then each task's, in the order of `classes`.

        Features (B, D) of a frozen backbone go in likewise.
        """
        features = images if images.ndim == 2 else self.backbone(images)
        logits = self.head(features[:, : self.head.in_features])
        if not self.tasks:
            return logits  # type: ignore[no-any-return]
        return torch.cat([logits, *(task(features) for task in self.tasks)], dim=1)

    def split(self, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What `forward` gives -> the age's logits (B, head.out_features), and each task's (B, classes)."""
        return split_logits(logits, self.head.out_features, self.classes)

    def losses(self, logits: Tensor, age: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss of the age, as `age`, and of each task under its name; none is weighed.

        Args:
            logits: what `forward` gives.
            age: (B,) float years.
            labels: task -> (B,) places among its classes, `UNKNOWN` where a face has no label.
        """
        of_age, others = self.split(logits)
        return {"age": self.head.loss(of_age, age)} | {
            name: cross_entropy(of, labels[name]) for name, of in others.items()
        }

    def predict(self, images: Tensor) -> AgeEstimate:
        """What the model says about normalised images; the caller chooses eval and inference mode."""
        return self.head.decode(self.split(self(images))[0])


def create_model(card: Architecture, *, ages: tuple[int, int] = AGES) -> AgeModel:
    """The model that `card` describes, randomly initialised; see `agebench.models.weights` for anything better.

    Targets beside age join with `add_task`, when their classes are known.

    Raises:
        UserError: the card names a backbone, a head or a head's option that does not exist, or that do not go together.
    """
    backbone, features = create_backbone(card.backbone, size=card.size, bodies=card.bodies)
    if features == 1 and card.head != "normalised":
        raise UserError(
            f"{card.backbone} says the age by one number of its own: its head is 'normalised', not '{card.head}'"
        )
    for name in ("name", "in_features", "ages"):
        if name in card.head_options:
            raise UserError(f"head '{card.head}': head_options.{name} is no option: it follows from the model")
    return AgeModel(backbone, heads.create(card.head, in_features=features, ages=ages, **card.head_options))
