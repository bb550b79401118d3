"""Messages that several commands print."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agebench.registry.catalog import Catalog
    from agebench.runs.datasets import AnyConfig
    from agebench.runs.run_dir import RunDir


def print_already_finished(folder: "RunDir", config: "AnyConfig", catalog: "Catalog", where: Path | str) -> None:
    """Report that a finished run is not repeated.

    Args:
        folder: the run's folder.
        config: the run's settings.
        catalog: the cards of the datasets.
        where: the folder or URL, for the message.

    Raises:
        UserError: the run's data or weights have changed since it was made.
    """
    from agebench.runs.provenance import InputTracker

    unverified = InputTracker(catalog).refuse_changed(folder, config)
    note = f" Its data cannot be verified: {unverified}" if unverified else ""
    print(f"{where} contains this run, finished; nothing is repeated.{note}", file=sys.stderr)
