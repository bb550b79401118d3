"""A dataset of the library `datasets` with the images and labels of samples."""

import hashlib
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from agebench.data.readers import Reader
from agebench.data.samples import Samples, dataset_fingerprint
from agebench.utils.io import atomic_write
from agebench.utils.paths import cache_home

if TYPE_CHECKING:
    import datasets

# Of the columns and their types: raise it when a dataset of the same samples changes.
_VERSION = 1
_BATCH = 256  # images held in memory at once


def build_hf_dataset(reader: Reader, samples: Samples, *, name: str) -> "datasets.Dataset":
    """Write samples to the cache of agebench as a dataset of the library `datasets`, or open what was written before.

    Args:
        reader: reader of the images.
        samples: the samples.
        name: name of the dataset, for messages.

    Raises:
        AgebenchError: the cache cannot be written.
    """
    import datasets

    columns = [column for column in ("subject", *samples.groups) if samples.table[column].notna().any()]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "age": datasets.Value("float64"),
            "sample_id": datasets.Value("string"),
            **{column: datasets.Value("string") for column in columns},
        }
    )
    ids = hashlib.sha256("\n".join(samples.table["sample_id"]).encode()).hexdigest()
    words = repr((_VERSION, dataset_fingerprint(samples), columns, ids))
    path = cache_home() / "hf" / f"{name}-{hashlib.sha256(words.encode()).hexdigest()[:16]}.arrow"
    if not path.exists():
        schema = features.arrow_schema
        with atomic_write(path) as temporary, pa.ipc.new_stream(str(temporary), schema) as writer:
            for start in range(0, len(samples), _BATCH):
                part = samples.table.iloc[start : start + _BATCH]
                rows = {
                    "image": [{"bytes": reader.image_bytes(image), "path": None} for image in part["path"]],
                    "age": part["age"].astype(float).tolist(),
                    "sample_id": part["sample_id"].astype(str).tolist(),
                    **{column: [None if pd.isna(x) else str(x) for x in part[column]] for column in columns},
                }
                writer.write_table(pa.table(rows, schema=schema))
    return datasets.Dataset.from_file(str(path))
