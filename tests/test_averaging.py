"""A moving average of the weights: what it is, what it is of, and that nothing else changes with it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_train import SETTINGS, Interrupted, caches, run, same_weights
from torch import nn

from mednovelty.averaging import WeightAverage
from mednovelty.checkpoint import read_checkpoint
from mednovelty.errors import SettingsError, StoppedError
from mednovelty.schedule import TrainSettings
from mednovelty.train import CHECKPOINT_NAME, train

DECAY = 0.7
AVERAGED = replace(SETTINGS, average=DECAY)
# The learning rate follows validation losses; here no epoch is a plateau.
STEADY = {"plateau_patience": 99, "patience": 99}


@dataclass(frozen=True)
class NoSettings:
    pass


class Normed:
    """A batch norm and a weight behind it; what was in the model after each step is kept."""

    settings = NoSettings()

    def __init__(self, losses=None):
        self.losses, self.steps, self.validated = losses, [], []

    def build(self, shape):
        model = nn.Sequential(nn.BatchNorm1d(5, momentum=0.3), nn.Linear(5, 1))
        model.register_buffer("index", torch.tensor([3, 5, 7]))
        model.register_buffer("measured", torch.zeros(2, dtype=torch.float64))
        return model

    def start(self, model, normals, generator):
        nn.init.normal_(model[1].weight, generator=generator)
        nn.init.zeros_(model[1].bias)
        self.steps = [copied(model)]

    def loss(self, model, x, epoch, generator):
        return {"loss": (model(x) - x[:, :1]).square().mean()}

    def validate(self, model, batches, generator):
        self.validated.append(copied(model))
        if not model.measured.any():
            model.measured.copy_(torch.tensor([2.0, 9.0]))
        if self.losses:
            return {"loss": self.losses[len(self.validated) - 1]}
        return {"loss": torch.cat([(model(x) - x[:, :1]).square() for x in batches]).mean().item()}


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def watched(settings, method, **options):
    """Train; keep what is in the model after each step."""
    step = torch.optim.Adam.step
    model = method.build((5,))

    def spy(self, *arguments):
        found = step(self, *arguments)
        method.steps.append(copied(model))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", spy)
        record = train(method, model, *caches(), settings, **options)
    return model, record


def by_hand(steps, name, decay=DECAY):
    average = steps[0][name].double()
    for step in steps[1:]:
        average = decay * average + (1 - decay) * step[name].double()
    return average


def test_the_average_is_that_of_the_equation():
    method = Normed(losses=[5, 4, 3])
    model, record = watched(replace(AVERAGED, max_epochs=2), method)
    assert record.best_epoch == 2
    assert len(method.steps) == 1 + 2 * 5  # 600 voxels, at most 128 a step
    kept = model.state_dict()
    for name in ("0.weight", "0.running_mean", "0.running_var", "1.weight", "1.bias"):
        np.testing.assert_allclose(
            kept[name], by_hand(method.steps, name), rtol=2e-5, atol=1e-7, err_msg=name
        )
        assert not torch.allclose(kept[name], method.steps[-1][name], rtol=1e-4), name


def test_the_average_is_validated_and_the_start_is_row_0():
    method = Normed(losses=[9, 8, 7])
    watched(replace(AVERAGED, max_epochs=2), method)
    assert torch.equal(method.validated[0]["1.weight"], method.steps[0]["1.weight"])
    for epoch, steps in ((1, method.steps[:6]), (2, method.steps)):
        np.testing.assert_allclose(
            method.validated[epoch]["1.weight"], by_hand(steps, "1.weight"), rtol=2e-5, atol=1e-7
        )


def test_the_best_epochs_average_is_kept_not_the_last():
    method = Normed(losses=[9, 1, 7, 8])
    model, record = watched(replace(AVERAGED, max_epochs=3), method)
    assert record.best_epoch == 1
    np.testing.assert_allclose(model[1].weight.detach(), method.validated[1]["1.weight"], rtol=0, atol=0)


def test_the_start_is_kept_if_nothing_is_better():
    method = Normed(losses=[1, 2, 3])
    model, record = watched(replace(AVERAGED, max_epochs=2), method)
    assert record.best_epoch == 0
    assert torch.equal(model[1].weight, method.steps[0]["1.weight"])


def test_whole_numbers_have_no_mean():
    method = Normed(losses=[5, 4, 3])
    model, _ = watched(replace(AVERAGED, max_epochs=2), method)
    assert model.index.tolist() == [3, 5, 7]
    assert model[0].num_batches_tracked.item() == 10


def test_what_is_set_while_validating_stays():
    method = Normed(losses=[5, 4, 3])
    model, _ = watched(replace(AVERAGED, max_epochs=2), method)
    assert [state["measured"].tolist() for state in method.validated] == [[0, 0], [2, 9], [2, 9]]
    assert model.measured.tolist() == [2, 9]
    assert method.steps[-1]["measured"].tolist() == [2, 9]


def test_what_a_later_validation_sets_is_not_averaged_away():
    class Late(Normed):
        def validate(self, model, batches, generator):
            found = super().validate(model, batches, generator)
            model.measured.fill_(len(self.validated))
            return found

    method = Late(losses=[5, 4, 3])
    model, _ = watched(replace(AVERAGED, max_epochs=2), method)
    assert [state["measured"].tolist() for state in method.validated] == [[0, 0], [1, 1], [2, 2]]
    assert model.measured.tolist() == [3, 3]


def test_a_soft_boundary_finds_its_radius_as_without_an_average():
    from mednovelty.methods.hypersphere import DeepSVDDMethod
    from mednovelty.methods.hypersphere_settings import DeepSVDDSettings

    own = DeepSVDDSettings(hidden=(8,), latent=3, pretrain_epochs=0, objective="soft_boundary", warm_up=1,
                           radius_epochs=2)  # fmt: skip
    model, _ = run(replace(AVERAGED, max_epochs=4), method=DeepSVDDMethod(own))
    assert model.radius > 0


def test_the_steps_are_those_without_an_average(tmp_path):
    found = []
    for name, average in (("with", DECAY), ("without", None)):
        settings = replace(SETTINGS, average=average, **STEADY)
        found.append(run(settings, folder=tmp_path / name)[0])
    tensors = [read_checkpoint(tmp_path / name / CHECKPOINT_NAME)[0] for name in ("with", "without")]
    raw = [{k: v for k, v in found.items() if k.startswith(("weights/", "adam/"))} for found in tensors]
    assert raw[0].keys() == raw[1].keys()
    assert all(torch.equal(raw[0][name], raw[1][name]) for name in raw[0])
    assert not same_weights(*found)
    assert any(name.startswith("average/") for name in tensors[0])
    assert not any(name.startswith("average/") for name in tensors[1])


@pytest.mark.parametrize(("every", "stopped"), [(1, 4), (3, 5)])
def test_resuming_gives_the_bits_of_an_unbroken_run(tmp_path, every, stopped):
    settings = replace(AVERAGED, checkpoint_every=every, plateau_patience=2, min_improvement=1.0)
    unbroken, record = run(settings)
    with pytest.raises(StoppedError):
        run(settings, folder=tmp_path, on_epoch=Interrupted(stopped, KeyboardInterrupt()))
    resumed, again = run(settings, folder=tmp_path, resume=True)
    assert same_weights(unbroken, resumed)
    assert again.losses == record.losses


def test_a_checkpoint_without_an_average_is_of_another_run(tmp_path):
    run(folder=tmp_path)
    with pytest.raises(SettingsError, match=r"settings.average: None there, 0.7 here"):
        run(AVERAGED, folder=tmp_path, resume=True)


def test_a_checkpoint_from_before_there_were_averages_is_resumed(tmp_path):
    from mednovelty.checkpoint import write_checkpoint

    run(replace(SETTINGS, max_epochs=3), folder=tmp_path)
    tensors, state = read_checkpoint(tmp_path / CHECKPOINT_NAME)
    del state["identity"]["settings"]["average"], state["identity"]["init"]
    write_checkpoint(tmp_path / CHECKPOINT_NAME, tensors, state)
    assert same_weights(run(folder=tmp_path, resume=True)[0], run()[0])


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_the_decay_lies_between_0_and_1(wrong):
    with pytest.raises(SettingsError, match=r"average=.* must be "):
        TrainSettings(average=wrong)


def test_a_detector_keeps_the_setting_and_older_records_do_without(tmp_path):
    import json

    from cohorts import FAST

    import mednovelty as mn

    x = np.random.default_rng(0).normal(size=(600, 5)).astype("f4")
    settings = replace(FAST, train=replace(FAST.train, average=0.9))
    mn.fit_voxels(x, settings=settings).save(tmp_path / "new")
    assert mn.Detector.load(tmp_path / "new").settings.train.average == 0.9
    assert "a moving average of weights, decay 0.9" in (tmp_path / "new" / "README.md").read_text()
    plain = mn.fit_voxels(x, settings=FAST).save(tmp_path / "old")
    path = tmp_path / "old" / "detector.json"
    record = json.loads(path.read_text())
    del record["settings"]["train"]["average"], record["origin"]
    path.write_text(json.dumps(record))
    again = mn.Detector.load(tmp_path / "old")
    assert again.settings.train.average is None
    assert again.origin is None
    for name, scores in plain.score_voxels(x[:9]).items():
        np.testing.assert_array_equal(scores, again.score_voxels(x[:9])[name])


def test_the_order_of_the_equation():
    state = {"w": torch.tensor([8.0, 0.0]), "n": torch.tensor(3)}
    average = WeightAverage(state, 0.75)
    model = nn.Module()
    model.register_buffer("w", torch.tensor([0.0, 4.0]))
    model.register_buffer("n", torch.tensor(4))
    average.add(model)
    assert average.tensors["w"].tolist() == [6.0, 1.0]  # 0.75 * 8 + 0.25 * 0, 0.75 * 0 + 0.25 * 4
    assert average.tensors["n"].item() == 4
    assert state["w"].tolist() == [8.0, 0.0]  # what it was made of is left alone
