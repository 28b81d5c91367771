"""Exact nearest neighbours in torch, on any device, in chunks of bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from mednovelty.errors import SettingsError

DISTANCES_A_CHUNK = 1 << 24
BLOCK_QUERIES, BLOCK_VECTORS = 1024, 1024
"""On a CPU a block of distances stays in the cache: 4 MiB."""
SEGMENT = 256
"""Numbers of which a minimum is taken before the k lowest are looked for."""
FEWEST_ROWS = 32
MEAN_ROWS = 1 << 16


class ExactNeighbours:
    """Searches by brute force: every query against every vector.

    The search runs where the vectors lie; the answer comes back where the queries lie. Vectors that are
    equally near come in the order of their indices; which of them are among the k is as rounding has it, and
    the lowest where that has them equal too and k is 1.

    Args:
        vectors: ``(N, D)`` float32.

    Examples:
        >>> neighbours = ExactNeighbours(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        >>> distances, indices = neighbours.search(torch.tensor([[3.0, 3.0]]), k=2)
        >>> distances.tolist(), indices.tolist()
        ([[1.0, 18.0]], [[1, 0]])
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors.float().contiguous()
        # Centred: distances stay, and the expansion below loses fewer digits far from the origin.
        self.centre = centre_of(self.vectors)
        self._centred = self.vectors - self.centre
        self._half_norms = self._centred.square().sum(1) / 2

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k nearest vectors of each query.

        Args:
            queries: ``(B, D)``.
            k: How many, at most N.

        Returns:
            ``(B, k)`` squared Euclidean distances, ascending, and ``(B, k)`` int64 indices.
        """
        check_k(k, len(self.vectors))
        asked = queries.detach().to(self.vectors.device, torch.float32)
        indices = self.nearest(asked)[:, None] if k == 1 else self._nearest_k(asked - self.centre, k)
        distances, indices = squared_distances(asked, self.vectors, indices)
        return distances.to(queries.device), indices.to(queries.device)

    def _ranking(self, queries: Tensor, at: slice = slice(None), room: Tensor | None = None) -> Tensor:
        return ranked(queries, self._centred[at], self._half_norms[at], room)

    def nearest(self, queries: Tensor) -> Tensor:
        """Return ``(B,)`` int64 indices of the nearest vectors of ``(B, D)`` float32 queries."""
        centred = queries - self.centre
        if centred.device.type == "cpu":
            return self._by_blocks(centred)
        return torch.cat([self._ranking(rows).argmin(1) for rows in centred.split(self._rows())])

    def _nearest_k(self, centred: Tensor, k: int) -> Tensor:
        return torch.cat([lowest(self._ranking(rows), k) for rows in centred.split(self._rows())])

    def _rows(self) -> int:
        return max(1, DISTANCES_A_CHUNK // len(self.vectors))

    def _by_blocks(self, queries: Tensor) -> Tensor:
        """Find first the block that holds the nearest, then its place in there.

        A minimum without its place is several times faster than one with it, and ranking one block again
        costs little beside having ranked them all.
        """
        blocks = [slice(i, i + BLOCK_VECTORS) for i in range(0, len(self.vectors), BLOCK_VECTORS)]
        lowest, room = torch.empty(len(queries), len(blocks)), torch.empty(BLOCK_QUERIES * BLOCK_VECTORS)
        for start in range(0, len(queries), BLOCK_QUERIES):
            rows = slice(start, start + BLOCK_QUERIES)
            for j, block in enumerate(blocks):
                lowest[rows, j] = self._ranking(queries[rows], block, room).amin(1)
        chosen = lowest.argmin(1)
        order, places = chosen.argsort(stable=True), torch.empty_like(chosen)
        for members in order.split(chosen.bincount(minlength=len(blocks)).tolist()):
            if len(members):
                block = blocks[int(chosen[members[0]])]
                places[members] = block.start + self._ranking(queries[members], block, room).argmin(1)
        return places


def lowest(ranking: Tensor, k: int) -> Tensor:
    """Return ``(B, k)`` the places of the k lowest of each row of ``(B, N)``, in no order.

    On a processor by segments: those of the k lowest lie in the k segments with the lowest minima, for each
    lower minimum is a lower number. Minima are several times faster than a partial sort.
    """
    count = ranking.shape[1]
    if ranking.device.type != "cpu" or count < 4 * k * SEGMENT:
        return ranking.topk(k, largest=False).indices
    whole = count - count % SEGMENT
    minima = ranking[:, :whole].unflatten(1, (-1, SEGMENT)).amin(2)
    if whole < count:
        minima = torch.cat([minima, ranking[:, whole:].amin(1, keepdim=True)], 1)
    segments = minima.topk(k, largest=False).indices
    places = (segments[:, :, None] * SEGMENT + torch.arange(SEGMENT)).flatten(1)
    numbers = ranking.gather(1, places.clamp(max=count - 1))
    numbers[places >= count] = torch.inf
    return places.gather(1, numbers.topk(k, largest=False).indices)


def check_k(k: int, count: int) -> None:
    """Refuse a number of neighbours that are not there.

    Raises:
        SettingsError: k is below 1, or above the number of vectors.
    """
    if not 1 <= k <= count:
        raise SettingsError(f"{k} nearest were asked for; there are {count} to be found, so 1 to {count}")


def ranked(queries: Tensor, vectors: Tensor, half_norms: Tensor, room: Tensor | None = None) -> Tensor:
    """Return ``(B, N)`` half squared distances, less what is the same for all vectors of a query.

    ``|q - v|^2 / 2 = |q|^2 / 2 + |v|^2 / 2 - q.v``, the first term left out.

    Args:
        queries: ``(B, D)``, centred as the vectors are: far from the origin the sum loses digits.
        vectors: ``(N, D)``.
        half_norms: ``(N,)``, ``|v|^2 / 2``.
        room: A flat tensor to put the result in where it is large enough: taking fresh memory for every
            block costs as much as the product.
    """
    count = len(queries)
    if count < FEWEST_ROWS:
        # Products of a few rows take another path through the library, which rounds otherwise; padded,
        # a query gets the same bits alone and in company.
        queries = torch.nn.functional.pad(queries, (0, 0, 0, FEWEST_ROWS - count))
    shape = (len(queries), len(vectors))
    size = shape[0] * shape[1]
    out = room[:size].view(shape) if room is not None and size <= len(room) else None
    return torch.addmm(half_norms, queries, vectors.T, alpha=-1, out=out)[:count]


def squared_distances(queries: Tensor, vectors: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(B, k)`` squared distances to the vectors found, ascending, and their indices, equals too.

    Searches rank by an expanded square, whose rounding depends on the batch; the differences computed
    here do not, and are exactly 0 for a vector's own copy.
    """
    indices = indices.sort(dim=1).values
    distances = torch.stack(
        [(queries.float() - vectors[indices[:, j]]).square().sum(1) for j in range(indices.shape[1])], dim=1
    )
    order = distances.argsort(dim=1, stable=True)
    return distances.gather(1, order), indices.gather(1, order)


def centre_of(vectors: Tensor) -> Tensor:
    """Return the ``(D,)`` mean of ``(N, D)`` vectors, summed in float64 a few rows at a time."""
    if vectors.device.type == "mps":  # It has no float64.
        return vectors.mean(0)
    total = sum((rows.double().sum(0) for rows in vectors.split(MEAN_ROWS)), vectors.new_zeros(()).double())
    return (total / len(vectors)).float()
