"""Mean and variance of a normal distribution."""

from torch import Tensor

from agebench.models.heads._standardized import StandardizedHead
from agebench.models.heads.base import AgeEstimate

# Of the log variance, in standard deviations of the training ages: about 0.2 to 4,000 years for a spread of 20.
LOG_VARIANCE = (-9.0, 10.0)


class GaussianHead(StandardizedHead):
    """Negative log-likelihood of a normal distribution; with `beta` its variance-weighted form.

    Its two outputs are the standardised mean and the log variance.

    Nix & Weigend: Estimating the mean and variance of the target probability distribution. ICNN 1994, eq. 3. beta-NLL:
    Seitzer, Tavakoli, Antic, Martius: On the Pitfalls of Heteroscedastic Uncertainty Estimation. ICLR 2022, eq. 5.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range.
        beta: 0 for the plain likelihood, 1 for the squared error's gradient of the mean; the paper advises 0.5.
        dropout: share of features dropped in training.

    Raises:
        TypeError: beta outside [0, 1].
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, beta: float = 0.5, dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, 2, ages, dropout)
        if not 0 <= beta <= 1:
            raise TypeError(f"beta = {beta}: must lie between 0 and 1")
        self.beta = beta

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean of ((mean - age)^2 / variance + log variance) / 2, times variance^beta held constant."""
        logits = self.upcast(logits)
        mean, log_variance = logits[:, 0], logits[:, 1].clamp(LOG_VARIANCE[0], LOG_VARIANCE[1])
        target = self.standardised(age, logits)
        likelihood = ((mean - target) ** 2 * (-log_variance).exp() + log_variance) / 2
        return (likelihood * (self.beta * log_variance.detach()).exp()).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Years, and their standard deviation."""
        std = (logits[:, 1].to(self.centre.dtype).clamp(-9.0, 10.0) / 2).exp() * self.scale
        return AgeEstimate(self.years(logits[:, 0]), None, std)
