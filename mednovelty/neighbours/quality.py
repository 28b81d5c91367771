"""How good an approximate search is, measured on queries that are not among its vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MARGIN_SIGMAS = 1.645
"""Settings are accepted where the recall on the sample exceeds the target by this many standard errors."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Queries that are not among the vectors, with the right answer.

    Attributes:
        queries: ``(n, D)``.
        distances: ``(n, k)`` distances to the nearest vectors, ascending, by exact search.
        indices: ``(n, k)`` which vectors those are.
    """

    queries: Tensor
    distances: Tensor
    indices: Tensor

    @classmethod
    def of(cls, search: Any, queries: Tensor, k: int = 1) -> HeldOut:
        """Return queries with the answer of an exact search: the k nearest of each."""
        return cls(queries, *search.search(queries, k))

    @property
    def k(self) -> int:
        """How many nearest vectors are asked for."""
        return self.distances.shape[1]

    def recall(self, found: Tensor) -> float:
        """Return the share of ``(n, k)`` vectors found that are no farther than the k-th nearest truly is.

        So one that is missing counts once, wherever among the k it belongs. A tie is a hit, and so is a
        vector that the exact search missed by its rounding.
        """
        return (found <= self.distances[:, -1:]).double().mean().item()


@dataclass(frozen=True)
class Quality:
    """What was measured of an approximate search.

    Attributes:
        recall: Share of the sample's nearest vectors that were found.
        sample: Size of the sample.
        share_compared: Vectors that a query is compared with, over all N; the mean over the sample.
        cost: The same in distances of a brute-force search that take as long.
    """

    recall: float
    sample: int
    share_compared: float
    cost: float
    k: int = 1
    """How many nearest vectors were asked for."""


def needed_recall(target: float, sample: int) -> float:
    """Return which recall on a sample shows, with 95 % confidence, that the true one is at least the target.

    Above 1 the sample is too small to show it.

    Examples:
        >>> round(needed_recall(0.995, 4096), 4), needed_recall(0.995, 200) > 1
        (0.9968, True)
    """
    return target + MARGIN_SIGMAS * (target * (1 - target) / max(sample, 1)) ** 0.5


def doubled(first: int, last: int) -> list[int]:
    """Return first, 2 first, 4 first, ... up to last, which always ends the list.

    Examples:
        >>> doubled(4, 20), doubled(4, 3)
        ([4, 8, 16, 20], [3])
    """
    values = []
    while first < last:
        values.append(first)
        first *= 2
    return [*values, last]


def whole_number(settings: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """Return a setting that was read, checked.

    Raises:
        ValueError: It is not there, no whole number, or out of bounds.
    """
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
    return value


def whole_tensor(
    state: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Return a tensor of a state that was read, checked.

    Raises:
        ValueError: It is not there, or of another shape or type.
    """
    tensor = state.get(name)
    if tensor is None:
        raise ValueError(f"tensor {name!r} is missing; there: {', '.join(sorted(state)) or 'none'}")
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(
            f"tensor {name!r} is {tuple(tensor.shape)} {tensor.dtype}, where {shape} {dtype} is expected"
        )
    return tensor
