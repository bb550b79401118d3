"""The model that ships with agebench: `agebench-base`, a TorchScript file and a description beside it."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from agebench.errors import AgebenchError, UserError
from agebench.utils.io import file_digest, read_limited

NAME = "agebench-base"
MAX_BYTES = 8_000_000
_MAX_DESCRIPTION_BYTES = 100_000


class ReleasedModel(BaseModel):
    """The description of a released model.

    The file itself contains its card: input, training data, metrics and guarantees.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    file: str
    size_bytes: int = Field(ge=1, le=MAX_BYTES)
    sha256: str
    title: str = Field(description="the network, in words")
    training_data: str = Field(description="the datasets, in words")
    licence: str
    precision: str
    mae: dict[str, str] = Field(
        description="test set -> MAE, or distance to the labeled range, with its interval, years"
    )
    config_sha256: str = Field(description="of the run's config.toml, which also names its record")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the description in a folder.

        Args:
            folder: the folder of the released files.

        Raises:
            UserError: no model is released there.
            AgebenchError: the description is damaged.
        """
        path = folder / f"{NAME}.json"
        if not path.exists():
            raise UserError(
                f"no model ships with this copy of agebench ({path} is missing). Give the folder of a finished run, an exported "
                "file, or a name of `agebench list models`; `agebench export RUN --release` makes a run the released model"
            )
        try:
            return cls.model_validate_json(read_limited(path, _MAX_DESCRIPTION_BYTES))
        except ValueError as error:
            raise AgebenchError(f"{path}: the description of the released model is damaged: {error}") from error

    def path(self, folder: Path) -> Path:
        """Return the path of the model's file, after comparing its digest.

        Args:
            folder: the folder of the released files.

        Raises:
            AgebenchError: the file is missing, or is not the described one.
        """
        path = folder / Path(self.file).name
        if not path.is_file() or file_digest(path) != self.sha256:
            raise AgebenchError(
                f"{path}: the file of the released model is missing or damaged (its SHA-256 is not {self.sha256}); reinstall "
                "agebench"
            )
        return path

    def summary(self) -> str:
        """Return in one line what the model is: training data, errors and license."""
        errors = ", ".join(f"{test} {value}" for test, value in self.mae.items())
        return f"{self.name}: {self.title}; trained on {self.training_data}; MAE {errors} years; {self.licence}"


def released_dir() -> Path:
    """Return the folder of the released files in the package."""
    return Path(__file__).parents[1] / "released"
