"""Contracts as functions: call them from a plugin's own tests; each failure says what is wrong and what to mend."""

from agebench.plugins.testing.dataset import check_dataset
from agebench.plugins.testing.detector import check_detector
from agebench.plugins.testing.discovery import Check, find_checks
from agebench.plugins.testing.head import check_head
from agebench.plugins.testing.model import check_model
from agebench.plugins.testing.violation import ContractViolation

__all__ = ["Check", "ContractViolation", "check_dataset", "check_detector", "check_head", "check_model", "find_checks"]
