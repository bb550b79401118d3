"""What is said of a run that is finished already."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agebench.registry.catalogue import Catalogue
    from agebench.runs.folder import RunFolder
    from agebench.runs.inputs import AnyConfig


def say_finished(folder: "RunFolder", config: "AnyConfig", catalogue: "Catalogue", where: Path | str) -> None:
    """That a finished run is not done again; where its data or weights are others than they were, an error says so."""
    from agebench.runs.inputs import Present

    unseen = Present(catalogue).refuse_changed(folder, config)
    doubt = f" Whether its data are still the same is not known: {unseen}" if unseen else ""
    print(f"{where} holds this run, finished; nothing is done again.{doubt}", file=sys.stderr)
