"""Windows cover the brain, and maps are blended from them without seams."""

import itertools
import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import _get_scan_interval
from test_views import affine_of, scan_of

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.views.patch import PatchSettings, PatchView, _starts

SIZE = (6, 4, 5)


def ball(shape, share=0.8):
    axes = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in shape], indexing="ij")
    return sum(a * a for a in axes) < share


def random_scan(shape=(13, 11, 9), codes="RAS", channels=2, mask=None, seed=0):
    data = np.random.default_rng(seed).normal(size=(channels, *shape))
    return scan_of(data, affine_of(codes), ball(shape) if mask is None else mask)


def view_of(**settings):
    return PatchView(PatchSettings(**{"size": SIZE, "min_brain": 0.0} | settings))


def first_channel(windows):
    return {"same": windows[:, 0]}


def gaussian_weight(size, sigma_scale):
    """The weight as a formula: a Gaussian about the middle, at least 0.001."""
    parts = [np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / 2 / (sigma_scale * n) ** 2) for n in size]
    weight = np.einsum("i,j,k", *parts)
    return np.maximum(weight, max(weight.min(), 1e-3))


@given(n=st.integers(1, 60), size=st.integers(1, 24), overlap=st.floats(0, 0.95))
def test_windows_begin_where_monai_begins_them(n, size, overlap):
    n = max(n, size)
    step = _get_scan_interval((n,), (size,), 1, (overlap,))
    expected = [place[0].start for place in dense_patch_slices((n,), (size,), step)]
    assert _starts(n, size, overlap).tolist() == expected


