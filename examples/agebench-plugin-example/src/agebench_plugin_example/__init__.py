"""An example of plugins for agebench: cards here, code beside them. This module imports nothing heavy."""

from pathlib import Path

from agebench.plugins import DatasetCard, ExternalCard, read_card

_HERE = Path(__file__).parent
DISCS = read_card(DatasetCard, _HERE / "discs.toml")
RULER = read_card(ExternalCard, _HERE / "ruler.toml")
