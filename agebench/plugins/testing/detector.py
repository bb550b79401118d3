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
    """Check a detector on drawn faces and on images without faces.

    A detector need not find drawn faces, because it may be trained on photographs only. Its detections must be boxes within
    the image with finite landmarks, equal in repeated calls, the image-left eye first.

    Args:
        detector: name of a detector, or its class.

    Returns:
        A description of the checks.

    Raises:
        ContractViolation: a rule of the contract is violated.
    """
    kind: Any = detectors.get(detector) if isinstance(detector, str) else detector
    name = detector if isinstance(detector, str) else detector.__name__
    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        raise violation(
            "detector", name, "is no subclass of agebench.data.faces.detectors.base.Detector: derive it from there"
        )
    for problem in _made(kind):
        raise violation("detector", name, problem)
    instance, n_detections = kind(), 0
    for image, blank in _blank_images():
        for problem in _check_detections(instance, image, blank):
            if problem:
                raise violation("detector", name, problem)
            n_detections += 1
    try:
        pickle.loads(pickle.dumps(instance))
    except Exception as error:
        raise violation("detector", name, f"it cannot be pickled after a call of detect: {error}") from error
    return f"{len(BLANK)} images without a face and {DRAWN} drawn faces, of which it found {n_detections}"


def _blank_images() -> Iterator[tuple[Image.Image, bool]]:
    """Yield test images, and whether an image contains no face."""
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
        yield "key() differs between instances; it identifies what determines the faces in the face cache"


def _check_detections(detector: Detector, image: Image.Image, blank: bool) -> Iterator[str]:
    """Yield "" for each detected face, or a problem."""
    description, pixels = f"an image of {image.width} x {image.height} pixels", image.tobytes()
    try:
        faces, again = detector.detect(image), detector.detect(image)
    except AgebenchError as error:  # the detector's own message, such as a missing package
        yield str(error)
        return
    except Exception as error:
        yield f"detect raises {type(error).__name__} on {description}: {error}; it must return an empty list where there is no face"
        return
    if not isinstance(faces, list | tuple):
        yield f"detect gives {type(faces).__name__}; it must be a list of agebench.data.faces.detectors.base.Detection"
        return
    if image.tobytes() != pixels:
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
        yield f"detect finds {len(faces)} faces in {description} of one color: there is none"
    if [_numbers(face) for face in faces] != [_numbers(face) for face in again]:
        yield "detect returns other faces for the same image when it is called again; it must be deterministic"


def _numbers(face: Any) -> tuple[Any, ...]:
    return tuple(face.box), tuple(np.asarray(face.landmarks).ravel().tolist())
