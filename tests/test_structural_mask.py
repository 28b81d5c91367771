"""Masks for structural images, and whether a skull is seen."""

import nibabel as nib
import numpy as np
import pytest
from test_patch_view import ball

from mednovelty.errors import ScanError
from mednovelty.preprocess.structural_mask import skull_share, structural_brain_mask

SHAPE, SPACING = (60, 72, 14), (3.0, 3.0, 5.0)


def depth_mm(shape=SHAPE, spacing=SPACING):
    """Return how deep each voxel lies in a cylinder of 80 by 100 mm, negative outside."""
    i, j, _ = np.indices(shape)
    x = (i - (shape[0] - 1) / 2) * spacing[0] / 80
    y = (j - (shape[1] - 1) / 2) * spacing[1] / 100
    return 80 * (1 - np.hypot(x, y))


def head(scalp=900.0, bone=60.0, brain=400.0, seed=0):
    depth, rng = depth_mm(), np.random.default_rng(seed)
    image = np.where(depth > 0, scalp, 0) + np.where(depth > 6, bone - scalp, 0)
    image = image + np.where(depth > 14, brain - bone, 0)
    return np.abs(image + rng.normal(0, 12, SHAPE)).astype(np.float32)


def stripped(seed=0, background=0.0):
    return np.where(depth_mm() > 14, head(seed=seed), background).astype(np.float32)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


class TestStripped:
    @pytest.mark.parametrize("background", [0.0, -3.5, np.nan])
    def test_the_mask_is_what_is_not_background(self, background):
        image = stripped(background=background)
        image[30, 36, 7] = background  # A hole,
        image[2, 3, 4] = 40  # and a speck outside.
        mask, words, warnings = structural_brain_mask(image, SPACING, "sub-01")
        np.testing.assert_array_equal(mask, depth_mm() > 14)
        assert "the constant background; largest island, holes filled" in words
        assert warnings == ()

    def test_a_ventricle_is_no_gap(self):
        image = stripped()
        image[depth_mm() > 55] = 30
        mask, _, warnings = structural_brain_mask(image, SPACING)
        np.testing.assert_array_equal(mask, depth_mm() > 14)
        assert warnings == ()

    def test_a_head_on_a_cleared_background_keeps_its_skull_and_says_so(self):
        image = np.where(depth_mm() > 0, head(), 0)
        mask, _, warnings = structural_brain_mask(image, SPACING, "sub-01_T1w.nii.gz")
        np.testing.assert_array_equal(mask, depth_mm() > 0)
        (warning,) = warnings
        assert warning.startswith(
            "sub-01_T1w.nii.gz: the image seems to have its skull still (a bright rim with a dark gap below "
            "it in 100% of"
        )


class TestHead:
    def test_the_mask_is_the_head_and_one_warning_says_so(self):
        mask, words, warnings = structural_brain_mask(head(), SPACING, "sub-01")
        assert dice(mask, depth_mm() > 0) > 0.98
        assert "half way from air to Otsu's threshold" in words
        assert warnings == (
            "sub-01: the image is not skull-stripped (a bright rim with a dark gap below it in 100% of "
            "directions): the mask made of it is that of the head, and scores will be about scalp and skull "
            "too; strip it, give --brain-masks, or try --mask-maker brain",
        )

    def test_the_unit_of_the_signal_does_not_matter(self):
        expected, _, warnings = structural_brain_mask(head(), SPACING)
        for gain in (1e-6, 1e5):
            mask, _, again = structural_brain_mask(head() * np.float32(gain), SPACING)
            assert dice(mask, expected) > 0.999
            assert again == warnings

    @pytest.mark.parametrize("maker", ["head", "brain"])
    def test_where_zero_lies_does_not_matter(self, maker):
        expected, _, warnings = structural_brain_mask(head(), SPACING, maker=maker)
        assert dice(expected, depth_mm() > (14 if maker == "brain" else 0)) > 0.93
        for shift in (-500, 1000):
            mask, _, again = structural_brain_mask(head() + np.float32(shift), SPACING, maker=maker)
            assert dice(mask, expected) > 0.999
            assert again == warnings

    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("maker", ["head", "brain"])
    def test_of_ct_the_mask_is_the_head_whatever_surrounds_its_air(self, maker, padded):
        # Air at -1000, scalp 40, bone 900, brain 35; -3024 outside the round field of view.
        ct = head(1040, 1900, 1035) - 1000
        if padded:
            ct = np.where(depth_mm() > -25, ct, np.float32(-3024))
        mask, _, warnings = structural_brain_mask(ct, SPACING, "sub-ct", maker)
        assert dice(mask, depth_mm() > 0) > 0.98
        if maker == "brain":
            assert warnings[0].startswith("sub-ct: air is at -9") or warnings[0].startswith(
                "sub-ct: air is at -10"
            )
            assert "bone is bright: the brain is not looked for" in warnings[0]
        else:
            assert "the image is not skull-stripped" in warnings[0]
        assert len(warnings) == 1

    @pytest.mark.parametrize(
        ("scalp", "bone", "seen"), [(900, 60, True), (450, 150, True), (400, 390, False)]
    )
    def test_a_skull_is_a_dark_gap_below_a_bright_rim(self, scalp, bone, seen):
        share = skull_share(head(scalp, bone), depth_mm() > 0, SPACING)
        assert (share > 0.9) if seen else (share < 0.1)
        assert skull_share(head(scalp, bone), depth_mm() > 14, SPACING) < 0.1


def test_nothing_is_refused():
    with pytest.raises(ScanError, match=r"^sub-01: every voxel is 7; there is no brain in it") as caught:
        structural_brain_mask(np.full((8, 9, 7), 7.0), SPACING, "sub-01")
    assert caught.value.code == "mask.none_found"


def test_small_things_have_no_skull():
    shape = (9, 8, 10)
    assert skull_share(np.ones(shape), ball(shape), (2, 2, 2)) == 0
    assert skull_share(np.ones(shape), np.zeros(shape, bool), (2, 2, 2)) == 0


@pytest.mark.data
@pytest.mark.slow
def test_on_real_images(real_data):
    for path in sorted((real_data / "ms").glob("patient*/[FT]*.nii.gz")):
        image = nib.load(path)
        mask, _, warnings = structural_brain_mask(image.get_fdata(), image.header.get_zooms(), path.name)
        assert 0.14 < mask.mean() < 0.17, path
        assert not warnings, path
    for path in sorted((real_data / "lgg").glob("sub-*/anat/*_FLAIR.nii.gz"))[1::10]:
        image = nib.load(path)
        assert len(structural_brain_mask(image.get_fdata(), image.header.get_zooms())[2]) == 1, path
