"""Search for the framing and the channel order of an external model on labelled faces: a wrong card gives a wrong error."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from agebench.config.cards.external import ExternalCard
from agebench.config.run import FacesConfig
from agebench.data.dataset import Dataset
from agebench.data.faces.cache import load_or_build_face_cache
from agebench.data.samples import Samples, evenly_spaced
from agebench.errors import DatasetNotFoundError, UserError
from agebench.estimators.external.base import ExternalEstimator
from agebench.metrics.clustered_rates import row_clusters
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import markdown_table
from agebench.runs.datasets import open_dataset
from agebench.runs.resolve import model_alignment_spec

N_FACES = 300
# Datasets that are looked for where none is named.
DATASETS = ("utk", "fgnet")
# Crop scales of models in use lie between a tight box (0.8) and a box with hair and neck (2.2); offsets between the eyes of
# UTKFace's crops (0.305 of the height) and those of ArcFace's template (0.46).
COVERAGES = (0.8, 1.0, 1.2, 1.5, 1.8, 2.2)
OFFSETS = (-0.06, 0.0, 0.06, 0.12)
MARGINS = (-0.1, 0.0, 0.1, 0.2, 0.4, 0.6)
CHANNELS = ("rgb", "bgr")
MIN_DIFFERENCE = 0.1  # years; smaller differences are not worth another card
_RESAMPLES = 2000


class SweepRow(BaseModel):
    """The error of one setting.

    Attributes:
        settings: keys of `[input]` -> their values.
        mae: mean absolute error, years.
        bias: mean error, years.
        correlation: Pearson correlation of estimated and true ages; None if the estimates are constant.
        is_card: whether the card has this setting.
    """

    model_config = ConfigDict(frozen=True)

    settings: dict[str, float | str]
    mae: float
    bias: float
    correlation: float | None
    is_card: bool = False


class SweepResult(BaseModel):
    """The errors of all settings, and the one that the card should have.

    Attributes:
        model: name of the card.
        dataset: name of the dataset.
        n: number of faces.
        rows: the settings in the order in which they were tried.
        best: settings with the smallest error.
        difference: years by which the card's error is larger.
        interval: simultaneous 95 % interval of the difference, over all settings.
        is_better: whether the best settings differ from the card's by more than chance and `MIN_DIFFERENCE`.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    dataset: str
    n: int
    rows: list[SweepRow]
    best: dict[str, float | str]
    difference: float
    interval: tuple[float, float]
    is_better: bool


@dataclass
class FramingSweep:
    """The settings of one sweep, and the errors of those that were tried.

    Attributes:
        card: the model's card.
        dataset: the labelled faces.
        samples: the samples that are estimated.
        estimator: the open model, which is given the card of each setting.
    """

    card: ExternalCard
    dataset: Dataset
    samples: Samples
    estimator: ExternalEstimator

    def __post_init__(self) -> None:
        self.errors: dict[tuple[tuple[str, float | str], ...], np.ndarray] = {}
        self.kept = self.samples

    def errors_of(self, settings: Mapping[str, float | str]) -> np.ndarray:
        """Return the (N,) errors of one setting, years.

        Args:
            settings: keys of `[input]` -> their values.
        """
        key = tuple(sorted(settings.items()))
        if key not in self.errors:
            framed = self.card.input.model_copy(update=dict(settings))
            card = self.estimator.card = self.card.model_copy(update={"input": framed})
            faces = FacesConfig(coverage=framed.coverage, offset=framed.offset, visible=framed.visible)
            spec = model_alignment_spec(faces, self.dataset.card, card)
            cache = load_or_build_face_cache(self.dataset.reader, self.samples, spec, name=self.dataset.name)
            self.kept = cache.drop_rejected(self.samples)
            if not len(self.kept):
                raise UserError(f"--test {self.dataset.name}: no face could be prepared in any of its images")
            images = np.asarray(cache.pixels[cache.rows(self.kept)])
            self.errors[key] = self.estimator.estimate(images).age - self.kept.table["age"].to_numpy(float)
        return self.errors[key]

    def best_of(
        self, base: Mapping[str, float | str], values: Mapping[str, Sequence[float | str]]
    ) -> dict[str, float | str]:
        """Return the settings with the smallest mean absolute error among all combinations of values.

        Args:
            base: the settings that are varied; its own values are tried too.
            values: key -> its values.
        """
        choices = [list(dict.fromkeys([base[key], *tried])) for key, tried in values.items()]
        candidates = [{**base, **dict(zip(values, chosen, strict=True))} for chosen in itertools.product(*choices)]
        return min(candidates, key=lambda settings: float(np.abs(self.errors_of(settings)).mean()))


def open_labelled_faces(catalog: Catalog, name: str = "") -> Dataset:
    """Open the dataset of a sweep.

    Args:
        catalog: the cards of datasets.
        name: name of the dataset; empty: the first of `DATASETS` that is on this machine.

    Raises:
        UserError: there is no such dataset, or none is on this machine.
    """
    if name:
        return open_dataset(catalog.datasets.get(name))
    for default in DATASETS:
        try:
            return open_dataset(catalog.datasets.get(default))
        except DatasetNotFoundError:
            continue
    raise UserError(
        f"none of {', '.join(DATASETS)} is on this machine; name a dataset with labelled faces: --test DATASET"
    )


