"""Submissions: the files of a run that a pull request adds to the leaderboard's repository."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agebench.config.cards.dataset import DatasetCard
from agebench.errors import UserError
from agebench.leaderboard.markdown import group_into_systems, result_matrix, test_sets
from agebench.leaderboard.marks import LEGEND
from agebench.leaderboard.records import estimates_file, read_record, read_records, write_record
from agebench.leaderboard.schema import parse_record
from agebench.leaderboard.verify import require_valid
from agebench.registry.catalog import Catalog
from agebench.registry.registry import Registry
from agebench.reports.formatting import escape_markdown, markdown_table
from agebench.runs.run_dir import RunDir
from agebench.utils.io import atomic_write, write_text
from agebench.utils.paths import shipped

RESULTS = Path("reports", "results")
REQUEST = "pull_request.md"


def write_submission(
    run: Path,
    out: Path,
    catalog: Catalog,
    known: Mapping[str, DatasetCard],
    initial: Mapping[str, str] | None = None,
) -> list[str]:
    """Write the record of a run, its estimates and its cards in the layout of the repository.

    Estimates are written only for test sets whose card allows it (`estimates_public`). Cards that agebench ships are not written.

    Args:
        run: the folder of a finished run.
        out: the folder to write; must be missing or empty.
        catalog: all cards.
        known: the cards of the run's datasets, by name.
        initial: digests of the initial weights, for a run whose manifest has none.

    Returns:
        The paths of the written files, relative to `out`.

    Raises:
        UserError: the run is not finished or used a part of the data only, no card of its model is at hand, or `out` is a file or
            not empty.
    """
    if RunDir(run).manifest().get("limit"):
        raise UserError(
            f"{run}: the run used --limit, and the leaderboard ranks whole test sets. Run it again without."
        )
    _require_card(run, catalog)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is a file or holds files; choose an empty folder with --out")
    path = write_record(run, out / RESULTS, known, initial)
    record = parse_record(read_record(path), path)
    written = [path, *filter(Path.exists, (estimates_file(path, name) for name in record.metrics.tests))]
    written += _copy_cards(out / "registry" / "datasets", catalog.datasets, known)
    written += _copy_cards(out / "registry" / "models", catalog.models, [record.model.name])
    names = [file.relative_to(out).as_posix() for file in written]
    write_text(out / REQUEST, _request(record_rows([path]), names))
    return [*names, REQUEST]


def record_rows(paths: Iterable[Path]) -> str:
    """Return the leaderboard's rows of some records as a Markdown table with its legend.

    A row covers all seeds of a system: the other records in a record's folder contribute seeds, and the variance between seeds.

    Args:
        paths: the records' files.

    Raises:
        UserError: a record cannot be read or is invalid.
    """
    named = {path: read_record(path) for path in paths}
    ids = {require_valid(record, path).id for path, record in named.items()}
    every = {
        path: record for folder in {path.parent for path in named} for path, record in read_records(folder).items()
    }
    grouped = group_into_systems(parse_record(record, path) for path, record in (every | named).items())
    systems = [system for system in grouped if ids & {record.id for record in system.records}]
    headers, rows = result_matrix(systems, test_sets(systems))
    cells = [[*map(escape_markdown, row[:2]), *row[2:]] for row in rows]
    align = ["left", "left", *["right"] * (len(headers) - 2)]
    return f"{markdown_table([*map(escape_markdown, headers)], cells, align=align)}\n\n{LEGEND}"


def _require_card(run: Path, catalog: Catalog) -> None:
    """Refuse a run whose model others could not open, for want of its card."""
    model = RunDir(run).manifest().get("model") or {}
    name, source = str(model.get("name", "")), str(model.get("source", ""))
    if name and name not in catalog.models.names() and not source.startswith("python:"):
        raise UserError(
            f"{run}: the card of its model '{name}' is not among the cards, and others need it. Name the folder of the card with "
            "--registry"
        )


def _copy_cards(folder: Path, registry: Registry[Any], names: Iterable[str]) -> list[Path]:
    """Copy the card files that agebench does not ship; cards of installed packages have no file."""
    copied = []
    for name in names:
        origin = Path(registry.origin(name)) if name in registry.names() else None
        if origin is None or origin.suffix != ".toml" or origin.is_relative_to(shipped("registry").resolve()):
            continue
        with atomic_write(folder / origin.name) as temporary:
            shutil.copyfile(origin, temporary)
        copied.append(folder / origin.name)
    return copied


def _request(rows: str, names: Iterable[str]) -> str:
    """Return the text of the pull request."""
    files = "\n".join(f"- `{name}`" for name in names)
    return f"""## New record

{rows}

Files:

{files}

- [ ] The run was made with the settings of its `config.toml`, and no file was edited afterwards.
- [ ] The licenses of the datasets and of the weights allow these figures to be published.
- [ ] The training data of the weights are named on the model's card, or marked as unknown.
"""
