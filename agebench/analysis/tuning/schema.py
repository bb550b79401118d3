"""Results of a hyperparameter search, as tune.json stores them."""

from typing import Annotated, Any, Literal

from pydantic import Field, SkipValidation

from agebench.metrics.schema import Count, ResultModel

SCHEMA = 1
# One entry for each epoch; skipped, so that the numbers of epochs stay integers.
History = Annotated[list[dict[str, float]], SkipValidation]


class StepResult(ResultModel):
    """The result of a diagnostic step."""

    good: bool
    verdict: str


class InitialLoss(StepResult):
    """The loss of the untrained model."""

    losses: list[float] = Field(description="one for each batch")
    expected: list[float] = Field(description="those of the head on all-zero features")
    loss: float = Field(description="mean of `losses`")
    should_be: float = Field(description="mean of `expected`")
    mae: float = Field(description="years")
    mae_of_the_median: float = Field(description="MAE of always answering the training set's median age, years")


class OverfitEpoch(ResultModel):
    """One epoch of training on a small subset."""

    epoch: int
    loss: float
    mae: float = Field(description="years")


class OverfitResult(StepResult):
    """Training on a small subset."""

    images: Count
    curve: list[OverfitEpoch]
    mae: float | None = Field(description="after the last epoch, years; None if training diverged")
    mae_of_the_median: float = Field(description="MAE of always answering the subset's median age, years")


class RangeTestResult(StepResult):
    """A learning-rate range test."""

    rates: list[float]
    losses: list[float] = Field(description="one for each rate, adjusted for the ages of the batch")
    suggested: float = Field(description="the learning rate that the search is centered on")


class Trial(ResultModel):
    """A short training run; its MAE and the 95 % interval are None if training diverged."""

    name: str
    lr: float
    weight_decay: float
    epochs: Count
    val_mae: float | None = Field(description="validation MAE, years")
    low: float | None
    high: float | None
    history: History
    diverged: str = Field(description="message of the divergence; empty without one")
    seconds: float

    @property
    def error(self) -> float:
        """The validation MAE; infinite if training diverged."""
        return float("inf") if self.val_mae is None else self.val_mae

    @property
    def half_width(self) -> float:
        """Half the width of the interval, years; 0 if training diverged."""
        return 0.0 if self.low is None else self.error - self.low


class FullTraining(ResultModel):
    """Training with the best settings."""

    history: History
    best_epoch: Annotated[float, SkipValidation]
    val_mae: float = Field(description="validation MAE of the best epoch, years")


class TuneResult(ResultModel):
    """The content of tune.json."""

    train: str
    model: str
    head: str
    images: dict[str, int] = Field(description="train, trial and val -> number of images")
    search: Literal["grid", "optuna"]
    untrained: InitialLoss
    by_heart: OverfitResult
    range_test: RangeTestResult
    trials: list[Trial] = Field(description="in the order in which they ran")
    best: Trial
    not_told_apart: list[str] = Field(description="names of the trials that do not differ significantly from the best")
    long_run: FullTraining
    finished: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {"schema": SCHEMA, **super().to_json(), "finished": self.finished}
