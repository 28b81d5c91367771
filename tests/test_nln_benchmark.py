"""MISO and SIMO: which images are seen, how they are scaled, and what a cell finds."""

import numpy as np
import pytest
import torch
from image_folders import folder, image_sets, run, task_of  # noqa: F401 - fixtures among them

from mednovelty.benchmarks import nln
from mednovelty.benchmarks.image_methods import trained
from mednovelty.benchmarks.nln import METHODS, OWN_SCORES, changes, images_of, nln_scores, scaled
from mednovelty.neighbours.latent_settings import NLNSettings

SMALL = {"epochs": 1, "batch": 64, "latent": 4, "learning_rate": 1e-3}


def split_of(folder, one_trained, **over):  # noqa: F811
    task, settings = task_of("miso", folder, "ae", **over)
    return images_of(task.cell, folder, settings, one_trained)


def test_miso_leaves_a_class_out_and_simo_trains_on_it(folder):  # noqa: F811
    miso, simo = (split_of(folder, one_trained) for one_trained in (False, True))
    assert (len(miso.training), len(miso.held_out)) == (270 - 13, 13)
    assert (len(simo.training), len(simo.held_out)) == (30 - 2, 2)
    np.testing.assert_array_equal(miso.novel, np.arange(100) % 10 == 5)
    np.testing.assert_array_equal(simo.novel, np.arange(100) % 10 != 5)
    row_of_5 = slice(10 * 28, 11 * 28)
    assert simo.training[:, row_of_5].mean() > 0.8 > 0.3 > miso.training[:, row_of_5].mean()
    assert len(split_of(folder, False, images=40).training) == 38
    assert len(split_of(folder, False, test_images=33).novel) == 33


def test_images_are_scaled_each_channel_by_its_own_values():
    images = np.array([[[[10, 20], [30, 60]]], [[[5, 5], [5, 5]]]], np.uint8)
    np.testing.assert_allclose(scaled(images), [[0, 0.2, 0.4, 1], [0, 0, 0, 0]], rtol=1e-6)
    # Another channel beside it changes nothing.
    both = np.concatenate([images, 3 * images], axis=1)
    np.testing.assert_allclose(scaled(both), np.tile(scaled(images), 2), rtol=1e-6)


def test_changes_by_hand():
    # From 0.6 to 0.75: a quarter more, which the released code calls a fifth.
    assert changes(0.6, 0.75) == {"change": pytest.approx(25), "change_as_printed": pytest.approx(20)}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_trained_and_scored(folder, name):  # noqa: F811
    found = run("miso", folder, name, **SMALL)
    by_name = {(row.score, row.metric): row.value for row in found.measured}
    assert {score for score, metric in by_name if metric == "auroc"} == set(OWN_SCORES)
    assert all(0 <= value <= 1 for (_, metric), value in by_name.items() if metric == "auroc")
    told = changes(by_name["reconstruction", "auroc"], by_name["nln", "auroc"])
    assert by_name["nln", "change_as_printed"] == pytest.approx(told["change_as_printed"])
    assert by_name["nln", "change"] == pytest.approx(told["change"])


def test_the_error_of_a_reconstruction_is_a_mean_of_absolute_differences(folder):  # noqa: F811
    _, settings = task_of("simo", folder, "ae", **SMALL)
    split = split_of(folder, True)
    how = settings.training("ae")
    found = trained(settings.method("ae"), split, how, seed=0, device="cpu")
    with torch.no_grad():
        made = found.model.decode(found.model.encode(split.test).mean).mean
    expected = (split.test - made).abs().mean(1).numpy()
    scores = nln_scores(found, "ae", NLNSettings(2, 0.8))
    np.testing.assert_allclose(scores["reconstruction"], expected, rtol=1e-4)
    # Ranks of squared differences are others.
    squared = (split.test - made).square().mean(1).numpy()
    assert (np.argsort(squared) != np.argsort(expected)).any()


def test_k_and_alpha_train_nothing_anew(folder, monkeypatch):  # noqa: F811
    nln._trained.cache_clear()
    count, train = [], nln.trained
    monkeypatch.setattr(nln, "trained", lambda *args, **more: count.append(1) or train(*args, **more))
    first = run("simo", folder, "ae", **SMALL, alpha=0.0)
    second = run("simo", folder, "ae", **SMALL, alpha=1.0, k=1)
    assert len(count) == 1
    by_name = [{row.score: row.value for row in found.measured if row.metric == "auroc"}
               for found in (first, second)]  # fmt: skip
    # Of one term alone the sum ranks as that term does.
    assert by_name[0]["nln"] == by_name[0]["distance"]
    assert by_name[1]["nln"] == by_name[1]["error"]
    run("simo", folder, "ae", **SMALL, seed=1)
    assert len(count) == 2


def test_colours_and_other_methods(image_sets):  # noqa: F811
    found = run("simo", image_sets / "cifar10", "ae_con", dataset="cifar10", **SMALL)
    assert len(found.measured) == 6
    other = run("miso", image_sets / "cifar10", "pca", dataset="cifar10",
                method_settings={"variance": 0.5})  # fmt: skip
    assert {"outlier_score", "nearest_latent_neighbours"} <= {row.score for row in other.measured}
    assert run("miso", image_sets / "cifar10", "pca", scores=("outlier_score",), dataset="cifar10").measured
