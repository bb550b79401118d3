"""Face detectors: the contract and the built-in detectors."""
