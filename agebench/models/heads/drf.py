"""Deep regression forests."""

import math

import torch
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head

# Years squared: a leaf that only one age reaches would have no variance.
VARIANCE_FLOOR = 1.0


class DRFHead(Head):
    """Soft routing trees whose leaves are normal distributions of age.

    Every inner node of every tree sends a face to the left with the sigmoid of one unit of a linear layer. The layer
    learns by gradient (the negative log-likelihood of the trees, averaged); the leaves learn by the fixed-point
    iteration of variational bounding, over the latest faces, every `update_every` training batches.

    Shen, Guo, Wang, Zhao, Wang, Yuille: Deep Regression Forests for Age Estimation. CVPR 2018, eq. 1 to 10; 5 trees of depth 6 over
    128 units as there. The nodes of one tree have different units, as in the authors' code (`RandSample` of
    shenwei1231/caffe-DeepRegressionForests, which the layer of the forest's loss calls for each tree).

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range; the leaves start spread over it.
        trees: how many.
        depth: of each tree; 2^(depth - 1) leaves.
        units: width of the layer that the nodes choose from; at least the 2^(depth - 1) - 1 inner nodes of a tree.
        update_every: training batches between two updates of the leaves.
        remembered: how many of the latest faces an update looks at.
        iterations: of an update.

    Raises:
        TypeError: fewer than one tree, a depth outside of 2 to 24, or fewer units than inner nodes of a tree.
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
        nodes = 2 ** (depth - 1) - 1
        if units < nodes:
            raise TypeError(
                f"units = {units}: a tree of depth {depth} has {nodes} inner nodes, each with a unit of its own; at least {nodes}"
            )
        self.out_features = units
        self.depth, self.trees, self.leaves = depth, trees, 2 ** (depth - 1)
        self.update_every, self.remembered, self.iterations = update_every, remembered, iterations
        self.linear = nn.Linear(in_features, units)
        generator = torch.Generator().manual_seed(0)
        chosen = torch.rand(trees, units, generator=generator).argsort(dim=1)[:, :nodes]
        self.register_buffer("chosen", chosen)
        spread = torch.linspace(ages[0], ages[1], self.leaves).repeat(trees, 1)
        self.register_buffer("mean", spread)
        self.register_buffer("variance", torch.full((trees, self.leaves), ((ages[1] - ages[0]) / 4) ** 2))
        self.register_buffer("seen_logits", torch.zeros(remembered, units), persistent=True)
        self.register_buffer("seen_ages", torch.zeros(remembered))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.long))  # faces, batches

    def init_from_ages(self, ages: Tensor) -> None:
        """The leaves start at the quantiles of the training ages."""
        levels = (torch.arange(self.leaves, device=ages.device) + 0.5) / self.leaves
        self.mean.copy_(torch.quantile(ages, levels.to(ages.dtype)).repeat(self.trees, 1))
        self.variance.fill_(max(float(ages.var()) / 4, VARIANCE_FLOOR))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, units)."""
        return self.linear(features)  # type: ignore[no-any-return]

    def routes(self, logits: Tensor) -> Tensor:
        """(B, T, leaves) the probability that a face ends in each leaf; 1 in sum for each tree (eq. 1, 2)."""
        left = logits.sigmoid()[:, self.chosen]
        reached = torch.ones_like(left[:, :, :1])
        first, width = 0, 1
        for _ in range(self.depth - 1):
            here = left[:, :, first : first + width]
            reached = torch.stack([reached * here, reached * (1 - here)], dim=3).flatten(2)
            first, width = first + width, 2 * width
        return reached

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean negative log-likelihood of the trees (eq. 4). In training it also remembers the batch, and updates the leaves."""
        logits = self.upcast(logits)
        if self.training and torch.is_grad_enabled():
            self._remember(logits.detach(), age)
        joint = self.routes(logits).clamp(min=1e-30).log() + self._log_density(age.to(logits.dtype))
        return -joint.logsumexp(dim=2).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """The mixture's mean and standard deviation (eq. 10), over all trees."""
        routes = self.routes(logits.to(self.mean.dtype)) / self.trees
        mean = (routes * self.mean).sum(dim=[1, 2])
        variance = (routes * (self.variance + (self.mean - mean[:, None, None]) ** 2)).sum(dim=[1, 2])
        return AgeEstimate(mean.clamp(float(self.ages[0]), float(self.ages[1])), None, variance.sqrt())

    @torch.no_grad()
    def update_leaves(self, logits: Tensor, age: Tensor) -> None:
        """Means and variances of all leaves by `iterations` steps of eq. 8 and 9, on these faces.

        Leaves that nobody reaches stay as they are.
        """
        routes = self.routes(logits.to(self.mean.dtype))
        age = age.to(self.mean.dtype)
        for _ in range(self.iterations):
            joint = routes.clamp(min=1e-30).log() + self._log_density(age)
            # (B, T, leaves): which leaf answers for a face.
            share = (joint - joint.logsumexp(dim=2, keepdim=True)).exp()
            weight = share.sum(dim=0)
            mean = (share * age[:, None, None]).sum(dim=0) / weight.clamp(min=1e-6)
            variance = (share * (age[:, None, None] - mean) ** 2).sum(dim=0) / weight.clamp(min=1e-6)
            reached = weight > 1e-3
            self.mean.copy_(torch.where(reached, mean, self.mean))
            self.variance.copy_(torch.where(reached, variance.clamp(min=VARIANCE_FLOOR), self.variance))

    def _log_density(self, age: Tensor) -> Tensor:
        """(B, T, leaves) log density of the ages under each leaf."""
        mean, variance = self.mean.to(age.dtype), self.variance.to(age.dtype)
        return -((age[:, None, None] - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi)) / 2

    @torch.no_grad()
    def _remember(self, logits: Tensor, age: Tensor) -> None:
        count, place = len(age), int(self.seen[0]) % self.remembered
        rows = (torch.arange(count, device=logits.device) + place) % self.remembered
        self.seen_logits[rows] = logits.to(self.seen_logits.dtype)
        self.seen_ages[rows] = age.to(self.seen_ages.dtype)
        self.seen += torch.tensor([count, 1], device=self.seen.device)
        if int(self.seen[1]) % self.update_every == 0:
            filled = min(int(self.seen[0]), self.remembered)
            self.update_leaves(self.seen_logits[:filled], self.seen_ages[:filled])
