import numpy as np
import pytest
from test_fashion_mnist import folder  # noqa: F401 - a fixture

from mednovelty.benchmarks.one_vs_rest import (
    DETECTORS,
    PAPER_PERCENT,
    Options,
    contrast_normalised,
    images_of,
    main,
    summary,
)


def test_contrast_is_normalised_by_hand():
    # Mean 4, deviations -3, -1, 1, 3 with a mean magnitude of 2; an image of one value stays one.
    images = np.array([[[1, 3], [5, 7]], [[9, 9], [9, 9]]], np.uint8)
    np.testing.assert_allclose(contrast_normalised(images), [[-1.5, -0.5, 0.5, 1.5], [0, 0, 0, 0]])


def test_images_are_scaled_by_those_of_the_normal_class(folder):  # noqa: F811
    images = images_of(folder, 5, Options())
    assert (len(images.training), len(images.held_out)) == (30 - 2, 2)
    np.testing.assert_array_equal(images.novel, np.arange(100) % 10 != 5)
    both = np.concatenate([images.training.array(), images.held_out.array()])
    assert (both.min(), both.max()) == (0, 1)
    assert len(images_of(folder, 5, Options(images=20)).training) == 18
    # Of fewer images the same scale, and the test images are on it whoever they are.
    np.testing.assert_array_equal(images_of(folder, 5, Options(images=20)).test, images.test)


def test_the_rate_is_lowered_after_a_third():
    how = Options(epochs=6, learning_rate=1e-2).training(6, 1 / 3)
    assert (how.max_epochs, how.plateau_patience, how.min_learning_rate) == (6, 2, 1e-3)


def test_means_are_over_classes():
    runs = [
        {"method": "ae", "auroc_percent": value, "paper_percent": other}
        for value, other in ((50, 60), (90, 70))
    ]
    assert summary(runs) == {"ae": {"auroc_percent": 70, "paper_percent": 65}}


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_is_trained_and_scored(folder, name):  # noqa: F811
    found = main([str(folder), "--methods", name, "--classes", "5", "--epochs", "2", "--batch", "10",
                  "--pretrain-epochs", "2", "--learning-rate", "1e-3", "--warm-up", "1"])  # fmt: skip
    (run,) = found["runs"]
    assert run["auroc_percent"] > 60
    assert run["paper_percent"] == PAPER_PERCENT[name][5]
    assert found["summary"][name]["auroc_percent"] == run["auroc_percent"]
    if name != "ae":
        assert "started from an autoencoder whose error fell from" in run["verdict"]


def test_the_paper_has_all_digits():
    assert all(len(values) == 10 and min(values) > 70 for values in PAPER_PERCENT.values())
