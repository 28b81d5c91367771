"""A point where others have a distribution: what a deterministic network gives."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from mednovelty.errors import SettingsError


class Point:
    """One vector a sample, all of the mass on it: it has a mean, and no density, width or divergence.

    An autoencoder that is not variational has no q(z|x) and no p(x|z). To give it a narrow Gaussian would
    make up the numbers of every score that looks at widths; this refuses them in words.

    Args:
        mean: ``(B, D)``.

    Examples:
        >>> Point(torch.zeros(5, 3)).batch_shape, Point(torch.zeros(5, 3)).event_shape
        (torch.Size([5]), torch.Size([3]))
    """

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    @property
    def batch_shape(self) -> torch.Size:
        """``(B,)``."""
        return self.mean.shape[:1]

    @property
    def event_shape(self) -> torch.Size:
        """``(D,)``."""
        return self.mean.shape[1:]

    @property
    def base_dist(self) -> NoReturn:
        """Refused: there is none."""
        raise SettingsError(_words("distribution"))

    @property
    def stddev(self) -> NoReturn:
        """Refused: there is none."""
        raise SettingsError(_words("standard deviation"))

    @property
    def variance(self) -> NoReturn:
        """Refused: there is none."""
        raise SettingsError(_words("variance"))

    def log_prob(self, value: Tensor) -> NoReturn:
        """Refused: there is none."""
        raise SettingsError(_words("density"))


def _words(what: str) -> str:
    return (
        f"a deterministic autoencoder gives points, which have no {what}; fit a variational one, such as the "
        "methods vae and image_vae, for scores that need it"
    )


__all__ = ["Point"]
