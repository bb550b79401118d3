"""Values that are computed from each image of a dataset once, in several processes, and cached by path and version token."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.data.readers import Reader
from agebench.utils.io import atomic_write
from agebench.utils.parallel import parallel_map
from agebench.utils.progress import progress

# The values of one image, for its path; worker processes import the function by its name.
ComputeValues = Callable[[Reader, str], tuple[Any, ...]]
# Rows of values -> whether an image could not be read, so that its values are not final.
FailedToRead = Callable[[pd.DataFrame], "pd.Series[bool]"]


def load_or_compute(
    reader: Reader,
    paths: Sequence[str],
    file: Path,
    columns: Sequence[str],
    compute: ComputeValues,
    failed_to_read: FailedToRead,
    *,
    label: str,
    workers: int | None,
) -> pd.DataFrame:
    """Load the values of images, and compute those of new and changed ones.

    Images that could not be read are tried again at the next call.

    Args:
        reader: reader of the dataset.
        paths: unique paths of the images, from the samples' column `path`.
        file: the cache, a Parquet file; values of images that are not in `paths` may be lost.
        columns: names of the values.
        compute: computes the values of one image.
        failed_to_read: finds the values of images that could not be read; they are returned and not cached.
        label: text of the progress bar.
        workers: processes; None for one per core.

    Returns:
        The columns and `stamp`, the version token, by path.
    """
    stamps = pd.DataFrame({"stamp": [reader.version_token(path) for path in paths]}, index=pd.Index(paths, name="path"))
    values = _read_cache(file, ["stamp", *columns])
    values = values[(values["stamp"] == stamps["stamp"].reindex(values.index)) & ~failed_to_read(values)]
    missing = stamps.index.difference(values.index, sort=False)
    if len(missing):
        rows: list[tuple[Any, ...]] = []
        with progress(total=len(missing), label=label, unit="img") as bar:
            for chunk in parallel_map(partial(_compute_all, compute, reader), list(missing), workers=workers):
                rows += chunk
                bar.update(len(chunk))
        computed = stamps.loc[missing].join(pd.DataFrame(rows, columns=list(columns), index=missing))
        values = pd.concat([values, computed]) if len(values) else computed
        is_final = ~failed_to_read(values)
        if is_final[missing].any():
            with atomic_write(file) as temporary:
                values[is_final].to_parquet(temporary)
    return values


def _compute_all(compute: ComputeValues, reader: Reader, paths: Sequence[str]) -> list[tuple[Any, ...]]:
    return [compute(reader, path) for path in paths]


def _read_cache(file: Path, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)[columns]
    except (OSError, ValueError, KeyError):  # no file yet, a damaged one, or one of another version
        return pd.DataFrame(columns=columns, index=pd.Index([], name="path"))
