"""An age is a class."""

from torch import Tensor

from agebench.models.heads.distribution import DistributionHead


class ClassificationHead(DistributionHead):
    """Cross-entropy over whole ages; the expectation decodes as in DEX, the median minimises the expected error.

    Rothe, Timofte, Van Gool: DEX. ICCV workshops 2015, eq. 1. Decoding by the median as in Paplham & Franc, CVPR 2024.
    """

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean cross-entropy; a fractional age's weight lies on its two neighbours."""
        return self.cross_entropy(self.wide(logits).log_softmax(dim=1), age)
