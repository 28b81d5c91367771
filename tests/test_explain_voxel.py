"""Why one voxel: tensors and nearest normals by hand, drivers against scores of changed samples."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from cohorts import FAST, tiny_cohort, tiny_detector
from small_images import SHAPE, detector_of, scan_of

from mednovelty.errors import DetectorError, GeometryError, SettingsError
from mednovelty.explaining.nearest import nearest_normals, reconstruction
from mednovelty.explaining.places import Standing, mm_of
from mednovelty.explaining.samples import sample_showing
from mednovelty.explaining.tensor import tensors
from mednovelty.explaining.told import driven_by, height_of, lines_of
from mednovelty.explaining.told_json import told_of
from mednovelty.explaining.voxel import explain_voxel, groups_of
from mednovelty.explaining.voxel_parts import Driver, Scored, ScoreWhy
from mednovelty.io.read_scan import read_scan
from mednovelty.scan import Scan, Volume
from mednovelty.views.patch import PatchSettings, PatchView
from mednovelty.views.slice import SliceSettings, SliceView
from mednovelty.voxel_fitting import fit_voxels

VOXEL = (6, 12, 5)


def signals(matrix, s0=37.0):
    rng = np.random.default_rng(3)
    g = rng.normal(size=(13, 3))
    g /= np.linalg.norm(g, axis=1)[:, None]
    b = np.array([0.0, 5, *[900] * 5, *[1400] * 6])
    g[0] = 0
    return s0 * np.exp(-b * np.einsum("ci,ij,cj->c", g, np.asarray(matrix), g)), b, g


def test_a_tensor_by_hand():
    # Turned by 30 degrees about z: MD = (1.7 + .5 + .2) / 3 = .8; FA from its three values alone.
    turn = np.array([[np.sqrt(3) / 2, -0.5, 0], [0.5, np.sqrt(3) / 2, 0], [0, 0, 1]])
    values = np.array([1.7e-3, 0.5e-3, 0.2e-3])
    found = tensors(*_stacked(signals(turn @ np.diag(values) @ turn.T)))
    assert found.md == pytest.approx([0.8e-3])
    # sqrt(3/2) * |(0.9, -0.3, -0.6)| / |(1.7, 0.5, 0.2)| = 1.2247 * 1.1225 / 1.7833
    assert found.fa == pytest.approx([0.77091], rel=1e-4)
    assert np.abs(found.along[0]) == pytest.approx([np.sqrt(3) / 2, 0.5, 0], abs=1e-6)
    assert found.along[0, 0] * found.along[0, 1] > 0
    assert found.misfit == pytest.approx([0], abs=1e-9)


def _stacked(given):
    signal, b, g = given
    return signal[None], b, g


def test_water_that_moves_alike_in_all_directions():
    found = tensors(*_stacked(signals(2e-3 * np.eye(3))))
    assert found.md == pytest.approx([2e-3])
    assert found.fa == pytest.approx([0], abs=1e-6)


def test_shells_beyond_a_tensor_are_left_out_where_there_are_others():
    signal, b, g = signals(1e-3 * np.eye(3))
    more = np.r_[signal, 20.0], np.r_[b, 3000], np.r_[g, [[0, 0, 1]]]
    assert tensors(*_stacked(more)).md == pytest.approx([1e-3])


def test_an_acquisition_that_gives_no_tensor():
    signal, b, g = signals(1e-3 * np.eye(3))
    assert tensors(signal[None, :6], b[:6], g[:6]) is None


def test_jumps_from_direction_to_direction_are_misfit():
    signal, b, g = signals(1e-3 * np.eye(3))
    jumped = signal * np.exp(np.where(np.arange(13) % 2, 0.2, -0.2))
    found = tensors(np.stack([signal, jumped]), b, g)
    assert found.misfit[0] < 1e-9
    assert 0.05 < found.misfit[1] <= 0.2


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()[0]


@pytest.fixture(scope="module")
def scan():
    return read_scan(tiny_cohort().patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz")


@pytest.fixture(scope="module")
def maps(detector, scan):
    return {name: found.data for name, found in detector.score(scan).items()}


@pytest.fixture(scope="module")
def why(detector, scan, maps):
    return explain_voxel(detector, scan, VOXEL, Scored(maps), k=4)


def measured(scan, voxel):
    return np.asarray(nib.load(scan.source).dataobj[voxel], float)


def test_nearest_normals_by_hand(detector):
    inputs = detector.reference.parts["input"]
    x = inputs[7:8] + 0.03
    found = nearest_normals(detector, x, 3)
    away = np.linalg.norm(inputs.numpy().astype(float) - x.numpy(), axis=1)
    order = np.argsort(away, kind="stable")[:3]
    np.testing.assert_allclose([n.distance for n in found.normals], away[order], rtol=1e-4)
    np.testing.assert_array_equal(found.samples, inputs.numpy()[order])
    assert [(n.scan, n.mm) for n in found.normals] == [detector.fitted.places.told(row) for row in order]
    assert (found.between, found.decoded) == ("signals", False)


def test_normals_of_latents_are_decoded(detector):
    parts = {name: part for name, part in detector.reference.parts.items() if name != "input"}
    from mednovelty.reference import Reference

    only = Reference({"latent_mean": parts["latent_mean"]}, "exact", 9)
    blind = replace(detector, fitted=replace(detector.fitted, reference=only, places=None))
    x = detector.reference.parts["input"][3:4]
    found = nearest_normals(blind, x, 2)
    assert found.normals[0].distance == pytest.approx(0, abs=1e-3)
    assert (found.normals[0].scan, found.normals[0].mm) == ("", None)
    expected = detector.model.decode(parts["latent_mean"][3:4]).mean
    np.testing.assert_allclose(found.samples[0], expected[0].numpy(), rtol=1e-5, atol=1e-6)
    assert found.decoded
    none = replace(detector, fitted=replace(detector.fitted, reference=Reference({}, "exact", 0)))
    assert nearest_normals(none, x, 2) is None


def test_the_signal_is_the_voxel_s_own(scan, why):
    # 1 is the mean of the brain: the ratio to what was measured is one number.
    ratio = why.signal / measured(scan, VOXEL)
    assert np.ptp(ratio) < 1e-4 * ratio.mean()
    brain = scan.voxels().mean(dtype=np.float64)
    assert ratio.mean() == pytest.approx(1 / brain, rel=1e-4)
    assert why.mm == pytest.approx(mm_of(scan.grid, VOXEL))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_file_gives_the_same_place_the_same_answer(detector, scan, maps, why, axis):
    shape = np.array(scan.grid.shape)
    flip = np.eye(4)
    flip[axis, axis], flip[axis, 3] = -1, shape[axis] - 1
    data = np.flip(scan.dense(), axis + 1)
    mask = np.flip(scan.mask, axis)
    other = Scan.of(Volume(data, scan.grid.affine @ flip, "flipped"), mask, scan.gradients)
    voxel = tuple(int(n) for n in (flip @ [*VOXEL, 1])[:3])
    turned = {name: np.flip(values, axis) for name, values in maps.items()}
    found = explain_voxel(detector, other, voxel, Scored(turned), k=4)
    assert found.mm == pytest.approx(why.mm)
    np.testing.assert_allclose(found.signal, why.signal, rtol=1e-4)
    assert [s.value for s in found.scores] == [s.value for s in why.scores]
    assert found.nearest.normals[0].mm == why.nearest.normals[0].mm


def test_scores_are_those_of_the_maps(maps, why, scan):
    for score in why.scores:
        assert score.value == maps[score.score][VOXEL]
        assert score.own == pytest.approx(score.value, rel=1e-4, abs=1e-4)
        inside = maps[score.score][scan.mask]
        assert score.standing.above == np.count_nonzero(inside >= score.value)
        assert score.standing.of == scan.n_voxels
        assert score.p_value is None


def test_what_drives_a_score_is_what_it_falls_by(detector, scan, why):
    places = np.argwhere(scan.mask.transpose(2, 1, 0))[:, ::-1]
    row = int(np.flatnonzero((places == VOXEL).all(1))[0])
    x = detector.prepare(scan)[0].voxels()[row].astype(np.float64)
    normal = why.nearest.samples.astype(np.float64).mean(0)
    shell = np.array(detector.scheme.bvalues_s_per_mm2) > 50
    changed = np.stack([x, np.where(shell, x, normal), np.where(shell, normal, x), normal])
    one = x.copy()
    one[5] = normal[5]
    for score in why.scores:
        own, b0, dwi, every, single = detector.score_voxels(np.vstack([changed, one]), score.score)[
            score.score
        ]
        told = [score.own, score.drivers[0].without, score.drivers[1].without, score.as_normal]
        assert told == pytest.approx([own, b0, dwi, every], rel=1e-3, abs=1e-3)
        assert score.by_channel[5] == pytest.approx(own - single, rel=1e-2, abs=2e-3)
    assert [d.group for d in why.scores[0].drivers] == ["b=0", "b=1200"]


def test_relevance_is_told_where_there_is_a_rule(why):
    rules = {score.score: score for score in why.scores}
    error = rules["reconstruction_error"]
    assert error.relevance.sum() == pytest.approx(error.own, rel=1e-4)
    assert error.rule == "lrp: squared error of each input"
    assert sum(d.relevance for d in error.drivers) == pytest.approx(error.own, rel=1e-4)
    assert rules["nearest_normal"].relevance.sum() == pytest.approx(rules["nearest_normal"].own, rel=1e-4)
    # Searches among latents have no rule, and are asked all the same what they fall by.
    assert rules["latent_euclidean"].relevance is None
    assert "looks for the nearest normals" in rules["latent_euclidean"].rule
    assert len(rules["latent_euclidean"].drivers) == 2


def test_the_band_is_that_of_all_normals(detector, why):
    means = np.array(dict(detector.preprocessing)["channel_mean"].means)
    every = detector.reference.parts["input"].numpy() * means
    np.testing.assert_allclose(why.diffusion.band, np.quantile(every, (0.05, 0.95), axis=0), rtol=1e-4)
    beyond = (why.signal < why.diffusion.band[0]) | (why.signal > why.diffusion.band[1])
    assert why.diffusion.outside == beyond.sum()
    assert why.diffusion.md.low < why.diffusion.md.high


def test_the_reconstruction_is_the_model_s(detector, why, scan):
    x = detector.reference.parts["input"][2:3]
    expected = detector.model.decode(detector.model.encode(x).mean).mean[0]
    np.testing.assert_allclose(reconstruction(detector, x), expected.numpy(), rtol=1e-6)
    assert why.reconstruction.shape == why.signal.shape


def test_what_cannot_be_explained(detector, scan, maps):
    with pytest.raises(SettingsError, match="nearest must be at least 1, got 0"):
        explain_voxel(detector, scan, VOXEL, Scored(maps), k=0)
    arrays = fit_voxels(np.random.default_rng(0).normal(size=(60, 4)) + 5, settings=FAST)
    with pytest.raises(DetectorError, match="fitted on arrays"):
        explain_voxel(arrays, scan, VOXEL, Scored(maps))


AFFINES = {
    "LAS": np.diag([-2.0, 1.5, 3, 1]),
    "RPI": np.diag([2.0, -1.5, -3, 1]),
    "turned": np.array([[0, 0, -3.0, 9], [2, 0, 0, -4], [0, 1.5, 0, 2], [0, 0, 0, 1]]),
}
VIEWS = {
    "slices": SliceView(SliceSettings(axis="coronal", size=(12, 14), spacing_mm=1.5)),
    "windows": PatchView(PatchSettings(size=(5, 6, 4), overlap=0.5)),
    "coarse": SliceView(SliceSettings(size=(8, 8))),
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("kind", VIEWS)
def test_a_sample_shows_the_voxel_in_its_pixel(affine, kind):
    """A mark in the scan is brightest in the sample and pixel that are told."""
    at, shape, view = (6, 9, 4), (13, 17, 9), VIEWS[kind]
    mask = np.zeros(shape, bool)
    mask[1:-1, 2:-1, 1:-1] = True
    rng = np.random.default_rng(1)
    data = np.where(mask, rng.uniform(0, 1, shape), 0)
    scan = Scan.of(Volume(data[None].astype(np.float32), affine, "s"), mask)
    data[at] = 500
    marked = Scan.of(Volume(data[None].astype(np.float32), affine, "s"), mask)
    number, pixel = sample_showing(view, scan, np.array(mm_of(scan.grid, at)))
    gain = view.cut(marked, number, number + 1)[0, 0] - view.cut(scan, number, number + 1)[0, 0]
    # A voxel between two pixels is as bright in both.
    assert gain[pixel] == pytest.approx(gain.max(), rel=1e-3)
    best = max((view.cut(marked, n, n + 1) - view.cut(scan, n, n + 1)).max() for n in range(view.count(scan)))
    assert gain.max() == pytest.approx(best)


def test_of_several_windows_the_one_with_the_voxel_in_its_middle():
    scan = Scan.of(Volume(np.ones((1, 12, 12, 12), np.float32), np.eye(4), "s"), np.ones((12,) * 3, bool))
    view = PatchView(PatchSettings(size=(4, 4, 4), overlap=0.5))
    number, pixel = sample_showing(view, scan, np.array([5.0, 5, 5]))
    assert pixel in {(1, 1, 1)}
    assert view.centres(scan, number, number + 1).tolist() == [[5.5, 5.5, 5.5]]


def test_a_voxel_that_no_sample_shows_is_refused():
    mask = np.ones((13, 17, 9), bool)
    scan = Scan.of(Volume(np.ones((1, 13, 17, 9), np.float32), np.diag([2.0, 2, 2, 1]), "sub-9"), mask)
    view = SliceView(SliceSettings(size=(4, 4), spacing_mm=2))
    with pytest.raises(GeometryError, match=r"sub-9: no sample .* shows 0\.0, 0\.0, 8\.0 mm"):
        sample_showing(view, scan, np.array([0.0, 0, 8]))


@pytest.mark.parametrize("recipe", ["slices", "patches"])
def test_an_image_is_explained_in_its_pixel(recipe):
    detector, scan, voxel = detector_of(recipe), scan_of(7), (8, 12, 6)
    scored = detector.score(scan)
    why = explain_voxel(detector, scan, voxel, Scored({n: m.data for n, m in scored.items()}), k=2)
    assert why.signal.shape == detector.shape
    assert len(why.pixel) == len(detector.shape) - 1
    assert [group.name for group in why.groups] == ["FLAIR", "T1w"]
    assert why.gradient.shape == detector.shape[1:]
    assert why.gradient_of == "rec_error"
    assert why.diffusion is None
    if recipe == "patches":
        prepared = detector.prepare(scan)[0].dense()
        here = (slice(None), *why.pixel)
        np.testing.assert_allclose(why.signal[here], prepared[(slice(None), *voxel)], rtol=1e-5)


def test_a_detector_without_normals_says_so():
    detector, scan = detector_of("slices"), scan_of(7)
    assert not len(detector.reference)
    why = explain_voxel(detector, scan, (8, 12, 6), Scored({"rec_error": np.ones(SHAPE, np.float32)}))
    assert why.nearest is None
    assert why.normals.shape == (0, *detector.shape)
    assert why.scores[0].drivers == ()
    assert "The detector keeps no normals to compare with." in lines_of(why)
    assert told_of(why)["NearestNormals"] is None


def test_shells_are_groups_by_rising_b_value(detector):
    groups = groups_of(detector)
    b = np.array(detector.scheme.bvalues_s_per_mm2)
    assert [g.name for g in groups] == ["b=0", "b=1200"]
    assert b[list(groups[0].channels)].max() <= 50
    assert sorted(c for g in groups for c in g.channels) == list(range(len(b)))


def score(own, as_normal, *without, p=None):
    drivers = tuple(Driver(f"b={n}000", value) for n, value in enumerate(without))
    return ScoreWhy("s", own, Standing(2, 40, "voxels"), p, own, as_normal, drivers)


def test_a_p_value_is_said_to_be_among_healthy_scans():
    words = height_of(score(4.0, 1.0, p=0.00025))
    assert "in healthy scans that were held out 0.025 % of voxels score as high (p = 0.00025)" in words
    assert "No calibration" not in words
    assert "number 2 of the 40 voxels (top 5 %)" in words


def test_what_drives_a_score_in_words():
    assert "Driven by b=1000" in driven_by(score(4.0, 1.0, 3.5, 2.5))
    assert "2.5 in place of 4 (50 % of the way to 1" in driven_by(score(4.0, 1.0, 3.5, 2.5))
    assert driven_by(score(1.0, 2.0, 0.5, 3.0)).startswith("No single group")
    assert driven_by(ScoreWhy("s", 1.0, Standing(1, 2, "voxels"))) == ""


def test_the_lines_of_a_voxel(why):
    text = "\n".join(lines_of(why))
    x, y, z = why.mm
    assert f"RAS {x:.1f}, {y:.1f}, {z:.1f} mm; voxel 6, 12, 5" in text
    assert "nearest_normal (" in text
    first = why.nearest.normals[0]
    assert f"{first.scan} at {', '.join(f'{v:.0f}' for v in first.mm)}" in text
    assert f"{why.diffusion.outside} of 15 measurements" in text
    b0 = list(why.groups[0].channels)
    change = why.signal[b0].mean() / why.normals[:, b0].mean() - 1
    assert f"b=0 {change:+.0%}".replace("%", " %") in text


def test_more_or_less_water_is_said_the_right_way_round(why):
    def lines(md, fa, misfit=0.1):
        told = replace(
            why.diffusion,
            md=replace(why.diffusion.md, voxel=md, nearest=1e-3, low=0.6e-3, high=1.5e-3),
            fa=replace(why.diffusion.fa, voxel=fa, nearest=0.4),
            misfit=replace(why.diffusion.misfit, voxel=misfit, nearest=0.1, high=0.3),
        )
        return "\n".join(lines_of(replace(why, diffusion=told)))

    assert "moves more freely than" in lines(1.2e-3, 0.2)
    assert "and less along one direction" in lines(1.2e-3, 0.2)
    assert "moves less freely than" in lines(0.8e-3, 0.6)
    assert "and more along one direction" in lines(0.8e-3, 0.6)
    assert "moves as freely as" in lines(1.05e-3, 0.42)
    assert "no more and no less" in lines(1.05e-3, 0.42)
    assert "beyond 90 % of healthy tissue" in lines(1.6e-3, 0.4)
    assert "beyond 90 % of healthy tissue" not in lines(1.4e-3, 0.4)
    assert "Mean diffusivity 1.20 (most similar normals 1.00; 90 % of normals 0.60 to 1.50)" in lines(
        1.2e-3, 0.2
    )
    assert "4.0 times as much" in lines(1e-3, 0.4, misfit=0.4)
    assert "jumps" not in lines(1e-3, 0.4, misfit=0.2)


def test_numbers_told_are_json(why):
    import json

    from mednovelty.store import json_types

    told = json.loads(json.dumps(json_types(told_of(why)), allow_nan=False))
    assert told["Voxel"] == list(VOXEL)
    assert len(told["Diffusion"]["NearestNormals"]) == 4
    assert told["Scores"][0]["AsHighOrHigher"]["Among"] == "voxels of this scan's own brain mask"
    assert len(told["Scores"][0]["FallByChannel"]) == 15
