"""An example of plugins for agebench: cards here, code beside them. This module imports nothing heavy."""

from pathlib import Path

from agebench.config.cards.base import DatasetCard, read_toml_file, validate_model
from agebench.config.cards.external import ExternalCard

_HERE = Path(__file__).parent
DISCS = validate_model(DatasetCard, read_toml_file(_HERE / "discs.toml"), source=str(_HERE / "discs.toml"))
RULER = validate_model(ExternalCard, read_toml_file(_HERE / "ruler.toml"), source=str(_HERE / "ruler.toml"))
