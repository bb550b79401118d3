"""A dataset before training: how many images of whom, how they are divided, what stands out, how two datasets differ."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agebench.analysis.eda.distances import (
    age_histogram,
    histogram_intersection,
    total_variation,
    wasserstein,
    wasserstein_null_quantile,
)
from agebench.analysis.eda.image_stats import ImageSample, sample_images
from agebench.config.cards.base import DatasetCard
from agebench.data.digests import add_digests
from agebench.data.reject_reasons import count_titles
from agebench.data.samples import Samples
from agebench.data.splits.splits import SPLITS, count_exact_duplicates, drop_overlapping
from agebench.data.storage.locate import open_dataset_reader
from agebench.errors import AgebenchError, UserError
from agebench.metrics.groups import age_bands
from agebench.runs.config import DataConfig
from agebench.runs.splits import make_run_splits

UNKNOWN = "unknown"
_MOST_REASONS = 8
_FEW = 30  # images of a year of age below which a model has hardly seen it


@dataclass(frozen=True)
class DatasetProfile:
    """One dataset, looked at.

    Attributes:
        card: the dataset's.
        samples: audited; its table has the further column `part`: train, val or test as a run with this seed divides them,
            or NA where it cannot be divided.
        pictures: a random sample of its images.
        summary: every figure, as JSON.
    """

    card: DatasetCard
    samples: Samples
    pictures: ImageSample
    summary: dict[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        """One row an image."""
        return self.samples.table


def profile_dataset(card: DatasetCard, *, seed: int = 0) -> DatasetProfile:
    """Read, audit, divide and look at a dataset.

    Raises:
        DatasetNotFoundError: it is not on this machine.
        UserError: no image of it can be used.
        AgebenchError: the copy is damaged.
    """
    reader = open_dataset_reader(card)
    samples = add_digests(reader, reader.read(), name=card.name)
    if not len(samples):
        raise UserError(
            f"{card.name}: none of its {len(samples.rejected)} images can be used; see `agebench data check`"
        )
    parts, note = _parts(card, samples, seed)
    samples = Samples(samples.table.assign(part=parts), samples.groups, samples.rejected)
    pictures = sample_images(reader, samples, card, seed=seed)
    return DatasetProfile(card, samples, pictures, _summary(card, samples, pictures, note))


def group_columns(samples: Samples) -> list[str]:
    """The group columns in which anything is known: gender and race first."""
    wanted = dict.fromkeys(["gender", "race", *samples.groups])
    return [column for column in wanted if column in samples.table and samples.table[column].notna().any()]


def labels_or_unknown(column: "pd.Series[Any]") -> "pd.Series[str]":
    """A group column as text, `unknown` where nothing is annotated."""
    return column.astype("object").where(column.notna(), UNKNOWN).astype("str")


def compare_datasets(first: DatasetProfile, second: DatasetProfile) -> dict[str, Any]:
    """What a figure of the second dataset can mean for a model that was trained on the first."""
    home, away = (age_histogram(of.table["age"]) for of in (first, second))
    trained = (
        age_histogram(first.table.loc[first.table["part"].eq("train"), "age"])
        if first.table["part"].notna().any()
        else home
    )
    _, copies = drop_overlapping(second.samples, [first.samples])
    shared = [column for column in group_columns(first.samples) if column in group_columns(second.samples)]
    return {
        "first": first.card.name,
        "second": second.card.name,
        "n": [len(first.samples), len(second.samples)],
        "age_overlap": round(histogram_intersection(home, away), 4),
        "age_distance_years": round(wasserstein(home, away), 3),
        "outside_training_ages": round(float(away[trained == 0].sum() / away.sum()), 4),
        "at_rare_training_ages": round(float(away[trained < _FEW].sum() / away.sum()), 4),
        "rare_below": _FEW,
        "same_images": copies,
        "groups": {column: _group_difference(column, first, second) for column in shared},
        "groups_missing": {
            of.card.name: [column for column in ("gender", "race", "subject") if not of.table[column].notna().any()]
            for of in (first, second)
        },
        "faces": {of.card.name: of.card.faces for of in (first, second)},
    }


def _group_difference(column: str, first: DatasetProfile, second: DatasetProfile) -> dict[str, Any]:
    counts = [of.summary["groups"][column] for of in (first, second)]
    ours, theirs = ({*of} - {UNKNOWN} for of in counts)
    return {
        "first": counts[0],
        "second": counts[1],
        "distance": round(total_variation(*counts), 4) if ours & theirs else None,
        "only_one_knows": sorted(ours ^ theirs),
    }


def _parts(card: DatasetCard, samples: Samples, seed: int) -> tuple["pd.Series[str]", str]:
    """Each row's part in a run with this seed; all NA, and why, where it cannot be divided."""
    try:
        division = make_run_splits(DataConfig(train=card.name, test=(card.name,)), {card.name: samples}, seed=seed)[0]
    except AgebenchError as error:
        return pd.Series(pd.NA, index=samples.table.index, dtype="str"), str(error)
    members = dict(zip(SPLITS, (division.train, division.val, division.tests[card.name]), strict=True))
    part_of = {name: part for part, rows in members.items() for name in rows.table["sample_id"]}
    return samples.table["sample_id"].map(part_of).astype("str"), ""


