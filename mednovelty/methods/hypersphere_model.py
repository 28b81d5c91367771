"""A network, the centre of its normal latents, and how far latents are from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.methods.hypersphere_settings import HypersphereSettings
from mednovelty.nn.one_class import ConvolutionalEncoder, DenseNetwork
from mednovelty.nn.point import Point
from mednovelty.types import Latents, Samples


class Hypersphere(nn.Module):
    """An encoder, and a hypersphere around normal latents.

    Args:
        shape: ``(C,)`` of a voxel, ``(C, *space)`` of an image.
        settings: Architecture.
        labels: Whether rows may end with a label.

    Attributes:
        shape: As given.
        channels: D, values a sample has.
        latents: Z.
        centre: c, ``(Z,)``; 0 where there is none.
        radius: R; 0 where there is none.
        at_start: Root of the mean squared distance of latents from their mean, before training.
        pretraining: ``(2,)`` mean squared error of the autoencoder before and after; 0 where there was none.
        soft: Whether the score is d - R^2.
        bvalues: ``(C,)`` of a voxel's channels in s/mm^2, where diffusion anomalies are planted.
        divisors: ``(C,)`` what the channels were divided by, there.

    Raises:
        SettingsError: The network cannot take samples of that shape.
    """

    centre: Tensor
    radius: Tensor
    shift: Tensor
    spread: Tensor
    at_start: Tensor
    pretraining: Tensor
    bvalues: Tensor
    divisors: Tensor

    def __init__(self, shape: Sequence[int], settings: HypersphereSettings, *, labels: bool = False) -> None:
        super().__init__()
        self.shape, self.channels = tuple(shape), math.prod(shape)
        self.latents, self.labels, self.soft = settings.latent_for(shape), labels, False
        filters, units = settings.filters_for(shape), settings.units
        self.encoder: ConvolutionalEncoder | DenseNetwork
        if filters:
            self.encoder = ConvolutionalEncoder(shape, filters, self.latents, units)
        else:
            self.encoder = DenseNetwork(self.channels, settings.hidden, self.latents, units)
        self.standardises = not filters and settings.pretrain_output == "linear"
        width = self.channels if self.standardises else 1
        for name, start in (
            ("centre", torch.zeros(self.latents)),
            ("radius", torch.zeros(())),
            ("shift", torch.zeros(width)),
            ("spread", torch.ones(width)),
            ("at_start", torch.zeros(())),
            ("pretraining", torch.zeros(2)),
        ):
            self.register_buffer(name, start)
        if getattr(settings, "anomalies", "none") == "diffusion":
            self.register_buffer("bvalues", torch.zeros(self.channels))
            self.register_buffer("divisors", torch.ones(self.channels))
        self._epoch, self._distances = 0, list[Tensor]()

    def encode(self, x: Samples) -> Point:
        """Return phi(x), ``(B, Z)``, of ``(B, D)`` samples."""
        return Point(self.encoder(self.standardised(x)))

    def hypersphere(self, z: Latents) -> Tensor:
        """Return ``(B,)``: how far ``(B, Z)`` latents are from the centre, or beyond a soft boundary."""
        distances = self.distances(z)
        return distances - self.radius.square() if self.soft else distances

    def distances(self, z: Latents) -> Tensor:
        """Return ||z - c||^2, ``(B,)``."""
        return (z - self.centre).square().sum(1)

    def standardised(self, x: Samples) -> Tensor:
        """Return x as the network sees it."""
        return (x - self.shift) / self.spread if self.standardises else x

    def split(self, rows: Tensor) -> tuple[Samples, Tensor | None]:
        """Return samples ``(B, D)`` and labels ``(B,)``, or None where the rows end with none.

        Raises:
            SettingsError: Rows are not as wide as that.
        """
        if rows.shape[1] == self.channels:
            return rows, None
        if self.labels and rows.shape[1] == self.channels + 1:
            return rows[:, :-1], rows[:, -1]
        more = ", and with a label one more" if self.labels else "; this method knows no labels"
        raise SettingsError(
            f"rows of {rows.shape[1]} values: a sample of shape {self.shape} has {self.channels}{more}"
        )

    @torch.no_grad()
    def moments(self, rows: Any) -> tuple[Tensor, Tensor]:
        """Return the mean ``(Z,)`` of the latents of all samples but labelled anomalies, and their spread.

        The spread is the root of the mean squared distance from the mean. Sums are in float64.

        Args:
            rows: A ``VoxelCache``.
        """
        device = self.centre.device
        count, total, squares = 0, torch.zeros(self.latents, dtype=torch.float64), 0.0
        for z in self.latents_of(rows):
            z = z.double().to(device)
            count, total, squares = count + len(z), total + z.sum(0).cpu(), squares + z.square().sum().item()
        mean = total / max(count, 1)
        variance = max(squares / max(count, 1) - mean.square().sum().item(), 0.0)
        return mean.float().to(device), torch.tensor(math.sqrt(variance), device=device)

    def latents_of(self, rows: Any) -> Any:
        """Yield ``(b, Z)`` latents of all samples of a ``VoxelCache`` but labelled anomalies."""
        for block in rows.blocks():
            x, labels = self.split(torch.tensor(block, device=self.centre.device))
            yield self.encode(x if labels is None else x[labels >= 0]).mean

    def remember(self, epoch: int, distances: Tensor) -> None:
        """Keep ``(B,)`` distances until the epoch ends; those of another epoch, which was cut off, go."""
        if epoch != self._epoch:
            self._epoch, self._distances = epoch, []
        self._distances.append(distances)

    def remembered(self) -> Tensor | None:
        """Return the distances that were kept, ``(n,)``, and forget them; None where there are none."""
        found, self._distances = self._distances, []
        return torch.cat(found) if found else None


class HSCModel(Hypersphere):
    """An encoder that brings normal latents to 0; arguments as of ``Hypersphere``."""

    def __init__(self, shape: Sequence[int], settings: Any, *, labels: bool = True) -> None:
        super().__init__(shape, settings, labels=labels)
        self._norm = NORMS[settings.norm]

    def distances(self, z: Latents) -> Tensor:
        """Return h(z), ``(B,)``."""
        return self._norm(z)


def pseudo_huber(z: Latents) -> Tensor:
    """Return sqrt(||z||^2 + 1) - 1, ``(B,)``, without taking 1 from a number near 1."""
    square = z.square().sum(1)
    return square / ((square + 1).sqrt() + 1)


NORMS: dict[str, Callable[[Latents], Tensor]] = {
    "pseudo_huber": pseudo_huber,
    "l1": lambda z: z.abs().sum(1),
    "l2": lambda z: torch.linalg.vector_norm(z, dim=1),
    "squared": lambda z: z.square().sum(1),
}
"""h, ``(B,)``, of ``(B, Z)`` latents."""

__all__ = ["NORMS", "HSCModel", "Hypersphere", "pseudo_huber"]
