"""Settings of maps, from where they are given to the map and its sidecar."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from cohorts import tiny_cohort, tiny_detector
from small_images import AFFINE, SIZES, SPACING, TINY, detector_of, scan_of

from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, SettingsError
from mednovelty.fit_command import overrides
from mednovelty.io.read_scan import ReadOptions, read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.map_settings import MapSettings
from mednovelty.model_folder import fit_settings
from mednovelty.nn.smoothing import Blur, Smoothing
from mednovelty.outputs import settings_of, settings_sha256
from mednovelty.postprocess import masked_median

RECIPES = ["slices", "patches"]


def maps_of(recipe, scan=None, scores=None, **maps):
    return detector_of(recipe).with_maps(MapSettings(**maps)).score(scan or scan_of(4), scores)


def mm(sigma, **more):
    return Smoothing(sigma, "mm", **more)


def test_settings_from_the_command_line_reach_the_scoring():
    words = ["maps.smoothing.sigma=2", "maps.smoothing.unit=mm", "maps.copies=3", "maps.median_px=5"]
    settings = fit_settings(overrides(words), where="--set", recipe="slices")
    assert settings.maps == MapSettings(Smoothing(2.0, "mm"), copies=3, median_px=5)
    detector = replace(detector_of("slices"), settings=replace(detector_of("slices").settings,
                                                               maps=settings.maps), seed=8)  # fmt: skip
    made = detector.scoring(scan_of(4))
    scorer = made.scorers(["kl_gradient_smooth"])["kl_gradient_smooth"]
    assert (scorer.copies.count, scorer.copies.sigma, scorer.copies.seed) == (3, 0.1, 8)
    pixel_mm = 40 / 16  # The longer axis of an axial slice: 20 voxels of 2 mm on 16 pixels.
    assert scorer.blur == Blur((2 / pixel_mm, 2 / pixel_mm), 1.0)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("maps.smoothing.sigm=2", r"no setting is called 'maps\.smoothing\.sigm'.* 'maps\.smoothing\.sigma'"),
        ("maps.smoothing.sigma=-1", r"smoothing needs sigma >= 0 and truncate > 0, got -1"),
        ("maps.smoothing.sigma=1e9", r"sigma times truncate must be at most 1000, got 1e\+09 times 1"),
        ("maps.smoothing.unit=cm", r"maps\.smoothing\.unit: .*'px' or 'mm', got 'cm'"),
        ("maps.copies=0", r"noisy copies need count >= 1"),
        ("maps.copies=10001", r"maps\.copies must be at most 10000, got 10001"),
        ("maps.copies_sigma=0", r"noisy copies need count >= 1 and sigma > 0, got 8 and 0"),
        ("maps.median_px=4", r"maps\.median_px must be 0 or an odd number up to 15, got 4"),
        ("maps.median_px=17", "up to 15, got 17"),
        ("maps.median_px=-3", "up to 15, got -3"),
        ("maps.median_px=2.5", r"maps\.median_px: .*integer.*got 2\.5"),
    ],
)
def test_what_cannot_be_set_is_said(word, said):
    with pytest.raises(SettingsError, match=said):
        fit_settings(overrides([word]), where="--set", recipe="slices")


@pytest.mark.parametrize("recipe", RECIPES)
def test_widths_in_mm_and_in_pixels_agree(recipe):
    view, scan = detector_of(recipe).view, scan_of(4)
    spacing = view.spacing_mm(scan)
    assert spacing == ((2.5, 2.5) if recipe == "slices" else SPACING)
    wide = Smoothing(2.0, "px", truncate=2.0)
    if recipe == "patches":  # In mm as in pixels along the second axis, which is 1.5 mm fine.
        made = detector_of(recipe).with_maps(MapSettings(mm(3.0, truncate=2.0))).scoring(scan)
        assert made.scorers(["combi"])["combi"].blur == Blur((1.5, 2.0, 1.0), 2.0)
        return
    in_mm = maps_of(recipe, smoothing=mm(5.0, truncate=2.0))["kl_gradient"].data
    np.testing.assert_array_equal(in_mm, maps_of(recipe, smoothing=wide)["kl_gradient"].data)
    plain = maps_of(recipe)["kl_gradient"].data
    assert np.abs(in_mm - plain).max() > 0.01 * plain.max()


@pytest.mark.parametrize("recipe", RECIPES)
def test_smoothing_in_mm_does_not_depend_on_how_a_scan_is_stored(recipe):
    scores = ["kl_gradient", "combi"]
    found = maps_of(recipe, scores=scores, smoothing=mm(4.0, truncate=2.0))
    for order in ((2, 0, 1), (1, 0, 2)):
        turned = maps_of(recipe, scan_of(4, order), scores, smoothing=mm(4.0, truncate=2.0))
        spacing = detector_of(recipe).view.spacing_mm(scan_of(4, order))
        assert spacing == ((2.5, 2.5) if recipe == "slices" else SPACING)
        for name in scores:
            expected = found[name].data.transpose(order)
            np.testing.assert_allclose(turned[name].data, expected, rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.parametrize("recipe", RECIPES)
def test_only_what_is_smoothed_changes_with_the_smoothing(recipe):
    plain, sharp = maps_of(recipe), maps_of(recipe, smoothing=Smoothing(0.0))
    for name in ("rec_error", "vae_regularizer"):
        np.testing.assert_array_equal(plain[name].data, sharp[name].data)
    assert sharp["kl_gradient"].data.std() > plain["kl_gradient"].data.std()


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_median_is_of_the_finished_map(recipe):
    scores = ["kl_gradient", "rec_error", "vae_regularizer", "raw_FLAIR"]
    plain, filtered = maps_of(recipe, scores=scores), maps_of(recipe, scores=scores, median_px=3)
    mask = scan_of(4).mask
    for name in ("kl_gradient", "rec_error"):
        expected = masked_median(plain[name].data, mask, 3)
        np.testing.assert_array_equal(filtered[name].data, expected)
        assert not np.array_equal(expected, plain[name].data)
        np.testing.assert_allclose(filtered[name].affine, AFFINE)
        assert filtered[name].about["settings"]["median_px"] == 3
    for name in ("vae_regularizer", "raw_FLAIR"):
        np.testing.assert_array_equal(filtered[name].data, plain[name].data)
        assert "median_px" not in filtered[name].about.get("settings", {})
    same = maps_of(recipe, scores=scores, median_px=1)["rec_error"].data
    np.testing.assert_array_equal(same, plain["rec_error"].data)


def test_what_had_a_part_in_a_map_is_told():
    names = ["kl_gradient", "rec_error", "combi_smooth", "vae_regularizer"]
    found = maps_of("slices", scores=names, smoothing=Smoothing(2.0), copies=2, copies_sigma=0.3)
    smoothing = {"sigma": 2.0, "unit": "px", "truncate": 1.0}
    assert [found[name].about["settings"] for name in names] == [
        {"smoothing": smoothing},
        {},
        {"smoothing": smoothing, "copies": {"count": 2, "sigma": 0.3}},
        {},
    ]


def test_each_setting_of_maps_is_in_the_key():
    detector, options = detector_of("slices"), ReadOptions()
    others = [
        MapSettings(),
        MapSettings(Smoothing(2.0)),
        MapSettings(Smoothing(3.0, "mm")),
        MapSettings(Smoothing(truncate=2.0)),
        MapSettings(copies=4),
        MapSettings(copies_sigma=0.2),
        MapSettings(median_px=3),
        MapSettings(precision="bfloat16"),
    ]
    assert len({settings_sha256(detector.with_maps(maps), options) for maps in others}) == len(others)
    told = settings_of(detector.with_maps(others[2]), options)["scoring"]["maps"]
    assert told["smoothing"] == {"sigma": 3.0, "unit": "mm", "truncate": 1.0}


def test_settings_are_kept_and_older_detectors_have_the_defaults(tmp_path):
    maps = MapSettings(mm(4.0), copies=5, median_px=3)
    detector_of("slices").with_maps(maps).save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert loaded.settings.maps == maps
    path = tmp_path / "detector.json"
    record = json.loads(path.read_text())
    del record["settings"]["maps"]
    path.write_text(json.dumps(record))
    assert Detector.load(tmp_path).settings.maps == MapSettings()
    for wrong in ({"median_px": 3}, {**asdict(maps), "x": 1}, {**asdict(maps), "median_px": 4}):
        record["settings"]["maps"] = wrong
        path.write_text(json.dumps(record))
        with pytest.raises(DetectorError, match="maps"):
            Detector.load(tmp_path)


def test_voxels_have_no_axes_to_smooth_along_in_mm_but_maps_to_filter():
    plain = tiny_detector()[0]
    detector = plain.with_maps(MapSettings(mm(4.0), median_px=3))
    x = np.random.default_rng(0).normal(size=(3, detector.model.channels)).astype(np.float32)
    found = detector.score_voxels(x, ["kl_gradient"])["kl_gradient"]
    np.testing.assert_array_equal(found, plain.score_voxels(x, ["kl_gradient"])["kl_gradient"])
    scan = read_scan(scan_folder(tiny_cohort().patients, brain_masks=tiny_cohort().brains)[0])
    names = ["vae_regularizer", "raw_b0"]
    before, after = (made.score(scan, names) for made in (plain, detector))
    expected = masked_median(before["vae_regularizer"].data, scan.mask, 3)
    np.testing.assert_array_equal(after["vae_regularizer"].data, expected)
    np.testing.assert_array_equal(after["raw_b0"].data, before["raw_b0"].data)


def test_without_a_spacing_there_is_no_smoothing_in_mm():
    detector = detector_of("slices").with_maps(MapSettings(mm(4.0)))
    with pytest.raises(SettingsError, match=r"smoothing over 4\.0 mm needs the spacing of the voxels"):
        detector.scoring().scorers(["kl_gradient"])
    # Before a scan is there, everything else can be looked for.
    detector.scoring().check(["kl_gradient"])
    with pytest.raises(SettingsError, match="combi_additive: compares with normals in 'input'"):
        detector.scoring().check(["combi_additive"])


def test_mm_are_those_of_the_grid_that_a_scan_is_resampled_to():
    tree = TINY | {
        "view_settings": {"size": SIZES["patches"]},
        "preprocessors": ["resample", "zscore"],
        "preprocessor_settings": {"resample": {"spacing_mm": 2.5}},
    }
    settings = fit_settings(tree, where="test", recipe="patches")
    detector = Detector.fit([scan_of(1), scan_of(2)], recipe="patches", settings=settings)
    in_mm, in_px = (
        detector.with_maps(MapSettings(smoothing)).score(scan_of(4), "kl_gradient")["kl_gradient"].data
        for smoothing in (mm(5.0, truncate=2.0), Smoothing(2.0, truncate=2.0))
    )
    np.testing.assert_allclose(in_mm, in_px, rtol=1e-4, atol=1e-6 * in_px.max())
