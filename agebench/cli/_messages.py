"""Messages that several commands print."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agebench.registry.catalog import Catalog
    from agebench.runs.provenance import AnyConfig
    from agebench.runs.run_dir import RunDir


def print_already_finished(folder: "RunDir", config: "AnyConfig", catalogue: "Catalog", where: Path | str) -> None:
    """Report that a finished run is not repeated; raise an error if its data or weights changed."""
    from agebench.runs.provenance import InputTracker

    unverified = InputTracker(catalogue).refuse_changed(folder, config)
    note = f" Its data cannot be verified: {unverified}" if unverified else ""
    print(f"{where} contains this run, finished; nothing is repeated.{note}", file=sys.stderr)
