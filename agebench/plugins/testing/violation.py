"""The exception of contract checks."""

CONTRACTS = {
    "dataset": "agebench.config.cards.dataset.DatasetCard and agebench.data.samples.Samples",
    "model": "agebench.config.cards.model.ModelCard and agebench.models.age_model.AgeModel",
    "external model": "agebench.config.cards.external.ExternalCard",
    "head": "agebench.models.heads.Head",
    "detector": "agebench.data.faces.detectors.base.Detector",
}


class ContractViolation(AssertionError):
    """Violation of a plugin contract."""


def violation(kind: str, name: str, problem: str) -> ContractViolation:
    """Build the error for one violation.

    Args:
        kind: key of `CONTRACTS`.
        name: name of the plugin.
        problem: the problem and its fix.

    Returns:
        The error, with the place of the contract.
    """
    return ContractViolation(f"{kind} '{name}': {problem} (contract: {CONTRACTS[kind]})")
