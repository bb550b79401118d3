"""The report of an audit: report.md, contact sheets and CSVs in a folder of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agebench.data.audit.report_model import AuditResult
from agebench.data.dataset import Dataset
from agebench.data.image_grid import make_contact_sheet, make_tile
from agebench.reports.formatting import escape_markdown, format_count, join_words, markdown_table
from agebench.utils.io import atomic_write, write_csv, write_json, write_text

TILE, SHOWN = 112, 40
_QUALITY = {
    "empty": "hardly any contrast: nothing to see",
    "tiny": "a shorter side of less than 50 pixels",
    "blurred": "hardly any fine detail: enlarged, or out of focus",
    "grey": "no colour, or one tint all over",
    "no face": "the detector found none",
    "several faces": "the detector found more than one: whose age is it?",
}


def audit_summary(findings: AuditResult) -> dict[str, Any]:
    """The counts, as `--json` prints them."""
    problems = findings.quality["problem"].value_counts()
    return {
        "dataset": findings.name,
        "against": list(findings.against),
        "images": findings.images,
        "unreadable": len(findings.quarantined),
        "copies": _count_own(findings, findings.copies),
        "near": _count_own(findings, findings.near_duplicates),
        "conflicts": {str(label): int(n) for label, n in findings.label_conflicts["label"].value_counts().items()},
        "ages": len(findings.implausible_ages),
        "quality": {str(problem): int(n) for problem, n in problems.items()},
        "looked_for_faces": findings.n_examined,
        "subjects": len(findings.subjects),
    }


def write_audit(folder: Path, findings: AuditResult, sources: Sequence[Dataset]) -> Path:
    """Write the tables as CSV, what `agebench run --exclude` takes, contact sheets and report.md; returns the report."""
    tables = {
        "copies": findings.copies,
        "near": findings.near_duplicates,
        "conflicts": findings.label_conflicts,
        "ages": findings.implausible_ages,
        "quality": findings.quality,
        "subjects": findings.subjects,
        "quarantined": findings.quarantined,
    }
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    exclusions = {kind: table for kind, table in findings.exclusions().items() if len(table)}
    for kind, table in exclusions.items():
        write_csv(folder / f"exclude-{kind}.csv", table)
    write_json(folder / "audit.json", audit_summary(findings))
    pictures = _sheets(folder, findings, {source.card.name: source for source in sources})
    report = folder / "report.md"
    write_text(report, "\n\n".join(part for part in _parts(findings, pictures, exclusions) if part) + "\n")
    return report


def counts_table(findings: AuditResult) -> str:
    """What was found, a line a kind; the command line prints it too."""
    said = audit_summary(findings)
    within, across = "within the dataset", f"with {join_words([escape_markdown(name) for name in findings.against])}"
    rows = [["images that can be read", format_count(said["images"])], ["put aside", format_count(said["unreadable"])]]
    for kind, title in (("copies", "exact copies (pairs)"), ("near", "near duplicates (pairs)")):
        rows.append([f"{title} {within}", format_count(said[kind]["within"])])
        if findings.against:
            rows.append([f"{title} {across}", format_count(said[kind]["across"])])
    rows += [
        [f"pairs of copies that differ in {label}", format_count(said["conflicts"].get(label, 0))]
        for label in ("age", "gender", "race", "subject")
    ]
    rows += [
        ["doubtful ages", format_count(said["ages"])],
        ["subjects that contradict themselves", format_count(said["subjects"])],
    ]
    rows += [
        [problem, format_count(said["quality"].get(problem, 0))] for problem in ("empty", "tiny", "blurred", "grey")
    ]
    if findings.n_examined:
        rows += [
            [
                f"{problem} (of {format_count(findings.n_examined)} looked at)",
                format_count(said["quality"].get(problem, 0)),
            ]
            for problem in ("no face", "several faces")
        ]
    return markdown_table([escape_markdown(findings.name), "found"], rows)


def _parts(findings: AuditResult, pictures: Mapping[str, str], exclusions: Mapping[str, pd.DataFrame]) -> list[str]:
    against = (
        f", held against {join_words([escape_markdown(name) for name in findings.against])}" if findings.against else ""
    )
    flags = " ".join(f"--exclude exclude-{kind}.csv" for kind in exclusions)
    return [
        f"# Audit of {escape_markdown(findings.name)}{against}",
        counts_table(findings),
        "Near duplicates are the same photograph in another encoding, size or crop, or mirrored. Candidates come from a perceptual "
        "hash of all pairs; a pair counts once the one image, laid over the other, also agrees in fine detail, which two people "
        "do not. Pictures stand in this folder only: do not publish it where the dataset's licence forbids that.",
        _section(
            "Near duplicates", findings.near_duplicates, pictures.get("near", ""), "least alike first", by="likeness"
        ),
        _section(
            "Labels that contradict one another", findings.label_conflicts, pictures.get("conflicts", ""), "worst first"
        ),
        _section("Doubtful ages", findings.implausible_ages, pictures.get("ages", ""), "first ones"),
        _section("Subjects", findings.subjects, "", "first ones"),
        *(
            f"## {problem[0].upper()}{problem[1:]}: {text}\n\n{pictures[problem]}"
            for problem, text in _QUALITY.items()
            if problem in pictures
        ),
        "## What can be left out of runs",
        markdown_table(
            ["file", "images"],
            [[f"exclude-{kind}.csv", format_count(len(table))] for kind, table in exclusions.items()],
        )
        or "Nothing was found that should be.",
        "Look at the pictures before you leave anything out; `--exclude` may be given several times:" if flags else "",
        f"```\nagebench run --train {escape_markdown(findings.name)} {flags}\n```" if flags else "",
    ]


def _section(title: str, table: pd.DataFrame, shown: str, order: str, *, by: str = "") -> str:
    if not len(table):
        return ""
    first = (table.sort_values(by, kind="stable") if by else table).head(20)
    rows = [
        ["–" if pd.isna(value) else escape_markdown(value) for value in row] for row in first.itertuples(index=False)
    ]
    more = f" ({order}, {len(first)} of {format_count(len(table))})" if len(table) > len(first) else ""
    text = markdown_table(list(map(str, table.columns)), rows, align=["left"] * len(table.columns))
    return f"## {title}{more}\n\n{shown}\n\n{text}" if shown else f"## {title}{more}\n\n{text}"


def _sheets(folder: Path, findings: AuditResult, sources: Mapping[str, Dataset]) -> dict[str, str]:
    """Contact sheets in `folder`/figures: kind -> Markdown that shows it."""
    near = findings.near_duplicates.sort_values("likeness", kind="stable").head(SHOWN)
    conflicts = findings.label_conflicts.drop_duplicates(["sample_id", "other_id"]).head(SHOWN)
    pairs = {
        "near": (
            near,
            [
                f"{likeness:.3f}{' mirrored' * mirrored}"
                for likeness, mirrored in _columns(near, "likeness", "mirrored")
            ],
        ),
        "conflicts": (conflicts, [f"{label}" for (label,) in _columns(conflicts, "label")]),
    }
    made = {}
    for kind, (table, notes) in pairs.items():
        tiles, labels = [], []
        for row, note in zip(table.itertuples(), notes, strict=True):
            for dataset, sample_id, text in (
                (row.dataset, row.sample_id, ""),
                (row.other_dataset, row.other_id, f"  {note}"),
            ):
                tiles.append(_picture(sources[str(dataset)], str(sample_id)))
                labels.append(_label(sources[str(dataset)], str(sample_id)) + text)
        made[kind] = (tiles, labels, f"{len(table)} pairs, side by side")
    for problem in ("ages", *_QUALITY):
        own = (
            findings.implausible_ages if problem == "ages" else findings.quality[findings.quality["problem"] == problem]
        )
        ids = own["sample_id"].head(SHOWN).tolist()
        source = sources[findings.name]
        made[problem] = ([_picture(source, one) for one in ids], [_label(source, one) for one in ids], "worst first")
    return {
        kind: _draw(folder / "figures" / f"{kind.replace(' ', '-')}.png", *content)
        for kind, content in made.items()
        if content[0]
    }


def _draw(path: Path, tiles: list[np.ndarray], labels: list[str], caption: str) -> str:
    sheet = make_contact_sheet(np.stack(tiles), labels, columns=8)
    with atomic_write(path) as temporary:
        sheet.save(temporary)
    return f"![{path.stem}](figures/{path.name})\n\n*{caption}*"


def _picture(source: Dataset, sample_id: str) -> np.ndarray:
    table = source.samples.table
    return make_tile(source.reader, str(table.loc[table["sample_id"] == sample_id, "path"].iloc[0]), TILE)


def _label(source: Dataset, sample_id: str) -> str:
    row = source.samples.table.set_index("sample_id").loc[sample_id]
    words = [
        f"{row['age']:g}",
        *(str(row[label])[:6] for label in ("gender", "race") if label in row and pd.notna(row[label])),
    ]
    return " ".join(words)


def _columns(table: pd.DataFrame, *names: str) -> list[Any]:
    return list(table[[*names]].itertuples(index=False, name=None))


def _count_own(findings: AuditResult, pairs: pd.DataFrame) -> dict[str, int]:
    within = int((pairs["other_dataset"] == findings.name).sum())
    return {"within": within, "across": len(pairs) - within}
