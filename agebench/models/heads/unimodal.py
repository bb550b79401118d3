"""Unimodal-concentrated loss."""

from typing import Any

from torch import Tensor

from agebench.models.heads._distribution import DistributionHead

# Years squared. Prevents a division by the zero variance of a distribution on a single age.
VARIANCE_FLOOR = 1e-3


class UnimodalHead(DistributionHead):
    """A loss for distributions that concentrate at the age and decrease on both sides.

    Concentration is the normal negative log-likelihood of the age under mean and variance of the distribution; unimodality
    penalizes each step between neighboring ages that has the wrong sign. Li et al.: Unimodal-Concentrated Loss. CVPR 2022.
    The authors' code is not public. The paper's weight of unimodality is 1000; with it, a short training does not leave the
    flat distribution (150 epochs do not fit 64 faces). The default is 10, as in the re-implementation published with the
    benchmark of Paplham & Franc (CVPR 2024).

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        weight: weight of unimodality; the paper uses 1000.
        options: `decode` and `dropout` of `DistributionHead`.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, weight: float = 10.0, **options: Any
    ) -> None:
        super().__init__(in_features, ages, **options)
        self.weight = weight

    def sample_losses(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return concentration + weight * unimodality, (B,).

        Args:
            log_probs: (B, A) log probabilities of the classes.
            age: (B,) labels in years, within the head's range.
        """
        probs = log_probs.exp()
        mean = self.mean(probs)
        variance = self.variance(probs, mean) + VARIANCE_FLOOR
        concentration = ((mean - age) ** 2 / variance + variance.log()) / 2
        # The probability must increase from j to j + 1 if j + 1/2 is below the age, and decrease if it is above.
        direction = (self.grid[:-1].to(probs.dtype) + 0.5 - age[:, None]).sign()
        unimodality = (direction * probs.diff(dim=1)).relu().sum(dim=1)
        return concentration + self.weight * unimodality
