"""Exceptions, by who can correct the cause."""

from agebench.types import RejectReason as RejectReason  # plugins import it from here


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
    """Training produced non-finite numbers; the message names the step and what to try."""


class DatasetNotFoundError(UserError):
    """A dataset is not on this machine; the message names the searched folders and how to get it."""


class ImageRejectedError(AgebenchError):
    """One image cannot be used; `reason` is the code and the message the detail. Callers reject the image and go on."""

    def __init__(self, message: str, reason: RejectReason = RejectReason.OTHER) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageRejectedError"], tuple[str, RejectReason]]:
        return type(self), (str(self), self.reason)
