"""A Python function in this process as an age estimator."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from agebench.errors import AgebenchError
from agebench.estimators.base import AgeEstimates, BaseEstimator, EstimatorInfo, InputSpec


class FunctionEstimator(BaseEstimator):
    """Wraps a function (N, S, S, 3) uint8 RGB -> (N,) years.

    Args:
        function: the function; it returns an array, a tensor or a list, with NaN for a face that it cannot estimate.
        input_spec: the images that the function expects.
        info: identity and training data; by default only the function's name.
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        input_spec: InputSpec | None = None,
        info: EstimatorInfo | None = None,
    ) -> None:
        self._function = function
        self.input_spec = input_spec or InputSpec(112)
        self.info = info or EstimatorInfo(getattr(function, "__name__", type(function).__name__))

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N faces.

        Args:
            images: (N, S, S, 3) uint8 RGB, prepared as `input_spec` states; N may be 0.

        Raises:
            AgebenchError: the function does not return one number per face.
        """
        if not len(images):
            return AgeEstimates(np.zeros(0, np.float32))
        try:
            returned = self._function(images)
            if isinstance(returned, torch.Tensor):  # NumPy reads no tensor of a device or with a gradient
                returned = returned.detach().to("cpu", torch.float64)
            ages = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise AgebenchError(f"estimator '{self.info.name}': {type(error).__name__}: {error}") from error
        if ages.shape not in ((len(images),), (len(images), 1)):
            raise AgebenchError(
                f"estimator '{self.info.name}' returned the shape {ages.shape} for {len(images)} faces; it must return one "
                "age in years per face"
            )
        ages = ages.reshape(-1)
        failed = ~np.isfinite(ages)
        return AgeEstimates(np.where(failed, np.nan, ages), failed=failed if failed.any() else None)
