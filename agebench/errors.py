"""What goes wrong, sorted by who can mend it."""

from enum import StrEnum


class AgebenchError(Exception):
    """Something that stops the work and that a person can read: what, where, and the way out.

    The command line prints the message alone and exits with `exit_code`.
    """

    exit_code = 1


class UserError(AgebenchError):
    """The input or the command is wrong: a name, a value, a file. Exit code 2."""

    exit_code = 2


class Damaged(UserError):
    """A file is not as it was written; the message names the file and the way out."""


class DiskFull(AgebenchError):
    """A file could not be written because the disk is full; what was finished before is kept."""


class RunLockedError(AgebenchError):
    """Another process works on the same run. Exit code 75 (EX_TEMPFAIL): the same command may succeed later."""

    exit_code = 75


class TrainingDivergedError(AgebenchError):
    """Training has left the finite numbers; the message says where, and what to try."""


class DatasetNotFoundError(UserError):
    """A dataset is not on this machine; the message says where it was looked for and how to get it."""


class RejectReason(StrEnum):
    """Why a row or an image of a dataset was rejected; its detail is a sentence of its own.

    The values are written to run manifests, records and `samples/quarantined.parquet`: they are never renamed.
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


class ImageRejectedError(AgebenchError):
    """One image cannot be used; `reason` is the code and the message the detail. Callers reject the image and go on."""

    def __init__(self, message: str, reason: RejectReason = RejectReason.OTHER) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageRejectedError"], tuple[str, RejectReason]]:
        return type(self), (str(self), self.reason)
