"""Cards of suites: matrices of runs."""

from typing import Any

from pydantic import Field, model_validator

from agebench.config.cards.base import Card, Name


class Variant(Card):
    """One way to do all runs of a suite."""

    name: Name
    settings: dict[str, Any]


class PublishedResult(Card):
    """A figure that somebody else published: it may stand beside ours, named as theirs."""

    system: str
    train: str
    test: str
    protocol: str = ""
    metric: str = "mae"
    value: float
    note: str = ""
    citation: str


class SuiteCard(Card):
    """A benchmark of many runs: every training set x protocol x model x head x variant x seed, each tested on every test set.

    Or of none: a table of published figures alone.
    """

    name: Name
    title: str
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    heads: tuple[str, ...] = Field(default=(), description="empty: each model's own")
    protocols: tuple[str, ...] = Field(default=(), description="of the training sets; empty: the default one")
    seeds: tuple[int, ...] = (0,)
    settings: dict[str, Any] = Field(
        default_factory=dict, description="laid over every run's settings, as --config does"
    )
    variants: tuple[Variant, ...] = Field(
        default=(), description="each laid over the settings in turn: what is varied, one factor at a time"
    )
    budget_hours: float | None = Field(
        default=None, gt=0, description="of all its runs together: no run is begun beyond it"
    )
    published: tuple[PublishedResult, ...] = ()

    @model_validator(mode="after")
    def _asks_for_something(self) -> "SuiteCard":
        matrix = (self.train, self.test, self.models)
        if any(matrix) != all(matrix) or not (any(matrix) or self.published):
            raise ValueError("a suite needs train, test and models, or published figures")
        return self
