"""Input and output of external models, as their cards specify them."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from agebench.config.cards.base import Card, is_unset

DECODINGS = ("expectation", "argmax", "top2")


class ExternalInput(Card):
    """The images that a model takes, and how their pixels become its numbers."""

    kind: Literal["aligned", "box", "photo"] = Field(
        default="aligned",
        exclude_if=lambda kind: kind == "aligned",
        description="aligned: eyes and nose on the template; box: the annotated box, else the detector's, with a margin; "
        "photo: whole photographs, for a callable, a command or http",
    )
    size: int = Field(default=112, ge=16, le=1024, description="side of the square input, pixels")
    coverage: float = Field(
        default=1.0,
        gt=0.2,
        le=4,
        description="crop scale: 1 is the framing of UTKFace's crops, 1.5 shows half as much again",
    )
    offset: float = Field(
        default=0.0,
        ge=-0.5,
        le=0.5,
        exclude_if=is_unset,
        description="share of the side by which the face lies lower than in UTKFace's crops; negative: higher",
    )
    visible: float = Field(
        default=0.0,
        ge=0,
        le=4,
        exclude_if=is_unset,
        description="side of the region that is shown, 1 for that of UTKFace's crops; outside it, its edge is repeated. 0: all",
    )
    margin: float = Field(
        default=0.0,
        ge=-0.4,
        le=3,
        exclude_if=is_unset,
        description="of kind box: added on each side of the box, as a share of its longer side; 0.4 makes it 1.8 times as large",
    )
    fit: Literal["", "square", "letterbox", "stretch"] = Field(
        default="",
        exclude_if=is_unset,
        description="of kind box: square (the default) takes a square of the longer side, letterbox adds black borders, stretch "
        "changes the aspect ratio",
    )
    channels: Literal["rgb", "bgr", "grey"] = Field(
        default="rgb", description="order of the channels, also of mean and std"
    )
    layout: Literal["nchw", "nhwc"] = Field(default="nchw", description="order of batch, channels, rows and columns")
    dtype: Literal["float32", "float16", "uint8"] = Field(
        default="float32",
        description="float16: computed in float32, then rounded; uint8: the bytes as they are, without value_range, mean and std",
    )
    normalize: Literal["", "min-max"] = Field(
        default="",
        exclude_if=is_unset,
        description="min-max: the smallest and the largest value of each face, over all channels, become the ends of "
        "value_range, before mean and std",
    )
    value_range: tuple[float, float] = Field(
        default=(0.0, 1.0), description="values of black and white, before mean and std"
    )
    mean: tuple[float, ...] = Field(
        default=(0.0,), description="subtracted; one value, or one per channel in the order of `channels`"
    )
    std: tuple[float, ...] = Field(
        default=(1.0,), description="divided by; one value, or one per channel in the order of `channels`"
    )

    @model_validator(mode="after")
    def _widths(self) -> Self:
        allowed = {1} if self.channels == "grey" else {1, 3}
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in allowed:
                raise ValueError(f"{key} has {len(values)} numbers; it takes one, or one for each channel")
        if 0 in self.std:
            raise ValueError("std must not be 0")
        if self.normalize and self.dtype == "uint8":
            raise ValueError(
                'normalize = "min-max" needs dtype = "float32" or "float16"; uint8 are the bytes as they are'
            )
        return self

    @model_validator(mode="after")
    def _framing_of_kind(self) -> Self:
        if self.kind != "box" and (self.margin or self.fit):
            raise ValueError('margin and fit are for kind = "box"; aligned faces are framed by coverage and offset')
        if self.kind != "aligned" and (self.coverage != 1 or self.offset or self.visible):
            raise ValueError('coverage, offset and visible are for kind = "aligned"; a box is framed by margin and fit')
        return self

    @property
    def box_fit(self) -> Literal["", "square", "letterbox", "stretch"]:
        """The way in which a box becomes a square; empty for other kinds than `box`."""
        return (self.fit or "square") if self.kind == "box" else ""


class GenderOutput(Card):
    """The place of the gender in a model's outputs; it is scored where a dataset knows it."""

    name: str = Field(default="", description="name or number of the output; empty: that of the age")
    columns: tuple[int, ...] = Field(
        default=(), description="indices from 0 of the numbers per face that are the gender; empty: all of the output"
    )
    classes: tuple[str, ...] = Field(
        default=("female", "male"),
        min_length=2,
        description="class of each number, in the words of datasets; a single number is the probability of the second class",
    )
    logits: bool = Field(default=False, description="the numbers need a softmax, or a single one a sigmoid")

    @field_validator("name", mode="before")
    @classmethod
    def _number_as_text(cls, name: object) -> object:
        return str(name) if isinstance(name, int) and not isinstance(name, bool) else name

    @model_validator(mode="after")
    def _one_column_per_class(self) -> Self:
        if any(column < 0 for column in self.columns):
            raise ValueError(f"gender.columns = {list(self.columns)}: indices count from 0")
        if self.columns and len(self.columns) not in (len(self.classes), 1):
            raise ValueError(f"gender.columns has {len(self.columns)} numbers for {len(self.classes)} classes")
        if len(self.columns) == 1 and len(self.classes) != 2:
            raise ValueError("a single number distinguishes two classes")
        return self


