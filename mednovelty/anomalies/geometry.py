"""Random places, turns and smooth fields, measured in mm, a sample each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def uniform(shape: Sequence[int], low: float, high: float, generator: Generator) -> Tensor:
    """Return numbers between ``low`` and ``high``."""
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)


def log_uniform(shape: Sequence[int], low: float, high: float, generator: Generator) -> Tensor:
    """Return numbers between ``low`` and ``high``, as many from 4 to 8 as from 20 to 40; both above 0."""
    low_, high_ = torch.tensor([low, high], dtype=torch.float64).log().tolist()
    return uniform(shape, low_, high_, generator).exp()


def signs(shape: Sequence[int], generator: Generator) -> Tensor:
    """Return 1 or -1, as often."""
    return 1.0 - 2.0 * (torch.rand(*shape, generator=generator, device=generator.device) < 0.5)


def columns(values: Tensor, axes: int) -> Tensor:
    """Return values with ``axes`` more axes of one element."""
    return values.reshape(*values.shape, *[1] * axes)


def one_voxel(weights: Tensor, generator: Generator) -> Tensor:
    """Return ``(B, axes)`` float indices of a voxel drawn by weight; where all are 0, of any.

    Args:
        weights: ``(B, *space)`` of 0 or more.
        generator: On their device.
    """
    # The smallest of exponential waiting times falls on each with the share of its weight: no cumulated
    # sums, which lose small voxels of large volumes.
    waits = torch.empty(weights.shape, device=weights.device).exponential_(generator=generator)
    waits = torch.where(weights > 0, waits / weights.clamp_min(1e-30), torch.inf)
    chosen = waits.flatten(1).argmin(1)
    return torch.stack(torch.unravel_index(chosen, tuple(weights.shape[1:])), 1).float()


def offsets_mm(space: Sequence[int], spacing_mm: Tensor, middles: Tensor) -> Tensor:
    """Return ``(B, axes, *space)``: how far each voxel lies from a middle.

    Args:
        space: Voxels along each axis.
        spacing_mm: ``(B, axes)``.
        middles: ``(B, axes)``, as indices.
    """
    places = torch.meshgrid(
        *(torch.arange(side, device=middles.device, dtype=torch.float32) for side in space), indexing="ij"
    )
    axes = len(space)
    return (torch.stack(places) - columns(middles, axes)) * columns(spacing_mm, axes)


def rotations(n: int, axes: int, generator: Generator) -> Tensor:
    """Return ``(n, axes, axes)`` rotations, all equally probable."""
    # On the processor, whose decomposition is the same everywhere.
    normal = torch.randn(n, axes, axes, generator=generator, device=generator.device).cpu()
    q, r = torch.linalg.qr(normal)
    q = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None]
    q[:, :, 0] *= torch.sign(torch.linalg.det(q))[:, None]
    return q.to(generator.device)


def turned(offsets: Tensor, rotation: Tensor) -> Tensor:
    """Return ``(B, axes', *space)`` offsets in turned axes; ``rotation`` is ``(B, axes', axes)``."""
    return torch.einsum("bij,bj...->bi...", rotation, offsets)


def smooth_fields(space: Sequence[int], spacing_mm: Tensor, sigma_mm: Tensor, generator: Generator) -> Tensor:
    """Return ``(B, *space)`` Gaussian random fields of mean 0 and standard deviation 1.

    White noise under a Gaussian kernel, by Fourier transform: opposite borders of the image fit together.

    Args:
        space: Voxels along each axis.
        spacing_mm: ``(B, axes)``.
        sigma_mm: ``(B,)`` of the kernel; the field's correlation length is 1.41 times this.
        generator: On the device of the spacings.
    """
    axes, n = len(space), len(spacing_mm)
    noise = torch.randn(n, *space, generator=generator, device=generator.device)
    spectrum = torch.fft.rfftn(noise, dim=tuple(range(1, axes + 1)))
    for axis, side in enumerate(space):
        half = axis == axes - 1
        frequencies = (torch.fft.rfftfreq if half else torch.fft.fftfreq)(side, device=noise.device)
        per_mm = frequencies / spacing_mm[:, axis : axis + 1]
        gain = torch.exp(-2 * (torch.pi * sigma_mm[:, None] * per_mm).square())
        shape = [n, *[1] * axes]
        shape[axis + 1] = len(frequencies)
        spectrum = spectrum * gain.reshape(shape)
    field = torch.fft.irfftn(spectrum, s=tuple(space), dim=tuple(range(1, axes + 1)))
    field = field - columns(field.flatten(1).mean(1), axes)
    return field / columns(field.flatten(1).square().mean(1).sqrt().clamp_min(1e-12), axes)


def soft(distance_mm: Tensor, edge_mm: Tensor) -> Tensor:
    """Return a profile that rises from 0 to 1 over an edge, and is a half on the outline.

    Args:
        distance_mm: ``(B, *space)`` to the outline, above 0 inside.
        edge_mm: ``(B,)`` width of the edge, above 0.
    """
    share = (0.5 + distance_mm / columns(edge_mm, distance_mm.dim() - 1)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def sampled(images: Tensor, places: Tensor, outside: str = "border") -> Tensor:
    """Return images interpolated linearly at places, ``(B, C, *space')``.

    Args:
        images: ``(B, C, *space)``, of two or three axes.
        places: ``(B, axes, *space')``, as indices.
        outside: ``border``: beyond it the nearest voxel; ``zeros``.
    """
    sides = torch.tensor([max(side - 1, 1) for side in images.shape[2:]], device=images.device)
    shares = 2 * places / columns(sides, places.dim() - 2) - 1
    grid = shares.flip(1).movedim(1, -1)
    return torch.nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode=outside, align_corners=True
    )


__all__ = [
    "columns",
    "log_uniform",
    "offsets_mm",
    "one_voxel",
    "rotations",
    "sampled",
    "signs",
    "smooth_fields",
    "soft",
    "turned",
    "uniform",
]
