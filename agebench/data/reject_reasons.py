"""Rejection codes: their titles, which ones are failures to process, and the codes of the texts of version 0.1."""

import re

import pandas as pd

from agebench.types import RejectReason

# The image exists, and no age was predicted: it could not be read, or its face could not be prepared. A row that is left out
# because of its labels, a list or a protocol is not a failure of the system.
FAILURES_TO_PROCESS = frozenset(
    {
        RejectReason.UNREADABLE,
        RejectReason.NOT_AN_IMAGE,
        RejectReason.DAMAGED_IMAGE,
        RejectReason.IMAGE_TOO_LARGE,
        RejectReason.PIXEL_FORMAT,
        RejectReason.UNREACHABLE_URL,
        RejectReason.NO_FACE,
        RejectReason.NO_ESTIMATE,
        RejectReason.NO_LANDMARKS,
        RejectReason.BAD_LANDMARKS,
        RejectReason.BAD_BODY_BOX,
        RejectReason.BAD_FACE_BOX,
    }
)

# Reading the image failed, whereas a failure to decode follows from its bytes: the next attempt may succeed (a stale network
# mount, too many open files, an address without an answer), so these results are never cached.
FAILURES_TO_READ = frozenset({RejectReason.UNREADABLE, RejectReason.UNREACHABLE_URL})

TITLES = {
    RejectReason.UNREADABLE: "the file cannot be read",
    RejectReason.NOT_AN_IMAGE: "not an image in a format that is read here",
    RejectReason.DAMAGED_IMAGE: "damaged image",
    RejectReason.IMAGE_TOO_LARGE: "too many pixels",
    RejectReason.PIXEL_FORMAT: "pixel format without a defined brightness",
    RejectReason.UNREACHABLE_URL: "the address cannot be downloaded",
    RejectReason.NO_FACE: "no face found",
    RejectReason.NO_ESTIMATE: "the model returned no estimate",
    RejectReason.NO_LANDMARKS: "no landmarks or box annotated",
    RejectReason.BAD_LANDMARKS: "unusable landmarks",
    RejectReason.BAD_BODY_BOX: "unusable body box",
    RejectReason.BAD_FACE_BOX: "unusable face box",
    RejectReason.NO_AGE: "no age",
    RejectReason.BAD_AGE: "the age is not a number",
    RejectReason.AGE_OUT_OF_RANGE: "the age is outside [0, 120]",
    RejectReason.CONFLICTING_LABELS: "rows with one id or image and different labels",
    RejectReason.DUPLICATE_ROW: "repeated row",
    RejectReason.DUPLICATE_ID: "a second image with the same id",
    RejectReason.MISSING_FILE: "no image file at the path",
    RejectReason.OUTSIDE_FOLDER: "the path leads out of the dataset's folder",
    RejectReason.NOT_UTF8_NAME: "the file's name is not UTF-8",
    RejectReason.NAME_PATTERN: "the file's name or folder does not fit the pattern",
    RejectReason.NO_IMAGE: "the row holds no image",
    RejectReason.NO_FACE_BOX: "no face box",
    RejectReason.BAD_LABEL_FILE: "unusable annotation of the image",
    RejectReason.BODY_IMAGE: "unusable image of the body",
    RejectReason.NOT_LISTED: "in none of the split's lists",
    RejectReason.NO_SPLIT: "in no part of the official split",
    RejectReason.OUTSIDE_PROTOCOL: "outside the protocol's ages",
    RejectReason.EXCLUDED: "excluded by a list",
    RejectReason.IN_TRAINING_SET: "also in the training set",
    RejectReason.OTHER: "other",
}

# Reasons whose detail is the same for all images of one cause (for example the name of a list), so that it serves as a title.
_SHARED_DETAIL = frozenset({RejectReason.NOT_LISTED, RejectReason.EXCLUDED})

