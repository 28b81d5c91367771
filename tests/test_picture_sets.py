"""Folders of pictures as image sets, images made like those of another set, and CIFAR-100."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from mednovelty.benchmarks.cifar import LAYOUTS, PIXEL_BYTES, labelled_colours
from mednovelty.benchmarks.image_sets import as_published, file_hashes, found_folder, image_set
from mednovelty.benchmarks.image_shapes import fitted
from mednovelty.benchmarks.picture_sets import picture_set
from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.pictures import read_colours


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def colours(value, rows=5, columns=7):
    pixels = np.zeros((rows, columns, 3), np.uint8)
    pixels[1, 2] = value
    return pixels


class TestFitted:
    def test_grey_is_a_mixture_of_colours_in_their_place(self):
        images = np.zeros((2, 3, 32, 32), np.uint8)
        images[0, 0, 5, 7], images[0, 1, 5, 7], images[0, 2, 30, 1] = 100, 50, 200
        images[1] = images[0] + 10
        found = fitted(images, (1, 32, 32)).view(2, 32, 32)
        # 0.299 * 100 + 0.587 * 50 = 59.25; 0.114 * 200 = 22.8
        assert found[0, 5, 7].item() == pytest.approx(59.25 / 255)
        assert found[0, 30, 1].item() == pytest.approx(22.8 / 255)
        assert found[0].count_nonzero() == 2
        torch.testing.assert_close(found[1], found[0] + 10 / 255)

    def test_images_are_made_smaller_where_they_are(self):
        images = np.full((1, 3, 32, 32), 40, np.uint8)
        images[..., :8, 16:] = 200
        small = fitted(images, (1, 28, 28)).view(28, 28)
        # The bright corner ends at row 7 and begins at column 14 now; beside the edges nothing is mixed.
        torch.testing.assert_close(small[:6, 15:], torch.full((6, 13), 200 / 255))
        torch.testing.assert_close(small[8:], torch.full((20, 28), 40 / 255))
        torch.testing.assert_close(small[:, :13], torch.full((28, 13), 40 / 255))

    def test_grey_is_alike_in_all_colours_and_what_fits_is_as_it_is(self):
        images = np.random.default_rng(0).integers(0, 256, (3, 1, 5, 7), dtype=np.uint8)
        found = fitted(images, (3, 5, 7)).view(3, 3, 5, 7)
        expected = torch.from_numpy(images).float() / 255
        for colour in range(3):
            assert torch.equal(found[:, colour], expected[:, 0])
        assert torch.equal(fitted(images, (1, 5, 7)), expected.flatten(1))

    def test_parts_are_as_the_whole(self, monkeypatch):
        images = np.random.default_rng(0).integers(0, 256, (7, 3, 9, 8), dtype=np.uint8)
        whole = fitted(images, (1, 5, 6))
        monkeypatch.setattr("mednovelty.benchmarks.image_shapes.AT_A_TIME", 3)
        assert torch.equal(fitted(images, (1, 5, 6)), whole)
        assert fitted(images[:0], (1, 5, 6)).shape == (0, 30)

    def test_other_channels_are_refused(self):
        with pytest.raises(SettingsError, match="images of 3 channels cannot be made into such of 6"):
            fitted(np.zeros((2, 3, 4, 4), np.uint8), (6, 4, 4))


class TestPictures:
    def test_classes_are_folders_of_both_parts(self, tmp_path):
        save(tmp_path / "train" / "cat" / "a.png", colours((10, 20, 30)))
        save(tmp_path / "train" / "eel" / "deep" / "b.png", colours((40, 50, 60)))
        save(tmp_path / "test" / "dog" / "c.png", colours((70, 80, 90)))
        save(tmp_path / "test" / "eel" / "d.png", colours((1, 2, 3)))
        found = picture_set(tmp_path)
        assert (found.training.shape, found.test.shape) == ((2, 3, 5, 7), (2, 3, 5, 7))
        assert found.training[:, :, 1, 2].tolist() == [[10, 20, 30], [40, 50, 60]]
        assert found.test[:, :, 1, 2].tolist() == [[70, 80, 90], [1, 2, 3]]
        assert (found.labels.tolist(), found.truth.tolist()) == ([0, 2], [1, 2])

    def test_without_parts_all_are_tested(self, tmp_path):
        save(tmp_path / "a.png", colours((10, 20, 30)))
        save(tmp_path / "more" / "b.png", colours((40, 50, 60)))
        found = picture_set(tmp_path)
        assert (len(found.training), len(found.test), found.training.shape[1:]) == (0, 2, (3, 5, 7))

    def test_grey_pictures_have_one_channel_and_16_bits_are_scaled(self, tmp_path):
        save(tmp_path / "train" / "a.png", colours((9, 9, 9)))
        save(tmp_path / "test" / "b.png", colours(0)[..., 0] + np.uint8(200))
        save(tmp_path / "test" / "c.png", np.full((5, 7), 257 * 77, np.uint16))
        found = picture_set(tmp_path)
        assert (found.training.shape, found.training[0, 0, 1, 2]) == ((1, 1, 5, 7), 9)
        assert found.test[0].max() == 200
        assert (found.test[1] == 77).all()
        save(tmp_path / "test" / "d.tif", np.full((5, 7), 0.5, np.float32))
        with pytest.raises(
            ScanError, match=r"d.tif: cannot be read as a picture: pixels of mode F have no rang"
        ):
            picture_set(tmp_path)

    def test_sizes(self, tmp_path):
        save(tmp_path / "a.png", colours((10, 20, 30)))
        save(tmp_path / "b.png", np.full((10, 14, 3), 60, np.uint8))
        with pytest.raises(ScanError, match=re.escape("2 sizes, from (5, 7) to (10, 14) rows and")) as error:
            picture_set(tmp_path)
        assert error.value.code == "images.sizes"
        found = picture_set(tmp_path, (5, 7))
        assert found.test.shape[2:] == (5, 7)
        assert (found.test[1] == 60).all()
        # What is of that size already is not touched.
        assert found.test[0, :, 1, 2].tolist() == [10, 20, 30]

    def test_nothing_to_test_on(self, tmp_path):
        save(tmp_path / "train" / "a.png", colours((10, 20, 30)))
        with pytest.raises(ScanError, match="has no pictures in test/ to test on"):
            picture_set(tmp_path)

    def test_a_cut_file_is_named(self, tmp_path):
        save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
        whole = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ScanError, match=r"a.png: cannot be read as a picture"):
            picture_set(tmp_path)
        with pytest.raises(ScanError):
            read_colours(tmp_path / "none.png")

    def test_a_folder_is_a_set_by_its_name_alone(self, tmp_path):
        save(tmp_path / "images" / "my-waves" / "a.png", colours((10, 20, 30)))
        own = tmp_path / "images" / "my-waves"
        assert found_folder("my_waves", tmp_path / "images") == own
        assert found_folder("my_waves", own) == own
        with pytest.raises(ScanError, match="other: there is no folder of its pictures") as error:
            found_folder("other", tmp_path / "images")
        assert error.value.code == "images.missing"
        before = file_hashes("my_waves", own)
        assert as_published("my_waves", before)
        assert file_hashes("my_waves", own) == before
        save(own / "a.png", colours((10, 20, 31)))
        assert file_hashes("my_waves", own) != before
        (own / "a.png").rename(own / "b.png")
        assert len({str(before), str(file_hashes("my_waves", own))}) == 2
        assert image_set("my_waves", own, (10, 14)).test.shape == (1, 3, 10, 14)


class TestCIFAR100:
    def test_the_second_label_is_the_class(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
        for name, few in (("train.bin", 3), ("test.bin", 2)):
            raw = b"".join(bytes([7, 90 + i]) + pixels[i].tobytes() for i in range(few))
            (tmp_path / name).write_bytes(raw)
        images, labels = labelled_colours(tmp_path, "training", LAYOUTS["cifar100"])
        np.testing.assert_array_equal(images, pixels)
        assert labels.tolist() == [90, 91, 92]
        assert found_folder("cifar100", tmp_path) == tmp_path
        found = image_set("cifar100", tmp_path)
        assert (len(found.training), found.truth.tolist()) == (3, [90, 91])
        # Nobody has noted its checksums: it is taken as it is, without a warning.
        assert as_published("cifar100", file_hashes("cifar100", tmp_path))
        (tmp_path / "test.bin").write_bytes(bytes(PIXEL_BYTES + 1))
        with pytest.raises(
            ScanError, match="whole number of images of 3074; get the binary version of CIFAR-100"
        ):
            labelled_colours(tmp_path, "test", LAYOUTS["cifar100"])