class ExternalOutput(Card):
    """The output of a model, and how an age is read from it."""

    kind: Literal["age", "distribution"] = Field(default="age", description="years, or probabilities of classes")
    name: str = Field(
        default="",
        description="name or index from 0 of the output to read; empty: the only one",
    )
    column: int | None = Field(
        default=None,
        ge=0,
        # Left out of config.toml while unset, so that earlier tests keep their config.
        exclude_if=lambda value: value is None,
        description="of kind age: index from 0 of the age, where the output has several numbers per face",
    )
    scale: float = Field(default=1.0, description="of kind age: years = offset + scale * output")
    offset: float = Field(default=0.0, description="of kind age: years that are added")
    ages: tuple[float, ...] = Field(
        default=(),
        description="of kind distribution: the age of each class; empty: middles of the brackets, else 0, 1, 2, …",
    )
    brackets: tuple[tuple[float, float], ...] = Field(
        default=(),
        exclude_if=is_unset,
        description="of kind distribution: youngest and oldest age of each class, both inclusive",
    )
    open_ages: tuple[float, ...] = Field(
        default=(),
        exclude_if=is_unset,
        description="of format transformers: youngest and oldest age of labels with an open end, such as `more than 70`",
    )
    decode: str = Field(
        default="",
        exclude_if=is_unset,
        description="of kind distribution: expectation (the default), argmax, top2 (expectation over the two likeliest classes), "
        "or `package.module:function` or `file.py:function`, (B, A) probabilities to (B,) years",
    )
    logits: bool = Field(default=False, description="of kind distribution: the output needs a softmax")
    gender: GenderOutput | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="where the gender is, in the same or another output",
    )

    @field_validator("name", mode="before")
    @classmethod
    def _number_as_text(cls, name: object) -> object:
        return str(name) if isinstance(name, int) and not isinstance(name, bool) else name

    @model_validator(mode="after")
    def _column_of_an_age(self) -> Self:
        if self.column is not None and self.kind != "age":
            raise ValueError('column is for kind = "age"; a distribution is read by its ages')
        if self.kind != "distribution" and (self.brackets or self.decode or self.open_ages):
            raise ValueError('brackets, open_ages and decode are for kind = "distribution"')
        if self.decode not in ("", *DECODINGS) and not all(self.decode.rpartition(":")[::2]):
            raise ValueError(
                f"decode = {self.decode!r}: {', '.join(DECODINGS)}, or a function as package.module:function or file.py:function"
            )
        return self

    @model_validator(mode="after")
    def _ends_of_brackets(self) -> Self:
        for low, high in self.brackets:
            if not 0 <= low <= high:
                raise ValueError(f"brackets: ({low:g}, {high:g}) must be the youngest and the oldest age of a class")
        if self.ages and self.brackets and len(self.ages) != len(self.brackets):
            raise ValueError(f"{len(self.ages)} ages for {len(self.brackets)} brackets; state one age for each bracket")
        if self.open_ages and (len(self.open_ages) != 2 or self.open_ages[0] >= self.open_ages[1]):
            raise ValueError("open_ages takes two ages: the youngest and the oldest, e.g. [0, 80]")
        return self

    @property
    def class_ages(self) -> tuple[float, ...]:
        """Age of each class of a distribution; empty if the card does not state them."""
        return self.ages or tuple((low + high) / 2 for low, high in self.brackets)

    @property
    def decode_function(self) -> str:
        """Reference of the function that decodes a distribution; empty for the built-in ways."""
        return "" if self.decode in ("", *DECODINGS) else self.decode

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the outputs that are read: that of the age, then that of the gender."""
        return (self.name,) if self.gender is None else (self.name, self.gender.name or self.name)

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Auxiliary target -> its classes."""
        return {} if self.gender is None else {"gender": self.gender.classes}
