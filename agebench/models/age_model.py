"""AgeModel: a backbone, a head, and nothing hidden between them."""

from torch import Tensor, nn

from agebench.models import heads
from agebench.models.backbones import create_backbone
from agebench.models.heads import AgeEstimate, Head
from agebench.registry.cards import Architecture

AGES = (0, 100)


class AgeModel(nn.Module):
    """Normalised images (B, 3, S, S) -> logits; `predict` goes on to ages."""

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float, normalised -> (B, head.out_features) logits; features (B, D) of a frozen backbone likewise."""
        return self.head(images if images.ndim == 2 else self.backbone(images))  # type: ignore[no-any-return]

    def predict(self, images: Tensor) -> AgeEstimate:
        """What the model says about normalised images; the caller chooses eval and inference mode."""
        return self.head.decode(self(images))


def create_model(card: Architecture, *, ages: tuple[int, int] = AGES) -> AgeModel:
    """The model that `card` describes, randomly initialised; see `agebench.models.weights` for anything better.

    Raises:
        UserError: the card names a backbone, a head or a head's option that does not exist.
    """
    backbone, features = create_backbone(card.backbone, size=card.size)
    return AgeModel(backbone, heads.create(card.head, in_features=features, ages=ages, **card.head_options))
