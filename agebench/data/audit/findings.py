"""What an audit finds in a dataset: copies, labels that contradict one another, ages that cannot be, faces not to be seen."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from agebench.config.cards.base import DatasetCard
from agebench.data.audit.near_duplicates import near_duplicates
from agebench.data.audit.registration import register_pairs
from agebench.data.audit.thumbnails import THUMBNAIL_SIDE, compute_thumbnails, to_gray_square
from agebench.data.digests import add_digests
from agebench.data.faces.detectors.base import DEFAULT_DETECTOR, Detector, detect_faces, open_detector
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.data.storage.importer import open_dataset_reader
from agebench.utils.parallel import parallel_map
from agebench.utils.progress import progress

# Likeness of detail from which a pair is looked at in twice the resolution, and from which it is then called a copy.
LOOK, COPY = 0.80, 0.88
# An age is doubted where it lies so many years from the subject's nearest other picture, with so many pictures beside it.
AGE_GAP, MIN_PICTURES = 15.0, 3
# Older than this are a few dozen people alive: most such labels are slips.
MAX_PLAUSIBLE_AGE = 110.0
TINY, FLAT, BLURRED, TINTED = 50.0, 8.0, 0.15, 2.0
LABELS = ("age", "gender", "race", "subject")
PAIR = ("dataset", "sample_id", "other_dataset", "other_id")


@dataclass(frozen=True)
class AuditedDataset:
    """A dataset under audit: its card, its reader, its readable samples."""

    card: DatasetCard
    reader: Reader
    samples: Samples


@dataclass(frozen=True)
class AuditResult:
    """What was found, a table a kind; every row names its images by dataset and sample_id.

    Attributes:
        name: the dataset; against: those that it was held against.
        images: readable images of `name`; quarantined: sample_id, path, reason of the others.
        copies: pairs with the same bytes or pixels (`same`).
        near_duplicates: pairs that are copies but for encoding, size, mirroring or a crop, with `likeness` and `mirrored`.
        label_conflicts: pairs of either kind whose labels differ: `label`, `value`, `other_value`, `difference` (years, of ages).
        implausible_ages: images whose age is doubted, and why.
        quality: images in which a face is hard to see: `problem`, `value`.
        subjects: subjects with labels or splits that cannot both be true.
        n_examined: images in which a detector looked for faces.
    """

    name: str
    against: tuple[str, ...]
    images: int
    quarantined: pd.DataFrame
    copies: pd.DataFrame
    near_duplicates: pd.DataFrame
    label_conflicts: pd.DataFrame
    implausible_ages: pd.DataFrame
    quality: pd.DataFrame
    subjects: pd.DataFrame
    n_examined: int = 0

    def exclusions(self) -> dict[str, pd.DataFrame]:
        """Proposals for `agebench run --exclude`, dataset, sample_id and reason: by file name without its ending.

        `copies`: all but the first of each set of copies. `conflicts`: every image of which a copy tells another age.
        `against`: images that the other datasets have too. `ages`, `quality`: what those tables list, grey images aside.
        """
        pairs = pd.concat([self.copies[[*PAIR]], self.near_duplicates[[*PAIR]]])
        own = pairs[(pairs["dataset"] == self.name) & (pairs["other_dataset"] == self.name)]
        foreign = pairs[(pairs["dataset"] == self.name) & (pairs["other_dataset"] != self.name)]
        aged = self.label_conflicts[
            (self.label_conflicts["label"] == "age") & (self.label_conflicts["other_dataset"] == self.name)
        ]
        contradicted = pd.concat([aged["sample_id"], aged["other_id"]]).drop_duplicates()
        first_of = _first_of_each(own)
        hard = self.quality[self.quality["problem"] != "grey"]
        columns = {
            "copies": [(one, f"a copy of {first}") for one, first in first_of.items() if one != first],
            "conflicts": [(one, "a copy of it has another age") for one in contradicted],
            "against": list(zip(foreign["sample_id"], "also in " + foreign["other_dataset"], strict=True)),
            "ages": list(zip(self.implausible_ages["sample_id"], self.implausible_ages["reason"], strict=True)),
            "quality": list(zip(hard["sample_id"], hard["problem"], strict=True)),
        }
        made = {}
        for kind, rows in columns.items():
            table = pd.DataFrame(rows, columns=["sample_id", "reason"]).drop_duplicates("sample_id")
            table.insert(0, "dataset", self.name)
            made[kind] = table
        return made


def open_audited_dataset(card: DatasetCard, *, workers: int | None = None) -> AuditedDataset:
    """Find and read a dataset; unreadable images go to quarantine.

    Raises:
        DatasetNotFoundError: it is not on this machine.
    """
    reader = open_dataset_reader(card)
    return AuditedDataset(card, reader, add_digests(reader, reader.read(), name=card.name, workers=workers))


def run_audit(
    source: AuditedDataset,
    others: Sequence[AuditedDataset] = (),
    *,
    faces: int = 0,
    detector: str = DEFAULT_DETECTOR,
    workers: int | None = None,
) -> AuditResult:
    """Hold every image of `source` against every other one of it and of `others`.

    `faces`: in so many of its images, evenly spaced, `detector` looks for faces, which takes far longer than the rest.

    Raises:
        AgebenchError: the detector fails.
    """
    sources = [source, *others]
    tables = [each.samples.table.assign(dataset=each.card.name) for each in sources]
    table = pd.concat(tables, ignore_index=True)
    own = len(tables[0])
    found = [
        compute_thumbnails(each.reader, each.samples.table["path"].tolist(), name=each.card.name, workers=workers)
        for each in sources
    ]
    copies = _copies(table, own)
    near = _near(sources, table, np.concatenate([each.thumbnails for each in found]), own, copies)
    rows = np.unique(np.linspace(0, own - 1, min(faces, own)).astype(int))
    return AuditResult(
        source.card.name,
        tuple(other.card.name for other in others),
        own,
        source.samples.rejected,
        _named(table, copies),
        _named(table, near),
        _conflicts(table, pd.concat([copies, near], ignore_index=True)),
        find_implausible_ages(source.samples.table),
        pd.concat([quality(source, found[0].quality), _faces(source, rows, detector, workers)], ignore_index=True),
        _subjects(source.samples.table),
        n_examined=len(rows),
    )


def evenly_spaced(samples: Samples, limit: int | None) -> Samples:
    """`limit` of the samples, evenly spaced; all of them if None."""
    if limit is None or limit >= len(samples):
        return samples
    rows = np.unique(np.linspace(0, len(samples) - 1, limit).astype(int))
    return Samples(samples.table.iloc[rows].reset_index(drop=True), samples.groups, samples.rejected)


def find_implausible_ages(table: pd.DataFrame) -> pd.DataFrame:
    """sample_id, age, subject, reason: ages far from all others of the subject, outside their own range, or hardly ever reached."""
    rows: list[tuple[Any, Any, Any, str]] = []
    for subject, pictures in table[table["subject"].notna()].groupby("subject", sort=True, observed=True):
        ages = pictures["age"].to_numpy()
        if len(ages) <= MIN_PICTURES:
            continue
        for row, age in enumerate(ages):
            others = np.delete(ages, row)
            spread = np.abs(others - np.median(others)).max()
            gap = np.abs(others - age).min()
            if gap > max(AGE_GAP, spread):  # further from every other picture than those are from one another
                reason = f"{gap:g} years from the nearest of the subject's {len(others)} other pictures"
                rows.append((pictures["sample_id"].iloc[row], age, subject, reason))
    known = {row[0] for row in rows}
    nothing = pd.Series(np.nan, index=table.index)
    columns = [
        table["sample_id"],
        table["age"],
        table["subject"],
        *(table.get(end, nothing) for end in ("age_low", "age_high")),
    ]
    for sample_id, age, subject, low, high in zip(*columns, strict=True):
        if low > age or high < age:
            rows.append((sample_id, age, subject, f"outside its own range, {low:g} to {high:g}"))
        elif age >= MAX_PLAUSIBLE_AGE and sample_id not in known:
            rows.append((sample_id, age, subject, f"{MAX_PLAUSIBLE_AGE:g} years or more"))
    return pd.DataFrame(rows, columns=["sample_id", "age", "subject", "reason"])


def quality(source: AuditedDataset, measures: pd.DataFrame) -> pd.DataFrame:
    """sample_id, problem (empty, tiny, blurred, grey) and the value that shows it, worst first within a problem."""
    side = measures[["width", "height"]].min(axis=1)
    empty = measures["contrast"] < FLAT
    shown = {
        "empty": (empty, measures["contrast"]),
        "tiny": (side < TINY, side),
        "blurred": (~empty & (measures["sharpness"] < BLURRED), measures["sharpness"]),
        "grey": (~empty & (measures["chroma"] < TINTED), measures["chroma"]),
    }
    parts = []
    for problem, (there, value) in shown.items():
        part = pd.DataFrame(
            {"sample_id": source.samples.table["sample_id"], "problem": problem, "value": value.round(3)}
        )
        parts.append(part[there.to_numpy()].sort_values("value", kind="stable"))
    return pd.concat(parts, ignore_index=True)


def _faces(source: AuditedDataset, rows: np.ndarray, name: str, workers: int | None) -> pd.DataFrame:
    """sample_id, problem (no face, several faces), value: how many the detector finds in these rows."""
    table = source.samples.table.iloc[rows]
    counts: list[int] = []
    if len(rows):
        work = partial(_count_faces, source.reader, open_detector(name), name)
        with progress(total=len(rows), label=f"{source.card.name}: looking for faces", unit="img") as bar:
            for part in parallel_map(work, table["path"].tolist(), workers=workers):
                counts += part
                bar.update(len(part))
    found = pd.DataFrame({"sample_id": table["sample_id"].to_numpy(), "value": np.array(counts, dtype=np.float64)})
    found.insert(1, "problem", np.where(found["value"] == 0, "no face", "several faces"))
    return found[found["value"] != 1].sort_values("value", ascending=False, kind="stable")


def _count_faces(reader: Reader, detector: Detector, name: str, paths: Sequence[str]) -> list[int]:
    return [len(detect_faces(detector, open_image(reader.image_bytes(path)), name=name)) for path in paths]


def _copies(table: pd.DataFrame, own: int) -> pd.DataFrame:
    """first, second (rows), same: each image beside the first with its bytes, or else its pixels."""
    parts = []
    for same in ("bytes", "pixels"):
        first = table.groupby(f"{same}_digest", sort=False)["sample_id"].transform(lambda group: group.index[0])
        parts.append(pd.DataFrame({"first": first.astype("int64"), "second": table.index, "same": same}))
    pairs = pd.concat(parts)
    pairs = pairs[(pairs["first"] != pairs["second"]) & (pairs["first"] < own)]
    return pairs.drop_duplicates(["first", "second"]).reset_index(drop=True)


def _near(
    sources: Sequence[AuditedDataset], table: pd.DataFrame, small: np.ndarray, own: int, copies: pd.DataFrame
) -> pd.DataFrame:
    """first, second (rows), likeness, mirrored: pairs that also coincide in twice the resolution, exact copies aside."""
    pairs, placements = near_duplicates(small, border=own)
    digests = table["pixels_digest"].tolist()
    exact = set(zip(copies["first"], copies["second"], strict=True))
    wanted = [
        place
        for place in np.flatnonzero(pairs.similarity >= LOOK)
        if (pairs.first[place], pairs.second[place]) not in exact
        and digests[pairs.first[place]] != digests[pairs.second[place]]
    ]
    first, second = pairs.first[wanted], pairs.second[wanted]
    rows = np.unique(np.concatenate([first, second]))
    large = np.zeros((len(rows), 2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE), dtype=np.uint8)
    readers = {each.card.name: each.reader for each in sources}
    datasets, paths = table["dataset"].tolist(), table["path"].tolist()
    for place, row in enumerate(progress(rows.tolist(), label="looking closer", unit="img")):
        image = readers[datasets[row]].image_bytes(paths[row])
        large[place] = to_gray_square(open_image(image), 2 * THUMBNAIL_SIDE)
    _, likeness = register_pairs(
        large, np.searchsorted(rows, first), np.searchsorted(rows, second), [placements[place] for place in wanted]
    )
    made = pd.DataFrame(
        {"first": first, "second": second, "likeness": likeness.round(4), "mirrored": pairs.mirrored[wanted]}
    )
    return made[likeness >= COPY].reset_index(drop=True)


def _named(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Rows -> dataset, sample_id, other_dataset, other_id, and what else stands in `pairs`."""
    first, second = (table.iloc[pairs[side]].reset_index(drop=True) for side in ("first", "second"))
    names = pd.DataFrame(
        dict(zip(PAIR, (first["dataset"], first["sample_id"], second["dataset"], second["sample_id"]), strict=True))
    )
    return pd.concat([names, pairs.drop(columns=["first", "second"]).reset_index(drop=True)], axis=1)


