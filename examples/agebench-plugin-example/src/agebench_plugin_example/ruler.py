"""Measures discs."""

import numpy as np


def ages(discs: np.ndarray) -> np.ndarray:
    """(B, 1, S, S) uint8 -> (B,) years: from a disc's area to its radius, from that to the age."""
    share = (discs > 170).mean(axis=(1, 2, 3))
    return np.clip((np.sqrt(share / np.pi) - 0.1) / 0.003, 0, 120)
