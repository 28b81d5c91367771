import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mednovelty.checkpoint import read_checkpoint
from mednovelty.curve import TrainingRecord
from mednovelty.errors import DetectorError, SettingsError, StoppedError
from mednovelty.methods.vae import VAEMethod, VAESettings
from mednovelty.train import CHECKPOINT_NAME, TrainSettings, train
from mednovelty.voxel_cache import VoxelCache

SETTINGS = TrainSettings(batch_size=128, max_epochs=6, validation_voxels=200)


def caches(seed=0):
    rng = np.random.default_rng(seed)
    level = rng.uniform(-2, 2, (900, 1))
    x = (level + np.exp(level) * 0.1 * rng.standard_normal((900, 5))).astype(np.float32)
    return VoxelCache.from_array(x[:600], ["a"] * 350 + ["b"] * 250), VoxelCache.from_array(x[600:])


def run(settings=SETTINGS, seed=0, method=None, data=None, **options):
    method = method or VAEMethod(VAESettings(hidden=(8, 6), latent=2))
    model = method.build((5,))
    record = train(method, model, *(data or caches()), settings, seed=seed, **options)
    return model, record


def same_weights(a, b):
    return all(torch.equal(a.state_dict()[name], value) for name, value in b.state_dict().items())


class Interrupted:
    """Raises at the end of one epoch."""

    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def __call__(self, record):
        if record.rows[-1].epoch == self.epoch:
            raise self.error


@dataclass(frozen=True)
class ScriptSettings:
    losses: tuple


class Scripted:
    """A method whose validation losses are given, and whose weight counts its epochs."""

    def __init__(self, *losses):
        self.settings = ScriptSettings(losses)
        self.asked = 0

    def build(self, channels):
        return nn.Linear(1, 1, bias=False)

    def start(self, model, normals, generator):
        model.weight.data.fill_(0)

    def loss(self, model, x, epoch, generator):
        model.weight.data.fill_(epoch)
        return {"loss": model.weight.sum() * 0 + epoch}

    def validate(self, model, batches, generator):
        self.asked += 1
        return {"loss": self.settings.losses[self.asked - 1]}


def test_training_lowers_the_validation_loss():
    _, record = run(replace(SETTINGS, max_epochs=25, learning_rate=2e-2))
    assert record.best.validation["loss"] < record.losses[0] - 0.3


def test_the_weights_are_those_of_the_best_epoch_not_the_last():
    model, record = run(replace(SETTINGS, patience=3), method=Scripted(5, 3, 1, 2, 2, 2, 2, 2))
    assert (record.best_epoch, len(record.rows) - 1) == (2, 5)  # stopped after 3 epochs without improvement
    assert model.weight.item() == 2
    assert not model.training


def test_rows_of_the_record():
    _, record = run()
    assert [row.epoch for row in record.rows] == list(range(7))
    assert record.rows[0].train_loss is None
    assert all(row.voxels_per_second > 0 for row in record.rows[1:])
    assert {"loss", "elbo", "reconstruction", "kl", "active_latents"} == set(record.rows[3].validation)
    assert TrainingRecord.from_json(record.as_json()) == record


def test_the_train_loss_is_the_mean_over_voxels():
    class Mean(Scripted):
        def loss(self, model, x, epoch, generator):
            return {"loss": model.weight.sum() * 0 + x.mean()}

    data, validation = caches()
    _, record = run(method=Mean(*range(9)), data=(data, validation))
    # 600 voxels in batches of 120: all of one size, so that the mean of means is the mean.
    assert record.rows[1].train_loss == pytest.approx(data.moments().mean.mean(), rel=1e-5)


def test_same_seed_same_bits_other_seed_other_bits():
    (first, a), (again, b), (other, _) = run(), run(), run(seed=1)
    assert a.losses == b.losses
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_the_order_of_batches_changes_between_epochs():
    class Seen(Scripted):
        def loss(self, model, x, epoch, generator):
            seen.setdefault(epoch, x[:3].clone())
            noise.setdefault(epoch, torch.rand(1, generator=generator).item())
            return super().loss(model, x, epoch, generator)

    seen, noise = {}, {}
    run(method=Seen(*range(9)))
    assert not torch.equal(seen[1], seen[2])
    assert noise[1] != noise[2]


def test_training_from_disk_gives_the_same_bits(tmp_path):
    data, validation = caches()
    disk = VoxelCache(5, budget_bytes=0, folder=tmp_path)
    for scan, rows in data.scans.items():
        disk.append(scan, data.take(np.arange(rows.start, rows.stop)))
    assert disk.on_disk
    (a, _), (b, _) = run(data=(data, validation)), run(data=(disk, validation))
    assert same_weights(a, b)


