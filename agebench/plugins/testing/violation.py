"""What a check raises."""

CONTRACTS = {
    "dataset": "agebench.config.cards.base.DatasetCard and agebench.data.samples.Samples",
    "model": "agebench.config.cards.base.ModelCard and agebench.models.age_model.AgeModel",
    "external model": "agebench.config.cards.external.ExternalCard",
    "head": "agebench.models.heads.Head",
    "detector": "agebench.data.faces.detectors.base.Detector",
}


class ContractViolation(AssertionError):
    """What a plugin does that the contract forbids."""


def violation(kind: str, name: str, problem: str) -> ContractViolation:
    """The error for one breach: what is wrong, what to mend, and where the contract stands."""
    return ContractViolation(f"{kind} '{name}': {problem} (contract: {CONTRACTS[kind]})")
