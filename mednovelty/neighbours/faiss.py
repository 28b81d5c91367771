"""Exact nearest neighbours by faiss's flat index.

Its last bits, and so which of two equally near vectors is found, depend on what else is asked with a query.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mednovelty.neighbours.exact import check_k, squared_distances


class FaissFlat:
    """Searches by brute force with faiss's flat index.

    Args:
        vectors: ``(N, D)`` float32.
    """

    def __init__(self, vectors: Tensor) -> None:
        # Imported here: faiss is an optional part of the core.
        import faiss

        self.vectors = vectors.float().cpu().contiguous()
        self.centre = self.vectors.mean(0)
        self._index = faiss.IndexFlatL2(self.vectors.shape[1])
        self._index.add((self.vectors - self.centre).numpy())

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` squared Euclidean distances, ascending, and ``(B, k)`` int64 indices.

        Args:
            queries: ``(B, D)``.
            k: How many, at most N.
        """
        check_k(k, len(self.vectors))
        asked = queries.detach().float().cpu()
        centred = np.ascontiguousarray((asked - self.centre).numpy())
        indices = torch.from_numpy(self._index.search(centred, k)[1])
        distances, indices = squared_distances(asked, self.vectors, indices)
        return distances.to(queries.device), indices.to(queries.device)
