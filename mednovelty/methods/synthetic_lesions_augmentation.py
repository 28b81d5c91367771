"""How the samples of a detector of synthetic lesions are changed while it trains, anomalies and all."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from mednovelty.methods.synthetic_lesions_model import Rows, SyntheticLesionsModel
from mednovelty.nn.augmentation import augmented


def moved(model: SyntheticLesionsModel, rows: Rows, generator: Generator) -> Rows:
    """Return samples mirrored, and those without annotated anomalies turned and scaled; voxels as they are.

    Samples of diffusion are mirrored alone: their gradients would have to turn with them.
    """
    how, space = model.settings.augmentation, model.shape[1:]
    if not space:
        return rows
    for axis in how.mirror_axes:
        if axis < len(space):
            rows = _mirrored(rows, axis, generator)
    still = rows.truth.flatten(1).any(1)
    changes = how.rotation_rad or tuple(how.scale) != (1.0, 1.0)
    if model.diffusion or still.all() or not changes:
        return rows
    turn = replace(how, mirror_axes=(), brightness=(1.0, 1.0), noise_sigma=0.0)
    images = rows.images.clone()
    images[~still] = augmented(images[~still], turn, generator)
    mask = model.tissue(images)
    return rows._replace(images=images, mask=mask, truth=rows.truth & mask)


def shaded(model: SyntheticLesionsModel, rows: Rows, generator: Generator) -> Tensor:
    """Return ``(B, C, *space)`` samples with another brightness and with noise; the background stays."""
    how, images = model.settings.augmentation, rows.images
    if not model.shape[1:] or model.diffusion:
        return images
    low, high = how.brightness
    draws = torch.rand(
        2, len(images), *[1] * (images.dim() - 1), generator=generator, device=generator.device
    )
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    changed = images * (low + (high - low) * draws[0]).to(images) + (how.noise_sigma * draws[1] * noise).to(
        images
    )
    return torch.where(rows.mask[:, None], changed, images)


def _mirrored(rows: Rows, axis: int, generator: Generator) -> Rows:
    """Return every other sample mirrored along an axis of space."""
    n = len(rows.images)
    drawn = (torch.rand(n, generator=generator, device=generator.device) < 0.5).to(rows.images.device)
    images, mask, truth = rows.images.clone(), rows.mask.clone(), rows.truth.clone()
    for part, first in ((images, 2), (mask, 1), (truth, 1)):
        part[drawn] = part[drawn].flip(first + axis)
    return rows._replace(images=images, mask=mask, truth=truth)


__all__ = ["moved", "shaded"]
