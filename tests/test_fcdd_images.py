"""FCDD with outliers: the files they come from, and what a batch is made of."""

import numpy as np
import pytest
import torch
from image_folders import folder, write_cifar  # noqa: F401 - a fixture among them

from mednovelty.benchmarks.cifar import RECORD_BYTES, TEST, TRAINING, labelled_colours
from mednovelty.benchmarks.fcdd_images import (
    RATE_LEFT,
    ExposedFCDD,
    ExposureSettings,
    scores_of,
    shifted,
)
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.one_class_images import Scale, one_class
from mednovelty.errors import ScanError
from mednovelty.methods.fcdd import image_losses
from mednovelty.schedule import learning_rate
from mednovelty.seeds import generator


@pytest.fixture
def cifar(tmp_path):
    """Outliers: waves of any direction, four images a file."""
    return write_cifar(tmp_path / "cifar", a_file=4)


def test_files_are_read_one_after_the_other(cifar):
    images, labels = labelled_colours(cifar, "training")
    assert (images.shape, labels.tolist()) == ((20, 3, 32, 32), [0, 1, 2, 3] * 5)
    raw = np.frombuffer((cifar / TRAINING[3]).read_bytes(), np.uint8).reshape(4, RECORD_BYTES)
    np.testing.assert_array_equal(images[12:16].reshape(4, -1), raw[:, 1:])


def test_what_is_no_file_of_images_is_refused(tmp_path):
    with pytest.raises(ScanError, match=r"test_batch.bin: not in ") as missing:
        labelled_colours(tmp_path, "test")
    assert missing.value.code == "cifar.missing"
    for raw in (b"", bytes(RECORD_BYTES - 1), bytes(RECORD_BYTES + 1)):
        (tmp_path / TEST[0]).write_bytes(raw)
        with pytest.raises(ScanError, match=f"{TEST[0]}: {len(raw)} bytes are no whole number") as size:
            labelled_colours(tmp_path, "test")
        assert size.value.code == "cifar.size"


def test_shifted_images_are_crops_of_the_widened_ones():
    images = torch.rand(200, 2, 5, 7, generator=generator(0, "x"))
    found, seen = shifted(images, generator(1, "shift")), set()
    wide = torch.nn.functional.pad(images, (2, 2, 2, 2))
    for image, whole in zip(found, wide, strict=True):
        crops = {(i, j): whole[:, i : i + 5, j : j + 7] for i in range(5) for j in range(5)}
        ways = [(place, False) for place, crop in crops.items() if torch.equal(image, crop)]
        ways += [(place, True) for place, crop in crops.items() if torch.equal(image, crop.flip(2))]
        assert len(ways) == 1
        seen.add(ways[0])
    assert len(seen) > 45  # Nearly all of the 50 there are.


class Exposed:
    """A method whose normals are 0.25 on the left and outliers 0.25 above, and what it is asked."""

    def __init__(self, share=0.5, outliers=6):
        self.normals, strange = torch.zeros(300, 1, 28, 28), torch.zeros(outliers, 1, 28, 28)
        self.normals[..., 4:24, 4:10] = 0.25
        strange[:, :, 4:10, 4:24] = torch.linspace(0.1, 1, outliers).view(-1, 1, 1, 1)
        settings = ExposureSettings(filters=3, share=share).settings((1, 28, 28))
        self.method = ExposedFCDD(settings, Scale.of(self.normals.flatten(1)), strange.flatten(1))
        self.model = self.method.build((1, 28, 28))
        self.method.start(self.model, None, generator(0, "start"))
        self.seen = []
        self.model.split = lambda rows: self.seen.append(rows) or type(self.model).split(self.model, rows)

    def step(self, seed=0):
        found = self.method.loss(self.model, self.normals.flatten(1), 1, generator(seed, "noise"))
        return found["loss"], self.seen.pop()


def test_a_batch_is_about_half_outliers_and_normalised():
    exposed = Exposed()
    _, rows = exposed.step()
    x, labels = rows[:, :-1].view(-1, 28, 28), rows[:, -1]
    assert set(labels.tolist()) == {-1, 1}
    assert 120 < (labels < 0).sum() < 180
    # A bar covers more columns than rows in outliers, more rows than columns in normals.
    lies_down = x.amax(1).sum(1) > x.amax(2).sum(1)
    assert torch.equal(lies_down, labels < 0)
    _, other = exposed.step(seed=1)
    assert not torch.equal(other[:, -1], labels)
    # Contrast is normalised: background and bar of a normal are at 0 and 1.
    assert [value.item() for value in x[labels > 0].aminmax()] == pytest.approx([0, 1], abs=1e-6)


def test_the_loss_is_that_of_images_by_their_labels():
    exposed = Exposed()
    loss, rows = exposed.step()
    means = exposed.model.heatmap(rows[:, :-1]).flatten(1).mean(1)
    expected = image_losses(means, rows[:, -1] < 0).mean()
    torch.testing.assert_close(loss, expected)


def test_held_out_images_are_neither_moved_nor_replaced():
    exposed = Exposed()
    labels = torch.tensor([1.0, -1, 1, -1])[:, None]
    rows = torch.cat([exposed.normals.flatten(1)[:4], labels], dim=1)
    exposed.model.eval()
    exposed.method.validate(exposed.model, [rows], generator(0, "validation"))
    (seen,) = exposed.seen
    torch.testing.assert_close(seen[:, -1:], labels)
    torch.testing.assert_close(seen[:, :-1], exposed.method.scale(rows[:, :-1]))


def test_the_network_and_the_rate():
    options = ExposureSettings(epochs=4, learning_rate=1e-2)
    model = ExposedFCDD(options.settings((1, 28, 28)), Scale(0, 1), torch.zeros(1, 784)).build((1, 28, 28))
    # Appendix B.2: 413,441 weights, a map of 7 x 7.
    assert sum(p.numel() for p in model.parameters()) == 413_441
    assert model.network.sides == (7, 7)
    # In colour, of 32 pixels: 1,185,281.
    large = ExposedFCDD(options.settings((3, 32, 32)), Scale(0, 1), torch.zeros(1, 3072)).build((3, 32, 32))
    assert sum(p.numel() for p in large.parameters()) == 1_185_281
    rates = [learning_rate([1.0] * n, options.training()) for n in (1, 2, 5)]
    assert rates == pytest.approx([1e-2, 1e-2 * RATE_LEFT**0.25, 1e-2 * RATE_LEFT])


def test_scores_know_no_company(folder):  # noqa: F811
    images, exposed = one_class(image_set("mnist", folder), 5, seed=0), Exposed()
    exposed.model.eval()
    together = scores_of(exposed.model, images.test[:7], images.scale)
    alone = [scores_of(exposed.model, images.test[i : i + 1], images.scale)[0] for i in range(7)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert np.ptp(together) > 0
