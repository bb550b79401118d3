"""The report of `agebench data align`: failures of the face alignment by group, with images before and after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agebench.data.faces.cache import FaceCache
from agebench.data.image_grid import make_contact_sheet, make_tile
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.metrics.schema import FailureToProcess
from agebench.reports.document import (
    Block,
    Document,
    FigureBlock,
    Paragraph,
    TableBlock,
    blocks_to_text,
    image_block,
    write_document,
)
from agebench.reports.formatting import format_count
from agebench.reports.markdown import parse_markdown
from agebench.reports.sections.failures import describe_failures, failures_tables
from agebench.utils.io import write_csv, write_json

_MAX_ALIGNED = 32
_MAX_FAILED = 64
_FAILED_TILE_PIXELS = 112


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the failures by group as text for a terminal.

    Args:
        summary: the content of faces.json.

    Returns:
        A paragraph on the method, a paragraph on the failures, and one table per grouping with failures.
    """
    return blocks_to_text(_summary_blocks(summary))


def write_alignment_report(
    folder: Path, summary: Mapping[str, Any], reader: Reader, samples: Samples, faces: FaceCache
) -> Path:
    """Write failed.csv, faces.json, figures/, report.md and report.html.

    Args:
        folder: the folder of the report; it is created if it is missing.
        summary: the content of faces.json: dataset, alignment settings and `failure_to_process`.
        reader: the dataset's reader, for the original images.
        samples: the images that were aligned.
        faces: the aligned faces and the reasons of failures.

    Returns:
        The path of report.md.
    """
    table = samples.table
    reasons = table["sample_id"].map(faces.rejected)
    columns = ["sample_id", "path", "age", *(group for group in samples.groups if group in table)]
    failed = table.loc[reasons.notna(), [*dict.fromkeys(columns)]].assign(reason=reasons[reasons.notna()])
    write_csv(folder / "failed.csv", failed)
    write_json(folder / "faces.json", dict(summary))
    document = Document(f"Face alignment of {summary['dataset']}", _summary_blocks(summary))
    if len(failed):
        counts = [[str(reason), format_count(int(n))] for reason, n in failed["reason"].value_counts().items()]
        document.add(TableBlock(["reason of the failure", "images"], counts))
    document.add(
        _before_after(table[reasons.isna()], reader, faces, summary),
        _failed_sheet(failed, reader),
    )
    return write_document(folder, document)["markdown"]


def _summary_blocks(summary: Mapping[str, Any]) -> list[Block]:
    failures = FailureToProcess.model_validate(summary["failure_to_process"])
    sections = [describe_failures(summary["dataset"], failures), *failures_tables(failures)]
    return [_describe_method(summary), *parse_markdown("\n\n".join(sections))]


def _describe_method(summary: Mapping[str, Any]) -> Paragraph:
    if summary["detector"]:
        method = f"Faces detected by {summary['detector']['name']}"
    elif summary["mode"] == "landmarks":
        method = "Faces aligned by annotated landmarks"
    else:
        method = "Faces used as they are, because the dataset already frames them like the template"
    shift = f", offset {summary['offset']:g}" if summary.get("offset") else ""
    shift += f", visible {summary['visible']:g}" if summary.get("visible") else ""
    return Paragraph(
        f"{method}; {summary['size']} × {summary['size']} pixels, coverage {summary['coverage']:g} (1: UTKFace's crops){shift}."
    )


def _before_after(
    aligned: pd.DataFrame, reader: Reader, faces: FaceCache, summary: Mapping[str, Any]
) -> FigureBlock | None:
    """Draw original images beside their aligned faces; None if no face was aligned."""
    rows = _evenly_spaced(len(aligned), _MAX_ALIGNED)
    if not len(rows):
        return None
    tiles, labels = [], []
    for row in rows:
        sample = aligned.iloc[row]
        face = np.asarray(faces.pixels[faces.row_by_id[sample["sample_id"]]])
        tiles += [make_tile(reader, sample["path"], faces.pixels.shape[1]), face]
        labels += [f"{sample['age']:g}", "aligned"]
    framing = {"coverage": summary["coverage"], "offset": summary.get("offset", 0.0)}
    sheet = make_contact_sheet(np.stack(tiles), labels, columns=8, template=True, every=2, **framing)
    return image_block(
        "before-after",
        sheet,
        "The original image and the aligned face; crosses: the template's positions of eyes and nose.",
    )


def _failed_sheet(failed: pd.DataFrame, reader: Reader) -> FigureBlock | None:
    """Draw images whose face could not be aligned; None if there are none."""
    if not len(failed):
        return None
    selected = failed.iloc[_evenly_spaced(len(failed), _MAX_FAILED)]
    tiles = [make_tile(reader, image, _FAILED_TILE_PIXELS) for image in selected["path"]]
    sheet = make_contact_sheet(np.stack(tiles), [f"{age:g}" for age in selected["age"]], columns=8)
    return image_block(
        "failed",
        sheet,
        f"Images without an aligned face ({len(selected)} of {format_count(len(failed))}), with their ages.",
    )


def _evenly_spaced(count: int, limit: int) -> np.ndarray:
    """Return at most `limit` row numbers of a table with `count` rows, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(limit, count)).astype(int))
