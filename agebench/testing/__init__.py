"""Contracts as functions: call them from a plugin's own tests; each failure says what is wrong and what to mend."""

from agebench.testing.breach import ContractBroken
from agebench.testing.dataset import check_dataset
from agebench.testing.detector import check_detector
from agebench.testing.find import Check, find_checks
from agebench.testing.head import check_head
from agebench.testing.model import check_model

__all__ = ["Check", "ContractBroken", "check_dataset", "check_detector", "check_head", "check_model", "find_checks"]
