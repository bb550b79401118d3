"""What a check raises."""

CONTRACTS = {
    "dataset": "agebench.registry.cards.DatasetCard and agebench.data.samples.Samples",
    "model": "agebench.registry.cards.ModelCard and agebench.models.age_model.AgeModel",
    "external model": "agebench.registry.external.ExternalCard",
    "head": "agebench.models.heads.Head",
    "detector": "agebench.data.detectors.Detector",
}


class ContractBroken(AssertionError):
    """What a plugin does that the contract forbids."""


def breach(kind: str, name: str, problem: str) -> ContractBroken:
    """The error for one breach: what is wrong, what to mend, and where the contract stands."""
    return ContractBroken(f"{kind} '{name}': {problem} (contract: {CONTRACTS[kind]})")
