"""An age is a class."""

from torch import Tensor

from agebench.models.heads.distribution import DistributionHead, soft_cross_entropy


class ClassificationHead(DistributionHead):
    """Cross-entropy over whole ages; the expectation decodes as in DEX, the median minimises the expected error.

    Rothe, Timofte, Van Gool: DEX. ICCV workshops 2015, eq. 1. Decoding by the median as in Paplham & Franc, CVPR 2024.
    """

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean cross-entropy; a fractional age's weight lies on its two neighbours."""
        logits = self.wide(logits)
        return soft_cross_entropy(logits, self.between_two(age, logits.dtype))
