"""Audit of a dataset: exact and near duplicates, label contradictions, implausible ages, image quality."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from agebench.data.audit.image_quality import find_face_count_problems, find_quality_problems
from agebench.data.audit.label_checks import find_contradictory_subjects, find_implausible_ages, find_label_conflicts
from agebench.data.audit.near_duplicates import near_duplicates
from agebench.data.audit.registration import register_pairs
from agebench.data.audit.report_model import AuditResult, name_pairs
from agebench.data.audit.thumbnails import THUMBNAIL_SIDE, compute_thumbnails, to_gray_square
from agebench.data.dataset import Dataset
from agebench.data.faces.detectors.base import default_detector
from agebench.data.image_io import open_image
from agebench.utils.progress import progress

# Similarity of fine detail from which a pair is compared again at twice the resolution, and from which it is then reported.
MIN_COARSE_SIMILARITY, MIN_SIMILARITY = 0.80, 0.88


def run_audit(
    dataset: Dataset,
    others: Sequence[Dataset] = (),
    *,
    faces: int = 0,
    detector: str = "",
    workers: int | None = None,
) -> AuditResult:
    """Audit a dataset.

    Every image is compared with all its other images and those of other datasets, and its labels are checked.

    Args:
        dataset: the dataset to audit.
        others: further datasets that may contain copies of its images.
        faces: number of images, evenly spaced, in which `detector` searches for faces; this is slow.
        detector: name of the face detector; empty: the default one.
        workers: processes; None for one per core.

    Raises:
        AgebenchError: the detector fails.
    """
    datasets = [dataset, *others]
    table = pd.concat([source.frame.assign(dataset=source.name) for source in datasets], ignore_index=True)
    n_own = len(dataset)
    thumbnails = [
        compute_thumbnails(source.reader, source.frame["path"].tolist(), name=source.name, workers=workers)
        for source in datasets
    ]
    copies = _find_exact_copies(table, n_own)
    all_thumbnails = np.concatenate([source.thumbnails for source in thumbnails])
    near_copies = _find_near_copies(datasets, table, all_thumbnails, n_own, copies)
    examined_rows = np.unique(np.linspace(0, n_own - 1, min(faces, n_own)).astype(int))
    quality = (
        find_quality_problems(dataset, thumbnails[0].quality),
        find_face_count_problems(dataset, examined_rows, detector or default_detector(), workers),
    )
    return AuditResult(
        name=dataset.name,
        against=tuple(other.name for other in others),
        images=n_own,
        rejected=dataset.rejected,
        copies=name_pairs(table, copies),
        near_duplicates=name_pairs(table, near_copies),
        label_conflicts=find_label_conflicts(table, pd.concat([copies, near_copies], ignore_index=True)),
        implausible_ages=find_implausible_ages(dataset.frame),
        quality=pd.concat(quality, ignore_index=True),
        subjects=find_contradictory_subjects(dataset.frame),
        n_examined=len(examined_rows),
    )


def _find_exact_copies(table: pd.DataFrame, n_own: int) -> pd.DataFrame:
    """Pair each image with the first image of the same bytes or, failing that, the same pixels: first, second, same."""
    tables = []
    for same in ("bytes", "pixels"):
        digests = table[f"{same}_digest"]
        codes, _ = pd.factorize(digests)  # codes are numbered in the order of first occurrence
        first = np.flatnonzero(~digests.duplicated())[codes]
        tables.append(pd.DataFrame({"first": first, "second": table.index, "same": same}))
    pairs = pd.concat(tables)
    pairs = pairs[(pairs["first"] != pairs["second"]) & (pairs["first"] < n_own)]
    return pairs.drop_duplicates(["first", "second"]).reset_index(drop=True)


def _find_near_copies(
    datasets: Sequence[Dataset], table: pd.DataFrame, thumbnails: np.ndarray, n_own: int, copies: pd.DataFrame
) -> pd.DataFrame:
    """Find pairs that also match at twice the resolution, without exact copies: first, second, likeness, mirrored."""
    pairs, transforms = near_duplicates(thumbnails, query_rows=n_own)
    digests = table["pixels_digest"].tolist()
    exact = set(zip(copies["first"], copies["second"], strict=True))
    candidates = [
        i
        for i in np.flatnonzero(pairs.similarity >= MIN_COARSE_SIMILARITY)
        if (pairs.first[i], pairs.second[i]) not in exact and digests[pairs.first[i]] != digests[pairs.second[i]]
    ]
    first, second = pairs.first[candidates], pairs.second[candidates]
    rows = np.unique(np.concatenate([first, second]))
    large = np.zeros((len(rows), 2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE), dtype=np.uint8)
    readers = {dataset.name: dataset.reader for dataset in datasets}
    names, paths = table["dataset"].tolist(), table["path"].tolist()
    for i, row in enumerate(progress(rows.tolist(), label="looking closer", unit="img")):
        large[i] = to_gray_square(open_image(readers[names[row]].image_bytes(paths[row])), 2 * THUMBNAIL_SIDE)
    _, similarity = register_pairs(
        large, np.searchsorted(rows, first), np.searchsorted(rows, second), [transforms[i] for i in candidates]
    )
    table = pd.DataFrame(
        {"first": first, "second": second, "likeness": similarity.round(4), "mirrored": pairs.mirrored[candidates]}
    )
    return table[similarity >= MIN_SIMILARITY].reset_index(drop=True)
