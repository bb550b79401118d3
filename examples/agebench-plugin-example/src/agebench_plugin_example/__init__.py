"""An example of plugins for agebench: cards here, code beside them. This module imports nothing heavy."""

from pathlib import Path

from agebench.registry.cards import DatasetCard, read_table, validated
from agebench.registry.external import ExternalCard

_HERE = Path(__file__).parent
DISCS = validated(DatasetCard, read_table(_HERE / "discs.toml"), source=str(_HERE / "discs.toml"))
RULER = validated(ExternalCard, read_table(_HERE / "ruler.toml"), source=str(_HERE / "ruler.toml"))
