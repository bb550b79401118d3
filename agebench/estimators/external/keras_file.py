"""Call Keras models (.keras and .h5 files) in a process of their own, on the backend PyTorch, without running code in the file."""

import importlib.util
from pathlib import Path

from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.estimators.external.callable import CallableProcess
from agebench.estimators.external.io_spec import ExternalModelError
from agebench.estimators.external.model_files import OpenModel
from agebench.utils.paths import cache_home

SUFFIXES = (".keras", ".h5", ".hdf5")


def open_keras(card: ExternalCard, path: Path, device: str) -> OpenModel:
    """Open a Keras model.

    Args:
        card: the model's card; its input layout is mostly nhwc.
        path: the file.
        device: not used; the model computes where Keras puts it.

    Raises:
        UserError: Keras is not installed, or the file cannot be read or holds code.
    """
    if importlib.util.find_spec("keras") is None:
        raise UserError(
            f"model '{card.name}' is a Keras model, and Keras is not installed: pip install 'agebench[keras]'"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"model '{card.name}': {path} does not end in {', '.join(SUFFIXES)}")
    env = {
        "KERAS_BACKEND": "torch",
        "KERAS_HOME": str(cache_home() / "keras"),  # Keras writes its settings there
        "AGEBENCH_KERAS_FILE": str(path),
    }
    try:
        process = CallableProcess(card, "agebench.estimators.external.keras_process:predict", env=env)
    except ExternalModelError as error:
        reason = str(error).partition("keras_process:predict: ")[2] or str(error)
        raise UserError(
            f"model '{card.name}': {path} is not readable as a Keras 3 model without code of its own: {reason[:400]}"
        ) from error
    return OpenModel(process, close=process.close)
