"""One class left out: which images are seen, that scores are the VAE's terms, and what a cell finds."""

import numpy as np
import pytest
import torch
from image_folders import folder, run, task_of  # noqa: F401 - a fixture among them

from mednovelty.benchmarks.leave_one_class_out import SCORES, left_out, scores_of
from mednovelty.methods.image_vae import closed_forms
from mednovelty.seeds import generator

NAME = "leave-one-class-out"


def test_one_class_is_left_out_of_training_and_novel_in_the_test(folder):  # noqa: F811
    train, test, novel = left_out(*task_of(NAME, folder, "vae"))
    assert (train.shape, test.shape) == ((270, 784), (100, 784))
    assert train.dtype == np.float32
    assert train.max() <= 1
    assert train.max() > 0.9
    assert not train.reshape(-1, 28, 28)[:, 10].mean(1).max() > 0.5
    np.testing.assert_array_equal(novel, np.arange(100) % 10 == 5)
    assert (test.reshape(-1, 28, 28)[novel, 10].mean(1) > 0.5).all()


def test_scaling_repeats_images(folder):  # noqa: F811
    train, test, _ = left_out(*task_of(NAME, folder, "vae_scaling_2"))
    assert (train.shape, test.shape) == ((270, 1568), (100, 1568))
    np.testing.assert_array_equal(train[:, :784], train[:, 784:])


def test_the_papers_defaults(folder):  # noqa: F811
    _, options = task_of(NAME, folder, "vae")
    settings, training = options.method().settings, options.training()
    assert (settings.network, settings.hidden, settings.latent, settings.output) == (
        "dense", (400,), 20, "sigmoid",
    )  # fmt: skip
    assert settings.start_log_c == 0
    assert not settings.released_sampler
    assert (training.max_epochs, training.batch_for(54_000), training.learning_rate) == (25, 128, 1e-3)
    assert training.patience > training.max_epochs  # Nothing stops before the last epoch,
    assert training.plateau_patience > training.max_epochs  # and nothing lowers the rate.
    own = [task_of(NAME, folder, name)[1] for name in ("vae_z50", "vae_logc_1p4", "vae_released")]
    assert [(s.latent, s.log_c, s.released_code) for s in own] == [
        (50, 0, False), (20, 1.4, False), (20, 0, True),
    ]  # fmt: skip


def test_scores_are_the_terms_at_the_mean_latent(folder):  # noqa: F811
    task, options = task_of(NAME, folder, "vae_logc_1p4")
    _, test, _ = left_out(task, options)
    method = options.method()
    model = method.build((1, 28, 28))
    method.start(model, None, generator(0, "start"))
    found, x = scores_of(model, test, options, 3), torch.from_numpy(test)
    posterior = model.encode(x)
    reconstruction = -model.decode(posterior.mean).log_prob(x)
    np.testing.assert_allclose(found["reconstruction"], reconstruction.detach(), rtol=1e-5)
    np.testing.assert_allclose(found["elbo"], found["reconstruction"] + found["kl"], rtol=1e-6)
    _, other = task_of(NAME, folder, "vae_logc_1p4", released_code=True)
    released = scores_of(model, test, other, 3)
    drawn, kl = closed_forms(model, x, generator(3, "test"), released_sampler=True)
    np.testing.assert_allclose(released["reconstruction"], drawn.detach(), rtol=1e-5)
    np.testing.assert_allclose(released["kl"], kl.sum(1).detach(), rtol=1e-5)
    np.testing.assert_allclose(released["kl"], found["kl"], rtol=1e-6)


def test_the_new_row_is_found_and_the_run_repeats(folder):  # noqa: F811
    over = {"epochs": 9, "batch": 15, "learning_rate": 3e-3, "log_c": -2.0}
    first, second = (run(NAME, folder, "vae", "9", **over) for _ in range(2))
    assert first == second
    assert first.told["images"] == {"training": 270, "normal": 90, "novel": 10}
    assert first.told["epochs"] == 9
    found = {(row.score, row.metric): row.value for row in first.measured}
    assert found["reconstruction", "auroc"] > 0.8
    assert set(found) == {(score, metric) for score in SCORES for metric in ("auroc", "ap")}
    other = run(NAME, folder, "vae", "9", seed=1, **over)
    assert other.measured != first.measured


def test_only_the_scores_that_are_asked_for(folder):  # noqa: F811
    found = run(NAME, folder, "vae", scores=("kl", "darkness"), epochs=1, images=40)
    assert [row.score for row in found.measured] == ["kl", "kl", "darkness", "darkness"]
    assert found.told["images"]["training"] == 40


def test_an_unknown_score_is_an_error(folder):  # noqa: F811
    with pytest.raises(ValueError, match="no score of leave-one-class-out is called 'kll'; known: all, rec"):
        task_of(NAME, folder, "vae", scores=("kll",))