def sweep_framing(card: ExternalCard, dataset: Dataset, *, count: int = N_FACES, device: str = "cpu") -> SweepResult:
    """Estimate labelled faces at several crop scales (or margins), and channel orders in all combinations, then offsets.

    Args:
        card: the model's card.
        dataset: the labelled faces.
        count: number of faces, evenly spaced in the dataset.
        device: device of models that torch runs.

    Raises:
        UserError: the model takes photographs or is paid per call, or the dataset has too few faces.
        ExternalModelError: the model cannot be called.
    """
    if card.input.kind == "photo" or card.format == "http":
        raise UserError(
            f"model '{card.name}': --sweep is for models that take prepared faces and cost nothing per call"
        )
    with ExternalEstimator(card, device) as estimator:
        return _sweep(FramingSweep(card, dataset, evenly_spaced(dataset.samples, count), estimator))


def _sweep(sweep: FramingSweep) -> SweepResult:
    card = sweep.card
    is_box = card.input.kind == "box"
    size_key = "margin" if is_box else "coverage"
    own: dict[str, float | str] = {size_key: getattr(card.input, size_key), "channels": card.input.channels}
    if not is_box:
        own["offset"] = card.input.offset
    sizes = MARGINS if is_box else COVERAGES
    # Together, because in the wrong channel order another size may seem best.
    channels = CHANNELS if card.input.channels in CHANNELS else ()
    best = sweep.best_of(own, {size_key: sizes, "channels": channels})
    if not is_box:
        best = sweep.best_of(best, {"offset": OFFSETS})
    best = sweep.best_of(best, {size_key: _between(float(best[size_key]), sizes)})
    difference, low, high = _paired_difference(sweep, own, best)
    return SweepResult(
        model=card.name,
        dataset=sweep.dataset.name,
        n=len(sweep.kept),
        rows=[_row(dict(key), errors, sweep.kept, dict(key) == own) for key, errors in sweep.errors.items()],
        best=best,
        difference=difference,
        interval=(low, high),
        is_better=low > 0 and difference > MIN_DIFFERENCE,
    )


def _between(value: float, grid: Sequence[float]) -> list[float]:
    """Return the middles between a value and its neighbors in a grid."""
    below, above = [item for item in grid if item < value], [item for item in grid if item > value]
    neighbors = [*below[-1:], *above[:1]]
    return [round((value + neighbor) / 2, 3) for neighbor in neighbors]


def _row(settings: dict[str, float | str], errors: np.ndarray, samples: Samples, is_card: bool) -> SweepRow:
    ages = samples.table["age"].to_numpy(float)
    estimated = ages + errors
    varies = estimated.std() > 1e-9 and ages.std() > 0
    return SweepRow(
        settings=settings,
        mae=float(np.abs(errors).mean()),
        bias=float(errors.mean()),
        correlation=float(np.corrcoef(estimated, ages)[0, 1]) if varies else None,
        is_card=is_card,
    )


def _paired_difference(
    sweep: FramingSweep, own: Mapping[str, float | str], best: Mapping[str, float | str]
) -> tuple[float, float, float]:
    """Return by how much the card's error is larger, with a bootstrap interval over people, else images.

    Its level is that of Bonferroni for all settings, because the best of them was chosen on the same faces.
    """
    gains = np.abs(sweep.errors_of(own)) - np.abs(sweep.errors_of(best))
    clusters = row_clusters(sweep.kept.table)
    sums, counts = np.bincount(clusters, gains), np.bincount(clusters)
    draws = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=_RESAMPLES)
    means = (draws @ sums) / (draws @ counts)
    tail = 2.5 / max(len(sweep.errors) - 1, 1)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(gains.mean()), float(low), float(high)


def sweep_text(result: SweepResult) -> str:
    """Describe a sweep: a table of all settings, and what the card should have.

    Args:
        result: the sweep.
    """
    keys = list(result.rows[0].settings)
    rows = [
        [
            *(f"{value:g}" if isinstance(value, float | int) else value for value in row.settings.values()),
            f"{row.mae:.2f}",
            f"{row.bias:+.2f}",
            "–" if row.correlation is None else f"{row.correlation:.2f}",
            "the card's" if row.is_card else "best" if row.settings == result.best else "",
        ]
        for row in sorted(result.rows, key=lambda row: row.mae)
    ]
    table = markdown_table([*keys, "MAE (years)", "bias", "r", ""], rows)
    low, high = result.interval
    difference = f"difference {result.difference:.2f} years [{low:.2f}, {high:.2f}]"
    settings = ", ".join(
        f"{key} = {value:g}" if isinstance(value, float | int) else f'{key} = "{value}"'
        for key, value in result.best.items()
    )
    own = next(row.mae for row in result.rows if row.is_card)
    best = min(row.mae for row in result.rows)
    if result.is_better:
        verdict = f"The card should have {settings}: MAE {best:.2f} instead of {own:.2f} years; {difference}."
    else:
        verdict = (
            f"No setting that was tried is shown to be better than the card's. The best: {settings}; {difference}."
        )
    return f"{result.model} on {result.n:,} faces of {result.dataset}\n\n{table}\n\n{verdict}"
