"""Cards of suites: matrices of runs."""

from typing import Any

from pydantic import Field, model_validator

from agebench.config.cards.base import Card, Name


class Variant(Card):
    """A variation of all runs of a suite."""

    name: Name
    settings: dict[str, Any]


class PublishedResult(Card):
    """A metric value from a publication; tables mark it as published."""

    system: str
    train: str
    test: str
    protocol: str = ""
    metric: str = "mae"
    value: float
    note: str = ""
    citation: str


class SuiteCard(Card):
    """A benchmark: training sets x protocols x models x heads x variants x seeds, each tested on every test set.

    A suite without runs is a table of published values.
    """

    name: Name
    title: str
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    heads: tuple[str, ...] = Field(default=(), description="empty: each model's default")
    protocols: tuple[str, ...] = Field(default=(), description="of the training sets; empty: the default one")
    seeds: tuple[int, ...] = (0,)
    settings: dict[str, Any] = Field(
        default_factory=dict, description="override every run's defaults, as --config does"
    )
    variants: tuple[Variant, ...] = Field(
        default=(), description="each overrides the settings in turn, to vary one factor at a time"
    )
    budget_hours: float | None = Field(
        default=None, gt=0, description="total time of all runs; no run is started beyond it"
    )
    published: tuple[PublishedResult, ...] = ()

    @model_validator(mode="after")
    def _is_not_empty(self) -> "SuiteCard":
        matrix = (self.train, self.test, self.models)
        if any(matrix) != all(matrix) or not (any(matrix) or self.published):
            raise ValueError("a suite needs train, test and models, or published values")
        return self
