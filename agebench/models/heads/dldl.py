"""Deep label distribution learning: labels are normal distributions over ages."""

from typing import Any

from torch import Tensor

from agebench.models.heads._distribution import DistributionHead, relative_log_weights


class DLDLHead(DistributionHead):
    """KL divergence from a normal label distribution.

    Gao, Xing, Xie, Wu, Geng: Deep Label Distribution Learning with Label Ambiguity. IEEE TIP 2017, eq. 1 and 5.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        sigma: standard deviation of the label distribution, years; the paper uses 2 for datasets that state none.
        sigma_slope: increase of that standard deviation per year of age, from `sigma` at age 0.
        options: `decode` and `dropout` of `DistributionHead`.
    """

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        sigma: float = 2.0,
        sigma_slope: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(in_features, ages, **options)
        if not sigma > 0:
            raise TypeError(f"sigma = {sigma}: must be positive")
        if not sigma_slope >= 0:
            raise TypeError(f"sigma_slope = {sigma_slope}: must be 0 or more")
        self.sigma, self.sigma_slope = sigma, sigma_slope

    def sample_losses(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return the KL divergence (B,) from the label distributions.

        Labels are normal densities at the whole ages, normalized to sum to 1.

        Args:
            log_probs: (B, A) log probabilities of the classes.
            age: (B,) labels in years, within the head's range.
        """
        squared_distance = (self.grid.to(age.dtype) - age[:, None]) ** 2
        sigma = self.sigma + self.sigma_slope * age[:, None] if self.sigma_slope else self.sigma
        target = relative_log_weights(squared_distance / (-2 * sigma**2)).log_softmax(dim=1)
        return (target.exp() * (target - log_probs)).sum(dim=1)


class DLDLv2Head(DLDLHead):
    """DLDL plus the absolute error of the expectation.

    Gao, Zhou, Wu, Geng: Age Estimation Using Expectation of Label Distribution Learning. IJCAI 2018, eq. 8 to 10.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        weight: weight lambda of the absolute error in years; the paper uses 1.
        options: `sigma` and `sigma_slope` of `DLDLHead`; `decode` and `dropout` of `DistributionHead`.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, weight: float = 1.0, **options: Any
    ) -> None:
        super().__init__(in_features, ages, **options)
        self.weight = weight

    def sample_losses(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return KL divergence + weight * |expectation - age|, (B,).

        Args:
            log_probs: (B, A) log probabilities of the classes.
            age: (B,) labels in years, within the head's range.
        """
        return super().sample_losses(log_probs, age) + self.weight * (self.mean(log_probs.exp()) - age).abs()
