"""Models whose runtimes are no dependency of agebench: OpenVINO files, and Caffe files through OpenCV."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from agebench.errors import UserError
from agebench.estimators.packages import FOLDER_VARIABLE

OPENVINO_MODEL = "age-gender-recognition-retail-0013.xml"
DEX_GRAPH, DEX_WEIGHTS = "age.prototxt", "dex_imdb_wiki.caffemodel"


@cache
def _openvino_model() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"{OPENVINO_MODEL} needs OpenVINO, which is not installed: pip install openvino") from error
    return openvino.Core().compile_model(str(Path(os.environ[FOLDER_VARIABLE]) / OPENVINO_MODEL), "CPU")


def estimate_openvino(faces: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate ages and genders with age-gender-recognition-retail-0013; a callable for the model's card.

    Args:
        faces: (B, 3, 62, 62) float32, BGR bytes as numbers. The model takes one face per call.

    Returns:
        `age`: (B,) years divided by 100; `gender`: (B, 2) probabilities of female and male.
    """
    model = _openvino_model()
    ages, genders = [], []
    for face in faces:
        outputs = {next(iter(output.get_names())): value for output, value in model([face[None]]).items()}
        age = next(value for name, value in outputs.items() if name != "prob")  # age_conv3 or fc3_a, by the release
        ages.append(float(np.ravel(age)[0]))
        genders.append(np.ravel(outputs["prob"]))
    return {"age": np.array(ages), "gender": np.stack(genders)}


@cache
def _dex_network() -> Any:
    try:
        import cv2

        read_caffe = getattr(cv2.dnn, "readNetFromCaffe", None)  # OpenCV 5 reads no Caffe models
    except ImportError:
        read_caffe = None
    if read_caffe is None:
        raise UserError(f"{DEX_WEIGHTS} is a Caffe model and needs OpenCV 4: pip install 'opencv-python-headless<5'")
    folder = Path(os.environ[FOLDER_VARIABLE])
    return read_caffe(str(folder / DEX_GRAPH), str(folder / DEX_WEIGHTS))


def estimate_dex(faces: np.ndarray) -> np.ndarray:
    """Estimate age distributions with DEX; a callable for the model's card.

    Args:
        faces: (B, 3, 224, 224) float32, BGR bytes minus the channel means.

    Returns:
        (B, 101) probabilities of the ages 0 to 100.
    """
    network = _dex_network()
    network.setInput(faces)
    return np.asarray(network.forward()).reshape(len(faces), -1)
