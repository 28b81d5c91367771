"""Approximate nearest neighbours on a graph of many levels, by faiss's HNSW.

The quickest to search and the slowest to build. Faiss builds the graph with all threads, and then no two
graphs are alike; we let it have one thread, so that the same vectors give the same graph, and the build is as
much slower. The graph is kept as tensors and looked through before faiss walks on it: faiss's own files are
never read, and a damaged graph must not lead it outside its memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mednovelty.neighbours.exact import ExactNeighbours, centre_of, check_k, squared_distances
from mednovelty.neighbours.quality import (
    HeldOut,
    Quality,
    doubled,
    needed_recall,
    whole_number,
    whole_tensor,
)

LINKS = 16
BUILD_WIDTH = 64
DEFAULT_WIDTH, WIDEST = 64, 1024
STEP_COST = 25
"""What a distance costs on the graph, where each vector lies elsewhere, beside one by brute force."""
LEVELS = 32


class FaissHNSW:
    """Walks from vector to nearer vector on a graph.

    Args:
        vectors: ``(N, D)`` float32.
        width: How many candidates a walk holds; more find more.
        state: Of a graph made before.
    """

    def __init__(
        self, vectors: Tensor, width: int = DEFAULT_WIDTH, state: Mapping[str, Tensor] | None = None
    ) -> None:
        faiss = _faiss()
        self.vectors = vectors.detach().float().cpu().contiguous()
        self.width = width
        count, dimensions = self.vectors.shape
        self.centre = centre_of(self.vectors) if state is None else _centre(state, dimensions)
        centred = (self.vectors - self.centre).numpy()
        self._index = faiss.IndexHNSWFlat(dimensions, LINKS)
        self._index.hnsw.efConstruction = BUILD_WIDTH
        if state is None:
            with _one_thread():
                self._index.add(centred)
            return
        levels, offsets, neighbours, start = _checked(state, count)
        faiss.downcast_index(self._index.storage).add(centred)
        self._index.ntotal = count
        graph = self._index.hnsw
        for tensor, vector in (
            (levels, graph.levels),
            (offsets, graph.offsets),
            (neighbours, graph.neighbors),
        ):
            faiss.copy_array_to_vector(tensor, vector)
        graph.entry_point, graph.max_level = start, int(levels[start]) - 1

    @classmethod
    def tuned(cls, vectors: Tensor, sample: HeldOut, target: float, seed: int) -> tuple[Self, Quality]:
        """Return a graph with the narrowest walk that reaches the target, and what was measured of it.

        Where even the widest falls short on this sample, it is taken. The graph knows no seed: the levels
        are drawn from faiss's own.
        """
        index = cls(vectors)
        for index.width in doubled(8, WIDEST):
            quality = index.measured(sample)
            if quality.recall >= needed_recall(target, quality.sample):
                break
        return index, quality

    def measured(self, sample: HeldOut) -> Quality:
        """Return what a sample says of the graph as it is set."""
        faiss = _faiss()
        statistics = faiss.cvar.hnsw_stats
        before = statistics.ndis
        found, _ = self.search(sample.queries, sample.k)
        compared = (statistics.ndis - before) / len(found)
        share = compared / len(self.vectors)
        return Quality(sample.recall(found), len(found), share, STEP_COST * compared, sample.k)

    def settings(self) -> dict[str, int]:
        """Return what ``restored`` needs beside the state, as JSON types."""
        return {"width": self.width, "links": LINKS}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that ``restored`` makes the same graph of, to the bit."""
        faiss = _faiss()
        graph = self._index.hnsw
        levels, neighbours = (faiss.vector_to_array(v) for v in (graph.levels, graph.neighbors))
        return {
            "centre": self.centre,
            "levels": torch.from_numpy(levels.astype(np.int32)),
            "neighbours": torch.from_numpy(neighbours.astype(np.int32)),
            "start": torch.tensor([graph.entry_point], dtype=torch.int32),
        }

    @classmethod
    def restored(cls, vectors: Tensor, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the graph of some settings and state.

        Raises:
            ValueError: They are damaged, or of other vectors.
        """
        whole_number(settings, "links", LINKS, LINKS)
        return cls(vectors, whole_number(settings, "width", 1, max(WIDEST, DEFAULT_WIDTH)), state)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` squared Euclidean distances, ascending, and ``(B, k)`` int64 indices.

        Args:
            queries: ``(B, D)``.
            k: How many, at most N.
        """
        check_k(k, len(self.vectors))
        faiss = _faiss()
        asked = queries.detach().float().cpu()
        width = faiss.SearchParametersHNSW(efSearch=max(self.width, k))
        centred = np.ascontiguousarray((asked - self.centre).numpy())
        indices = torch.from_numpy(self._index.search(centred, k, params=width)[1])
        short = (indices < 0).any(1)
        if short.any():
            indices[short] = self._exact.search(asked[short], k)[1]
        distances, indices = squared_distances(asked, self.vectors, indices)
        return distances.to(queries.device), indices.to(queries.device)

    @cached_property
    def _exact(self) -> ExactNeighbours:
        return ExactNeighbours(self.vectors)


def _faiss() -> Any:
    # Imported here: faiss is an optional part of the core. Its stubs do not know all of it.
    import faiss

    return faiss


@contextmanager
def _one_thread() -> Iterator[None]:
    faiss = _faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _centre(state: Mapping[str, Tensor], width: int) -> Tensor:
    return whole_tensor(state, "centre", (width,), torch.float32)


def _checked(state: Mapping[str, Tensor], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return levels, offsets, neighbours and start of a graph on which every step leads to a vector."""
    levels = whole_tensor(state, "levels", (count,), torch.int32).numpy()
    if not 1 <= levels.min() <= levels.max() < LEVELS:
        raise ValueError(f"levels of the graph must lie between 1 and {LEVELS - 1}")
    # 2 x LINKS places on the lowest level, LINKS on each above.
    places = LINKS * (levels.astype(np.uint64) + np.uint64(1))
    offsets = np.concatenate([np.zeros(1, np.uint64), np.cumsum(places, dtype=np.uint64)])
    neighbours = whole_tensor(state, "neighbours", (int(offsets[-1]),), torch.int32).numpy()
    if not -1 <= neighbours.min() <= neighbours.max() < count:
        raise ValueError(f"the graph leads to vectors outside the {count} there are")
    start = int(whole_tensor(state, "start", (1,), torch.int32)[0])
    if not 0 <= start < count or levels[start] != levels.max():
        raise ValueError(f"the graph's start, {start}, is no vector of its highest level")
    _check_levels(levels, offsets, neighbours)
    return levels, offsets, neighbours, start


def _check_levels(levels: np.ndarray, offsets: np.ndarray, neighbours: np.ndarray) -> None:
    """Check that no link of a level leads to a vector that does not reach up to it."""
    for level in range(1, int(levels.max())):
        owners = np.flatnonzero(levels > level)
        first = offsets[owners].astype(np.int64) + LINKS * (level + 1)
        linked = neighbours[(first[:, None] + np.arange(LINKS)).ravel()]
        if (levels[linked[linked >= 0]] <= level).any():
            raise ValueError(f"the graph's level {level} leads to vectors that do not reach up to it")
