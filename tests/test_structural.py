"""Structural scans: intensities, bias field, other voxel sizes and back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_patch_view import ball
from test_views import CODES, affine_of, centroid_mm, scan_of, world

from mednovelty.errors import GeometryError, ScanError, SettingsError
from mednovelty.plugins import plugin
from mednovelty.preprocess.bias_field import N4BiasField
from mednovelty.preprocess.resample import Resample, carried, resample
from mednovelty.preprocess.zscore import Clip, RobustZScore, UnitRange, ZScore
from mednovelty.scan import Grid, Volume
from mednovelty.testing.models import tiny_scan


def integer_scan():
    """Return a scan as 16-bit files give it: stored integers with a slope and an intercept a channel."""
    scan = tiny_scan()
    return replace(
        scan,
        stored=np.round(scan.stored * 10).astype(np.int16),
        scale=np.array([0.1, 0.2, 3.0, 0.05, 1.0]),
        offset=np.array([0.0, -7, 20, 1, 0]),
    )


class TestZScore:
    def test_by_hand(self):
        mask = np.array([True, False, True, True, True]).reshape(1, 5, 1)
        scan = scan_of(np.array([2.0, 99, 4, 4, 6]).reshape(1, 1, 5, 1), mask=mask)
        # Mean 4, variance (4 + 0 + 0 + 4) / 4 = 2 over the mask.
        expected = np.array([-2, 0, 0, 2]) / np.sqrt(2)
        np.testing.assert_allclose(ZScore()(scan).voxels()[:, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(ZScore(limit=1.25)(scan).voxels()[:, 0], [-1.25, 0, 0, 1.25], rtol=1e-6)

    @pytest.mark.parametrize("scan", [tiny_scan(), integer_scan()], ids=["float32", "int16"])
    def test_each_contrast_has_mean_0_and_deviation_1(self, scan):
        found = ZScore()(scan)
        np.testing.assert_allclose(found.voxels().mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(found.voxels().std(0), 1, rtol=1e-5)
        assert found.stored is scan.stored, "standardising copies no voxel"

    @given(gain=st.floats(0.01, 1000), shift=st.floats(-50, 50), limit=st.sampled_from([None, 1.5]))
    def test_the_unit_of_the_signal_does_not_matter(self, gain, shift, limit):
        scan = tiny_scan().scaled(1.0)
        other = replace(scan, scale=scan.scale * gain, offset=scan.offset * gain + shift)
        step = ZScore((1, 99), limit)
        np.testing.assert_allclose(step(other).voxels(), step(scan).voxels(), atol=1e-2)

    def test_limits_come_in_order(self):
        scan, step = integer_scan(), ZScore((5, 95), 1.5)
        expected = Clip(None, 1.5)(ZScore()(Clip((5, 95))(scan))).voxels()
        np.testing.assert_array_equal(step(scan).voxels(), expected)
        assert np.abs(expected).max() == 1.5

    def test_a_constant_contrast_is_refused_by_name(self):
        scan = replace(tiny_scan(), contrasts=("FLAIR", "T1w", "T2w", "PD", "SWI"))
        scan.stored[1] = 7
        with pytest.raises(
            ScanError, match="sub-tiny: T1w has mean 7 and standard deviation 0 over"
        ) as caught:
            ZScore()(scan)
        assert caught.value.code == "voxels.constant"
        with pytest.raises(ScanError, match="channel 1 has mean 7"):
            ZScore()(replace(scan, contrasts=()))


class TestRobustZScore:
    def test_by_hand(self):
        mask = np.array([True, False, True, True, True, True]).reshape(1, 6, 1)
        scan = scan_of(np.array([2.0, 99, 4, 5, 8, 900]).reshape(1, 1, 6, 1), mask=mask)
        # Quartiles 4, 5 and 8 over the mask; those of a normal distribution are 0.6745 from its middle.
        expected = (np.array([2, 4, 5, 8, 900]) - 5) / (4 / (2 * 0.6744897501960817))
        found = plugin("preprocessors", "robust_zscore")()(scan)
        np.testing.assert_allclose(found.voxels()[:, 0], expected, rtol=1e-6)
        assert found.stored is scan.stored

    @pytest.mark.parametrize("scan", [tiny_scan(), integer_scan()], ids=["float32", "int16"])
    def test_the_unit_of_the_signal_does_not_matter_and_neither_does_a_tumour(self, scan):
        step = RobustZScore(**RobustZScore().state())
        other = replace(scan, scale=scan.scale * 7, offset=scan.offset * 7 - 30)
        expected = step(scan).voxels()
        np.testing.assert_allclose(step(other).voxels(), expected, atol=1e-3)
        brightest = scan.voxels()[:, 0].argmax()
        stored = scan.stored.astype(np.float64)
        stored[0, brightest] *= 50
        found = step(replace(scan, stored=stored)).voxels()
        rest = np.arange(len(found)) != brightest
        np.testing.assert_allclose(found[rest], expected[rest], rtol=1e-4, atol=1e-4)

    def test_half_of_a_scan_that_is_the_same_is_refused(self):
        values = np.array([7.0, 7, 7, 7, 7, 9]).reshape(1, 1, 6, 1)
        with pytest.raises(ScanError, match="half of channel 0 has the same value over the mask, 7"):
            RobustZScore()(scan_of(values, mask=np.ones((1, 6, 1), bool)))


class TestClip:
    @pytest.mark.parametrize("scan", [tiny_scan(), integer_scan()], ids=["float32", "int16"])
    def test_percentiles_are_each_contrasts_own(self, scan):
        found, signal = Clip((10, 80))(scan).voxels(), scan.voxels()
        low, high = np.percentile(signal, [10, 80], axis=0)
        np.testing.assert_allclose(found, np.clip(signal, low, high), rtol=1e-5)

    def test_a_limit_holds_on_both_sides(self):
        scan = ZScore()(tiny_scan())
        np.testing.assert_allclose(
            Clip(None, 0.5)(scan).voxels(), np.clip(scan.voxels(), -0.5, 0.5), atol=1e-6
        )
        assert Clip(None, None)(scan) is scan

    def test_words_of_errors(self):
        with pytest.raises(SettingsError, match=r"clip: percentiles must be .* got \(90, 10\)"):
            Clip((90, 10))
        with pytest.raises(SettingsError, match="zscore: limit must be above 0, got 0"):
            ZScore(limit=0)


class TestUnitRange:
    def test_by_hand(self):
        mask = np.array([True, False, True, True, True]).reshape(1, 5, 1)
        scan = scan_of(np.array([2.0, 99, 4, 5, 6]).reshape(1, 1, 5, 1), mask=mask)
        np.testing.assert_allclose(UnitRange()(scan).voxels()[:, 0], [0, 0.5, 0.75, 1], rtol=1e-6)

    @pytest.mark.parametrize("scan", [tiny_scan(), integer_scan()], ids=["float32", "int16"])
    def test_each_contrast_goes_from_0_to_1(self, scan):
        found = UnitRange()(scan).voxels()
        np.testing.assert_allclose(found.min(0), 0, atol=1e-6)
        np.testing.assert_allclose(found.max(0), 1, rtol=1e-6)

    def test_beyond_the_percentiles_all_is_0_or_1(self):
        scan = integer_scan()
        expected = UnitRange()(Clip((5, 95))(scan)).voxels()
        np.testing.assert_array_equal(UnitRange((5, 95))(scan).voxels(), expected)
        assert (np.abs(expected - 1) < 1e-6).sum(0).min() > 1

    def test_words_of_errors(self):
        scan = tiny_scan()
        scan.stored[1] = 7
        with pytest.raises(ScanError, match=r"channel 1 has mean 7 .* cannot be brought to a scale"):
            UnitRange()(scan)
        with pytest.raises(SettingsError, match=r"unit_range: percentiles must be .* got \(90, 10\)"):
            UnitRange((90, 10))


@pytest.mark.parametrize("name", ["zscore", "clip", "unit_range", "n4_bias_field"])
def test_steps_are_plugins_that_come_back_from_their_state(name):
    import json

    kind = plugin("preprocessors", name)
    own = {"n4_bias_field": {"iterations": [3]}, "unit_range": {"percentiles": [2, 98]}}
    settings = own.get(name, {"percentiles": [2, 98], "limit": 1.25})
    step = kind(**settings)
    state = json.loads(json.dumps(step.state()))
    assert kind(**state) == step != kind()
    scan = smooth_scan()
    before = scan.voxels()
    changed = step(scan).voxels()
    np.testing.assert_array_equal(scan.voxels(), before)
    np.testing.assert_array_equal(kind(**state)(scan).voxels(), changed)
    assert not np.allclose(changed, before)


def smooth_scan(shape=(26, 24, 20), codes="LAS", channels=1):
    """Return a ball of two tissues under a bias field that rises along I."""
    mask = ball(shape)
    tissue = np.where(ball(shape, 0.3), 900.0, 500.0)
    noise = np.random.default_rng(0).normal(0, 8, (channels, *shape))
    bias = np.exp(np.linspace(-0.4, 0.4, shape[0]))[:, None, None]
    data = ((tissue + noise) * bias).astype(np.float32)
    return scan_of(data, affine_of(codes, (4, 4, 5)), mask)


class TestBiasField:
    @pytest.mark.parametrize(("shape", "shrink"), [((26, 24, 20), 2), ((26, 24, 5), 4)])
    def test_a_field_is_taken_out(self, shape, shrink):
        scan = smooth_scan(shape, channels=2)
        scan = replace(scan, scale=np.array([1.0, 0.01]))
        found = N4BiasField(shrink=shrink, iterations=(15, 15))(scan)
        rim = ~ball(shape, 0.3)[scan.mask]
        for channel in range(2):
            before, after = (s.dense()[channel][scan.mask][rim] for s in (scan, found))
            assert before.std() / before.mean() > 0.15
            assert after.std() / after.mean() < 0.06
        np.testing.assert_allclose(found.voxels().mean(0), scan.voxels().mean(0), rtol=1e-5)

    def test_words_of_errors(self):
        with pytest.raises(ScanError, match="sub-01: no voxel of the mask is above 0 in a contrast"):
            N4BiasField()(smooth_scan().scaled(-1))
        with pytest.raises(SettingsError, match=r"got 0, \(50,\) and 0.001"):
            N4BiasField(shrink=0, iterations=[50])


class TestResample:
    @pytest.mark.parametrize("codes", CODES)
    @pytest.mark.parametrize("spacing", [1.7, 3.0, (1.0, 4.0, 2.5)])
    def test_a_ramp_in_the_world_is_a_ramp_there_and_back(self, codes, spacing):
        affine, shape = affine_of(codes, tilt=20), (20, 16, 11)
        at = np.stack(np.indices(shape), -1)
        slope = np.array([0.7, -0.4, 0.2])
        scan = scan_of((world(affine, at) @ slope)[None], affine, ball(shape))
        there = resample(scan, spacing)
        np.testing.assert_allclose(there.scan.grid.spacing_mm, np.broadcast_to(spacing, 3))
        found = there.scan.dense()[0]
        expected = world(there.scan.grid.affine, np.stack(np.indices(found.shape), -1)) @ slope
        # Away from the mask's rim: at the rim, voxels on one side only are averaged.
        assert well_inside(there.scan.mask).sum() >= 10
        near = well_inside(there.scan.mask)
        np.testing.assert_allclose(found[near], expected[near], atol=1e-4)
        back = there.back(Volume(expected[None].astype(np.float32), there.scan.grid.affine, "map"))
        core = scan.mask & ball(shape, 0.2)
        np.testing.assert_allclose(back.data[0][core], scan.dense()[0][core], atol=1e-4)
        np.testing.assert_array_equal(back.affine, affine)
        np.testing.assert_array_equal(back.data[0] != 0, scan.mask)

    @pytest.mark.parametrize("spacing", [1.0, 3.0, (2.0, 3.0, 1.0)])
    def test_a_constant_stays_constant_up_to_the_rim(self, spacing):
        shape = (14, 12, 9)
        mask = ball(shape)
        mask[3, :, :] = False
        scan = scan_of(np.where(mask, 5.0, -1000.0)[None], affine_of("LAS"), mask)
        there = resample(scan, spacing)
        np.testing.assert_allclose(there.scan.voxels(), 5, rtol=1e-5)
        field = Volume(np.where(there.scan.mask, 3.0, -1000.0)[None], there.scan.grid.affine, "map")
        np.testing.assert_allclose(there.back(field).data[0], 3 * mask, rtol=1e-5)

    @pytest.mark.parametrize("codes", CODES)
    def test_a_blob_stays_where_it_is(self, codes):
        affine, shape = affine_of(codes, tilt=20), (23, 20, 17)
        away = np.stack(np.indices(shape), -1) - [10.3, 9.8, 8.1]
        data = np.exp(-(away**2).sum(-1) / 18)[None]
        there = resample(scan_of(data, affine), 2.7)
        expected = centroid_mm(Volume(data, affine, "blob"))
        moved = Volume(there.scan.dense(), there.scan.grid.affine, "blob")
        np.testing.assert_allclose(centroid_mm(moved), expected, atol=0.06)
        np.testing.assert_allclose(centroid_mm(there.back(moved)), expected, atol=0.06)

    def test_its_own_spacing_leaves_a_scan_as_it_is(self):
        scan = tiny_scan()
        there = resample(scan, scan.grid.spacing_mm)
        np.testing.assert_allclose(there.scan.dense(), scan.dense(), rtol=1e-6)
        np.testing.assert_array_equal(there.scan.mask, scan.mask)
        np.testing.assert_allclose(there.scan.grid.affine, scan.grid.affine)

    def test_what_else_a_scan_says_is_kept(self):
        scan = replace(tiny_scan(), contrasts=("a", "b", "c", "d", "e"), sha256="0f")
        found = resample(scan, 2.0).scan
        assert (found.id, found.contrasts, found.sha256) == (scan.id, scan.contrasts, "0f")
        assert found.background.shape == found.grid.shape == found.mask.shape

    @pytest.mark.parametrize("spacing", [0.7, 4.0, 9.0])
    def test_a_thin_lesion_is_carried_along_whole(self, spacing):
        scan = tiny_scan()
        rng = np.random.default_rng(1)
        lesion = rng.uniform(size=scan.grid.shape) < 0.02
        target = resample(scan, spacing).scan.grid
        found = carried(lesion, scan.grid, target)
        assert found.shape == target.shape
        back = np.linalg.inv(target.affine) @ scan.grid.affine
        places = np.argwhere(lesion) @ back[:3, :3].T + back[:3, 3]
        places = np.clip(places, 0, np.array(target.shape) - 1)
        away = np.abs(np.argwhere(found)[:, None] - places[None])
        assert (away <= 0.5 + 1e-6).all(2).any(0).all()
        # Nothing is marked farther away than the sum of half a voxel of each grid.
        reach = (scan.grid.spacing_mm + target.spacing_mm) / 2 / target.spacing_mm + 1e-6
        assert (away <= reach).all(2).any(1).all()
        assert carried(lesion, scan.grid, scan.grid).tolist() == lesion.tolist()

    def test_a_region_is_not_carried_to_other_axes(self):
        grid = tiny_scan().grid
        turned = Grid(grid.shape, grid.affine[:, [1, 0, 2, 3]])
        with pytest.raises(GeometryError, match="grid with other axes"):
            carried(np.ones(grid.shape, bool), grid, turned)

    @pytest.mark.parametrize("codes", CODES)
    def test_three_spacings_go_by_the_world_however_a_scan_is_stored(self, codes):
        affine, shape = affine_of(codes, tilt=10), (20, 16, 11)
        scan = scan_of(np.ones((1, *shape)), affine, ball(shape))
        there = Resample([1.5, 2.5, 5.0])(scan)
        assert (
            np.abs(there.grid.affine[:3, :3]).argmax(0).tolist() == np.abs(affine[:3, :3]).argmax(0).tolist()
        )
        lengths = dict(zip(np.abs(affine[:3, :3]).argmax(0).tolist(), there.grid.spacing_mm, strict=True))
        assert [lengths[axis] for axis in range(3)] == pytest.approx([1.5, 2.5, 5.0])
        assert Resample((1.5, 2.5, 5.0)).state() == {"spacing_mm": [1.5, 2.5, 5.0]}
        assert Resample(2.0).state() == {"spacing_mm": 2.0}

    def test_words_of_errors(self):
        there = resample(tiny_scan(), 3.0)
        with pytest.raises(GeometryError, match="does not fit the voxels of the resampled sub-tiny"):
            there.back(Volume(np.zeros((1, 2, 3, 4)), np.eye(4), "map"))
        with pytest.raises(SettingsError, match="spacing_mm must be above 0, got 0"):
            resample(tiny_scan(), 0)
        with pytest.raises(SettingsError, match=r"sub-tiny would have .* voxels; choose larger ones"):
            resample(tiny_scan(), 0.001)


def well_inside(mask):
    from scipy.ndimage import binary_erosion

    return binary_erosion(mask, np.ones((3, 3, 3)), iterations=2)
