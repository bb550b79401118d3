"""Adaptive mean-residue loss."""

from typing import Any

from torch import Tensor

from agebench.models.heads._distribution import DistributionHead

# Keeps the logarithm finite; value of the official code.
EPSILON = 1e-3


class MeanResidueHead(DistributionHead):
    """CE + mean_weight * (mean - age)^2 / 2 + residue_weight * entropy of the residue.

    The residue consists of the probabilities below that of the true age. K, the number of excluded ages, adapts to each face
    and is logged. The sum runs over all ages; each excluded age adds the constant -EPSILON log(EPSILON).

    Zhao et al.: Adaptive Mean-Residue Loss for Robust Facial Age Estimation. ICME 2022; formulas as in the official code, with
    the weights published for ResNet.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        mean_weight: weight lambda 1 of the squared error of the mean.
        residue_weight: weight lambda 2 of the entropy of the residue.
        options: `decode` and `dropout` of `DistributionHead`.
    """

    has_cross_entropy = True

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        mean_weight: float = 0.2,
        residue_weight: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(in_features, ages, **options)
        self.mean_weight, self.residue_weight = mean_weight, residue_weight

    def sample_losses(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return the sum of the three terms, (B,).

        Args:
            log_probs: (B, A) log probabilities of the classes.
            age: (B,) labels in years, within the head's range.
        """
        probs = log_probs.exp()
        squared_error = (self.mean(probs) - age) ** 2
        residue = self._in_residue(probs.detach(), age) * probs + EPSILON
        entropy = -(residue * residue.log()).sum(dim=1)
        return self.cross_entropy(log_probs, age) + self.mean_weight / 2 * squared_error + self.residue_weight * entropy

    def metrics(self, logits: Tensor, age: Tensor) -> dict[str, Tensor]:
        """Return the mean K, named `k`.

        Args:
            logits: (B, A), from `forward`.
            age: (B,) float years.
        """
        residue = self._in_residue(self.upcast(logits).softmax(dim=1), self.clamp_ages(age))
        return {"k": (1 - residue).sum(dim=1).mean()}

    def _in_residue(self, probs: Tensor, age: Tensor) -> Tensor:
        """Return (B, A): 1 for the ages that are less probable than the true (nearest whole) age, 0 for the others."""
        true_class = (age.round() - self.ages[0]).long()
        # sign() instead of a comparison: converting bool to float is about five times as slow on a CPU.
        return (probs.gather(1, true_class[:, None]) - probs).sign().relu()
