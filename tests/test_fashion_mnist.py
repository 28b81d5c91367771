import gzip
import json

import numpy as np
import pytest
import torch
from test_idx import packed, written

from mednovelty.benchmarks.fashion_mnist import Options, left_out, main, measure, scores_of, summary, table
from mednovelty.methods.image_vae import closed_forms
from mednovelty.seeds import generator


@pytest.fixture
def folder(tmp_path):
    """Ten classes of 28 x 28 images: class k is bright in row 2 k, each image with noise of its own."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 300), ("t10k", 100)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        images[np.arange(n), 2 * labels] += 190
        written(tmp_path / f"{split}-images-idx3-ubyte.gz", gzip.compress(packed(images)))
        written(tmp_path / f"{split}-labels-idx1-ubyte.gz", gzip.compress(packed(labels)))
    return tmp_path


def test_one_class_is_left_out_of_training_and_novel_in_the_test(folder):
    train, test, novel = left_out(folder, 5)
    assert (train.shape, test.shape) == ((270, 784), (100, 784))
    assert train.dtype == np.float32
    assert train.max() <= 1
    assert train.max() > 0.9
    assert not train.reshape(-1, 28, 28)[:, 10].mean(1).max() > 0.5
    np.testing.assert_array_equal(novel, np.arange(100) % 10 == 5)
    assert (test.reshape(-1, 28, 28)[novel, 10].mean(1) > 0.5).all()


def test_the_papers_defaults():
    options = Options()
    settings, training = options.method().settings, options.training()
    assert (settings.network, settings.hidden, settings.latent, settings.output) == (
        "dense", (400,), 20, "sigmoid",
    )  # fmt: skip
    assert settings.start_log_c == 0
    assert not settings.released_sampler
    assert (training.max_epochs, training.batch_for(54_000), training.learning_rate) == (25, 128, 1e-3)
    assert training.patience > training.max_epochs  # Nothing stops before the last epoch,
    assert training.plateau_patience > training.max_epochs  # and nothing lowers the rate.


def test_scores_are_the_terms_at_the_mean_latent(folder):
    _, test, _ = left_out(folder, 5)
    options = Options(log_c=1.4)
    method = options.method()
    model = method.build((1, 28, 28))
    method.start(model, None, generator(0, "start"))
    found, x = scores_of(model, test, options, 3), torch.from_numpy(test)
    posterior = model.encode(x)
    reconstruction = -model.decode(posterior.mean).log_prob(x)
    np.testing.assert_allclose(found["reconstruction"], reconstruction.detach(), rtol=1e-5)
    np.testing.assert_allclose(found["elbo"], found["reconstruction"] + found["kl"], rtol=1e-6)
    released = scores_of(model, test, Options(log_c=1.4, released_code=True), 3)
    drawn, kl = closed_forms(model, x, generator(3, "test"), released_sampler=True)
    np.testing.assert_allclose(released["reconstruction"], drawn.detach(), rtol=1e-5)
    np.testing.assert_allclose(released["kl"], kl.sum(1).detach(), rtol=1e-5)
    np.testing.assert_allclose(released["kl"], found["kl"], rtol=1e-6)


def test_the_new_row_is_found_and_the_run_repeats(folder):
    options = Options(classes=(9,), seeds=1, epochs=9, batch=15, learning_rate=3e-3, log_c=-2.0)
    first, second = (measure(folder, 9, 0, options) for _ in range(2))
    assert first["scores"] == second["scores"]
    assert first["images"] == {"training": 270, "normal": 90, "novel": 10}
    assert first["epochs"] == 9
    assert first["scores"]["reconstruction"]["auroc"] > 0.8
    assert set(first["scores"]) == {"reconstruction", "kl", "elbo", "mean_image", "darkness"}


def test_summary_and_table_by_hand():
    runs = [
        {"class": odd, "scores": {"kl": {"auroc": auroc, "ap": 0.5}, "elbo": {"auroc": 0.25, "ap": 0.1}}}
        for odd, auroc in ((0, 0.5), (0, 0.75), (5, 0.625))
    ]
    found = summary(runs)
    assert found["0"]["kl"] == {"auroc": 0.625, "auroc_least": 0.5, "auroc_greatest": 0.75, "ap": 0.5}
    assert table(found).splitlines() == [
        "| class | kl | elbo |",
        "| --- | --- | --- |",
        "| 0 | 0.625 (0.500 to 0.750) | 0.250 |",
        "| 5 | 0.625 | 0.250 |",
    ]


def test_as_a_program(folder, capsys):
    words = [str(folder), "--classes", "5", "--seeds", "2", "--log-c", "1.4", "--epochs", "1"]
    result = main(words)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(json.dumps(result))
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    assert result["paper"] == {"class 5, log c = 1.4, auroc of kl": 0.82}
    assert "| 5 | " in printed.err


def test_seeds_in_parts_are_those_of_the_whole(folder, capsys):
    words = [str(folder), "--classes", "2", "--epochs", "1"]
    whole = main([*words, "--seeds", "2"])["runs"]
    (part,) = main([*words, "--seeds", "1", "--first-seed", "1"])["runs"]
    assert (part["seed"], part["scores"]) == (1, whole[1]["scores"])
    assert whole[0]["scores"] != whole[1]["scores"]
    capsys.readouterr()
