"""The contracts, one function a promise; plug-in authors run them on their own."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from mednovelty.batch import Batch
from mednovelty.protocols import Neighbours, Scorer

MakeBatch = Callable[[Tensor], Batch]
"""Wraps samples into a batch, with the noise and the signal that some scorers look at."""


def check_shape(scorer: Scorer, make: MakeBatch, x: Tensor) -> None:
    """A sample scorer returns (B,); a voxel scorer returns (B, *space)."""
    expected = x.shape[:1] if scorer.level == "sample" else (x.shape[0], *x.shape[2:])
    assert scorer.score(make(x)).shape == expected


def check_company(scorer: Scorer, make: MakeBatch, x: Tensor) -> None:
    """A score does not depend on what else is in the batch, nor on the order."""
    together = scorer.score(make(x))
    alone = torch.cat([scorer.score(make(row[None])) for row in x])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together.flip(0), scorer.score(make(x.flip(0))))


def check_hands_off(scorer: Scorer, make: MakeBatch, x: Tensor) -> None:
    """Scoring changes neither its input nor itself; the same question gets the same bits."""
    before, attributes = x.clone(), set(vars(scorer))
    state = copy.deepcopy({key: value for key, value in vars(scorer).items() if isinstance(value, Tensor)})
    first, second = scorer.score(make(x)), scorer.score(make(x))
    assert torch.equal(x, before), "score() wrote into its input"
    assert attributes == set(vars(scorer)), "score() left new attributes behind"
    assert all(torch.equal(value, vars(scorer)[key]) for key, value in state.items()), (
        "score() changed itself"
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def check_sharing(scorer: Scorer, make: MakeBatch, x: Tensor) -> None:
    """A score does not depend on what other scores have worked out on the same batch."""
    shared = make(x)
    scorer.score(shared)
    torch.testing.assert_close(scorer.score(shared), scorer.score(make(x)), rtol=0, atol=0)


def check_no_gradient(scorer: Scorer, make: MakeBatch, x: Tensor) -> None:
    """Scores are numbers: finite, float32, without a graph."""
    scores = scorer.score(make(x))
    assert not scores.requires_grad
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()


def check_describes_itself(scorer: Scorer, make: MakeBatch, x: Tensor) -> None:
    """A scorer tells its unit, and in a first line what it measures."""
    assert scorer.unit
    assert (type(scorer).__doc__ or "").strip()
    assert set(scorer.needs) <= {"model", "reference", "is_b0"}


def check_upwards(scorer: Scorer, make: MakeBatch, normal: Tensor, novel: Tensor) -> None:
    """Higher is more novel."""
    assert scorer.score(make(novel)).mean() > scorer.score(make(normal)).mean()


SCORER_CHECKS = (
    check_shape,
    check_company,
    check_hands_off,
    check_sharing,
    check_no_gradient,
    check_describes_itself,
)


def check_neighbours(make: Callable[[Tensor], Neighbours], vectors: Tensor, queries: Tensor, k: int) -> None:
    """Neighbours are those that comparing every pair finds: squared distances, ascending, with indices."""
    found, indices = make(vectors).search(queries, k)
    every = (queries[:, None].double() - vectors.double()).square().sum(-1)
    assert found.shape == indices.shape == (len(queries), k)
    assert indices.dtype == torch.int64
    torch.testing.assert_close(found.double(), every.sort(dim=1).values[:, :k], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(every.gather(1, indices), found.double(), rtol=1e-5, atol=1e-6)
    assert all(len(set(row.tolist())) == k for row in indices), "a neighbour was returned twice"
