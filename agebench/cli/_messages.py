"""Messages that several commands print."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agebench.registry.catalog import Catalog
    from agebench.runs.datasets import AnyConfig
    from agebench.runs.run_dir import RunDir


def print_already_finished(folder: "RunDir", config: "AnyConfig", catalogue: "Catalog", where: Path | str) -> None:
    """Print that a finished run is not repeated.

    Args:
        folder: the run's folder.
        config: the run's settings.
        catalogue: the cards of the datasets.
        where: the folder or URL, for the message.

    Raises:
        UserError: the run's data or weights have changed since it was made.
    """
    from agebench.runs.provenance import InputTracker

    unknown = InputTracker(catalogue).refuse_changed(folder, config)
    note = f" Whether its data are still the same is not known: {unknown}" if unknown else ""
    print(f"{where} holds this run, finished; nothing is done again.{note}", file=sys.stderr)
