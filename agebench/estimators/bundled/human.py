"""Decoding rules of the npm package @vladmandic/human."""

import numpy as np

_SCALE = 10.0


def decode_faceres(probabilities: np.ndarray) -> np.ndarray:
    """Decode the distribution of faceres as the package does, without its rounding to a tenth.

    The likeliest class number is the age; ten times the probability of its likelier neighbor is subtracted or added. The
    package returns no number for the last class; here its missing neighbor has the probability 0.

    Args:
        probabilities: (B, A) probabilities of the classes.

    Returns:
        (B,) ages, years.
    """
    rows = np.arange(len(probabilities))
    best = probabilities.argmax(axis=1)
    padded = np.pad(probabilities, ((0, 0), (1, 1)))
    before, after = padded[rows, best], padded[rows, best + 2]
    ages: np.ndarray = best + np.where(before > after, -_SCALE * before, _SCALE * after)
    return ages
