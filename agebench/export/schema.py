"""Schema of the descriptions beside exported files, and of the result of `agebench export`."""

from pydantic import Field

from agebench.estimators.exported.card import AccuracyComparison, AgreementCheck
from agebench.metrics.schema import Count, Number, ResultModel

Hardware = dict[str, str | int]


class SpeedSummary(ResultModel):
    """Speed of estimation alone."""

    median_ms: Number = Field(description="median duration of a call, ms")
    images_per_s: Number
    p95_ms: Number | None = Field(default=None, description="95th percentile, ms; of single faces only")


class FileDescription(ResultModel):
    """One exported file, as the JSON file beside it describes it."""

    file: str
    bytes: Count
    sha256: str
    format: str
    precision: str
    checked: AgreementCheck
    accuracy: dict[str, AccuracyComparison] = Field(default={}, description="test set -> change of the MAE")
    speed: dict[str, SpeedSummary] = Field(description="`batch_1` and `batch_64`")
    hardware: Hardware


class UnwrittenFile(ResultModel):
    """A file that was not written, or not kept."""

    file: str
    reason: str


class ExportResult(ResultModel):
    """The result of `agebench export`."""

    files: list[FileDescription]
    refused: list[UnwrittenFile] = Field(description="files whose error was too large")
    impossible: list[UnwrittenFile] = Field(description="combinations that are not supported")
    hardware: Hardware
