"""The brain mask that is made where none is given."""

import nibabel as nib
import numpy as np
import pytest

from mednovelty.errors import ScanError
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.preprocess.brain_mask import MedianOtsuSettings, median_otsu_mask


def ball(shape, radius=0.7, hole=0.0):
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    r = np.sqrt(sum(x * x for x in axes))
    return (r < radius) & (r >= hole)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def noisy(inside, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(inside, 900, 20) + rng.normal(0, 15, inside.shape).astype(np.float32)


def made(b0, spacing=(2.5, 2.5, 2.5), **settings):
    return median_otsu_mask(b0, np.array(spacing), "scan", MedianOtsuSettings(**settings))


class TestShapes:
    @pytest.mark.parametrize(
        ("shape", "least"), [((30, 34, 26), 0.97), ((31, 29, 2), 0.95), ((9, 8, 10), 0.8)]
    )
    def test_a_ball_is_found(self, shape, least):
        inside = ball(shape, 0.75) if shape[2] > 2 else np.repeat(ball((31, 29, 3))[:, :, 1:2], 2, axis=2)
        mask = made(noisy(inside), dilate_mm=0)
        assert mask.dtype == bool
        assert dice(mask, inside) > least

    def test_fine_voxels_are_worked_on_in_blocks(self):
        inside = ball((66, 71, 59))
        mask = made(noisy(inside), (0.8, 0.9, 1.2), dilate_mm=0)
        assert mask.shape == (66, 71, 59)
        assert dice(mask, inside) > 0.96
        # The blocks' centres are where they belong: the mask is not shifted by half a block.
        centre = [c.mean() for c in np.nonzero(mask)]
        assert np.allclose(centre, [c.mean() for c in np.nonzero(inside)], atol=0.5)

    def test_holes_are_filled_and_islands_dropped(self):
        shell = ball((40, 41, 42), 0.75, hole=0.25)
        dirty = shell.copy()
        dirty[1:4, 1:4, 1:4] = True
        mask = made(noisy(dirty), dilate_mm=0)
        assert mask[20, 20, 21]
        assert not mask[:5, :5, :5].any()

    def test_a_brain_that_touches_the_edge_does_not_fill_the_corners(self):
        inside = np.zeros((30, 32, 28), bool)
        inside[:, 8:24] = True
        mask = made(noisy(inside), dilate_mm=0)
        assert dice(mask, inside) > 0.97
        assert not mask[:, 0].any()
        assert not mask[:, -1].any()

    def test_what_is_not_finite_counts_as_dark(self):
        inside = ball((30, 31, 29))
        b0 = noisy(inside)
        b0[~inside] = np.nan
        assert dice(made(b0, dilate_mm=0), inside) > 0.95


class TestSettings:
    def test_each_step_grows_the_mask(self):
        b0 = noisy(ball((30, 31, 29)))
        sizes = [np.count_nonzero(made(b0, dilate_mm=2.5 * n)) for n in range(3)]
        assert sizes[0] < sizes[1] < sizes[2]

    def test_blocks_much_larger_than_the_rim_are_not_grown(self):
        b0 = noisy(ball((30, 31, 29)))
        coarse, still, fine = made(b0, (5.0, 5.0, 5.0)), made(b0, (5.0, 5.0, 5.0), dilate_mm=0), made(b0)
        np.testing.assert_array_equal(coarse, still)
        assert np.count_nonzero(fine) > np.count_nonzero(coarse)

    def test_words_tell_all_of_them(self):
        words = MedianOtsuSettings(median_radius=3, passes=2, dilate_mm=5, block_mm=1.5).words()
        assert "median_radius=3, numpass=2, dilated by 5 mm, blocks of 1.5 mm" in words

    def test_the_same_scan_gives_the_same_mask(self):
        b0 = noisy(ball((30, 31, 29)))
        assert np.array_equal(made(b0), made(b0.copy()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [1e-30, 1e-12, 2.0**-20, 0.1, 3, 1e6, 1e12])
@pytest.mark.parametrize("spacing", [(2.5, 2.5, 2.5), (1.2, 1.3, 1.2)])
def test_the_unit_of_the_signal_does_not_matter(dtype, factor, spacing):
    b0 = noisy(ball((36, 41, 39)))
    expected = made(b0, spacing)
    assert 0.1 < expected.mean() < 0.5
    np.testing.assert_array_equal(made((b0.astype(np.float64) * factor).astype(dtype), spacing), expected)


@pytest.mark.parametrize("value", [0, 7, np.nan])
def test_nothing_is_refused(value):
    with pytest.raises(ScanError, match=r"^scan: median_otsu finds no brain .*\(8, 9, 7\)") as caught:
        made(np.full((8, 9, 7), value, np.float32))
    assert caught.value.code == "mask.none_found"


@pytest.mark.data
@pytest.mark.parametrize(("folder", "least"), [("single_shell", 0.975), ("two_shell", 0.95)])
def test_on_real_scans(real_data, folder, least):
    (files,) = scan_folder(real_data / "dwi" / folder)
    given = np.asanyarray(nib.load(files.mask).dataobj) > 0
    scan = read_scan(files)
    assert dice(median_otsu_mask(scan.background, scan.grid.spacing_mm, files.id), given) > least
