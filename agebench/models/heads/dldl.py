"""Deep label distribution learning: an age is a normal distribution over ages."""

from typing import Any

from torch import Tensor

from agebench.models.heads.distribution import FAINTEST, DistributionHead
from agebench.models.heads.softmax_loss import Moments, Rows, linear_in


class DLDLHead(DistributionHead):
    """KL divergence from a normal label distribution.

    Gao, Xing, Xie, Wu, Geng: Deep Label Distribution Learning with Label Ambiguity. IEEE TIP 2017, eq. 1 and 5.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        sigma: standard deviation of the label distribution, years; the paper's 2 where a dataset states none.
        options: see `DistributionHead`.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, sigma: float = 2.0, **options: Any
    ) -> None:
        super().__init__(in_features, ages, **options)
        if not sigma > 0:
            raise TypeError(f"sigma = {sigma}: must be positive")
        self.sigma = sigma

    def rows(self, log_probs: Tensor, probs: Tensor, age: Tensor) -> Rows:
        """KL divergence from the age's label distribution: normal densities at the whole ages, summing to 1."""
        logs = (self.grid.to(age.dtype) - age[:, None]).square_().mul_(-0.5 / self.sigma**2).clamp_(min=FAINTEST)
        label = logs.exp()
        total = label.sum(dim=1)
        loss, slope = linear_in(log_probs - logs, label.div_(-total[:, None]))
        return Rows(loss - total.log(), slope)


class DLDLv2Head(DLDLHead):
    """DLDL and the expectation's absolute error.

    Gao, Zhou, Wu, Geng: Age Estimation Using Expectation of Label Distribution Learning. IJCAI 2018, eq. 8 to 10.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        weight: lambda, of the absolute error in years; the paper's 1.
        options: `sigma`, and see `DistributionHead`.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, weight: float = 1.0, **options: Any
    ) -> None:
        super().__init__(in_features, ages, **options)
        self.weight = weight

    def rows(self, log_probs: Tensor, probs: Tensor, age: Tensor) -> Rows:
        """KL divergence + weight * |expectation - age|."""
        divergence, slope = super().rows(log_probs, probs, age)
        moments = Moments(probs, self.grid)
        error = moments.mean - age
        moments.add_slope(slope, self.weight * error.sign())
        return Rows(divergence + self.weight * error.abs(), slope)