def _summary(card: DatasetCard, samples: Samples, pictures: ImageSample, note: str) -> dict[str, Any]:
    table = samples.table
    groups = group_columns(samples)
    subjects = table["subject"].dropna()
    ages = table["age"]
    quantiles = ages.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    summary: dict[str, Any] = {
        "name": card.name,
        "title": card.title,
        "n": len(table),
        "put_aside": _reasons(samples.rejected),
        "subjects": int(subjects.nunique()) or None,
        "images_of_a_subject": _per_subject(subjects),
        "exact_copies": count_exact_duplicates(table),
        "copies_with_other_labels": len(duplicates_with_conflicting_age(table)),
        "ages": {
            "min": float(ages.min()),
            **{f"p{100 * float(str(at)):.0f}": float(value) for at, value in quantiles.items()},
            "max": float(ages.max()),
            "mean": round(float(ages.mean()), 3),
            "sd": round(float(ages.std(ddof=0)), 3),
            "in_tens_share": round(float((ages % 10 == 0).mean()), 4),
        },
        "by_year": {str(year): int(count) for year, count in enumerate(age_histogram(ages)) if count},
        "groups": {column: _counts(table[column]) for column in groups},
        "group_ages": {column: _ages_by(table, column) for column in groups},
        "crosstabs": {
            f"{one}*{other}": crosstab(table, one, other).to_dict("index")
            for one, other in itertools.combinations(groups, 2)
        },
        "parts": _parts_summary(table, groups, note),
        "images": pictures.summary(),
        "not_annotated": [column for column in ("gender", "race", "subject") if not table[column].notna().any()],
    }
    return summary


def crosstab(table: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Images by two groupings, `unknown` among them where there are any."""
    found = pd.crosstab(labels_or_unknown(table[one]), labels_or_unknown(table[other]))
    found.index.name, found.columns.name = one, other
    return found


def duplicates_with_conflicting_age(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose pixels stand more than once with different ages: at most one of the labels is right."""
    ages = table.groupby("pixels_digest")["age"].transform("nunique")
    return table[ages > 1].sort_values(["pixels_digest", "age"])


def _counts(column: "pd.Series[Any]") -> dict[str, int]:
    return {str(name): int(count) for name, count in labels_or_unknown(column).value_counts().sort_index().items()}


def _ages_by(table: pd.DataFrame, column: str) -> dict[str, dict[str, float]]:
    found = table.groupby(labels_or_unknown(table[column]))["age"].describe()
    return {
        str(name): {
            "n": int(row["count"]),
            "q1": row["25%"],
            "median": row["50%"],
            "q3": row["75%"],
            "mean": round(row["mean"], 2),
        }
        for name, row in found.iterrows()
    }


def _per_subject(subjects: "pd.Series[Any]") -> dict[str, float] | None:
    counts = subjects.value_counts()
    return (
        {"min": int(counts.min()), "median": float(counts.median()), "max": int(counts.max())} if len(counts) else None
    )


def _reasons(quarantined: pd.DataFrame) -> dict[str, int]:
    counts = list(count_titles(quarantined).items())
    rest = sum(count for _, count in counts[_MOST_REASONS:])
    return dict(counts[:_MOST_REASONS]) | ({"other reasons": rest} if rest else {})


def _parts_summary(table: pd.DataFrame, groups: list[str], note: str) -> dict[str, Any]:
    """n, mean age and groups of every part, and how far parts lie apart, with what chance alone would give."""
    if note:
        return {"note": note}
    rows = {part: table[table["part"].eq(part)] for part in SPLITS}
    years = {part: age_histogram(members["age"]) for part, members in rows.items()}
    whole = np.sum(list(years.values()), axis=0)
    return {
        "n": {part: len(members) for part, members in rows.items()},
        "mean_age": {part: round(float(members["age"].mean()), 3) for part, members in rows.items()},
        "groups": {column: {part: _counts(members[column]) for part, members in rows.items()} for column in groups},
        "distances": [
            {
                "parts": [one, other],
                "age_years": round(wasserstein(years[one], years[other]), 4),
                "age_years_by_chance": round(wasserstein_null_quantile(whole, len(rows[one]), len(rows[other])), 4),
                "groups": {
                    column: round(total_variation(_counts(rows[one][column]), _counts(rows[other][column])), 4)
                    for column in groups
                },
            }
            for one, other in itertools.combinations(SPLITS, 2)
        ],
    }


def age_band_codes(table: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    """The age bands of the benchmark that have images, and each row's place among them."""
    found = age_bands(table["age"].to_numpy(float))
    return found.names, found.codes
