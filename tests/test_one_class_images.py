"""Images of one class, and how they are normalised."""

import numpy as np
import torch
from image_folders import folder  # noqa: F401 - a fixture

from mednovelty.benchmarks.idx import labelled_images
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.one_class_images import Scale, contrast_normalised, one_class, table_of


def test_contrast_is_normalised_by_hand():
    # Mean 4, deviations -3, -1, 1, 3 with a mean magnitude of 2; an image of one value has no contrast.
    images = torch.tensor([[1.0, 3, 5, 7], [9, 9, 9, 9]])
    torch.testing.assert_close(
        contrast_normalised(images), torch.tensor([[-1.5, -0.5, 0.5, 1.5], [0, 0, 0, 0]])
    )


def test_a_scale_is_that_of_the_normal_class_alone():
    # The first image is from -1.5 to 1.5, the second from -1 to 1; the one scaled below is of another class.
    scale = Scale.of(torch.tensor([[1.0, 3, 5, 7], [0, 8, 8, 0]]))
    assert (scale.low, scale.high) == (-1.5, 1.5)
    # Mean 6, deviations -6, 2, 2, 2, mean magnitude 3: -2, 2/3; shifted by 1.5 and divided by 3.
    found = scale(torch.tensor([[0.0, 8, 8, 8]]))
    torch.testing.assert_close(found, torch.tensor([[-1 / 6, 6.5 / 9, 6.5 / 9, 6.5 / 9]]))


def test_brightness_and_contrast_change_nothing():
    images = torch.rand(5, 12, generator=torch.Generator().manual_seed(0))
    scale = Scale.of(images)
    torch.testing.assert_close(scale(3 * images + 7), scale(images), rtol=1e-4, atol=1e-5)


def test_images_are_those_of_one_class(folder):  # noqa: F811
    images = one_class(image_set("mnist", folder), 5, seed=0)
    assert (len(images.training), len(images.held_out)) == (30 - 2, 2)
    assert images.shape == (1, 28, 28)
    np.testing.assert_array_equal(images.novel, np.arange(100) % 10 != 5)
    raw, labels = labelled_images(folder, "train")
    both = torch.cat([images.training, images.held_out])
    own = torch.from_numpy(raw[labels == 5].reshape(30, -1).astype(np.float32) / 255)
    # All of them and none twice, in another order.
    np.testing.assert_array_equal(np.sort(both.sum(1)), np.sort(own.sum(1)))
    scaled = images.scale(both)
    assert (scaled.min().item(), scaled.max().item()) == (0, 1)


def test_fewer_images_have_the_same_scale(folder):  # noqa: F811
    images = image_set("mnist", folder)
    few, all_of_them = one_class(images, 5, seed=0, most=4), one_class(images, 5, seed=0)
    assert (len(few.training), len(few.held_out)) == (2, 2)
    assert few.scale == all_of_them.scale
    assert few.scale != Scale.of(torch.cat([few.training, few.held_out]))
    torch.testing.assert_close(few.test, all_of_them.test)


def test_a_seed_decides_what_is_held_out(folder):  # noqa: F811
    first, again, other = (one_class(image_set("mnist", folder), 5, seed=seed).held_out for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_table_keeps_rows_and_shape():
    rows = torch.arange(42.0).view(7, 6)
    table = table_of(rows, (1, 2, 3))
    np.testing.assert_array_equal(table.array(), rows)
    assert table.shape == (1, 2, 3)
