"""Which of the reasons in a quarantine say that an image was there and had no answer: failure to process."""

import re

# How the reasons begin that are given with `ImageRefused`, or where a file cannot be read: one line for each of them, numbers
# as `…`. Whatever else is put aside (by a list, a protocol, a label that does not hold) was asked of nobody.
_REFUSED = (
    "cannot be read: ",
    "not an image in a format that is read here",
    "a damaged image: ",
    "more than the … million pixels allowed",
    "… x … pixels are more than the … million allowed",
    "http://",  # an address from which nothing can be had
    "https://",
    "no face found",
    "no box is annotated",
    "its face_bbox ",
    "no landmarks are annotated",
    "… landmarks are annotated, and the card asks for points",
    "its landmarks fall together",
    "its landmarks ask for a face of more than … pixels",
    "its body_bbox ",
)
_NUMBER = re.compile(r"\d[\d.,]*")


def unanswered(reason: str) -> bool:
    """Whether an image that was put aside for this reason could not be read, or no face of it be prepared.

    Args:
        reason: as it stands in a quarantine, or in a record, where what differs from image to image is `…`.
    """
    return _NUMBER.sub("…", reason).startswith(_REFUSED)
