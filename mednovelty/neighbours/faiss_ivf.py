"""Approximate nearest neighbours by faiss's inverted lists.

Lists and centroids are our own (``lists``), so that they are the same whatever the number of threads, and are
kept as tensors: faiss's own files are never read. Faiss scans the lists, one query at a time, which suits
small batches.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mednovelty.neighbours.inverted_lists import InvertedLists


class FaissIVF(InvertedLists):
    """Searches a few lists of vectors, scanned by faiss.

    Args:
        vectors: ``(N, D)`` float32; they are searched on the CPU.
        probes: Lists a query visits.
        seed: Of the clustering; same seed, same vectors: same bits.
        lists: Made before; nothing is clustered then.
    """

    # A distance in a list costs several times one in a matrix product, so the lists are more and shorter.
    lists_factor: ClassVar[float] = 5
    scan_cost: ClassVar[float] = 6
    visit_cost: ClassVar[float] = 0

    def _fill(self) -> None:
        # Imported here: faiss is an optional part of the core.
        import faiss

        # Faiss only looks at how many centroids there are: which lists to visit, we tell it.
        self._quantizer = faiss.IndexFlatL2(self.vectors.shape[1])
        self._quantizer.add(self.lists.centroids.numpy())
        self._index: Any = faiss.IndexIVFFlat(self._quantizer, self.vectors.shape[1], len(self.lists))
        centred = (self.vectors - self.lists.centre).numpy()
        ids, assignments = np.arange(len(centred)), self.lists.assignments.numpy().astype(np.int64)
        self._index.add_core(
            len(centred), faiss.swig_ptr(centred), faiss.swig_ptr(ids), faiss.swig_ptr(assignments)
        )

    def _scan(self, queries: Tensor, k: int) -> Tensor:
        visited = self.lists.nearest(queries, self.probes)
        self._index.nprobe = self.probes
        centred = np.ascontiguousarray((queries - self.lists.centre).numpy())
        return torch.from_numpy(self._index.search_preassigned(centred, k, visited.numpy(), None)[1])
