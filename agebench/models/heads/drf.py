"""Deep regression forests."""

import math

import torch
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head

# Years squared. Prevents a zero variance of a leaf that a single age reaches.
VARIANCE_FLOOR = 1.0


# Most pairs of a tree and a unit; the paper has 5 trees and 128 units.
_MAX_CHOICES = 2**24


class DRFHead(Head):
    """Soft routing trees whose leaves are normal distributions of age.

    Each inner node of each tree routes a face to the left with the probability sigmoid(unit), for one unit of a linear layer.
    The layer is trained by gradient descent on the negative log-likelihood, averaged over the trees. The leaves are updated by
    the fixed-point iteration of variational bounding over the latest faces, every `update_every` training batches.

    Shen, Guo, Wang, Zhao, Wang, Yuille: Deep Regression Forests for Age Estimation. CVPR 2018, eq. 1 to 10, with the
    paper's 5 trees of depth 6 over 128 units. The nodes of one tree use different units, as in the authors' code (`RandSample` of
    shenwei1231/caffe-DeepRegressionForests, which the layer of the forest's loss calls for each tree).

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range; the initial leaves are spread over it.
        trees: number of trees.
        depth: depth of each tree, which has 2^(depth - 1) leaves.
        units: width of the linear layer; at least 2^(depth - 1) - 1, the number of inner nodes of a tree.
        update_every: training batches between two updates of the leaves.
        remembered: number of latest faces that an update uses.
        iterations: fixed-point iterations of an update.

    Raises:
        TypeError: fewer than one tree, a depth outside 2 to 24, or fewer units than a tree has inner nodes.
    """

    # The loss collects each batch for the update of the leaves: a mixed face has no single age.
    supports_mixing = False

    chosen: Tensor
    mean: Tensor
    variance: Tensor
    seen_logits: Tensor
    seen_ages: Tensor
    seen: Tensor

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        trees: int = 5,
        depth: int = 6,
        units: int = 128,
        update_every: int = 50,
        remembered: int = 2048,
        iterations: int = 20,
    ) -> None:
        super().__init__(in_features, ages)
        if trees < 1 or not 2 <= depth <= 24 or units < 1:
            raise TypeError(f"trees = {trees}, depth = {depth}, units = {units}: at least 1, 2 to 24, at least 1")
        if trees * units > _MAX_CHOICES:  # an untrusted config must not decide how much memory is allocated
            raise TypeError(f"trees = {trees}, units = {units}: their product must be at most {_MAX_CHOICES:,}")
        nodes = 2 ** (depth - 1) - 1
        if units < nodes:
            raise TypeError(
                f"units = {units}: a tree of depth {depth} needs one unit for each of its {nodes} inner nodes"
            )
        self.out_features = units
        self.depth, self.trees, self.leaves = depth, trees, 2 ** (depth - 1)
        self.update_every, self.remembered, self.iterations = update_every, remembered, iterations
        self.linear = nn.Linear(in_features, units)
        generator = torch.Generator().manual_seed(0)
        chosen = torch.rand(trees, units, generator=generator).argsort(dim=1)[:, :nodes]
        self.register_buffer("chosen", chosen)
        self.register_buffer("mean", torch.linspace(ages[0], ages[1], self.leaves).repeat(trees, 1))
        self.register_buffer("variance", torch.full((trees, self.leaves), ((ages[1] - ages[0]) / 4) ** 2))
        self.register_buffer("seen_logits", torch.zeros(remembered, units), persistent=True)
        self.register_buffer("seen_ages", torch.zeros(remembered))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.long))  # faces, batches

    def init_from_ages(self, ages: Tensor) -> None:
        """Set the leaves to the quantiles of the training ages.

        Args:
            ages: (N,) float years.
        """
        levels = (torch.arange(self.leaves, device=ages.device) + 0.5) / self.leaves
        self.mean.copy_(torch.quantile(ages, levels.to(ages.dtype)).repeat(self.trees, 1))
        self.variance.fill_(max(float(ages.var()) / 4, VARIANCE_FLOOR))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, units) for features (B, in_features)."""
        return self.linear(features)  # type: ignore[no-any-return]

    def routes(self, logits: Tensor) -> Tensor:
        """Return the probabilities (B, T, leaves) of the leaves (eq. 1, 2).

        Those of each tree sum to 1.

        Args:
            logits: (B, units), from `forward`.
        """
        left = logits.sigmoid()[:, self.chosen]
        reached = torch.ones_like(left[:, :, :1])
        first, width = 0, 1
        for _ in range(self.depth - 1):
            level = left[:, :, first : first + width]
            reached = torch.stack([reached * level, reached * (1 - level)], dim=3).flatten(2)
            first, width = first + width, 2 * width
        return reached

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of the trees (eq. 4).

        In training mode, also store the batch, and update the leaves every `update_every` batches.

        Args:
            logits: (B, units), from `forward`.
            age: (B,) float years.
        """
        logits = self.upcast(logits)
        if self.training and torch.is_grad_enabled():
            self._store(logits.detach(), age)
        joint = self.routes(logits).clamp(min=1e-30).log() + self._log_density(age.to(logits.dtype))
        return -joint.logsumexp(dim=2).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return mean and standard deviation of the mixture of all trees (eq. 10).

        Args:
            logits: (B, units), from `forward`.
        """
        routes = self.routes(logits.to(self.mean.dtype)) / self.trees
        mean = (routes * self.mean).sum(dim=[1, 2])
        variance = (routes * (self.variance + (self.mean - mean[:, None, None]) ** 2)).sum(dim=[1, 2])
        return AgeEstimate(mean.clamp(float(self.ages[0]), float(self.ages[1])), None, variance.sqrt())

    @torch.no_grad()
    def update_leaves(self, logits: Tensor, age: Tensor) -> None:
        """Update means and variances of all leaves by `iterations` steps of eq. 8 and 9.

        Leaves that no face reaches do not change.

        Args:
            logits: (N, units), from `forward`.
            age: (N,) float years.
        """
        routes = self.routes(logits.to(self.mean.dtype))
        age = age.to(self.mean.dtype)
        for _ in range(self.iterations):
            joint = routes.clamp(min=1e-30).log() + self._log_density(age)
            # (N, T, leaves): responsibilities of the leaves.
            responsibility = (joint - joint.logsumexp(dim=2, keepdim=True)).exp()
            weight = responsibility.sum(dim=0)
            mean = (responsibility * age[:, None, None]).sum(dim=0) / weight.clamp(min=1e-6)
            variance = (responsibility * (age[:, None, None] - mean) ** 2).sum(dim=0) / weight.clamp(min=1e-6)
            reached = weight > 1e-3
            self.mean.copy_(torch.where(reached, mean, self.mean))
            self.variance.copy_(torch.where(reached, variance.clamp(min=VARIANCE_FLOOR), self.variance))

    def _log_density(self, age: Tensor) -> Tensor:
        """Return the log densities (B, T, leaves) of the ages (B,) in each leaf."""
        mean, variance = self.mean.to(age.dtype), self.variance.to(age.dtype)
        return -((age[:, None, None] - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi)) / 2

    @torch.no_grad()
    def _store(self, logits: Tensor, age: Tensor) -> None:
        count, start = len(age), int(self.seen[0]) % self.remembered
        rows = (torch.arange(count, device=logits.device) + start) % self.remembered
        self.seen_logits[rows] = logits.to(self.seen_logits.dtype)
        self.seen_ages[rows] = age.to(self.seen_ages.dtype)
        self.seen += torch.tensor([count, 1], device=self.seen.device)
        if int(self.seen[1]) % self.update_every == 0:
            n_stored = min(int(self.seen[0]), self.remembered)
            self.update_leaves(self.seen_logits[:n_stored], self.seen_ages[:n_stored])