# Prefixes of the reasons of version 0.1, with numbers as `…`, in the order in which they are tried. Manifests and records of
# that version contain texts and no codes. Other texts do not describe a failure to process.
_OLD_TEXTS = (
    ("cannot be read: ", RejectReason.UNREADABLE),
    ("not an image in a format that is read here", RejectReason.NOT_AN_IMAGE),
    ("a damaged image: ", RejectReason.DAMAGED_IMAGE),
    ("more than the … million pixels allowed", RejectReason.IMAGE_TOO_LARGE),
    ("… x … pixels are more than the … million allowed", RejectReason.IMAGE_TOO_LARGE),
    ("http://", RejectReason.UNREACHABLE_URL),
    ("https://", RejectReason.UNREACHABLE_URL),
    ("no face found", RejectReason.NO_FACE),
    ("no box is annotated", RejectReason.NO_LANDMARKS),
    ("no landmarks are annotated", RejectReason.NO_LANDMARKS),
    ("… landmarks are annotated, and the card asks for points", RejectReason.BAD_LANDMARKS),
    ("its landmarks fall together", RejectReason.BAD_LANDMARKS),
    ("its landmarks ask for a face of more than … pixels", RejectReason.BAD_LANDMARKS),
    ("its body_bbox ", RejectReason.BAD_BODY_BOX),
    ("nothing ", RejectReason.NO_AGE),  # the only reason that began so: no source of the age
    ("a second image called like ", RejectReason.DUPLICATE_ID),
    ("no file '", RejectReason.MISSING_FILE),
    ("its name is not UTF", RejectReason.NOT_UTF8_NAME),
    ("in none of the split's lists", RejectReason.NOT_LISTED),
    ("in no part of the official split", RejectReason.NO_SPLIT),
    ("excluded by ", RejectReason.EXCLUDED),
    ("also in the training set", RejectReason.IN_TRAINING_SET),
)
_NUMBER = re.compile(r"\d[\d.,]*")


def code_of_old_text(text: str) -> RejectReason:
    """Return the code of a reason of version 0.1; OTHER for an unknown text.

    Args:
        text: the reason of one image, or the reason in a record, with `…` for values that differ between images.
    """
    template = _NUMBER.sub("…", text)
    return next((code for prefix, code in _OLD_TEXTS if template.startswith(prefix)), RejectReason.OTHER)


def failures_to_process(counts_by_code: dict[str, int] | None, counts_by_text: dict[str, int] | None) -> int:
    """Count the images that could not be processed.

    Args:
        counts_by_code: `rejected` of a manifest; None for a manifest of version 0.1.
        counts_by_text: `quarantined` of a manifest, used if there are no codes.
    """
    if counts_by_code is not None:
        return sum(count for code, count in counts_by_code.items() if code in FAILURES_TO_PROCESS)
    by_text = (counts_by_text or {}).items()
    return sum(count for text, count in by_text if code_of_old_text(text) in FAILURES_TO_PROCESS)


def count_codes(rejected: pd.DataFrame) -> dict[str, int]:
    """Count rejected images by code, the most frequent first.

    Args:
        rejected: rejected images, as `Samples.rejected`.
    """
    return {str(code): int(count) for code, count in rejected["code"].value_counts().items()}


def count_titles(rejected: pd.DataFrame) -> dict[str, int]:
    """Count rejected images by the title of the reason, the most frequent first.

    Titles contain no paths and no values of single images.

    Args:
        rejected: rejected images, as `Samples.rejected`.
    """
    return {str(title): int(count) for title, count in titles(rejected).value_counts().items()}


def titles(rejected: pd.DataFrame) -> "pd.Series[str]":
    """Return the title of each row's reason.

    The detail if it names the list that excluded the image.

    Args:
        rejected: rejected images, as `Samples.rejected`.
    """
    codes = rejected["code"].map(RejectReason)
    has_shared_detail = codes.isin(list(_SHARED_DETAIL | {RejectReason.OTHER}))
    return codes.map(TITLES).astype("str").mask(has_shared_detail, rejected["reason"])
