"""Dataset profiles: ages, groups, splits, duplicates and image statistics, and comparisons of two datasets."""

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
from agebench.analysis.eda.schema import (
    DatasetComparison,
    DatasetSummary,
    GroupAges,
    GroupCounts,
    GroupDistance,
    SplitDistance,
    SplitsSummary,
    SubjectSizes,
)
from agebench.config.cards.dataset import DatasetCard
from agebench.config.run import DataConfig
from agebench.data.digests import add_digests
from agebench.data.reject_reasons import count_titles
from agebench.data.samples import Samples
from agebench.data.splits.splits import SPLITS, count_exact_duplicates, drop_overlapping
from agebench.data.storage.locate import open_dataset_reader
from agebench.errors import AgebenchError, UserError
from agebench.metrics.groups import age_bands
from agebench.runs.splits import make_run_splits

UNKNOWN = "unknown"
_MAX_REASONS = 8
_RARE_AGE = 30  # training images per year of age; ages with fewer are rare


@dataclass(frozen=True)
class DatasetProfile:
    """The profile of one dataset.

    Attributes:
        card: the dataset's card.
        samples: the images with digests; the additional column `part` contains the split (train, val or test) in a run with
            this seed, or NA if the dataset cannot be split.
        image_sample: the statistics of a random sample of images.
        summary: the profile.
    """

    card: DatasetCard
    samples: Samples
    image_sample: ImageSample
    summary: DatasetSummary

    @property
    def table(self) -> pd.DataFrame:
        """The table of the images, one row per image."""
        return self.samples.table


def profile_dataset(card: DatasetCard, *, seed: int = 0) -> DatasetProfile:
    """Read and split a dataset, and compute its profile.

    Args:
        card: the dataset's card.
        seed: the seed of the split and of the image sample.

    Returns:
        The profile.

    Raises:
        DatasetNotFoundError: the dataset is not stored on this machine.
        UserError: no image of the dataset is usable.
        AgebenchError: the local copy is damaged.
    """
    reader = open_dataset_reader(card)
    samples = add_digests(reader, reader.read(), name=card.name)
    if not len(samples):
        raise UserError(
            f"{card.name}: none of its {len(samples.rejected)} images can be used; see `agebench data verify`"
        )
    splits, note = _assign_splits(card, samples, seed)
    samples = Samples(samples.table.assign(part=splits), samples.groups, samples.rejected)
    image_sample = sample_images(reader, samples, card, seed=seed)
    return DatasetProfile(card, samples, image_sample, _summary(card, samples, image_sample, note))


def group_columns(samples: Samples) -> list[str]:
    """Return the group columns with at least one annotation: gender, race, then the others."""
    columns = dict.fromkeys(["gender", "race", *samples.groups])
    return [column for column in columns if column in samples.table and samples.table[column].notna().any()]


def labels_or_unknown(column: "pd.Series[Any]") -> "pd.Series[str]":
    """Return a group column as text, with `unknown` for missing annotations."""
    return column.astype("object").where(column.notna(), UNKNOWN).astype("str")


def compare_datasets(first: DatasetProfile, second: DatasetProfile) -> DatasetComparison:
    """Compare two datasets in view of a model that is trained on the first and tested on the second.

    Args:
        first: the profile of the training dataset.
        second: the profile of the test dataset.
    """
    profiles = (first, second)
    first_ages, second_ages = (age_histogram(profile.table["age"]) for profile in profiles)
    training_ages = (
        age_histogram(first.table.loc[first.table["part"].eq("train"), "age"])
        if first.table["part"].notna().any()
        else first_ages
    )
    _, copies = drop_overlapping(second.samples, [first.samples])
    shared = [column for column in group_columns(first.samples) if column in group_columns(second.samples)]
    return DatasetComparison(
        first=first.card.name,
        second=second.card.name,
        n=[len(first.samples), len(second.samples)],
        age_overlap=round(histogram_intersection(first_ages, second_ages), 4),
        age_distance_years=round(wasserstein(first_ages, second_ages), 3),
        outside_training_ages=round(float(second_ages[training_ages == 0].sum() / second_ages.sum()), 4),
        at_rare_training_ages=round(float(second_ages[training_ages < _RARE_AGE].sum() / second_ages.sum()), 4),
        rare_below=_RARE_AGE,
        same_images=copies,
        groups={column: _group_difference(column, first, second) for column in shared},
        groups_missing={profile.card.name: _not_annotated(profile.table) for profile in profiles},
        faces={profile.card.name: profile.card.faces for profile in profiles},
    )


def _not_annotated(table: pd.DataFrame) -> list[str]:
    return [column for column in ("gender", "race", "subject") if not table[column].notna().any()]


def _group_difference(column: str, first: DatasetProfile, second: DatasetProfile) -> GroupDistance:
    counts = [profile.summary.groups[column] for profile in (first, second)]
    first_groups, second_groups = ({*groups} - {UNKNOWN} for groups in counts)
    return GroupDistance(
        first=counts[0],
        second=counts[1],
        distance=round(total_variation(*counts), 4) if first_groups & second_groups else None,
        only_one_knows=sorted(first_groups ^ second_groups),
    )


