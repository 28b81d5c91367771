"""One digit is novel: which images are trained on and tested, and the network and likelihood of Table 2."""

import math

import numpy as np
import pytest
import torch
from image_folders import folder, run, task_of  # noqa: F401 - a fixture among them

from mednovelty.benchmarks import novel_digit
from mednovelty.benchmarks.image_methods import ImageTable
from mednovelty.benchmarks.novel_digit import split_of
from mednovelty.errors import SettingsError
from mednovelty.methods.image_vae import ImageVAEMethod, ImageVAESettings, closed_forms, misfits
from mednovelty.nn.pooled import PooledDecoder, PooledEncoder
from mednovelty.plugins import plugin
from mednovelty.seeds import generator
from mednovelty.testing import contracts
from mednovelty.voxel_cache import VoxelCache

NAME = "mnist-novel-digit"
SMALL = {"epochs": 2, "batch": 30, "latent": 5, "draws": 4, "learning_rate": 2e-3, "compared": 50}
TABLE_3 = ("vae_regularizer", "latent_euclidean", "latent_bhattacharyya", "reconstruction_error",
           "reconstruction_euclidean", "reconstruction_bhattacharyya")  # fmt: skip


def test_eighty_percent_of_the_others_are_trained_on(folder):  # noqa: F811
    split = split_of(*task_of(NAME, folder, "pca", "3"))
    # 400 images, 360 of them normal: 288 to train on, 14 of these held out; 72 and all 40 novel ones to test.
    assert (len(split.training), len(split.held_out), len(split.test)) == (274, 14, 112)
    assert split.novel.sum() == 40
    bright = split.test.view(-1, 28, 28)[:, 6].mean(1) > 0.5
    np.testing.assert_array_equal(bright.numpy(), split.novel)
    assert not (split.training.view(-1, 28, 28)[:, 6].mean(1) > 0.5).any()
    every = torch.cat([split.training, split.held_out, split.test])
    assert len(torch.unique(every, dim=0)) == 400


def test_a_seed_decides_and_fewer_can_be_used(folder):  # noqa: F811
    first, other = (split_of(*task_of(NAME, folder, "pca", "3", seed=seed)) for seed in (0, 1))
    assert not torch.equal(first.test, other.test)
    few = split_of(*task_of(NAME, folder, "pca", "3", images=40, test_images=50))
    assert (len(few.training), len(few.held_out), len(few.test)) == (38, 2, 50)
    assert 5 < few.novel.sum() < 35


def test_a_vae_finds_the_new_row_by_the_scores_of_the_table(folder):  # noqa: F811
    over = {**SMALL, "epochs": 8, "draws": 2}
    found = run(NAME, folder, "vae_z64", "3", scores=TABLE_3, **over)
    by_name = {row.score: row.value for row in found.measured}
    assert set(by_name) == set(TABLE_3)
    assert by_name["latent_euclidean"] > 0.9
    assert by_name["reconstruction_error"] > 0.9
    assert found.told["test"] == {"normal": 72, "novel": 40}
    assert run(NAME, folder, "vae_z64", "3", scores=TABLE_3, **over) == found


def test_all_are_the_scores_of_the_paper(folder):  # noqa: F811
    task, _ = task_of(NAME, folder, "vae_z24")
    assert len(task.scores) == 23  # All 27 but those that optimise for every image.
    assert {"nearest_normal", "negative_elbo_min", "input_density"} <= set(task.scores)
    assert "kl_gradient" not in task.scores
    assert "closest_generated" not in task.scores
    assert task_of(NAME, folder, "an_cho")[0].scores == ("encoder_stochastic_likelihood",)
    assert "outlier_score" in task_of(NAME, folder, "pca")[0].scores
    assert task_of(NAME, folder, "ocsvm", scores=("latent",))[0].scores == ()


def test_scores_that_optimise_are_of_fewer_images(folder, monkeypatch, caplog):  # noqa: F811
    caplog.set_level("INFO", "mednovelty")
    plugin("benchmarks", NAME)().scores("vae_z24", ["all"])
    assert "all: without the group generated (closest_generated" in caplog.text
    assert "as all,generated" in caplog.text
    caplog.clear()
    names = plugin("benchmarks", NAME)().scores("vae_z24", ["latent_euclidean", "generated", "input_density"])
    assert not caplog.text
    asked = {}

    def first_pixels(trained, names, *, test, **how):
        asked.update(dict.fromkeys(names, len(test)))
        return {name: test[:, 0].numpy() for name in names}

    monkeypatch.setattr(novel_digit, "scores_of", first_pixels)
    found = run(NAME, folder, "vae_z24", "3", scores=names, **SMALL, generated=30)
    assert asked == {name: 30 if name in novel_digit.GENERATED else 112 for name in names}
    assert [row.score for row in found.measured] == list(names)
    assert found.told["test"] == {"normal": 72, "novel": 40}
    few = found.told["test_of_generated"]
    assert few["normal"] + few["novel"] == 30
    assert min(few.values()) > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae_z24", "vae_z48", "an_cho", "kernel_pca", "ae", "deep_svdd"])
