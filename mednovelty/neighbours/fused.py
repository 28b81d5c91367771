"""Exact nearest neighbours on a CUDA card in one fused kernel that never writes the distance matrix.

A program of the kernel holds a block of queries and walks over the vectors; what it keeps of each block of
distances is the lowest and its place. Memory traffic is that of the vectors, not that of ``B x N`` distances.
Sums are of float32: ``input_precision`` says how the card's units get there, and plain TF32, which keeps 10
bits of each factor, is not among the choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from mednovelty.neighbours.exact import ExactNeighbours, centre_of, squared_distances

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton comes with torch for CUDA; elsewhere ``exact`` does the work.
    triton = None

PROGRAMS = 512
"""Few queries are spread over the card by splitting the vectors among about this many programs."""


@dataclass(frozen=True)
class Tiling:
    """How the kernel is cut; other cuts give the same neighbours at other speeds.

    Attributes:
        queries: Rows of queries a program holds, a power of 2, at least 16.
        vectors: Vectors a step, a power of 2, at least 16.
        depth: Dimensions a product takes at once, a power of 2, at least 16; more are looped over.
        warps: A program's width in warps.
        stages: Steps whose loads overlap.
        precision: ``ieee``: float32 multiplications; ``tf32x3``: three TF32 products, nearly float32.
    """

    queries: int = 64
    vectors: int = 128
    depth: int = 16
    warps: int = 4
    stages: int = 2
    precision: Literal["ieee", "tf32x3"] = "ieee"


DEFAULT_TILING = Tiling()


class FusedNeighbours:
    """Searches by brute force with a Triton kernel; the lowest index among equals.

    The kernel finds the one nearest; more neighbours, other devices than CUDA and machines without Triton are
    served by ``ExactNeighbours``.

    Args:
        vectors: ``(N, D)`` float32.
        tiling: How the kernel is cut.
    """

    def __init__(self, vectors: Tensor, tiling: Tiling = DEFAULT_TILING) -> None:
        self.vectors = vectors.float().contiguous()
        self.tiling = tiling
        self.fused = fits(self.vectors.device)
        if self.fused:
            self.centre = centre_of(self.vectors)
            centred = self.vectors - self.centre
            self._half_norms = centred.square().sum(1) / 2
            # Lying (D, N): the loads of neighbouring threads are neighbours in memory.
            self._columns = centred.T.contiguous()

    @cached_property
    def _exact(self) -> ExactNeighbours:
        return ExactNeighbours(self.vectors)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` squared Euclidean distances, ascending, and ``(B, k)`` int64 indices.

        Args:
            queries: ``(B, D)``.
            k: How many, at most N; the kernel runs for 1.
        """
        if k != 1 or not self.fused or not len(queries):
            return self._exact.search(queries, k)
        asked = queries.detach().to(self.vectors.device, torch.float32)
        indices = self.nearest(asked - self.centre)[:, None]
        distances, indices = squared_distances(asked, self.vectors, indices)
        return distances.to(queries.device), indices.to(queries.device)

    def nearest(self, centred: Tensor) -> Tensor:
        """Return ``(B,)`` indices of the nearest of ``(B, D)`` centred queries: the kernel alone."""
        n_queries, n_vectors, tiling = len(centred), len(self.vectors), self.tiling
        blocks = -(-n_queries // tiling.queries)
        steps = -(-n_vectors // tiling.vectors)
        # Each split gets whole steps, and none is empty.
        a_split = -(-steps // max(1, min(steps, PROGRAMS // blocks)))
        splits = -(-steps // a_split)
        values = torch.empty(splits, n_queries, device=centred.device)
        places = torch.empty(splits, n_queries, device=centred.device, dtype=torch.int64)
        _nearest_kernel[(blocks, splits)](
            centred.contiguous(), self._columns, self._half_norms, values, places,
            n_queries, n_vectors, a_split * tiling.vectors,
            centred.shape[1], tiling.queries, tiling.vectors, tiling.depth, tiling.precision,
            num_warps=tiling.warps, num_stages=tiling.stages,
        )  # fmt: skip
        # argmin takes the first of equals: the split with the lowest indices.
        return places.gather(0, values.argmin(0, keepdim=True))[0]


def fits(device: torch.device) -> bool:
    """Return whether the kernel runs on a device: CUDA, or any under Triton's interpreter."""
    if triton is None:
        return False
    return device.type == "cuda" or type(_nearest_kernel).__name__ == "InterpretedFunction"


if triton is not None:

    @triton.jit
    def _nearest_kernel(  # noqa: PLR0913 - a kernel has no objects to hand over
        queries, columns, half_norms, values, places, n_queries, n_vectors, a_split,
        DIMENSIONS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
        PRECISION: tl.constexpr,
    ):  # fmt: skip
        """Find for a block of queries the lowest ``|v|^2 / 2 - q.v`` in one split of the vectors."""
        rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
        first = tl.program_id(1) * a_split
        last = tl.minimum(first + a_split, n_vectors)
        lowest = tl.full((BLOCK_Q,), float("inf"), tl.float32)
        place = tl.zeros((BLOCK_Q,), tl.int64)
        for start in range(first, last, BLOCK_V):
            at = start + tl.arange(0, BLOCK_V)
            inside = at < last
            products = tl.zeros((BLOCK_Q, BLOCK_V), tl.float32)
            for d in tl.static_range(0, DIMENSIONS, BLOCK_D):
                depth = (d + tl.arange(0, BLOCK_D)).to(tl.int64)
                real = depth < DIMENSIONS
                q = tl.load(
                    queries + rows.to(tl.int64)[:, None] * DIMENSIONS + depth[None, :],
                    mask=(rows < n_queries)[:, None] & real[None, :],
                    other=0.0,
                )
                v = tl.load(
                    columns + depth[:, None] * n_vectors + at[None, :],
                    mask=real[:, None] & inside[None, :],
                    other=0.0,
                )
                products = tl.dot(q, v, products, input_precision=PRECISION)
            # Beyond the edge a norm is infinite, so that no query is nearest to padding.
            half = tl.load(half_norms + at, mask=inside, other=float("inf"))
            value, offset = tl.min(
                half[None, :] - products, axis=1, return_indices=True, return_indices_tie_break_left=True
            )
            # Strictly lower: among equals the first, which has the lowest index, stays.
            better = value < lowest
            lowest = tl.where(better, value, lowest)
            place = tl.where(better, start + offset, place)
        out = tl.program_id(1).to(tl.int64) * n_queries + rows
        tl.store(values + out, lowest, mask=rows < n_queries)
        tl.store(places + out, place, mask=rows < n_queries)
