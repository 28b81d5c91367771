"""Anomalies made of normals: a region of each sample is replaced by one of another sample at another place.

The region is a quarter to a half of every axis, the same box in all contrasts; of a voxel, which has no axes,
half of its channels come from another voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Anomalies(NamedTuple):
    """Samples with a region of another one in each."""

    x: Tensor
    """``(n, D)``"""
    pasted: Tensor
    """``(n, V)`` bool, which of a sample's voxels are foreign; V is 1 of a sample that is a voxel."""


def synthetic_anomalies(x: Tensor, shape: Sequence[int], generator: Generator) -> Anomalies:
    """Return samples, each with a region of another one in it.

    Args:
        x: ``(n, D)``, at least two.
        shape: Of a sample, ``(C,)`` or ``(C, *space)``.
        generator: On the CPU.
    """
    # A shift by 1 to n - 1 gives everyone another one.
    shift = int(torch.randint(1, len(x), (), generator=generator))
    samples, images = x.clone().unflatten(1, tuple(shape)), x.unflatten(1, tuple(shape))
    pasted = torch.zeros(len(x), *shape[1:], dtype=torch.bool)
    for i, sample in enumerate(samples):
        donor = images[i - shift]
        if len(shape) == 1:
            channels = torch.randperm(len(sample), generator=generator)[: max(len(sample) // 2, 1)]
            sample[channels] = donor[channels]
            pasted[i] = True
        else:
            to, back = _regions(shape[1:], generator)
            sample[(slice(None), *to)] = donor[(slice(None), *back)]
            pasted[i][to] = True
    return Anomalies(samples.flatten(1), pasted.reshape(len(x), -1))


def _regions(space: Sequence[int], generator: Generator) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return two places of one random box in an image."""
    places: tuple[list[slice], list[slice]] = ([], [])
    for side in space:
        length = int(torch.randint(max(side // 4, 1), max(side // 2, 1) + 1, (), generator=generator))
        for place in places:
            start = int(torch.randint(0, side - length + 1, (), generator=generator))
            place.append(slice(start, start + length))
    return tuple(places[0]), tuple(places[1])


__all__ = ["Anomalies", "synthetic_anomalies"]
