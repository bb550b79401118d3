"""The report of a dataset audit: report.md, report.html, contact sheets and CSV files in their own folder."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agebench.data.audit.report_model import AuditResult
from agebench.data.dataset import Dataset
from agebench.data.image_grid import make_contact_sheet, make_tile
from agebench.reports.document import (
    Block,
    CodeBlock,
    Document,
    FigureBlock,
    Heading,
    Paragraph,
    TableBlock,
    blocks_to_text,
    code,
    image_block,
    write_document,
)
from agebench.reports.formatting import DASH, format_count, join_words
from agebench.utils.io import write_csv, write_json

_TILE_PIXELS = 112
_MAX_TILES = 40
_MAX_TABLE_ROWS = 20
_QUALITY = {
    "empty": "almost no contrast",
    "tiny": "a shorter side of less than 50 pixels",
    "blurred": "almost no fine detail: enlarged, or out of focus",
    "grey": "no color, or one tint throughout",
    "no face": "the detector found no face",
    "several faces": "the detector found more than one face, so that the labeled face is ambiguous",
}


def audit_summary(findings: AuditResult) -> dict[str, Any]:
    """Return the counts that `--json` prints.

    Args:
        findings: the result of the audit.

    Returns:
        The counts by kind of finding.
    """
    problems = findings.quality["problem"].value_counts()
    return {
        "dataset": findings.name,
        "against": list(findings.against),
        "images": findings.images,
        "unreadable": len(findings.rejected),
        "copies": _count_pairs(findings, findings.copies),
        "near": _count_pairs(findings, findings.near_duplicates),
        "conflicts": {str(label): int(n) for label, n in findings.label_conflicts["label"].value_counts().items()},
        "ages": len(findings.implausible_ages),
        "quality": {str(problem): int(n) for problem, n in problems.items()},
        "looked_for_faces": findings.n_examined,
        "subjects": len(findings.subjects),
    }


def write_audit(folder: Path, findings: AuditResult, sources: Sequence[Dataset]) -> Path:
    """Write an audit: CSV tables, exclusion lists, contact sheets and reports.

    Args:
        folder: the folder of the audit; it is created if it is missing.
        findings: the result of the audit.
        sources: the audited dataset and the datasets that it was compared with.

    Returns:
        The path of report.md.
    """
    tables = {
        "copies": findings.copies,
        "near": findings.near_duplicates,
        "conflicts": findings.label_conflicts,
        "ages": findings.implausible_ages,
        "quality": findings.quality,
        "subjects": findings.subjects,
        "quarantined": findings.rejected,
    }
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    exclusions = {kind: table for kind, table in findings.exclusions().items() if len(table)}
    for kind, table in exclusions.items():
        write_csv(folder / f"exclude-{kind}.csv", table)
    write_json(folder / "audit.json", audit_summary(findings))
    sheets = _contact_sheets(findings, {source.card.name: source for source in sources})
    return write_document(folder, _audit_document(findings, sheets, exclusions, folder))["markdown"]


def _audit_document(
    findings: AuditResult, sheets: Mapping[str, FigureBlock], exclusions: Mapping[str, pd.DataFrame], folder: Path
) -> Document:
    """Build the report of an audit.

    Args:
        findings: the result of the audit.
        sheets: contact sheets by kind of finding.
        exclusions: images to exclude from runs, by reason.
        folder: the folder of the audit, which has them as files.

    Returns:
        The report.
    """
    against = f", compared with {join_words(findings.against)}" if findings.against else ""
    document = Document(f"Audit of {findings.name}{against}")
    document.add(
        _counts_table(findings),
        Paragraph(
            "Near duplicates are the same photograph in another encoding, size or crop, or mirrored. A perceptual hash of all "
            "pairs selects candidates; a pair counts if the aligned images also agree in fine detail, which images of two "
            "people do not. This folder contains images: do not publish it where the dataset's license forbids publication."
        ),
        *_section(
            "Near duplicates", findings.near_duplicates, sheets.get("near"), "least similar first", by="likeness"
        ),
        *_section("Conflicting labels", findings.label_conflicts, sheets.get("conflicts"), "largest conflict first"),
        *_section("Implausible ages", findings.implausible_ages, sheets.get("ages"), "first rows"),
        *_section("Subjects with inconsistent labels", findings.subjects, None, "first rows"),
    )
    for problem, description in _QUALITY.items():
        if problem in sheets:
            document.add(Heading(f"{problem.capitalize()}: {description}"), sheets[problem])
    document.add(Heading("Excluding images from runs"), *_exclusion_blocks(findings.name, exclusions, folder))
    return document


def counts_text(findings: AuditResult) -> str:
    """Return the number of findings by kind as a table for a terminal.

    Args:
        findings: the result of the audit.

    Returns:
        The table.
    """
    return blocks_to_text([_counts_table(findings)])


def _counts_table(findings: AuditResult) -> TableBlock:
    counts = audit_summary(findings)
    rows = [
        ["readable images", format_count(counts["images"])],
        ["rejected images", format_count(counts["unreadable"])],
    ]
    for kind, title in (("copies", "exact copies (pairs)"), ("near", "near duplicates (pairs)")):
        rows.append([f"{title} within the dataset", format_count(counts[kind]["within"])])
        if findings.against:
            rows.append([f"{title} with {join_words(findings.against)}", format_count(counts[kind]["across"])])
    rows += [
        [f"pairs of copies with different {label}", format_count(counts["conflicts"].get(label, 0))]
        for label in ("age", "gender", "race", "subject")
    ]
    rows += [
        ["implausible ages", format_count(counts["ages"])],
        ["subjects with inconsistent labels", format_count(counts["subjects"])],
    ]
    problems = {problem: problem for problem in ("empty", "tiny", "blurred", "grey")}
    if findings.n_examined:
        examined = f"(of {format_count(findings.n_examined)} examined)"
        problems |= {problem: f"{problem} {examined}" for problem in ("no face", "several faces")}
    rows += [[title, format_count(counts["quality"].get(problem, 0))] for problem, title in problems.items()]
    return TableBlock([findings.name, "count"], rows)


def _exclusion_blocks(name: str, exclusions: Mapping[str, pd.DataFrame], folder: Path) -> list[Block]:
    if not exclusions:
        return [Paragraph("The audit found no images to exclude.")]
    rows = [[f"exclude-{kind}.csv", format_count(len(table))] for kind, table in exclusions.items()]
    options = " ".join(f"--exclude {shlex.quote(str(folder / f'exclude-{kind}.csv'))}" for kind in exclusions)
    return [
        TableBlock(["file", "images"], rows),
        Paragraph(["Inspect the images before excluding them. ", code("--exclude"), " can be given several times:"]),
        CodeBlock(f"agebench run --train {name} {options}"),
    ]


def _section(title: str, table: pd.DataFrame, sheet: FigureBlock | None, order: str, *, by: str = "") -> list[Block]:
    """Build the section of one kind of finding; it is empty if there are no findings.

    Args:
        title: the heading.
        table: one row per finding.
        sheet: the contact sheet, if there is one.
        order: the order of the rows in words, for truncated tables.
        by: the column to sort by; "" keeps the order of `table`.
    """
    if not len(table):
        return []
    first = (table.sort_values(by, kind="stable") if by else table).head(_MAX_TABLE_ROWS)
    rows = [[DASH if pd.isna(value) else str(value) for value in row] for row in first.itertuples(index=False)]
    extent = f" ({order}, {len(first)} of {format_count(len(table))})" if len(table) > len(first) else ""
    text_table = TableBlock([*map(str, table.columns)], rows, ["left"] * len(table.columns))
    return [Heading(f"{title}{extent}"), *([sheet] if sheet else []), text_table]


def _contact_sheets(findings: AuditResult, sources: Mapping[str, Dataset]) -> dict[str, FigureBlock]:
    """Build the contact sheets by kind of finding; kinds without findings are omitted."""
    near = findings.near_duplicates.sort_values("likeness", kind="stable").head(_MAX_TILES)
    conflicts = findings.label_conflicts.drop_duplicates(["sample_id", "other_id"]).head(_MAX_TILES)
    near_notes = [
        f"{likeness:.3f}{' mirrored' * mirrored}"
        for likeness, mirrored in near[["likeness", "mirrored"]].itertuples(index=False, name=None)
    ]
    sheets = {
        "near": _pair_sheet("near", near, near_notes, sources),
        "conflicts": _pair_sheet("conflicts", conflicts, conflicts["label"].astype(str).tolist(), sources),
        "ages": _sheet("ages", findings.implausible_ages, sources[findings.name]),
    }
    for problem in _QUALITY:
        selected = findings.quality[findings.quality["problem"] == problem]
        sheets[problem] = _sheet(problem, selected, sources[findings.name])
    return {kind: sheet for kind, sheet in sheets.items() if sheet}


def _pair_sheet(
    kind: str, pairs: pd.DataFrame, notes: Sequence[str], sources: Mapping[str, Dataset]
) -> FigureBlock | None:
    tiles, labels = [], []
    for row, note in zip(pairs.itertuples(), notes, strict=True):
        for dataset, sample_id, suffix in (
            (row.dataset, row.sample_id, ""),
            (row.other_dataset, row.other_id, f"  {note}"),
        ):
            tiles.append(_tile(sources[str(dataset)], str(sample_id)))
            labels.append(_tile_label(sources[str(dataset)], str(sample_id)) + suffix)
    return _sheet_block(kind, tiles, labels, f"{len(pairs)} pairs, side by side")


def _sheet(kind: str, rows: pd.DataFrame, source: Dataset) -> FigureBlock | None:
    sample_ids = rows["sample_id"].head(_MAX_TILES).tolist()
    tiles = [_tile(source, sample_id) for sample_id in sample_ids]
    labels = [_tile_label(source, sample_id) for sample_id in sample_ids]
    return _sheet_block(kind, tiles, labels, "Most severe first.")


def _sheet_block(kind: str, tiles: list[np.ndarray], labels: list[str], caption: str) -> FigureBlock | None:
    if not tiles:
        return None
    return image_block(kind.replace(" ", "-"), make_contact_sheet(np.stack(tiles), labels, columns=8), caption)


def _tile(source: Dataset, sample_id: str) -> np.ndarray:
    table = source.samples.table
    path = str(table.loc[table["sample_id"] == sample_id, "path"].iloc[0])
    return make_tile(source.reader, path, _TILE_PIXELS)


def _tile_label(source: Dataset, sample_id: str) -> str:
    row = source.samples.table.set_index("sample_id").loc[sample_id]
    words = [
        f"{row['age']:g}",
        *(str(row[label])[:6] for label in ("gender", "race") if label in row and pd.notna(row[label])),
    ]
    return " ".join(words)


def _count_pairs(findings: AuditResult, pairs: pd.DataFrame) -> dict[str, int]:
    """Count pairs within the audited dataset, and between this dataset and the others."""
    within = int((pairs["other_dataset"] == findings.name).sum())
    return {"within": within, "across": len(pairs) - within}
