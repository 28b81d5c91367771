"""What is done when memory runs out, and that nothing else counts as that."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_images import detector_of, scan_of
from torch import nn

from mednovelty.io.read_scan import ReadOptions
from mednovelty.memory_ladder import Ladder, on_processor
from mednovelty.outputs import OutputNames, settings_sha256, sidecar_of
from mednovelty.reference import Reference
from mednovelty.scoring import Scoring
from mednovelty.testing.images import ConvVAE

SHAPE = (2, 6, 9)
NAMES = ["vae_regularizer", "combi", "kl_gradient", "rec_error", "negative_elbo", "kl_gradient_smooth"]
HALVED = "out of memory: {} samples at a time are too many; going on with {}"
MOVED = "out of memory: a single sample is too large; the processor scores the rest, in float32"


class Hungry:
    """A model whose device holds only so many samples."""

    def __init__(self, model, most):
        self.model, self.most, self.tried = model, most, []

    def encode(self, x):
        self.tried.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model.encode(x)

    def __getattr__(self, name):
        return getattr(self.model, name)


class OnACard(Scoring):
    """A scoring whose device is not the processor, for all it knows."""

    def moving(self, make):
        return lambda: make(replace(self, model=self.model.model))


def run(model, kind=Scoring, batch=5, count=12, names=NAMES, **options):
    x = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0)).numpy()
    made = kind(model, Reference({}, "exact", 0), 4, 5, batch, **options)
    return made.run(names, lambda start, stop: (x[start:stop], None), count)


def agree(found, expected):
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("most", [1, 2, 4, 5])
def test_batches_are_halved_until_they_fit_and_scores_stay(most, caplog):
    model, words = Hungry(ConvVAE(SHAPE), most), []
    with caplog.at_level(logging.WARNING, "mednovelty"):
        found = run(model, name="sub-01", told=words.append)
    agree(found, run(ConvVAE(SHAPE)))
    steps = {1: [(5, 2), (2, 1)], 2: [(5, 2)], 4: [(5, 2)], 5: []}[most]
    assert words == [f"sub-01: {HALVED.format(*step)}" for step in steps]
    assert [record.message for record in caplog.records] == words
    assert [n for n in model.tried if n > most] == [before for before, _ in steps], "a step stays made"


def test_the_processor_is_the_last_step():
    model, words = Hungry(ConvVAE(SHAPE), 0), []
    agree(run(model, OnACard, told=words.append), run(ConvVAE(SHAPE)))
    assert words == [f"scoring: {how}" for how in (HALVED.format(5, 2), HALVED.format(2, 1), MOVED)]
    assert model.tried == [5, 2, 1]
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        run(Hungry(ConvVAE(SHAPE), 0))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), MemoryError("none"), ValueError("x")])
def test_other_errors_make_no_step(error):
    tried = []

    def fails(x):
        tried.append(len(x))
        raise error

    with pytest.raises(type(error), match=str(error)):
        Ladder(fails, on_processor=lambda: pytest.fail("moved"))(torch.ones(4, 3))
    assert tried == [4]


def test_parts_come_in_order_and_none_stays_none():
    seen, scored = [], []

    def score(x, signal):
        seen.append((len(x), signal))
        if len(x) > 3 or len(scored) == 1:
            scored.append(None)
            raise torch.OutOfMemoryError("full")
        scored.append(len(x))
        return {"a": x.sum(1), "b": x}

    def on_the_processor():
        return lambda x, signal: {"a": x.sum(1), "b": x}

    x = torch.arange(14.0).reshape(7, 2)
    found = Ladder(score, on_processor=on_the_processor)(x, None)
    assert torch.equal(found["b"], x)
    assert torch.equal(found["a"], x.sum(1))
    assert all(signal is None for _, signal in seen)
    y = torch.arange(7.0)
    again = Ladder(lambda x, y: {"y": y} if len(x) < 3 else (_ for _ in ()).throw(torch.OutOfMemoryError()))
    assert torch.equal(again(x, y)["y"], y)
    assert Ladder(lambda x: {"x": x})(x[:0])["x"].shape == (0, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.tied = self.layer.weight
        self.register_buffer("c", torch.tensor(2.0))
        self.eval().requires_grad_(False)


def test_a_copied_model_is_the_same_and_its_own():
    model = Net()
    copy = on_processor(model)
    assert type(copy) is Net
    assert not copy.training
    assert copy.tied is copy.layer.weight
    assert not copy.layer.weight.requires_grad
    for name, tensor in model.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor)
    copy.layer.weight.zero_()
    copy.c.zero_()
    assert model.layer.weight.any()
    assert model.c == 2


def test_no_tensor_of_the_device_is_copied_there():
    # There, a copy would ask for the memory that has just run out.
    class Watched(nn.Parameter):
        def __deepcopy__(self, memo):
            pytest.fail("copied on its device")

    model = Net()
    model.layer.weight = Watched(torch.ones(2, 3), requires_grad=False)
    model.tied = model.layer.weight
    assert on_processor(model).layer.weight.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_from_a_scan_to_the_sidecar(recipe, tmp_path):
    detector, scan = detector_of(recipe), scan_of(4)
    names = ["kl_gradient", "combi", "vae_regularizer", "raw_FLAIR"]
    expected = detector.score(scan, names)
    hungry = replace(detector, fitted=replace(detector.fitted, model=Hungry(detector.model, 2)), sha256="x")
    found = hungry.score(scan, names)
    for name in names:
        largest = np.abs(expected[name].data).max()
        np.testing.assert_allclose(found[name].data, expected[name].data, rtol=1e-4, atol=1e-6 * largest)
        assert expected[name].fallbacks == ()
    batch = 5 if recipe == "slices" else 4
    step = (f"sub-4: {HALVED.format(batch, 2)}",)
    assert found["combi"].fallbacks == found["vae_regularizer"].fallbacks == step
    assert found["raw_FLAIR"].fallbacks == ()
    told = sidecar_of(hungry, scan, found["combi"], OutputNames(tmp_path, "sub-4"), {})
    assert json.loads(json.dumps(told["Fallbacks"])) == list(step)
    assert settings_sha256(hungry, ReadOptions()) == settings_sha256(detector, ReadOptions())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card here")
@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_from_a_card_to_the_processor(recipe):
    names = ["kl_gradient", "combi", "vae_regularizer"]
    expected = detector_of(recipe).score(scan_of(4), names)
    scoring = detector_of(recipe).scoring(scan_of(4))
    there = replace(scoring, model=on_processor(scoring.model).to("cuda"))
    moved = there.moving(lambda here: here)()
    assert moved.device.type == "cpu"
    assert there.device.type == "cuda"
    detector = replace(detector_of(recipe), fitted=replace(detector_of(recipe).fitted, model=there.model))
    for name, novelty in detector.score(scan_of(4), names).items():
        largest = np.abs(expected[name].data).max()
        np.testing.assert_allclose(novelty.data, expected[name].data, rtol=1e-3, atol=1e-4 * largest)
