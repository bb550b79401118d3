"""Schema of `model.json`, from which the web page takes everything that depends on the model."""

from pydantic import Field

from agebench.metrics.schema import CalibratedInterval, Count, Number, ResultModel


class PageModel(ResultModel):
    """The model file of a page, and the facts about it that the page shows."""

    file: str
    sha256: str
    name: str
    title: str = Field(description="the network, in words")
    training_data: str = Field(description="the datasets, in words")
    licence: str
    intended_use: str


class PageInput(ResultModel):
    """Alignment of the faces; see `agebench.data.faces.alignment.AlignmentSpec`."""

    size: Count = Field(description="side of an aligned face, pixels")
    crop_scale: Number
    offset: float
    visible: Number
    template: list[list[float]] = Field(
        description="x, y of the image-left eye, the image-right eye and the nose base, shares of the side"
    )


class PageOutput(ResultModel):
    """Outputs of the model file."""

    ages: list[int] = Field(description="first and last age, years")
    std: bool = Field(description="whether the model predicts a standard deviation")


class PageTest(ResultModel):
    """Errors of the model on one test set, as text."""

    name: str
    mae: str = Field(description="years, with its interval")
    coverage: str = Field(description="share of true ages in the interval of the model; empty if unknown")


class PageSearch(ResultModel):
    """One search for faces; see `agebench.data.faces.detectors.five_points.Search`."""

    side: Count
    border: Number


class PageDetector(ResultModel):
    """The face detector of a page."""

    file: str
    searches: list[PageSearch]
    min_score: Number
    max_overlap: Number
    nose_base_share: Number


class PageSettings(ResultModel):
    """Content of `model.json`."""

    schema_version: int = Field(default=1, alias="schema")
    model: PageModel
    input: PageInput
    output: PageOutput
    interval: CalibratedInterval | None = Field(description="None if the model states no interval")
    tests: list[PageTest]
    detector: PageDetector
    example: str = Field(description="file of the example image, which is one cropped face")
    download_bytes: Count = Field(description="size of the files that the page loads")
    software: str = Field(description="versions and licenses, in words")
