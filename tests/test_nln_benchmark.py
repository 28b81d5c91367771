import numpy as np
import pytest
from test_fashion_mnist import folder  # noqa: F401 - a fixture

from mednovelty.benchmarks.nln import METHODS, Options, changes, images_of, main, scaled, summary


def test_miso_leaves_a_class_out_and_simo_trains_on_it(folder):  # noqa: F811
    miso, simo = (images_of(folder, 5, Options(protocol=name)) for name in ("miso", "simo"))
    assert (len(miso.training), len(miso.held_out)) == (270 - 13, 13)
    assert (len(simo.training), len(simo.held_out)) == (30 - 2, 2)
    np.testing.assert_array_equal(miso.novel, np.arange(100) % 10 == 5)
    np.testing.assert_array_equal(simo.novel, np.arange(100) % 10 != 5)
    row_of_5 = slice(10 * 28, 11 * 28)
    assert simo.training.array()[:, row_of_5].mean() > 0.8 > 0.3 > miso.training.array()[:, row_of_5].mean()
    assert len(images_of(folder, 5, Options(images=40)).training) == 38


def test_images_are_scaled_each_by_its_own_values():
    images = np.array([[[10, 20], [30, 60]], [[5, 5], [5, 5]]], np.uint8)
    np.testing.assert_allclose(scaled(images), [[0, 0.2, 0.4, 1], [0, 0, 0, 0]], rtol=1e-6)


def test_changes_by_hand():
    # From 0.6 to 0.75: a quarter more, which the released code calls a fifth.
    assert changes(0.6, 0.75) == {"change": pytest.approx(25), "change_as_printed": pytest.approx(20)}


def test_means_are_over_classes():
    runs = [
        {"method": "ae", "auroc": {"nln": value}, "change": change, "change_as_printed": change / 2}
        for value, change in ((0.5, 1.0), (0.9, 4.0))
    ]
    assert summary(runs)["ae"] == {"nln": pytest.approx(0.7), "change": 2.5, "change_as_printed": 1.25}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_trained_and_scored(folder, name):  # noqa: F811
    found = main([str(folder), "--methods", name, "--classes", "5", "--epochs", "1", "--batch", "64",
                  "--latent", "4", "--learning-rate", "1e-3"])  # fmt: skip
    (run,) = found["runs"]
    assert set(run["auroc"]) == {"reconstruction", "nln", "error", "distance"}
    assert all(0 <= value <= 1 for value in run["auroc"].values())
    assert found["summary"][name]["change"] == pytest.approx(run["change"])
    assert found["paper_percent"]["mnist"]["aae"] == 17.65
