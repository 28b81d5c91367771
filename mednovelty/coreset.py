"""Few vectors that stand for many: no vector is far from the nearest chosen one.

Greedy k-center (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985): the next one
chosen is the vector farthest from all chosen so far. The largest distance left is at most twice that of the
best choice of as many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

POOL = 512
"""Candidates that are looked at together: distances to all vectors are brought up to date once a pool."""
ROWS = 1 << 15


def k_center(
    vectors: np.ndarray, count: int, *, advance: Callable[[int], Any] = lambda chosen: None
) -> np.ndarray:
    """Return the sorted indices of greedily chosen vectors, the first of which is nearest to the mean.

    The choice is that of choosing one by one. Taken together are only vectors that are farther from the
    chosen ones than every vector outside the pool, whose distances can only have shrunk since they were
    last known.

    Args:
        vectors: ``(N, D)`` float32; may lie on disk.
        count: How many; all if there are no more.
        advance: Told now and then how many are chosen.
    """
    if count >= len(vectors):
        return np.arange(len(vectors))
    mean = _mean(vectors)
    first = int(_distances(vectors, mean[None], None).argmin())
    chosen = [first]
    distance = _distances(vectors, _rows(vectors, [first]), None)
    while len(chosen) < count:
        more = _from_pool(vectors, distance, count - len(chosen))
        chosen += more
        distance = _distances(vectors, _rows(vectors, more), distance)
        advance(len(chosen))
    return np.sort(np.array(chosen))


def _from_pool(vectors: np.ndarray, distance: Tensor, most: int) -> list[int]:
    """Return the next vectors, at least one, that choosing one by one would take."""
    values, pool = distance.topk(min(POOL + 1, len(distance)))
    outside = values[-1] if len(values) > POOL else torch.tensor(-1.0)
    pool, left = pool[:POOL], values[:POOL].clone()
    candidates = _rows(vectors, pool.tolist())
    chosen: list[int] = []
    while len(chosen) < min(most, len(pool)):
        farthest = int(left.argmax())
        if chosen and left[farthest] < outside:
            break
        chosen.append(int(pool[farthest]))
        left = torch.minimum(left, (candidates - candidates[farthest]).square().sum(1))
        left[farthest] = -1.0
    return chosen


def _distances(vectors: np.ndarray, centres: Tensor, known: Tensor | None) -> Tensor:
    """Return ``(N,)`` squared distances to the nearest centre, or ``known`` where that is smaller."""
    origin = centres.mean(0)
    centred = centres - origin
    half_norms = centred.square().sum(1) / 2
    found = torch.empty(len(vectors))
    for start in range(0, len(vectors), ROWS):
        rows = torch.from_numpy(np.ascontiguousarray(vectors[start : start + ROWS])) - origin
        nearest = torch.addmm(half_norms, rows, centred.T, alpha=-1).amin(1)
        found[start : start + ROWS] = (rows.square().sum(1) + 2 * nearest).clamp_min_(0)
    return found if known is None else torch.minimum(found, known)


def _rows(vectors: np.ndarray, indices: list[int]) -> Tensor:
    return torch.from_numpy(np.array(vectors[indices], dtype=np.float32))


def _mean(vectors: np.ndarray) -> Tensor:
    total = np.zeros(vectors.shape[1])
    for start in range(0, len(vectors), ROWS):
        total += vectors[start : start + ROWS].sum(0, dtype=np.float64)
    return torch.from_numpy((total / len(vectors)).astype(np.float32))


__all__ = ["k_center"]
