"""Classification over whole ages."""

from torch import Tensor

from agebench.models.heads._distribution import DistributionHead


class ClassificationHead(DistributionHead):
    """Cross-entropy over whole ages.

    The expectation decodes as in DEX, and the median minimizes the expected error.

    Rothe, Timofte, Van Gool: DEX. ICCV workshops 2015, eq. 1. Decoding by the median as in Paplham & Franc, CVPR 2024.
    """

    has_cross_entropy = True

    def sample_losses(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return the cross-entropy of each face, (B,).

        Args:
            log_probs: (B, A) log probabilities of the classes.
            age: (B,) labels in years, within the head's range.
        """
        return self.cross_entropy(log_probs, age)
