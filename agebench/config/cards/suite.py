"""Cards of suites: matrices of runs."""

from typing import Any

from pydantic import Field, model_validator

from agebench.config.cards.base import Card, Name


class Variant(Card):
    """A variation of all runs of a suite."""

    name: Name = Field(description="the name in tables and folders")
    settings: dict[str, Any] = Field(description="override the settings of the suite")


class PublishedResult(Card):
    """A metric value from a publication; tables mark it as published."""

    system: str = Field(description="the system's name")
    train: str = Field(description="its training set")
    test: str = Field(description="the test set")
    protocol: str = Field(default="", description="the split protocol, in words")
    metric: str = Field(default="mae", description="the metric")
    value: float = Field(description="the published value")
    note: str = Field(default="", description="what limits the comparison")
    citation: str = Field(description="the publication")


class SuiteCard(Card):
    """A benchmark: training sets x protocols x models x heads x variants x seeds, each tested on every test set.

    A suite without runs is a table of published values.
    """

    name: Name = Field(description="the name on the command line")
    title: str = Field(description="the name in tables")
    train: tuple[str, ...] = Field(default=(), description="training sets")
    test: tuple[str, ...] = Field(default=(), description="test sets of every run")
    models: tuple[str, ...] = Field(default=(), description="model cards")
    heads: tuple[str, ...] = Field(default=(), description="empty: each model's default")
    protocols: tuple[str, ...] = Field(default=(), description="of the training sets; empty: the default one")
    seeds: tuple[int, ...] = Field(default=(0,), description="one run per seed")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="override every run's defaults, as --config does"
    )
    variants: tuple[Variant, ...] = Field(
        default=(), description="each overrides the settings in turn, to vary one factor at a time"
    )
    budget_hours: float | None = Field(
        default=None, gt=0, description="total time of all runs; no run is started beyond it"
    )
    published: tuple[PublishedResult, ...] = Field(default=(), description="values from publications, for the tables")

    @model_validator(mode="after")
    def _is_not_empty(self) -> "SuiteCard":
        matrix = (self.train, self.test, self.models)
        if any(matrix) != all(matrix) or not (any(matrix) or self.published):
            raise ValueError("a suite needs train, test and models, or published values")
        return self
