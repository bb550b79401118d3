"""Mean-variance loss: cross-entropy plus penalties on mean and variance."""

from typing import Any

from torch import Tensor

from agebench.models.heads._distribution import DistributionHead


class MeanVarianceHead(DistributionHead):
    """CE + mean_weight * (mean - age)^2 / 2 + variance_weight * variance.

    Pan, Han, Shan, Chen: Mean-Variance Loss for Deep Age Estimation from a Face. CVPR 2018, eq. 3 to 7, with the
    paper's weights.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        mean_weight: weight lambda 1 of the squared error of the mean.
        variance_weight: weight lambda 2 of the variance.
        options: `decode` and `dropout` of `DistributionHead`.
    """

    has_cross_entropy = True

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        mean_weight: float = 0.2,
        variance_weight: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(in_features, ages, **options)
        self.mean_weight, self.variance_weight = mean_weight, variance_weight

    def sample_losses(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return the sum of the three terms, (B,).

        Args:
            log_probs: (B, A) log probabilities of the classes.
            age: (B,) labels in years, within the head's range.
        """
        probs = log_probs.exp()
        mean = self.mean(probs)
        penalties = self.mean_weight / 2 * (mean - age) ** 2 + self.variance_weight * self.variance(probs, mean)
        return self.cross_entropy(log_probs, age) + penalties
