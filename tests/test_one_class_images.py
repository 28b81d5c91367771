"""Images of one class, and how they are normalised."""

import numpy as np
import pytest
import torch
from image_folders import folder  # noqa: F401 - a fixture

from mednovelty.benchmarks.idx import labelled_images
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.one_class_images import (
    Scale,
    Scenario,
    contrast_normalised,
    known_among,
    one_class,
    table_of,
)
from mednovelty.errors import SettingsError


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


def class_of(rows):
    """Return the class of each row: class k is bright in row 2 k."""
    return (rows.view(-1, 28, 28).mean(2).argmax(1) // 2).tolist()


class TestScenario:
    def test_counts_by_hand(self, folder):  # noqa: F811
        # 30 normal ones; a fifth of what is unlabelled is 7.5 of 37.5, two fifths of all 38 * 2 / 3 = 25.3.
        images = one_class(image_set("mnist", folder), 5, seed=0, scenario=Scenario(0.4, 0.2))
        unlabelled = class_of(torch.cat([images.training, images.held_out]))
        assert (len(unlabelled), unlabelled.count(5)) == (38, 30)
        assert len(images.held_out) == 2
        known = class_of(torch.cat([images.labelled, images.labelled_held_out]))
        assert (known, images.known) == ([0] * 25, (0,))
        assert (len(images.labelled), len(images.labelled_held_out)) == (24, 1)
        # The test set is what it is without.
        assert torch.equal(images.test, one_class(image_set("mnist", folder), 5, seed=0).test)

    def test_unknown_anomalies_lie_among_the_normals(self, folder):  # noqa: F811
        images = one_class(image_set("mnist", folder), 5, seed=1, scenario=Scenario(pollution=0.5))
        classes = class_of(torch.cat([images.held_out, images.training]))
        assert (len(classes), classes.count(5)) == (60, 30)
        assert 5 < classes[:30].count(5) < 25
        assert len(set(classes)) == 10
        assert (images.known, len(images.labelled), len(images.labelled_held_out)) == ((), 0, 0)

    def test_what_is_unlabelled_does_not_depend_on_labels(self, folder):  # noqa: F811
        images = image_set("mnist", folder)
        one, other = (one_class(images, 5, seed=2, scenario=Scenario(share, 0.3)) for share in (0, 0.3))
        assert torch.equal(one.training, other.training)
        assert torch.equal(one.held_out, other.held_out)
        assert len(other.labelled) > len(one.labelled) == 0

    def test_no_image_is_known_and_unknown(self, folder):  # noqa: F811
        scenario = Scenario(0.45, 0.7, known_classes=4)
        images = one_class(image_set("mnist", folder), 5, seed=3, scenario=scenario)
        parts = [images.training, images.held_out, images.labelled, images.labelled_held_out]
        rows = torch.cat(parts).numpy()
        # Each image has noise of its own: 70 = 30 * 7 / 3 unknown and 82 = 100 * 9 / 11 known ones.
        assert len(np.unique(rows, axis=0)) == len(rows)
        assert (len(parts[0]) + len(parts[1]), len(parts[2]) + len(parts[3])) == (100, 82)

    def test_nine_seeds_are_nine_classes(self, folder):  # noqa: F811
        images = image_set("mnist", folder)
        known = [one_class(images, 5, seed=s, scenario=Scenario(0.05)).known for s in range(10)]
        assert known == [(k,) for k in (0, 1, 2, 3, 4, 6, 7, 8, 9, 0)]
        others = np.array([0, 1, 2, 3, 4, 6, 7, 8, 9])
        drawn = {known_among(others, 3, seed, 5) for seed in range(20)}
        assert len(drawn) > 10
        assert all(len(set(each)) == 3 and 5 not in each for each in drawn)
        assert known_among(others, 9, 0, 5) == tuple(others)
        assert any(known_among(others, 3, s, 5) != known_among(others, 3, s, 4) for s in range(3))

    def test_what_cannot_be_had_is_told(self, folder):  # noqa: F811
        images = image_set("mnist", folder)
        words = (
            "labelled=0.6, pollution=0: ask for 45 images of classes 0 and 0 of any other, beside 30 normal"
        )
        with pytest.raises(SettingsError, match=words):
            one_class(images, 5, seed=0, scenario=Scenario(0.6))
        with pytest.raises(SettingsError, match="there are 0 and 270"):
            one_class(images, 5, seed=0, scenario=Scenario(0, 0.95))
        with pytest.raises(SettingsError, match="known_classes=10: there are 9 other classes"):
            one_class(images, 5, seed=0, scenario=Scenario(0.1, known_classes=10))
        for wrong in ({"labelled": 1.0}, {"pollution": -0.1}, {"known_classes": 0}):
            (name,) = wrong
            with pytest.raises(SettingsError, match=f"{name}="):
                Scenario(**wrong)

    def test_the_scale_is_that_of_what_is_unlabelled(self, folder):  # noqa: F811
        images = image_set("mnist", folder)
        clean, labelled = (
            one_class(images, 5, seed=0, scenario=s).scale for s in (Scenario(), Scenario(0.2))
        )
        assert clean == labelled
        polluted = one_class(images, 5, seed=0, scenario=Scenario(0, 0.5))
        assert polluted.scale == Scale.of(torch.cat([polluted.training, polluted.held_out]))

    def test_pixels_as_they_are(self, folder):  # noqa: F811
        images = one_class(image_set("mnist", folder), 5, seed=0, contrast=False)
        assert torch.equal(images.scale(images.test), images.test)
