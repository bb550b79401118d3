"""Images that a run was trained on whose checkpoint gives another run its initial weights."""

from pathlib import Path

import pandas as pd

from agebench.data.samples import Samples

_DIGESTS = ["bytes_digest", "pixels_digest"]


def trained_before(pretrained: str) -> pd.DataFrame | None:
    """Return the digests of the images that a checkpoint's run was trained and validated on.

    Args:
        pretrained: the setting of that name; a run's checkpoint is `RUN/checkpoints/best.safetensors`, or that of a fold.

    Returns:
        The columns bytes_digest and pixels_digest; None for weights that are no run's, or of a run whose samples are gone.
    """
    checkpoints = Path(pretrained).expanduser().parent
    if checkpoints.name != "checkpoints":
        return None
    folder = checkpoints.parent
    run = folder.parent.parent if folder.parent.name == "folds" else folder
    # Of several folds each has other training images; all of them together are the training set.
    files = [path for part in ("train", "val", "folds") for path in sorted((run / "samples").glob(f"*-{part}.parquet"))]
    return pd.concat([pd.read_parquet(path, columns=_DIGESTS) for path in files]) if files else None


def count_trained_before(samples: Samples, earlier: pd.DataFrame) -> int:
    """Count the images that were trained on before, by their bytes or pixels.

    Args:
        samples: the images.
        earlier: digests of what was trained on.
    """
    table = samples.table
    return int((table[_DIGESTS[0]].isin(earlier[_DIGESTS[0]]) | table[_DIGESTS[1]].isin(earlier[_DIGESTS[1]])).sum())
