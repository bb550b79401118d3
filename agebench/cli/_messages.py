"""What is said of a run that is finished already."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agebench.registry.catalog import Catalog
    from agebench.runs.provenance import AnyConfig
    from agebench.runs.run_dir import RunDir


def print_already_finished(folder: "RunDir", config: "AnyConfig", catalogue: "Catalog", where: Path | str) -> None:
    """That a finished run is not done again; where its data or weights are others than they were, an error says so."""
    from agebench.runs.provenance import InputTracker

    unseen = InputTracker(catalogue).refuse_changed(folder, config)
    doubt = f" Whether its data are still the same is not known: {unseen}" if unseen else ""
    print(f"{where} holds this run, finished; nothing is done again.{doubt}", file=sys.stderr)
