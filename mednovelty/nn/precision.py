"""A network in half precision: what is computed in it, and what is not.

Only the layers of encoder and decoder, or of what makes a heatmap, run in half precision, forward and
backward, as ``torch.autocast`` chooses. Their weights and inputs, the means and standard deviations that they
give, and everything that a score makes of these (divergences, likelihoods, sums over contrasts, smoothing,
distances to normals) stay in float32.

Derivatives are of sums over the batch, so their size does not depend on how many samples go together, and no
loss is scaled. What enters the backward pass is E q(z|x) and sigma^2 - 1 for the KL term, both near 1, and
(x - mean) / c^2 for the reconstruction term. float16 ends at 65,504, which the second passes at a residual
of 1 where c is below 0.004, and rounds what is below 6e-8 to 0; then a map has numbers that are not finite,
which ``Scoring`` refuses, or zeros. bfloat16 has the range of float32, and 8 bits to float16's 11.

Largest errors against float32, as shares of a map's range, of the paper's networks with weights as drawn, on
noise: bfloat16 0.07 and float16 0.04 for derivatives (they jump where the input of a leaky ReLU changes its
sign), 0.002 and 0.0004 for squared errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from mednovelty.errors import SettingsError
from mednovelty.nn.point import Point
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.types import Latents, Samples

Precision = Literal["float32", "float16", "bfloat16"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class HalfPrecision:
    """A model whose encoder and decoder, or heatmap, run in half precision; what they give is in float32.

    Args:
        model: Trained, in float32.
        precision: ``float16`` or ``bfloat16``.
    """

    def __init__(self, model: ProbabilisticAutoencoder, precision: Precision) -> None:
        self._model, self._dtype = model, _DTYPES[precision]

    @property
    def prior(self) -> Independent:
        """The model's."""
        return self._model.prior

    def encode(self, x: Samples) -> Independent:
        """Return q(z|x) as the model has it."""
        with torch.autocast(x.device.type, dtype=self._dtype):
            return _wide(self._model.encode(x))

    def decode(self, z: Latents) -> Independent:
        """Return p(x|z) as the model has it."""
        with torch.autocast(z.device.type, dtype=self._dtype):
            return _wide(self._model.decode(z))

    def __getattr__(self, name: str) -> Any:
        if name in ("_model", "_dtype"):  # Not there yet, as while it is copied.
            raise AttributeError(name)
        found = getattr(self._model, name)
        return self._half(found) if name == "heatmap" else found

    def _half(self, layers: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, dtype=self._dtype):
                return layers(x)

        return run


def in_precision(model: Any, precision: Precision) -> Any:
    """Return a model that computes in a precision; in float32 it is the model itself."""
    return model if precision == "float32" else HalfPrecision(model, precision)


def check_precision(precision: Precision, device: torch.device, *, images: bool) -> None:
    """Refuse a precision where it has no use.

    Args:
        precision: Asked for.
        device: Of the network.
        images: Whether samples are slices or windows.

    Raises:
        SettingsError: Half precision for voxels, or float16 on the processor.
    """
    if precision == "float32":
        return
    if not images:
        raise SettingsError(
            f"maps.precision={precision} is for the networks of slices and windows; voxels are scored in "
            "float32"
        )
    if precision == "float16" and device.type == "cpu":
        raise SettingsError(
            "maps.precision=float16 is for CUDA: a processor has no arithmetic for it and computes it by way "
            "of float32; take bfloat16, or float32, which is exact"
        )


def _wide(gaussian: Any) -> Any:
    if isinstance(gaussian, Point):
        return Point(gaussian.mean.float())
    mean, sigma = gaussian.mean.float(), gaussian.base_dist.stddev.float()
    return Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False)


__all__ = ["HalfPrecision", "Precision", "check_precision", "in_precision"]