class TestCut:
    @pytest.mark.parametrize("codes", ["RAS", "LAS", "AIR"])
    def test_windows_are_boxes_of_the_turned_volume(self, codes):
        shape = (13, 11, 9)
        scan, view = random_scan(shape, codes, mask=np.ones(shape, bool)), view_of(overlap=0.4)
        from mednovelty.views.axes import to_ras

        dense = to_ras(scan.grid.affine)(scan.dense())
        # Steps of 0.6 of the size: 3, 2 and 3 voxels.
        places = [_starts(n, s, 0.4) for n, s in zip(dense.shape[1:], SIZE, strict=True)]
        expected = [dense[:, i : i + 6, j : j + 4, k : k + 5] for i, j, k in itertools.product(*places)]
        np.testing.assert_array_equal(view.cut(scan, 0, view.count(scan)), expected)

    def test_blocks_make_up_the_whole(self):
        scan, view = random_scan(), view_of(min_brain=0.3)
        whole = view.cut(scan, 0, view.count(scan))
        parts = [view.cut(scan, n, n + 3) for n in range(0, view.count(scan), 3)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert whole.shape[1:] == view.shape(2) == (2, *SIZE)
        assert whole.dtype == np.float32
        assert view.cut(scan, 5, 5).shape == (0, 2, *SIZE)

    @pytest.mark.parametrize("shape", [(13, 11, 9), (13, 11, 2), (3, 3, 3)])
    def test_windows_with_little_brain_are_left_out(self, shape):
        scan = random_scan(shape)
        ones = scan_of(np.ones((1, *shape)), scan.grid.affine, scan.mask)
        every = view_of(background=-1.0)
        share = (every.cut(ones, 0, 999)[:, 0] == 1).mean((1, 2, 3))
        assert share.min() > 0
        assert every.count(ones) == every.stitch_count(ones)
        for least in (0.05, 0.3, 0.6):
            view = view_of(min_brain=least, background=-1.0)
            found = (view.cut(ones, 0, 999)[:, 0] == 1).mean((1, 2, 3))
            np.testing.assert_allclose(found, share[share >= least])
            assert view.stitch_count(ones) == every.count(ones)

    def test_a_scan_smaller_than_the_window_is_padded_on_both_sides(self):
        scan = random_scan((3, 11, 2), mask=np.ones((3, 11, 2), bool))
        (window,) = view_of(size=(6, 11, 5), background=7.0).cut(scan, 0, 9)
        expected = np.full((2, 6, 11, 5), 7, np.float32)
        expected[:, 1:4, :, 1:3] = scan.dense()
        np.testing.assert_array_equal(window, expected)

    def test_which_windows_touch_a_lesion(self):
        for shape, codes in (((13, 11, 9), "LAS"), ((13, 11, 2), "AIR")):
            scan, view = random_scan(shape, codes), view_of(min_brain=0.1)
            lesion = np.zeros(shape, bool)
            lesion[6:8, 5, 1] = True
            painted = scan_of(lesion[None], scan.grid.affine, scan.mask)
            expected = view.cut(painted, 0, 999).any((1, 2, 3, 4))
            assert 0 < expected.sum() < len(expected)
            np.testing.assert_array_equal(view.touches(scan, lesion, 0, 999), expected)
            np.testing.assert_array_equal(view.touches(scan, lesion, 3, 9), expected[3:9])


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("codes", ["RAS", "AIR"])
@pytest.mark.parametrize("shape", [(13, 11, 9), (13, 11, 2), (3, 2, 9)])
class TestBlending:
    def test_windows_come_back_as_the_scan(self, mode, codes, shape):
        scan = random_scan(shape, codes)
        expected = np.where(scan.mask, scan.dense()[0], 0)
        for view in (view_of(mode=mode), view_of(mode=mode, windows_a_batch=1, overlap=0.7)):
            stitched = view.stitch(scan, first_channel)["same"]
            np.testing.assert_allclose(stitched.data[0], expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(stitched.affine, scan.grid.affine)
            assembled = view.assemble(scan, view.cut(scan, 0, 999)[:, 0], "map")
            np.testing.assert_allclose(assembled.data[0], expected, rtol=1e-5, atol=1e-6)

    def test_a_constant_is_the_constant_up_to_the_border(self, mode, codes, shape):
        scan, view = random_scan(shape, codes), view_of(mode=mode)
        stitched = view.stitch(scan, lambda windows: {"c": torch.full((len(windows),), 2.5)})["c"]
        np.testing.assert_allclose(stitched.data[0], 2.5 * scan.mask, rtol=1e-6)
        np.testing.assert_allclose(
            view.assemble(scan, np.full(view.count(scan), 2.5), "c").data[0], 2.5 * scan.mask, rtol=1e-6
        )

    def test_as_a_loop_by_hand(self, mode, codes, shape):
        from mednovelty.views.axes import to_ras

        scan = random_scan(shape, codes, mask=np.ones(shape, bool))
        view = view_of(mode=mode, sigma_scale=0.2, overlap=0.6)
        turn = to_ras(scan.grid.affine)
        volume = turn(scan.dense())
        pad = [(0, 0)] + [((s - n) // 2, s - n - (s - n) // 2) if s > n else (0, 0)
                          for n, s in zip(volume.shape[1:], SIZE, strict=True)]  # fmt: skip
        padded = np.pad(volume, pad)
        weight = gaussian_weight(SIZE, 0.2) if mode == "gaussian" else np.ones(SIZE)
        top, bottom = np.zeros((2, *padded.shape[1:]))
        level = np.zeros(padded.shape[1:])
        starts = [_starts(n, s, 0.6) for n, s in zip(padded.shape[1:], SIZE, strict=True)]
        for i, j, k in itertools.product(*starts):
            where = slice(i, i + 6), slice(j, j + 4), slice(k, k + 5)
            window = padded[(slice(None), *where)]
            top[where] += weight * (window[0] * window.mean() + window[1])
            level[where] += weight * window.max()
            bottom[where] += weight

        def predict(windows):
            mean = windows.mean((1, 2, 3, 4))[:, None, None, None]
            return {"pixels": windows[:, 0] * mean + windows[:, 1], "level": windows.amax((1, 2, 3, 4))}

        found = view.stitch(scan, predict)
        crop = tuple(slice(a, a + n) for (a, _), n in zip(pad[1:], volume.shape[1:], strict=True))
        np.testing.assert_allclose(turn(found["pixels"].data[0]), (top / bottom)[crop], atol=1e-5)
        np.testing.assert_allclose(turn(found["level"].data[0]), (level / bottom)[crop], atol=1e-5)
        windows = torch.from_numpy(view.cut(scan, 0, 999))
        for name, scores in predict(windows).items():
            np.testing.assert_allclose(
                view.assemble(scan, scores.numpy(), name).data, found[name].data, atol=1e-5
            )


class TestStitch:
    def test_gradients_work_inside_the_window(self):
        scan, view = random_scan(), view_of()

        def slope(windows):
            with torch.enable_grad():
                x = windows.detach().clone().requires_grad_()
                (gradient,) = torch.autograd.grad((x[:, 0] ** 3).sum(), x)
            return {"slope": gradient[:, 0]}

        with torch.no_grad():
            quiet = view.stitch(scan, slope)["slope"].data
        np.testing.assert_allclose(quiet[0], np.where(scan.mask, 3 * scan.dense()[0] ** 2, 0), atol=1e-5)

        def attached(windows):
            assert torch.is_grad_enabled()
            x = windows.detach().clone().requires_grad_()
            return {"twice": 2 * x[:, 0]}

        found = view.stitch(scan, attached)["twice"].data[0]
        np.testing.assert_allclose(found, np.where(scan.mask, 2 * scan.dense()[0], 0), atol=1e-5)

    @pytest.mark.parametrize("a_batch", [1, 3, 100])
    def test_only_windows_with_brain_are_scored_and_each_once(self, a_batch):
        mask = np.zeros((24, 22, 20), bool)
        mask[0:5, 9:20, 1:9] = True
        mask[14:23, 2:6, 11:19] = True
        scan, view = random_scan(mask.shape, mask=mask), view_of(windows_a_batch=a_batch)
        seen, told = [], []

        def predict(windows):
            seen.extend(windows.clone())
            assert windows.is_contiguous(), "a view of the scan, which a predictor could change"
            return first_channel(windows)

        found = view.stitch(scan, predict, told.append)["same"].data[0]
        np.testing.assert_allclose(found, np.where(mask, scan.dense()[0], 0), rtol=1e-5, atol=1e-6)
        assert sum(told) == view.stitch_count(scan) == view.count(scan)
        seen = [
            window for window in seen if window.any()
        ]  # The very first has no brain, but tells the names.
        np.testing.assert_array_equal(torch.stack(seen).numpy(), view.cut(scan, 0, 9999))

    def test_names_are_learned_where_the_first_windows_have_no_brain(self):
        mask = np.zeros((24, 22, 20), bool)
        mask[0, 21, 19] = mask[23, 0, 0] = True
        scan, told = random_scan(mask.shape, mask=mask), []
        found = view_of(windows_a_batch=2).stitch(scan, first_channel, told.append)
        np.testing.assert_allclose(
            found["same"].data[0], np.where(mask, scan.dense()[0], 0), rtol=1e-5, atol=1e-6
        )
        assert sum(told) == view_of().count(scan) == 2

    def test_scores_may_share_memory(self):
        scan, view = random_scan(), view_of()
        found = view.stitch(
            scan, lambda windows: {"a": windows[:, 0], "b": windows[:, 0], "c": windows[:, 1]}
        )
        np.testing.assert_allclose(
            found["a"].data[0], np.where(scan.mask, scan.dense()[0], 0), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(found["b"].data, found["a"].data)
        np.testing.assert_allclose(
            found["c"].data[0], np.where(scan.mask, scan.dense()[1], 0), rtol=1e-5, atol=1e-6
        )

    def test_memory_that_runs_out_on_the_device_is_taken_from_the_processor(self, monkeypatch, caplog):
        scan, view, told, words, stitched_on = random_scan(), view_of(), [], [], []
        slide = PatchView._slide

        # There is no such device here: what would run on it runs on the processor.
        def on_the_processor(self, box, run, device, stitch_on):
            stitched_on.append(stitch_on.type)
            found = slide(self, box, run, torch.device("cpu"), torch.device("cpu"))
            if stitch_on.type == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return found

        monkeypatch.setattr(PatchView, "_slide", on_the_processor)
        with caplog.at_level(logging.WARNING, "mednovelty"):
            found = view.stitch(scan, first_channel, told.append, "cuda:1", words.append)["same"]
        np.testing.assert_allclose(
            found.data[0], np.where(scan.mask, scan.dense()[0], 0), rtol=1e-5, atol=1e-6
        )
        assert stitched_on == ["cuda", "cpu"]
        assert words == ["sub-01: cuda:1 is out of memory; maps are put together by the processor"]
        assert words[0] in caplog.text
        assert sum(told) == view.stitch_count(scan), "windows scored twice are reported once"

    @pytest.mark.parametrize(
        ("error", "tried"),
        [(RuntimeError("shapes differ"), [4]), (torch.OutOfMemoryError("again"), [4, 2, 1])],
    )
    def test_other_errors_and_the_last_step_are_the_callers(self, error, tried):
        calls = []

        def fails(windows):
            calls.append(len(windows))
            raise error

        with pytest.raises(type(error), match=str(error)):
            view_of().stitch(random_scan(mask=np.ones((13, 11, 9), bool)), fails, device="cpu")
        assert calls == tried

    def test_fewer_windows_at_a_time_and_then_the_processor_give_the_same_map(self, caplog):
        scan, view, told, words, seen = random_scan(), view_of(), [], [], []
        expected = view.stitch(scan, first_channel)["same"].data

        def full(windows):
            seen.append(len(windows))
            if len(windows) > 1 or len(seen) > 9:
                raise torch.OutOfMemoryError("full")
            return first_channel(windows)

        with caplog.at_level(logging.WARNING, "mednovelty"):
            found = view.stitch(
                scan, full, told.append, told=words.append, on_processor=lambda: first_channel
            )
        np.testing.assert_allclose(found["same"].data, expected, rtol=1e-6)
        assert len(seen) == 10
        assert [line.split(": ", 2)[2] for line in words] == [
            "4 samples at a time are too many; going on with 2",
            "2 samples at a time are too many; going on with 1",
            "a single sample is too large; the processor scores the rest, in float32",
        ]
        assert all(line.startswith("sub-01: out of memory") and line in caplog.text for line in words)
        assert sum(told) == view.stitch_count(scan)

    def test_words_of_errors(self):
        scan = random_scan()
        with pytest.raises(GeometryError, match=r"must be \(4,\) or \(4, 6, 4, 5\), got \(4, 2, 6, 4, 5\)"):
            view_of().stitch(scan, lambda windows: {"all": windows})
        with pytest.raises(GeometryError, match=r"kl: scores of sub-01 must be .* got \(3,\)"):
            view_of().assemble(scan, np.ones(3), "kl")
        for settings, words in (
            ({"size": (4, 4)}, r"three numbers of voxels, got \(4, 4\)"),
            ({"overlap": 1}, "at least 0 and below 1, got 1"),
            ({"mode": "linear"}, "'gaussian' or 'constant', got 'linear'"),
            ({"axes": "LPS"}, "'RAS' or 'stored', got 'LPS'"),
            ({"windows_a_batch": 0}, "got 0.125, 0 and 0.1"),
        ):
            with pytest.raises(SettingsError, match=words):
                PatchSettings(**settings)