@pytest.mark.parametrize(("every", "stopped", "kept"), [(1, 4, 4), (3, 5, 3)])
def test_resuming_gives_the_bits_of_an_unbroken_run(tmp_path, every, stopped, kept):
    settings = replace(SETTINGS, checkpoint_every=every, plateau_patience=2, min_improvement=1.0)
    unbroken, record = run(settings)
    with pytest.raises(StoppedError, match=rf"stopped after {stopped} epochs; .*keeps epoch {kept}"):
        run(settings, folder=tmp_path, on_epoch=Interrupted(stopped, KeyboardInterrupt()))
    resumed, again = run(settings, folder=tmp_path, resume=True)
    assert same_weights(unbroken, resumed)
    assert again.losses == record.losses
    assert len({row.learning_rate for row in record.rows}) > 1


def test_a_finished_run_is_not_continued(tmp_path):
    model, record = run(folder=tmp_path)
    calls = []
    again, same = run(folder=tmp_path, resume=True, on_epoch=calls.append)
    assert same == record
    assert same_weights(model, again)
    assert len(calls) == 1


def test_more_epochs_can_be_asked_for_later(tmp_path):
    run(replace(SETTINGS, max_epochs=2), folder=tmp_path)
    resumed, _ = run(folder=tmp_path, resume=True)
    assert same_weights(resumed, run()[0])


def test_without_resume_training_starts_again(tmp_path):
    run(seed=3, folder=tmp_path)
    assert same_weights(run(folder=tmp_path)[0], run()[0])


def test_resume_without_a_checkpoint_starts(tmp_path):
    assert same_weights(run(folder=tmp_path, resume=True)[0], run()[0])


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_train
def slowly(record):
    time.sleep(0.05)
test_train.run(test_train.LONG, folder=Path(sys.argv[1]), on_epoch=slowly)
"""
LONG = replace(SETTINGS, max_epochs=12)


def start_process(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent)],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not (folder / CHECKPOINT_NAME).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_killed_and_resumed(tmp_path):
    process = start_process(tmp_path)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed, record = run(LONG, folder=tmp_path, resume=True)
    assert len(record.rows) == 13
    assert same_weights(resumed, run(LONG)[0])


def test_terminated():
    def terminate(record):
        if record.rows[-1].epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="stopped after 2 epochs; no folder was given"):
        run(on_epoch=terminate)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run(folder=tmp_path)
    with pytest.raises(SettingsError, match=r"settings.batch_size: 128 there, 64 here"):
        run(replace(SETTINGS, batch_size=64), folder=tmp_path, resume=True)
    with pytest.raises(SettingsError, match="seed: 0 there, 1 here"):
        run(seed=1, folder=tmp_path, resume=True)
    with pytest.raises(SettingsError, match=r"data.sum"):
        run(folder=tmp_path, resume=True, data=caches(seed=4))
    with pytest.raises(SettingsError, match=r"method_settings.hidden"):
        run(folder=tmp_path, resume=True, method=VAEMethod(VAESettings(hidden=(8, 7), latent=2)))


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint at all", None])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    run(folder=tmp_path)
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    with pytest.raises(DetectorError, match=r"checkpoint.safetensors: not a readable training checkpoint"):
        run(folder=tmp_path, resume=True)


def test_a_checkpoint_is_replaced_as_a_whole(tmp_path, monkeypatch):
    run(replace(SETTINGS, max_epochs=1), folder=tmp_path)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(StoppedError, match="was not written yet"):
        run(folder=tmp_path)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_what_a_checkpoint_holds(tmp_path):
    model, _ = run(folder=tmp_path)
    tensors, state = read_checkpoint(tmp_path / CHECKPOINT_NAME)
    assert state["identity"]["data"]["scans"] == {"a": 350, "b": 250}
    assert torch.equal(tensors["best/encoder.heads.bias"], model.encoder.heads.bias)
    assert "adam/0/exp_avg_sq" in tensors


def test_a_loss_that_is_not_finite_is_an_error():
    class Diverging(Scripted):
        def loss(self, model, x, epoch, generator):
            return {"loss": model.weight.sum() * 0 + (float("nan") if epoch == 2 else 1)}

    words = (
        r"training loss became nan in epoch 2 at learning rate 0.001; .* \(largest \|x\| in that batch: \d"
    )
    with pytest.raises(SettingsError, match=words):
        run(method=Diverging(*range(9)))


def test_a_validation_loss_that_is_not_finite_is_an_error():
    with pytest.raises(SettingsError, match="validation loss is inf after 1 epochs; lower the learning rate"):
        run(method=Scripted(3, float("inf")))


def test_the_gradient_is_clipped():
    def largest_step(clip):
        class Steep(Scripted):
            def loss(self, model, x, epoch, generator):
                return {"loss": 1e3 * model.weight.sum()}

        method = Steep(*range(9))
        norms = []
        step = torch.optim.Adam.step

        def spy(self, *arguments):
            norms.extend(p.grad.norm().item() for group in self.param_groups for p in group["params"])
            return step(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.Adam, "step", spy)
            run(replace(SETTINGS, max_epochs=1, gradient_clip=clip), method=method)
        return max(norms)

    assert largest_step(None) == pytest.approx(1e3)
    assert largest_step(2.5) == pytest.approx(2.5, rel=1e-3)
