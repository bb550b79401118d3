"""agebench: how good is an age estimator on faces it was not trained for, and can one believe the number?"""

from typing import TYPE_CHECKING

from agebench._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from agebench.inference.predictor import Predictor

__all__ = ["__version__", "load"]


def load(model: "str | Path", *, trusted: bool = False, device: str = "auto") -> "Predictor":
    """Open a model that estimates ages: `agebench.load("runs/mine").predict(["photo.jpg"])`.

    Args:
        model: the folder of a finished run, an exported file, the name of an external model's card, or
            hf://OWNER/NAME@COMMIT, what `agebench push` put on the Hugging Face hub.
        trusted: whether files whose code runs when they are opened may be opened.
        device: `auto`, `cpu`, `cuda`, …

    Raises:
        UserError: nothing of that kind, or a run that is not finished.
    """
    from agebench.inference.predictor import load as open_model

    return open_model(model, trusted=trusted, device=device)
