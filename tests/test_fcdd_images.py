"""FCDD with outliers: the files they come from, and what a batch is made of."""

import numpy as np
import pytest
import torch
from image_folders import folder, write_cifar  # noqa: F401 - a fixture among them

from mednovelty.benchmarks.cifar import RECORD_BYTES, TEST, TRAINING, grey_images
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


def record(label, colours):
    """Return the bytes of one image: ``(3, 32, 32)`` colours after a label."""
    return bytes([label]) + np.asarray(colours, np.uint8).tobytes()


@pytest.fixture
def cifar(tmp_path):
    """Outliers: waves of any direction, four images a file."""
    return write_cifar(tmp_path / "cifar", a_file=4)


def test_grey_is_a_mixture_of_colours_in_their_place(tmp_path):
    colours = np.zeros((3, 32, 32), np.uint8)
    colours[0, 5, 7], colours[1, 5, 7], colours[2, 30, 1] = 100, 50, 200
    (tmp_path / "a.bin").write_bytes(record(9, colours) + record(1, colours + 10))
    found = grey_images(tmp_path, ["a.bin"], 32).view(2, 32, 32)
    # 0.299 * 100 + 0.587 * 50 = 59.25; 0.114 * 200 = 22.8
    assert found[0, 5, 7].item() == pytest.approx(59.25 / 255)
    assert found[0, 30, 1].item() == pytest.approx(22.8 / 255)
    assert found[0].count_nonzero() == 2
    torch.testing.assert_close(found[1], found[0] + 10 / 255)


def test_images_are_made_smaller_where_they_are(tmp_path):
    colours = np.full((3, 32, 32), 40, np.uint8)
    colours[:, :8, 16:] = 200
    (tmp_path / "a.bin").write_bytes(record(0, colours))
    small = grey_images(tmp_path, ["a.bin"], 28).view(28, 28)
    # The bright corner ends at row 7 and begins at column 14 now; beside the edges nothing is mixed.
    torch.testing.assert_close(small[:6, 15:], torch.full((6, 13), 200 / 255))
    torch.testing.assert_close(small[8:], torch.full((20, 28), 40 / 255))
    torch.testing.assert_close(small[:, :13], torch.full((28, 13), 40 / 255))


def test_files_are_read_one_after_the_other(cifar):
    together, apart = grey_images(cifar, TRAINING, 28), [grey_images(cifar, [n], 28) for n in TRAINING]
    assert together.shape == (20, 784)
    torch.testing.assert_close(together, torch.cat(apart))


def test_what_is_no_file_of_images_is_refused(tmp_path):
    with pytest.raises(ScanError, match=r"test_batch.bin: not in ") as missing:
        grey_images(tmp_path, TEST, 28)
    assert missing.value.code == "cifar.missing"
    for raw in (b"", bytes(RECORD_BYTES - 1), bytes(RECORD_BYTES + 1)):
        (tmp_path / "a.bin").write_bytes(raw)
        with pytest.raises(ScanError, match=f"a.bin: {len(raw)} bytes are no whole number") as size:
            grey_images(tmp_path, ["a.bin"], 28)
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
        settings = ExposureSettings(filters=3, share=share).settings()
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
    model = ExposedFCDD(options.settings(), Scale(0, 1), torch.zeros(1, 784)).build((1, 28, 28))
    # Appendix B.2: 413,441 weights, a map of 7 x 7.
    assert sum(p.numel() for p in model.parameters()) == 413_441
    assert model.network.sides == (7, 7)
    rates = [learning_rate([1.0] * n, options.training()) for n in (1, 2, 5)]
    assert rates == pytest.approx([1e-2, 1e-2 * RATE_LEFT**0.25, 1e-2 * RATE_LEFT])


def test_scores_know_no_company(folder):  # noqa: F811
    images, exposed = one_class(image_set("mnist", folder), 5, seed=0), Exposed()
    exposed.model.eval()
    together = scores_of(exposed.model, images.test[:7], images.scale)
    alone = [scores_of(exposed.model, images.test[i : i + 1], images.scale)[0] for i in range(7)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert np.ptp(together) > 0
