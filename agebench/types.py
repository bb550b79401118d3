"""Enumerations that several packages share. Imports nothing of agebench."""

from enum import IntEnum, StrEnum


class Split(IntEnum):
    """The split that an image belongs to; the values in `Folds.assignment`.

    A later split takes precedence where exact copies or the images of one subject would be in two.
    """

    NONE = -1
    TRAIN = 0
    VAL = 1
    TEST = 2

    @property
    def label(self) -> str:
        """The name in tables, files and columns: train, val or test."""
        return self.name.lower()


class RejectReason(StrEnum):
    """Why a row or an image of a dataset was rejected; a detail message accompanies the code.

    The values are written to run manifests, records and `samples/quarantined.parquet`; they must never be renamed.
    """

    # The image cannot be processed.
    UNREADABLE = "unreadable"
    NOT_AN_IMAGE = "not-an-image"
    DAMAGED_IMAGE = "damaged-image"
    IMAGE_TOO_LARGE = "image-too-large"
    PIXEL_FORMAT = "pixel-format"
    UNREACHABLE_URL = "unreachable-url"
    NO_FACE = "no-face"
    NO_LANDMARKS = "no-landmarks"
    BAD_LANDMARKS = "bad-landmarks"
    BAD_BODY_BOX = "bad-body-box"
    BAD_FACE_BOX = "bad-face-box"
    # The source does not fit: a row without an image, or an image without a usable label.
    NO_AGE = "no-age"
    BAD_AGE = "bad-age"
    AGE_OUT_OF_RANGE = "age-out-of-range"
    CONFLICTING_LABELS = "conflicting-labels"
    DUPLICATE_ROW = "duplicate-row"
    DUPLICATE_ID = "duplicate-id"
    MISSING_FILE = "missing-file"
    OUTSIDE_FOLDER = "outside-folder"
    NOT_UTF8_NAME = "not-utf8-name"
    NAME_PATTERN = "name-pattern"
    NO_IMAGE = "no-image"
    NO_FACE_BOX = "no-face-box"
    BAD_LABEL_FILE = "bad-label-file"
    BODY_IMAGE = "body-image"
    # The image is left out on purpose.
    NOT_LISTED = "not-listed"
    NO_SPLIT = "no-split"
    OUTSIDE_PROTOCOL = "outside-protocol"
    EXCLUDED = "excluded"
    IN_TRAINING_SET = "in-training-set"
    OTHER = "other"
