"""Regression of a normal distribution: mean and variance."""

from torch import Tensor

from agebench.models.heads._standardized import StandardizedHead
from agebench.models.heads.base import AgeEstimate

# Bounds of the log variance of standardized ages. For training ages with a std of 20 years: std of 0.2 to 3,000 years.
LOG_VARIANCE_RANGE = (-9.0, 10.0)


class GaussianHead(StandardizedHead):
    """Negative log-likelihood of a normal distribution.

    The loss of each face is weighted by variance ** `beta`.

    The two outputs are the standardized mean and its log variance.

    Nix & Weigend: Estimating the mean and variance of the target probability distribution. ICNN 1994, eq. 3. beta-NLL:
    Seitzer, Tavakoli, Antic, Martius: On the Pitfalls of Heteroscedastic Uncertainty Estimation. ICLR 2022, eq. 5.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range.
        beta: 0 for the unweighted likelihood, 1 for the gradient of the squared error in the mean; the paper recommends 0.5.
        dropout: share of features dropped in training.

    Raises:
        TypeError: `beta` is outside [0, 1].
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, beta: float = 0.5, dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, 2, ages, dropout)
        if not 0 <= beta <= 1:
            raise TypeError(f"beta = {beta}: must be between 0 and 1")
        self.beta = beta

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean weighted negative log-likelihood.

        The loss of a face is ((mean - age)^2 / variance + log variance) / 2, times variance^beta without gradient.

        Args:
            logits: (B, 2), from `forward`.
            age: (B,) float years.
        """
        logits = self.upcast(logits)
        mean, log_variance = logits[:, 0], logits[:, 1].clamp(*LOG_VARIANCE_RANGE)
        target = self.standardize(age, logits)
        likelihood = ((mean - target) ** 2 * (-log_variance).exp() + log_variance) / 2
        return (likelihood * (self.beta * log_variance.detach()).exp()).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return ages and their standard deviations, years, for logits (B, 2)."""
        std = (logits[:, 1].to(self.centre.dtype).clamp(-9.0, 10.0) / 2).exp() * self.scale
        return AgeEstimate(self.to_years(logits[:, 0]), None, std)
