"""Run under Triton's interpreter: answers of the fused kernel beside brute force, as JSON."""

import json
import sys

import torch

from mednovelty.neighbours import fused
from mednovelty.neighbours.fused import FusedNeighbours, Tiling
from mednovelty.testing.models import random_samples

# Below, at and above a block in each direction; every size from 1.
SIZES = [
    (1, 1, 1),
    (1, 5, 3),
    (3, 1, 16),
    (16, 32, 16),
    (17, 33, 17),
    (15, 31, 33),
    (40, 130, 46),
    (5, 257, 2),
]
SMALL = Tiling(queries=16, vectors=32, depth=16)


def nearest(queries, vectors):
    return (queries[:, None].double() - vectors.double()).square().sum(-1).argmin(1)


def compared():
    for (b, n, d), programs, far in ((s, p, f) for s in SIZES for p in (1, 6) for f in (0, 1000)):
        fused.PROGRAMS = programs
        queries, vectors = random_samples(b, d, seed=1) + far, random_samples(n, d, seed=2) + far
        search = FusedNeighbours(vectors, SMALL)
        assert search.fused
        distances, indices = search.search(queries, 1)
        true = (queries.double() - vectors.double()[nearest(queries, vectors)]).square().sum(1)
        off = (distances[:, 0].double() - true).abs().max() / (1 + true.max())
        yield {"case": [b, n, d, programs, far], "off": off.item(), "shape": list(indices.shape)}


def ties():
    # Whole numbers about a mean of 0: equals are equal to the bit. Copies lie in several blocks and splits.
    few = torch.tensor([[3.0, 0, 0], [-3, 0, 0], [0, 2, 1], [0, -2, -1]])
    vectors = few.repeat(50, 1)
    found = []
    for fused.PROGRAMS in (1, 4, 7):
        search = FusedNeighbours(vectors, SMALL)
        found.append(search.search(torch.cat([few, torch.zeros(1, 3)]), 1)[1].flatten().tolist())
    return found


if __name__ == "__main__":
    kernel_calls = []
    launch = fused._nearest_kernel.__class__.__getitem__

    def counted(self, grid):
        kernel_calls.append(grid)
        return launch(self, grid)

    fused._nearest_kernel.__class__.__getitem__ = counted
    answer = {"compared": list(compared()), "ties": ties(), "launches": len(kernel_calls)}
    vectors = random_samples(20, 4, seed=3)
    answer["more"] = FusedNeighbours(vectors, SMALL).search(vectors[:2], 3)[1][:, 0].tolist()
    answer["launches_for_more"] = len(kernel_calls) - answer["launches"]
    answer["splits"] = sorted({grid[1] for grid in kernel_calls})
    sys.stdout.write(json.dumps(answer))
