"""AgeModel: a backbone followed by an age head."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from agebench.config.cards.model import Architecture
from agebench.errors import UserError
from agebench.models import heads
from agebench.models.auxiliary_heads import SupportsAuxiliaryTargets, cross_entropy, split_logits
from agebench.models.backbones import create_backbone
from agebench.models.heads import AgeEstimate, Head, average_estimates
from agebench.models.heads.base import is_autocast

AGES = (0, 100)


class AgeModel(nn.Module):
    """Normalized images (B, C, S, S) -> logits; `predict` decodes them to ages.

    Args:
        backbone: images -> features; the first `head.in_features` of them are those of the age.
        head: the age head.

    Attributes:
        backbone: as given.
        head: as given. The benchmark measures the age alone.
        tasks: one module per auxiliary target, features -> logits of its classes.
        classes: auxiliary target -> its classes, in the order of their logits.
        flip_tta: whether estimates are the mean over an image and its mirror image (test-time augmentation).
    """

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.tasks = nn.ModuleList()
        self.classes: dict[str, tuple[str, ...]] = {}
        self.flip_tta = False

    def add_task(self, name: str, classes: Sequence[str]) -> None:
        """Add an auxiliary target, predicted from the same features.

        Args:
            name: the target, e.g. "gender".
            classes: its classes, in the order of the logits.
        """
        if isinstance(self.backbone, SupportsAuxiliaryTargets):
            task_head = self.backbone.add_task(name, classes)
        else:
            task_head = nn.Linear(self.head.in_features, len(classes))
        self.tasks.append(task_head)
        self.classes[name] = tuple(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the age head and of each auxiliary target.

        Auxiliary targets follow in the order of `classes`. Only the backbone computes in 16 bits under autocast, because ages of
        rounded logits are rounded, too.

        Args:
            images: (B, C, S, S) float, normalized; or features (B, D) of a frozen backbone.

        Returns:
            (B, head.out_features + the number of all auxiliary classes).
        """
        features = images if images.ndim == 2 else self.backbone(images)
        if not is_autocast(features):
            return self._logits(features)
        with torch.autocast(features.device.type, enabled=False):
            return self._logits(self.head.upcast(features))

    def _logits(self, features: Tensor) -> Tensor:
        """Return the logits (B, F) of the features (B, D) of the backbone."""
        logits = self.head(features[:, : self.head.in_features])
        if not self.tasks:
            return logits  # type: ignore[no-any-return]
        return torch.cat([logits, *(task(features) for task in self.tasks)], dim=1)

    def split(self, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Split the logits of `forward`.

        Returns:
            The logits of the age (B, head.out_features), and of each auxiliary target (B, classes).
        """
        return split_logits(logits, self.head.out_features, self.classes)

    def losses(self, logits: Tensor, age: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean losses of the age and of each auxiliary target.

        The losses are unweighted; that of the age is named `age`.

        Args:
            logits: (B, F), from `forward`.
            age: (B,) float years.
            labels: auxiliary target -> (B,) class indices, `UNKNOWN` where a face has no label.
        """
        age_logits, task_logits = self.split(logits)
        return {"age": self.head.loss(age_logits, age)} | {
            name: cross_entropy(values, labels[name]) for name, values in task_logits.items()
        }

    def decode(self, view_logits: Sequence[Tensor]) -> tuple[AgeEstimate, dict[str, Tensor]]:
        """Decode the logits of one or two views of the same faces; two views are averaged.

        Args:
            view_logits: one tensor (B, F) of `forward` per view.

        Returns:
            The age estimates, and for each auxiliary target the probabilities (B, classes).
        """
        estimates, probabilities = [], []
        for logits in view_logits:
            age_logits, task_logits = self.split(logits)
            estimates.append(self.head.decode(age_logits))
            probabilities.append({name: values.softmax(dim=1) for name, values in task_logits.items()})
        if len(estimates) == 1:
            return estimates[0], probabilities[0]
        first, second = probabilities
        return average_estimates(*estimates), {name: (first[name] + second[name]) / 2 for name in first}

    def predict(self, images: Tensor) -> AgeEstimate:
        """Predict ages from normalized images (B, C, S, S).

        The caller sets evaluation and inference mode.
        """
        views = [images, images.flip(3)] if self.flip_tta else [images]
        return self.decode([self(view) for view in views])[0]


def create_model(card: Architecture, *, ages: tuple[int, int] = AGES) -> AgeModel:
    """Create the model of a card with random weights.

    `agebench.models.weights` loads pretrained weights.

    Args:
        card: backbone, head, head options and input.
        ages: first and last age of the head, in whole years.

    Raises:
        UserError: the backbone, the head or a head option does not exist, or they do not fit together.
    """
    backbone, n_features = create_backbone(card.backbone, size=card.size, bodies=card.bodies)
    if n_features == 1 and card.head != "normalised":
        raise UserError(
            f"backbone '{card.backbone}' returns the age as a single number, which head '{card.head}' cannot use. Set head = "
            '"normalised"'
        )
    for name in ("name", "in_features", "ages"):
        if name in card.head_options:
            raise UserError(
                f"head '{card.head}': head_options.{name} is not an option, because the model determines it. Leave it out"
            )
    return AgeModel(backbone, heads.create(card.head, in_features=n_features, ages=ages, **card.head_options))
