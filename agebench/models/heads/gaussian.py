"""Mean and variance of a normal distribution."""

import torch
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head

# Of the log variance, in standard deviations of the training ages: about 0.2 to 4,000 years for a spread of 20.
LOG_VARIANCE = (-9.0, 10.0)


class GaussianHead(Head):
    """Negative log-likelihood of a normal distribution; with `beta` its variance-weighted form.

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

    centre: Tensor
    scale: Tensor

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, beta: float = 0.5, dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages)
        if not 0 <= beta <= 1:
            raise TypeError(f"beta = {beta}: must lie between 0 and 1")
        self.out_features = 2
        self.beta = beta
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, 2)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("centre", torch.tensor((ages[0] + ages[1]) / 2))
        self.register_buffer("scale", torch.tensor((ages[1] - ages[0]) / 12**0.5))

    def prepare(self, ages: Tensor) -> None:
        """Centre and scale by the training ages."""
        self.centre.copy_(ages.mean())
        self.scale.copy_(ages.std().clamp(min=1.0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, 2): standardised mean and log variance."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean of ((mean - age)^2 / variance + log variance) / 2, times variance^beta held constant."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        mean, log_variance = logits[:, 0], logits[:, 1].clamp(LOG_VARIANCE[0], LOG_VARIANCE[1])
        target = (age.to(logits.dtype) - self.centre) / self.scale
        likelihood = ((mean - target) ** 2 * (-log_variance).exp() + log_variance) / 2
        return (likelihood * (self.beta * log_variance.detach()).exp()).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Years, and their standard deviation."""
        logits = logits.to(self.centre.dtype)
        age = (logits[:, 0] * self.scale + self.centre).clamp(float(self.ages[0]), float(self.ages[1]))
        return AgeEstimate(age, None, (logits[:, 1].clamp(-9.0, 10.0) / 2).exp() * self.scale)
