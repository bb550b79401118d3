"""Contract checks for a plugin's own tests; each failure names the problem and the fix."""

from agebench.plugins.testing.dataset import check_dataset
from agebench.plugins.testing.detector import check_detector
from agebench.plugins.testing.discovery import Check, find_checks
from agebench.plugins.testing.head import check_head
from agebench.plugins.testing.model import check_model
from agebench.plugins.testing.violation import ContractViolation

__all__ = ["Check", "ContractViolation", "check_dataset", "check_detector", "check_head", "check_model", "find_checks"]
