"""An age is a class."""

from torch import Tensor

from agebench.models.heads.distribution import DistributionHead
from agebench.models.heads.softmax_loss import Rows


class ClassificationHead(DistributionHead):
    """Cross-entropy over whole ages; the expectation decodes as in DEX, the median minimises the expected error.

    Rothe, Timofte, Van Gool: DEX. ICCV workshops 2015, eq. 1. Decoding by the median as in Paplham & Franc, CVPR 2024.
    """

    def rows(self, log_probs: Tensor, probs: Tensor, age: Tensor) -> Rows:
        """Cross-entropy; a fractional age's weight lies on its two neighbours."""
        return self.cross_entropy(log_probs, age)