def _conflicts(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The labels that differ within a pair, the largest differences of age first; a subject counts within one dataset only."""
    parts = []
    named = _named(table, pairs[["first", "second"]])
    for label in LABELS:
        if label not in table:
            continue
        one, other = (table[label].iloc[pairs[side]].reset_index(drop=True) for side in ("first", "second"))
        differs = one.notna() & other.notna() & (one.astype("str") != other.astype("str"))
        if label != "age":
            differs &= named["dataset"] == named["other_dataset"]
        part = named.assign(label=label, value=one.astype("str"), other_value=other.astype("str"), difference=np.nan)
        if label == "age":
            part["difference"] = (one - other).abs()
        parts.append(part[differs])
    found = pd.concat(parts, ignore_index=True)
    return found.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def _subjects(table: pd.DataFrame) -> pd.DataFrame:
    """subject, problem, values: a subject in several splits, or of several genders or races."""
    rows: list[tuple[Any, str, str]] = []
    known = table[table["subject"].notna()]
    for label, problem in (
        ("split", "stands in several splits"),
        ("gender", "has two genders"),
        ("race", "has two races"),
    ):
        if label in known:
            values = known[known[label].notna()].groupby("subject", sort=True, observed=True)[label].unique()
            rows += [
                (subject, problem, ", ".join(sorted(map(str, each))))
                for subject, each in values.items()
                if len(each) > 1
            ]
    return pd.DataFrame(rows, columns=["subject", "problem", "values"])


def _first_of_each(pairs: pd.DataFrame) -> dict[str, str]:
    """sample_id -> the first of all that are its copies, directly or through others."""
    ids = pd.unique(pd.concat([pairs["sample_id"], pairs["other_id"]]))
    place = {one: number for number, one in enumerate(ids)}
    edges = (np.ones(len(pairs)), (pairs["sample_id"].map(place).to_numpy(), pairs["other_id"].map(place).to_numpy()))
    _, component = connected_components(coo_array(edges, shape=(len(ids), len(ids))), directed=False)
    return {one: min(members) for members in _members(ids, component) for one in members}


def _members(ids: np.ndarray, component: np.ndarray) -> Iterator[list[str]]:
    order = np.argsort(component, kind="stable")
    for _, places in itertools.groupby(order, key=lambda place: component[place]):
        yield [str(ids[place]) for place in places]
