"""The process of a Keras model: it loads the file in AGEBENCH_KERAS_FILE on import, and predicts.

Keras runs on PyTorch here, which the environment variable KERAS_BACKEND states before Keras is imported; the process of agebench
itself never imports Keras. `safe_mode` refuses code in the file, as Lambda layers have it.
"""

import os
from typing import Any

import keras
import numpy as np

_model = keras.saving.load_model(os.environ["AGEBENCH_KERAS_FILE"], compile=False, safe_mode=True)


def predict(batch: np.ndarray) -> Any:
    """Return the model's output, or a dict of its outputs by name.

    Args:
        batch: (B, …) prepared faces.
    """
    outputs = _model(batch, training=False)
    if isinstance(outputs, dict):
        return {name: _array(value) for name, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        names = getattr(_model, "output_names", None) or [str(number) for number in range(len(outputs))]
        return {str(name): _array(value) for name, value in zip(names, outputs, strict=True)}
    return _array(outputs)


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
