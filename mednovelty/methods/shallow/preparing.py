"""What a shallow model sees of a sample: its values, standardised, or some principal components of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.types import Latents, Samples

log = logging.getLogger("mednovelty")


class PrincipalAxes(nn.Module):
    """The directions in which samples vary most, as many as keep a share of their variance.

    Args:
        values: D.
        room: Most axes.

    Attributes:
        centre: ``(D,)`` mean sample.
        axes: ``(D, room)``, orthonormal; beyond those that are used, zeros.
        used: How many are used.
        kept: Share of the variance along them.
    """

    centre: Tensor
    axes: Tensor
    used: Tensor
    kept: Tensor

    def __init__(self, values: int, room: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(values))
        self.register_buffer("axes", torch.zeros(values, room))
        register_count(self, "used", room)
        self.register_buffer("kept", torch.zeros(()))

    def fit(self, rows: np.ndarray, share: float | None, seed: int) -> None:
        """Take the axes of ``(n, D)`` rows that keep a share of their variance; None: as many as can be."""
        from sklearn.decomposition import PCA

        most = min(*rows.shape, self.axes.shape[1])
        with told_in_words("PCA"):
            found = PCA(n_components=most, random_state=seed).fit(rows)
        # All rows alike have no variance to take shares of.
        along = np.cumsum(np.nan_to_num(found.explained_variance_ratio_))
        count = most if share is None else min(int(np.searchsorted(along, share, side="right")) + 1, most)
        put(self.centre, found.mean_)
        put(self.axes, found.components_[:count].T)
        self.used.fill_(count)
        self.kept.fill_(min(float(along[count - 1]), 1.0))

    def project(self, x: Tensor) -> Tensor:
        """Return ``(B, room)`` coordinates of ``(B, D)`` samples; 0 along axes that are not used."""
        return (x - self.centre) @ self.axes

    def back(self, z: Tensor) -> Tensor:
        """Return the ``(B, D)`` samples that have ``(B, room)`` coordinates."""
        return z @ self.axes.T + self.centre


class Preparation(nn.Module):
    """From ``(B, D)`` samples to what a model sees of them.

    Args:
        values: D.
        standardise: Whether values are.
        room: Most principal components; None: the values themselves.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, values: int, *, standardise: bool, room: int | None) -> None:
        super().__init__()
        self.standardises = standardise
        self.values = values
        if standardise:
            self.register_buffer("shift", torch.zeros(values))
            self.register_buffer("spread", torch.ones(values))
        self.reduction = None if room is None else PrincipalAxes(values, room)

    @property
    def width(self) -> int:
        """W, how many numbers the model sees."""
        return self.values if self.reduction is None else int(self.reduction.used)

    def fit(self, normals: Any, rows: Tensor, share: float | None, seed: int) -> None:
        """Take moments from a ``VoxelCache``, and axes from ``(n, D)`` rows of it."""
        if self.standardises:
            mean, spread = normals.mean_and_spread(self.values)
            put(self.shift, mean)
            put(self.spread, spread)
        if self.reduction is not None:
            self.reduction.fit(self.standardised(rows.to(self.reduction.centre)).cpu().numpy(), share, seed)

    def standardised(self, x: Samples) -> Tensor:
        """Return ``(B, D)`` values in the units that axes and errors are in."""
        return (x - self.shift) / self.spread if self.standardises else x

    def forward(self, x: Samples) -> Tensor:
        """Return ``(B, W)`` numbers."""
        x = self.standardised(x)
        if self.reduction is None:
            return x
        return (x - self.reduction.centre) @ self.reduction.axes[:, : self.width]

    def restored(self, z: Latents) -> Samples:
        """Return ``(B, D)`` samples in their own units, of all coordinates along the axes."""
        x = cast(PrincipalAxes, self.reduction).back(z)
        return x * self.spread + self.shift if self.standardises else x


def register_count(module: nn.Module, name: str, most: int) -> None:
    """Give a module a buffer that says how much of its room is used; what is read from a file is checked."""
    module.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def check(module: nn.Module, _: Any) -> None:
        count = int(getattr(module, name))
        if not 0 <= count <= most:
            raise SettingsError(f"{name} is {count}, where there is room for {most}")

    module.register_load_state_dict_post_hook(check)


def put(buffer: Tensor, values: Any) -> None:
    """Write values into the first corner of a buffer, and zeros into the rest."""
    values = torch.as_tensor(np.asarray(values))
    buffer.zero_()
    buffer[tuple(slice(size) for size in values.shape)] = values.to(buffer)


@contextmanager
def told_in_words(who: str) -> Iterator[None]:
    """Log what a library has to say as warnings of one line each, not as it would print them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for words in dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught):
        log.warning("%s: %s", who, words)


__all__ = ["Preparation", "PrincipalAxes", "put", "register_count", "told_in_words"]