def test_every_method_with_all_its_scores(folder, name):  # noqa: F811
    more = {"method_settings": {"pretrain_epochs": 1}} if name == "deep_svdd" else {}
    task, _ = task_of(NAME, folder, name, **more)
    found = run(NAME, folder, name, **SMALL, **more)
    assert [row.score for row in found.measured] == list(task.scores)
    assert all(0 <= row.value <= 1 for row in found.measured)


class TestNetwork:
    def test_it_is_table_2(self):
        encoder, decoder = PooledEncoder((1, 28, 28), 2 * 24), PooledDecoder((1, 28, 28), 24)
        count = sum(p.numel() for p in encoder.parameters())
        assert count == (9 * 16 + 16) + (9 * 16 * 32 + 32) + (32 * 14 * 14 + 1) * 48
        count = sum(p.numel() for p in decoder.parameters())
        assert count == 25 * 196 + (9 * 32 + 32) + (4 * 32 * 16 + 16) + (9 * 16 + 1)
        encoder.initialise(generator(0, "e"))
        decoder.initialise(generator(0, "d"))
        x = torch.rand(3, 784, generator=generator(0, "x"))
        assert decoder(encoder(x)[:, :24]).shape == (3, 784)

    def test_slices_and_windows(self):
        for shape in ((2, 6, 10), (2, 4, 6, 8)):
            encoder, decoder = PooledEncoder(shape, 5), PooledDecoder(shape, 5)
            encoder.initialise(generator(0, "e"))
            decoder.initialise(generator(0, "d"))
            x = torch.rand(3, math.prod(shape), generator=generator(0, "x"))
            assert decoder(encoder(x)).shape == x.shape
        with pytest.raises(SettingsError, match=r"7 x 4 does not fit network='pooled'.*multiples of 2"):
            PooledEncoder((1, 7, 4), 3)

    @pytest.mark.parametrize("check", contracts.METHOD_CHECKS, ids=lambda check: check.__name__)
    def test_the_method_keeps_its_promises(self, check):
        settings = ImageVAESettings(network="pooled", latent=3, output="sigmoid", likelihood="bernoulli")
        rows = torch.rand(60, 2 * 6 * 8, generator=generator(0, "rows"))
        tables = (ImageTable(part, (2, 6, 8), torch.device("cpu")) for part in rows.split(40))
        check(ImageVAEMethod(settings), *tables)


class TestBernoulli:
    def model(self, **more):
        settings = ImageVAESettings(network="dense", hidden=(6,), latent=3, output="sigmoid",
                                    likelihood="bernoulli", **more)  # fmt: skip
        method = ImageVAEMethod(settings)
        model = method.build((1, 2, 4))
        method.start(model, VoxelCache.from_array(np.full((3, 8), 0.5)), generator(0, "start"))
        return method, model

    def test_its_likelihood_is_the_cross_entropy(self):
        _, model = self.model()
        x = torch.rand(5, 8, generator=generator(0, "x"))
        likelihood = model.decode(torch.randn(5, 3, generator=generator(0, "z")))
        m = likelihood.mean
        expected = (x * m.log() + (1 - x) * (1 - m).log()).sum(1)
        torch.testing.assert_close(likelihood.log_prob(x), expected)
        torch.testing.assert_close(misfits(model, x, m), -expected)
        torch.testing.assert_close(likelihood.base_dist.stddev, (m * (1 - m)).sqrt())
        assert (likelihood.batch_shape, likelihood.event_shape) == ((5,), (8,))

    def test_its_loss_is_that_of_the_terms(self):
        method, model = self.model()
        x = torch.rand(7, 8, generator=generator(0, "x"))
        loss = method.loss(model, x, 1, generator(1, "noise"))
        misfit, kl = closed_forms(model, x, generator(1, "noise"))
        torch.testing.assert_close(loss["loss"], misfit.mean() + kl.sum(1).mean())

    def test_no_pixel_is_more_certain_than_the_floor(self):
        _, model = self.model(log_sigma_floor=-2.0)
        sure = model.decode(torch.full((1, 3), 1e4))
        assert sure.base_dist.stddev.min().item() == pytest.approx(math.exp(-2))
        assert torch.isfinite(sure.log_prob(torch.full((1, 8), 0.5))).all()

    def test_values_beyond_0_to_1_are_refused(self):
        method, model = self.model()
        with pytest.raises(
            SettingsError, match="for values between 0 and 1, and the training images have -1"
        ):
            method.start(model, VoxelCache.from_array(np.array([[-1.0] * 8, [2.0] * 8])), generator(0, "s"))
        with pytest.raises(SettingsError, match="likelihood='bernoulli' needs output='sigmoid'"):
            ImageVAESettings(likelihood="bernoulli")
        with pytest.raises(SettingsError, match="likelihood='poisson' is none of gaussian, bernoulli"):
            ImageVAESettings(likelihood="poisson")


def test_tables_on_a_device_give_the_same_batches():
    rows = torch.rand(5000, 7, generator=generator(0, "rows"))
    table, cache = ImageTable(rows, (1, 1, 7), torch.device("cpu")), VoxelCache.from_array(rows.numpy())
    ours, others = (list(each.batches(64, generator(1, "order"))) for each in (table, cache))
    assert len(ours) == len(others) == 79
    assert all(torch.equal(a, b) for a, b in zip(ours, others, strict=True))
    assert table.shape == (1, 1, 7)
