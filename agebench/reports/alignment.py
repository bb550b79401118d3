"""The report of `agebench data faces`: what could not be prepared and for whom, and pictures before and after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agebench.data.faces.cache import FaceCache
from agebench.data.image_grid import make_contact_sheet, make_tile
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.metrics.schema import FailureToProcess
from agebench.reports.formatting import escape_markdown, format_count, markdown_table
from agebench.reports.sections.failures import describe_failures, failures_tables
from agebench.utils.io import atomic_write, write_csv, write_json, write_text

SHOWN, FAILED = 32, 64


def summary_table(about: Mapping[str, Any]) -> str:
    """What the command line prints."""
    found = FailureToProcess.model_validate(about["failure_to_process"])
    return "\n\n".join([_method(about), describe_failures(about["dataset"], found), *failures_tables(found)])


def write_faces(folder: Path, about: Mapping[str, Any], reader: Reader, samples: Samples, faces: FaceCache) -> Path:
    """Write failed.csv, faces.json, before-after.png, failed.png and report.md; returns the report."""
    table = samples.table
    reasons = table["sample_id"].map(faces.rejected)
    columns = ["sample_id", "path", "age", *(group for group in samples.groups if group in table)]
    failed = table.loc[reasons.notna(), [*dict.fromkeys(columns)]].assign(reason=reasons[reasons.notna()])
    write_csv(folder / "failed.csv", failed)
    write_json(folder / "faces.json", dict(about))
    kinds = failed["reason"].value_counts().items()
    size = faces.pixels.shape[1]
    parts = [
        f"# Faces of {escape_markdown(about['dataset'])}",
        summary_table(about),
        markdown_table(
            ["why there is no face", "images"], [[escape_markdown(reason), format_count(int(n))] for reason, n in kinds]
        ),
        _before_after(
            folder / "before-after.png", table[reasons.isna()], reader, samples, faces, about["coverage"], size
        ),
        _failed(folder / "failed.png", failed, reader),
    ]
    write_text(folder / "report.md", "\n\n".join(part for part in parts if part) + "\n")
    return folder / "report.md"


def _method(about: Mapping[str, Any]) -> str:
    way = (
        f"found by {escape_markdown(about['detector']['name'])}"
        if about["detector"]
        else {
            "none": "as they come, framed like the template already",
            "landmarks": "aligned by annotated points",
        }[about["mode"]]
    )
    return (
        f"Faces {way}; {about['size']} × {about['size']} pixels, coverage {about['coverage']:g} (1: UTKFace's crops)."
    )


def _before_after(
    path: Path, table: Any, reader: Reader, samples: Samples, faces: FaceCache, coverage: float, size: int
) -> str:
    rows = np.unique(np.linspace(0, len(table) - 1, min(SHOWN, len(table))).astype(int))
    if not len(rows):
        return ""
    tiles, labels = [], []
    for row in rows:
        sample = table.iloc[row]
        tiles += [
            make_tile(reader, sample["path"], size),
            np.asarray(faces.pixels[faces.row_by_id[sample["sample_id"]]]),
        ]
        labels += [f"{sample['age']:g}", "prepared"]
    sheet = make_contact_sheet(np.stack(tiles), labels, columns=8, template=True, coverage=coverage, every=2)
    with atomic_write(path) as temporary:
        sheet.save(temporary)
    return f"![before and after]({path.name})\n\n*The image as it is and the prepared face; crosses: where eyes and nose belong.*"


def _failed(path: Path, failed: Any, reader: Reader) -> str:
    if not len(failed):
        return ""
    shown = failed.iloc[np.unique(np.linspace(0, len(failed) - 1, min(FAILED, len(failed))).astype(int))]
    tiles = [make_tile(reader, image, 112) for image in shown["path"]]
    sheet = make_contact_sheet(np.stack(tiles), [f"{age:g}" for age in shown["age"]], columns=8)
    with atomic_write(path) as temporary:
        sheet.save(temporary)
    return (
        f"![failed]({path.name})\n\n*No face was prepared in these ({len(shown)} of {format_count(len(failed))}), "
        "with their ages.*"
    )
