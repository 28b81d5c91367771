"""The contracts, one function a promise; plug-in authors run them on their own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mednovelty.batch import Batch, sample_shape
from mednovelty.capabilities import BOTH_WAYS, WORDS, asked_by, offered_by
from mednovelty.errors import SettingsError
from mednovelty.neighbours.exact import ExactNeighbours
from mednovelty.neighbours.quality import HeldOut
from mednovelty.protocols import Autoencoder, Method, Neighbours, ProbabilisticAutoencoder, Scorer
from mednovelty.reference import latent_size, part_widths
from mednovelty.seeds import generator, numpy_generator
from mednovelty.voxel_cache import VoxelCache

MakeBatch = Callable[[Tensor], Batch]
"""Wraps samples into a batch, with the noise and the signal that some scorers look at."""


def check_shape(scorer: Scorer, make: MakeBatch, x: Tensor) -> None:
    """A sample scorer returns (B,); a voxel scorer returns (B, *space)."""
    model = getattr(scorer, "model", None)
    space = x.shape[2:] if model is None else sample_shape(model)[1:]
    assert scorer.score(make(x)).shape == (len(x), *(space if scorer.level == "voxel" else ()))


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
    """A scorer tells its unit, what it needs, and in a first line, one sentence, what it measures."""
    assert scorer.unit
    first, *rest = (type(scorer).__doc__ or "").strip().splitlines()
    assert first.endswith(".")
    assert not rest or not rest[0].strip(), "the first sentence of the docstring runs over its line"
    assert set(scorer.needs) <= {"model", "reference", "is_b0"}
    assert set(getattr(scorer, "options", ())) <= {"blur", "copies", "signs", "nln", "knn"}
    assert set(asked_by(scorer)) <= set(WORDS)
    assert set(scorer.reference_parts) <= set(part_widths(1, 1))
    assert "reference" in scorer.needs or not scorer.reference_parts


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


def check_neighbours(
    make: Callable[[Tensor], Neighbours], vectors: Tensor, queries: Tensor, k: int, recall: float = 1
) -> None:
    """Neighbours are those that comparing every pair finds: squared distances, ascending, with indices.

    What an approximate search finds must be as far as it says, and the nearest for a share of the queries.
    """
    found, indices = make(vectors).search(queries, k)
    every = (queries[:, None].double() - vectors.double()).square().sum(-1)
    nearest = every.sort(dim=1).values[:, :k]
    assert found.shape == indices.shape == (len(queries), k)
    assert indices.dtype == torch.int64
    torch.testing.assert_close(every.gather(1, indices), found.double(), rtol=1e-5, atol=1e-6)
    assert (found.diff(dim=1) >= 0).all(), "distances must ascend"
    assert all(len(set(row.tolist())) == k for row in indices), "a neighbour was returned twice"
    right = torch.isclose(found.double(), nearest, rtol=1e-5, atol=1e-6).sum().item()
    assert right >= recall * found.numel(), (
        f"{right} of {found.numel()} are right, a share of {recall} should be"
    )
    for impossible in (0, len(vectors) + 1):
        refused = ""
        try:
            make(vectors).search(queries, impossible)
        except SettingsError as error:
            refused = str(error)
        assert str(len(vectors)) in refused, f"{impossible} neighbours among {len(vectors)} must be refused"


def check_tuned_neighbours(family: Any, vectors: Tensor, sample: Tensor, target: float, k: int = 1) -> None:
    """An approximate search reaches its target on held-out queries, says so truly, and can be kept."""
    truth = HeldOut.of(ExactNeighbours(vectors), sample, k)
    index, quality = family.tuned(vectors, truth, target, 7)
    found, _ = index.search(sample, k)
    assert quality.recall == (found <= truth.distances[:, -1:]).double().mean().item() >= target
    assert (quality.sample, quality.k) == (len(sample), k)
    assert 0 < quality.share_compared <= 2
    settings, state = index.settings(), index.state()
    assert json.loads(json.dumps(settings)) == settings
    again, _ = family.tuned(vectors, truth, target, 7)
    kept = family.restored(vectors, settings, {name: tensor.clone() for name, tensor in state.items()})
    for other in (again, kept):
        assert other.settings() == settings
        assert all(torch.equal(tensor, other.state()[name]) for name, tensor in state.items())
        for one, two in zip(index.search(sample, 3), other.search(sample, 3), strict=True):
            assert torch.equal(one, two), "the same seed and state must give the same bits"


def check_takes_no_memory(method: Method, training: VoxelCache, held_out: VoxelCache) -> None:
    """A model built on the meta device has the tensors of a real one, and holds none of them."""
    with torch.device("meta"):
        sketch = method.build(training.shape)
    real = method.build(training.shape).state_dict()
    assert {tensor.device.type for tensor in sketch.state_dict().values()} == {"meta"}
    told = {name: (tensor.shape, tensor.dtype) for name, tensor in sketch.state_dict().items()}
    assert told == {name: (tensor.shape, tensor.dtype) for name, tensor in real.items()}


def check_same_start(method: Method, training: VoxelCache, held_out: VoxelCache) -> None:
    """The same settings, voxels and generator give the same bits to start from."""
    first = _started(method, training).state_dict()
    second = _started(type(method)(method.settings), training).state_dict()  # type: ignore[call-arg]
    assert all(torch.equal(value, second[name]) for name, value in first.items()), "start() is not repeatable"


def check_model(method: Method, training: VoxelCache, held_out: VoxelCache) -> None:
    """The model maps samples to latents and back, as the scorers expect, or to scores of its own."""
    model = _started(method, training)
    offers = offered_by(method)
    assert {name for name in WORDS if hasattr(model, name)} == set(offers), "offers is not what the model has"
    assert model.channels == training.channels
    x = torch.from_numpy(held_out.take(held_out.sample_rows(5, _numpy_any())))
    if "novelty" in offers:
        assert model.novelty(x).shape == x.shape[:1]
    if "heatmap" in offers:
        assert model.upsampled(model.heatmap(x)).shape == (len(x), *training.shape[1:])
    if "lesion_map" in offers:
        assert model.lesion_map(x).shape == (len(x), *training.shape[1:])
    if not set(BOTH_WAYS) <= set(offers):
        own = {"novelty", "hypersphere", "heatmap", "lesion_map"}
        assert own & set(offers), "a model that does not decode has a score"
    if "encode" not in offers:
        return
    posterior = model.encode(x)
    assert posterior.batch_shape == x.shape[:1]
    assert posterior.event_shape == posterior.mean.shape[1:] == (latent_size(model),)
    if "hypersphere" in offers:
        assert model.hypersphere(posterior.mean).shape == x.shape[:1]
    if "decode" not in offers:
        return
    assert isinstance(model, ProbabilisticAutoencoder if "prior" in offers else Autoencoder)
    likelihood = model.decode(posterior.mean)
    assert (likelihood.batch_shape, likelihood.event_shape) == (x.shape[:1], x.shape[1:])


def check_loss(method: Method, training: VoxelCache, held_out: VoxelCache) -> None:
    """The loss is a finite mean whose gradient reaches the weights; validation gives one in numbers.

    A model without weights is fitted at once, and its method refuses to have it trained.
    """
    model = _started(method, training)
    x = torch.from_numpy(training.take(training.sample_rows(64, _numpy_any())))
    assert torch.isfinite(torch.tensor(method.validate(model, [x], generator(0, "validate"))["loss"]))
    if next(model.parameters(), None) is None:
        _refused(lambda: method.loss(model, x, 1, generator(0, "loss")))
        return
    loss = method.loss(model, x, 1, generator(0, "loss"))["loss"]
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert any(p.grad is not None and p.grad.any() for p in model.parameters()), "no weight has a gradient"


def check_sides(method: Method, training: VoxelCache, held_out: VoxelCache) -> None:
    """Every weight is in one group of the optimiser, and the loss reaches all of them."""
    model = _started(method, training)
    groups = [{"params": list(model.parameters())}]
    if hasattr(method, "parameter_groups"):
        groups = method.parameter_groups(model)
    grouped = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in model.parameters())
    if not grouped:
        return
    x = torch.from_numpy(training.take(training.sample_rows(64, _numpy_any())))
    method.loss(model.train(), x, 1, generator(0, "loss"))["loss"].backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not without, f"the loss knows nothing of {without[:3]}"


def check_assessment(method: Method, training: VoxelCache, held_out: VoxelCache) -> None:
    """What a method says of its model is JSON, with a verdict in words, and the same when asked again."""
    model = _started(method, training).eval().requires_grad_(False)
    said, again = (dict(method.assess(model, training, held_out, generator(0, "assess"))) for _ in range(2))
    assert isinstance(said["verdict"], str)
    assert said["verdict"]
    assert isinstance(said["collapsed"], bool)
    assert json.loads(json.dumps(said, allow_nan=False)) == said == again


METHOD_CHECKS = (
    check_takes_no_memory,
    check_same_start,
    check_model,
    check_loss,
    check_sides,
    check_assessment,
)


def _started(method: Method, training: VoxelCache) -> Any:
    model = method.build(training.shape)
    with torch.no_grad():
        method.start(model, training, generator(0, "start"))
    return model


def _refused(call: Callable[[], Any]) -> None:
    try:
        call()
    except SettingsError:
        return
    raise AssertionError("what has no weights cannot be trained, and must say so")


def _numpy_any() -> np.random.Generator:
    return numpy_generator(0, "rows")
