"""The contract of detectors: `agebench.data.faces.detectors.base.Detector`."""

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from agebench.data.faces.detectors.base import Detector, detectors, validate_detection
from agebench.data.synthetic.renderer import DomainShift, Person, draw_face
from agebench.errors import AgebenchError
from agebench.plugins.testing.violation import violation

# Edge cases first: (width, height) of photographs without a face.
BLANK = ((64, 64), (1, 1), (7, 300), (2000, 30))
DRAWN, SIDE = 6, 400


def check_detector(detector: str | type[Detector]) -> str:
    """Check a detector, by name or by class, on drawn faces and on pictures without any; returns what was checked.

    That it finds drawn faces is not asked: detectors that learned from photographs may pass over drawings. What it finds
    must be boxes within the image and finite points, the same each time, left in the image before right.

    Raises:
        ContractViolation: at the first breach, in one sentence.
    """
    kind: Any = detectors.get(detector) if isinstance(detector, str) else detector
    name = detector if isinstance(detector, str) else detector.__name__
    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        raise violation(
            "detector", name, "is no subclass of agebench.data.faces.detectors.base.Detector: derive it from there"
        )
    for problem in _made(kind):
        raise violation("detector", name, problem)
    made, found = kind(), 0
    for image, blank in blank_images():
        for problem in _asked(made, image, blank):
            if problem:
                raise violation("detector", name, problem)
            found += 1
    try:
        pickle.loads(pickle.dumps(made))
    except Exception as error:
        raise violation("detector", name, f"it cannot be pickled any more once it was asked: {error}") from error
    return f"{len(BLANK)} images without a face and {DRAWN} drawn faces, of which it found {found}"


def blank_images() -> Iterator[tuple[Image.Image, bool]]:
    """Photographs that a detector must stand, and whether there is no face on them."""
    for width, height in BLANK:
        yield Image.new("RGB", (width, height), (90, 110, 100)), True
    for number in range(DRAWN):
        generator = np.random.default_rng([7, number])
        tone = ("light", "medium", "dark")[number % 3]
        person = Person("female" if number % 2 else "male", tone, 0, 0, 1.0, 0.0, 0.0, False)
        face = draw_face(person, 15.0 + 12 * number, DomainShift(0.0, 0.0, 0.0), generator, SIDE // 2)
        ground = Image.new("RGB", (SIDE + 40 * number, SIDE), (120, 125, 130))
        ground.paste(face, (SIDE // 4, SIDE // 4))
        yield ground, False


def _made(kind: type[Detector]) -> Iterator[str]:
    try:
        made = kind()
    except Exception as error:  # a third party's code may raise anything
        yield f"it cannot be made without arguments: {type(error).__name__}: {error}"
        return
    try:
        pickle.loads(pickle.dumps(made))
    except Exception as error:
        yield f"it cannot be pickled, and images are read in several processes: {error}; load what is heavy in detect"
    try:
        key = made.key()
    except Exception as error:
        yield f"key() raises {type(error).__name__}: {error}; `packages` names installed packages"
        return
    if key != kind().key():
        yield "key() changes from one to the next; it says what determines the faces, and faces are kept by it"


def _asked(made: Detector, image: Image.Image, blank: bool) -> Iterator[str]:
    """For each face that was found "", or what is wrong."""
    shown, before = f"an image of {image.width} x {image.height} pixels", image.tobytes()
    try:
        faces, again = made.detect(image), made.detect(image)
    except AgebenchError as error:  # the detector's own clear sentence: a package that is missing
        yield str(error)
        return
    except Exception as error:
        yield f"detect raises {type(error).__name__} on {shown}: {error}; where there is no face it gives an empty list"
        return
    if not isinstance(faces, list | tuple):
        yield f"detect gives {type(faces).__name__}; it must be a list of agebench.data.faces.detectors.base.Detection"
        return
    if image.tobytes() != before:
        yield "detect changes the image that it is given; work on a copy"
    for face in faces:
        problem = validate_detection(face, image.size)
        if problem:
            yield problem
            return
        if (
            face.landmarks[0, 0] >= face.landmarks[1, 0]
            and abs(face.landmarks[0, 1] - face.landmarks[1, 1]) < 0.1 * image.height
        ):
            yield "the first point lies right of the second in an upright face; the first is the eye on the image's left"
        yield ""
    if blank and faces:
        yield f"detect finds {len(faces)} faces in {shown} of one colour: there is none"
    if [_numbers(face) for face in faces] != [_numbers(face) for face in again]:
        yield "asked again about the same image, detect finds something else; nothing may be drawn at random"


def _numbers(face: Any) -> tuple[Any, ...]:
    return tuple(face.box), tuple(np.asarray(face.landmarks).ravel().tolist())
