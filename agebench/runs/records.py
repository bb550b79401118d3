"""What a run writes down: its samples, its predictions, its manifest."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from agebench.data.samples import COLUMNS, Samples
from agebench.engine.predict import Estimates
from agebench.files import atomic
from agebench.registry.cards import DatasetCard
from agebench.runs.division import Division
from agebench.runs.folder import RunFolder

# Where things are in the pictures: neither labels nor flat, so not kept with a run.
GEOMETRY = ["landmarks", "bbox", "body_bbox", "body_path"]


def save_samples(folder: RunFolder, division: Division, audited: Mapping[str, Samples]) -> None:
    """samples/<dataset>-<part>.parquet, and samples/quarantined.parquet: what was dropped, and why."""
    for name, (_, part) in division.parts().items():
        folder.write_table(f"samples/{name}.parquet", part.table.drop(columns=GEOMETRY, errors="ignore"))
    dropped = [samples.quarantined.assign(dataset=name) for name, samples in audited.items()]
    dropped += [part.quarantined.assign(dataset=name) for name, part in division.parts().values()]
    table = pd.concat(dropped).drop_duplicates(["dataset", "sample_id"])
    folder.write_table("samples/quarantined.parquet", table[["dataset", "sample_id", "path", "reason"]])


def predictions_table(
    samples: Samples, estimates: Estimates, classes: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> pd.DataFrame:
    """One row an image: sample_id, age, age_pred, what else the head gives (age_std, p), then the group columns and subject.

    A target beside age adds NAME_pred, the likeliest of its `classes`, and NAME_prob, that class's probability.
    """
    table = samples.table
    given = [column for column in ("age_low", "age_high", "subject", *samples.groups) if column in table]
    made: dict[str, Any] = {"sample_id": table["sample_id"], "age": table["age"]}
    made["age_pred"] = estimates.age.astype(np.float64)
    if estimates.std is not None:
        made["age_std"] = estimates.std.astype(np.float64)
    for name, probabilities in estimates.tasks.items():
        made[f"{name}_pred"] = np.array(classes[name], dtype=object)[probabilities.argmax(axis=1)]
        made[f"{name}_prob"] = probabilities.max(axis=1).astype(np.float64)
    given += [name for name in estimates.tasks if name in table]
    return pd.DataFrame(made).join(table[list(dict.fromkeys(given))])


def save_predictions(folder: RunFolder, name: str, table: pd.DataFrame, probs: np.ndarray | None) -> None:
    """predictions/<name>.parquet; `probs` (N, A) become the column `p`, lists of float16."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    if probs is not None:
        flat = pa.array(probs.astype(np.float16).ravel())
        content = content.append_column("p", pa.FixedSizeListArray.from_arrays(flat, probs.shape[1]))
    with atomic(folder.path / "predictions" / f"{name}.parquet") as temporary:
        pq.write_table(content, temporary)


def describe_samples(division: Division, audited: Mapping[str, Samples]) -> dict[str, dict[str, Any]]:
    """For the manifest: a dataset's name -> how many images went where, and why some went nowhere."""
    found: dict[str, dict[str, Any]] = {}
    for name, samples in audited.items():
        parts = [part for owner, part in division.parts().values() if owner == name]
        dropped = pd.concat([samples.quarantined, *(part.quarantined for part in parts)]).drop_duplicates("sample_id")
        found[name] = {
            "read": len(samples) + len(samples.quarantined),
            "quarantined": {str(reason): int(count) for reason, count in _kinds(dropped["reason"]).items()},
            "fingerprint": _fingerprint(samples),
        }
        if name == division.home:
            found[name] |= {
                "train": len(division.train),
                "val": len(division.val),
                "duplicates": division.duplicates,
                "straddling": division.straddling,
            }
        if name in division.tests:
            found[name] |= {"test": len(division.tests[name]), "in_training_set": division.overlap[name]}
    return found


def describe_faces(cards: Mapping[str, DatasetCard], size: int, coverage: float) -> dict[str, Any]:
    """For the manifest: how every dataset's faces were prepared."""
    return {"size": size, "coverage": coverage, "datasets": {name: card.faces for name, card in cards.items()}}


def _kinds(reasons: "pd.Series[str]") -> dict[Any, int]:
    """Reasons without what differs from image to image: `age 200 is outside [0, 120]` and `age 130 is …` are one kind."""
    return reasons.str.replace(r"(?<![\[\d.,])-?\d+(\.\d+)?(?![\d.,\]])", "…", regex=True).value_counts().to_dict()


def _fingerprint(samples: Samples) -> str:
    """What changes when any image or label that a run uses does."""
    columns = [column for column in COLUMNS if column in samples.table and column not in (*GEOMETRY, "path")]
    table = samples.table[[*columns, "bytes_digest"]].sort_values("sample_id")
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()[:16]


def save_tests(folder: RunFolder, tests: Mapping[str, Samples], audited: Mapping[str, Samples]) -> None:
    """As `save_samples`, of a run that trains nothing: samples/<dataset>-test.parquet and samples/quarantined.parquet."""
    for name, test in tests.items():
        folder.write_table(f"samples/{name}-test.parquet", test.table.drop(columns=GEOMETRY, errors="ignore"))
    dropped = [part[name].quarantined.assign(dataset=name) for part in (audited, tests) for name in tests]
    table = pd.concat(dropped).drop_duplicates(["dataset", "sample_id"])
    folder.write_table("samples/quarantined.parquet", table[["dataset", "sample_id", "path", "reason"]])


def describe_tests(tests: Mapping[str, Samples], audited: Mapping[str, Samples]) -> dict[str, dict[str, Any]]:
    """As `describe_samples`, of a run that trains nothing."""
    found: dict[str, dict[str, Any]] = {}
    for name, test in tests.items():
        samples = audited[name]
        dropped = pd.concat([samples.quarantined, test.quarantined]).drop_duplicates("sample_id")
        found[name] = {
            "read": len(samples) + len(samples.quarantined),
            "quarantined": {str(reason): int(count) for reason, count in _kinds(dropped["reason"]).items()},
            "fingerprint": _fingerprint(samples),
            "test": len(test),
        }
    return found