def _assign_splits(card: DatasetCard, samples: Samples, seed: int) -> tuple["pd.Series[str]", str]:
    """Return each row's split in a run with this seed, and "" or the reason why the dataset cannot be split."""
    try:
        splits = make_run_splits(DataConfig(train=card.name, test=(card.name,)), {card.name: samples}, seed=seed)[0]
    except AgebenchError as error:
        return pd.Series(pd.NA, index=samples.table.index, dtype="str"), str(error)
    members = dict(zip(SPLITS, (splits.train, splits.val, splits.tests[card.name]), strict=True))
    split_by_id = {sample_id: split for split, rows in members.items() for sample_id in rows.table["sample_id"]}
    return samples.table["sample_id"].map(split_by_id).astype("str"), ""


def _summary(card: DatasetCard, samples: Samples, image_sample: ImageSample, note: str) -> DatasetSummary:
    table = samples.table
    groups = group_columns(samples)
    subjects = table["subject"].dropna()
    ages = table["age"]
    quantiles = ages.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    return DatasetSummary(
        name=card.name,
        title=card.title,
        n=len(table),
        put_aside=_reasons(samples.rejected),
        subjects=int(subjects.nunique()) or None,
        images_of_a_subject=_per_subject(subjects),
        exact_copies=count_exact_duplicates(table),
        copies_with_other_labels=len(duplicates_with_conflicting_age(table)),
        ages={
            "min": float(ages.min()),
            **{f"p{100 * float(str(quantile)):.0f}": float(value) for quantile, value in quantiles.items()},
            "max": float(ages.max()),
            "mean": round(float(ages.mean()), 3),
            "sd": round(float(ages.std(ddof=0)), 3),
            "in_tens_share": round(float((ages % 10 == 0).mean()), 4),
        },
        by_year={str(year): int(count) for year, count in enumerate(age_histogram(ages)) if count},
        groups={column: _counts(table[column]) for column in groups},
        group_ages={column: _ages_by(table, column) for column in groups},
        crosstabs={
            f"{first}*{second}": _nested_counts(crosstab(table, first, second))
            for first, second in itertools.combinations(groups, 2)
        },
        parts=_splits_summary(table, groups, note),
        images=image_sample.summary(),
        not_annotated=_not_annotated(table),
    )


def crosstab(table: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Count images by two groupings; missing annotations count as `unknown`.

    Args:
        table: one row per image.
        first: the group column of the rows.
        second: the group column of the columns.

    Returns:
        The number of images.
    """
    counts = pd.crosstab(labels_or_unknown(table[first]), labels_or_unknown(table[second]))
    counts.index.name, counts.columns.name = first, second
    return counts


def _nested_counts(counts: pd.DataFrame) -> GroupCounts:
    return {
        str(first): {str(second): int(count) for second, count in row.items()}
        for first, row in counts.to_dict("index").items()
    }


def duplicates_with_conflicting_age(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that share their pixels with a row of a different age; at most one of the ages is correct."""
    ages = table.groupby("pixels_digest")["age"].transform("nunique")
    return table[ages > 1].sort_values(["pixels_digest", "age"])


def _counts(column: "pd.Series[Any]") -> dict[str, int]:
    return {str(name): int(count) for name, count in labels_or_unknown(column).value_counts().sort_index().items()}


def _ages_by(table: pd.DataFrame, column: str) -> dict[str, GroupAges]:
    statistics = table.groupby(labels_or_unknown(table[column]))["age"].describe()
    return {
        str(name): GroupAges(
            n=int(row["count"]), q1=row["25%"], median=row["50%"], q3=row["75%"], mean=round(row["mean"], 2)
        )
        for name, row in statistics.iterrows()
    }


def _per_subject(subjects: "pd.Series[Any]") -> SubjectSizes | None:
    counts = subjects.value_counts()
    if not len(counts):
        return None
    return SubjectSizes(min=int(counts.min()), median=float(counts.median()), max=int(counts.max()))


def _reasons(rejected: pd.DataFrame) -> dict[str, int]:
    counts = list(count_titles(rejected).items())
    rest = sum(count for _, count in counts[_MAX_REASONS:])
    return dict(counts[:_MAX_REASONS]) | ({"other reasons": rest} if rest else {})


def _splits_summary(table: pd.DataFrame, groups: list[str], note: str) -> SplitsSummary:
    """Summarize each split, and the distances between splits compared with random splits."""
    if note:
        return SplitsSummary(note=note)
    rows = {part: table[table["part"].eq(part)] for part in SPLITS}
    years = {part: age_histogram(members["age"]) for part, members in rows.items()}
    whole = np.sum(list(years.values()), axis=0)
    return SplitsSummary(
        n={part: len(members) for part, members in rows.items()},
        mean_age={part: round(float(members["age"].mean()), 3) for part, members in rows.items()},
        groups={column: {part: _counts(members[column]) for part, members in rows.items()} for column in groups},
        distances=[
            SplitDistance(
                parts=[first, second],
                age_years=round(wasserstein(years[first], years[second]), 4),
                age_years_by_chance=round(wasserstein_null_quantile(whole, len(rows[first]), len(rows[second])), 4),
                groups={
                    column: round(total_variation(_counts(rows[first][column]), _counts(rows[second][column])), 4)
                    for column in groups
                },
            )
            for first, second in itertools.combinations(SPLITS, 2)
        ],
    )


def age_band_codes(table: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the benchmark's age bands with images, and each row's index in these names."""
    bands = age_bands(table["age"].to_numpy(float))
    return bands.names, bands.codes
