"""Which maps of a scan stand, what they were made of, and what makes them count as done."""

import json
from dataclasses import replace

import pytest
from cohorts import tiny_cohort, tiny_detector

from mednovelty.io.nifti_source import NiftiSettings
from mednovelty.io.read_scan import ReadOptions
from mednovelty.io.scan_folder import scan_folder
from mednovelty.outputs import OutputNames, WantedMaps, key_of, settings_sha256, sha256_of_file, state_of
from mednovelty.preprocess.brain_mask import MedianOtsuSettings

KEY = {"InputSha256": "a", "SettingsSha256": "b"}


@pytest.fixture
def place(tmp_path):
    place = OutputNames(tmp_path / "dwi", "sub-01")
    place.folder.mkdir()
    for path in (place.mask, place.background):
        path.write_text("image")
    return place


def add(place, score, **told):
    place.map(score).write_text(f"map of {score}")
    told = {**KEY, "MapSha256": sha256_of_file(place.map(score)), **told}
    place.sidecar(score).write_text(json.dumps(told))


def test_a_map_is_done_with_its_sidecar_its_mask_and_every_hash(place):
    assert state_of(place, ["one"], KEY) == "absent"
    add(place, "one")
    assert state_of(place, ["one"], KEY) == "done"
    assert state_of(place, ["one", "two"], KEY) == "absent"
    place.map("one").write_text("another")
    assert state_of(place, ["one"], KEY) == "absent"
    add(place, "one")
    place.mask.unlink()
    assert state_of(place, ["one"], KEY) == "absent"


@pytest.mark.parametrize("field", KEY)
def test_any_map_of_something_else_decides(place, field):
    add(place, "one")
    add(place, "two", **{field: "c"})
    assert state_of(place, ["one"], KEY) == "other"
    assert state_of(place, ["three"], KEY) == "other"
    place.sidecar("two").write_text('{"no": "hash"}')
    assert state_of(place, ["one"], KEY) == "other"
    place.sidecar("two").write_text("cut o")
    assert state_of(place, ["one"], KEY) == "done"
    assert state_of(place, ["two"], KEY) == "absent"


def test_p_values_of_another_calibration_are_told_from_maps_of_something_else(place):
    add(place, "one", Calibration={"Key": "old", "Files": {}})
    for wanted in (None, WantedMaps("new", ("one",))):
        assert state_of(place, ["one"], KEY, wanted) == "recalibrated"
    assert state_of(place, ["one"], KEY, WantedMaps("old")) == "done"
    assert state_of(place, ["one"], KEY | {next(iter(KEY)): "c"}, WantedMaps("new")) == "other"


def test_clearing_takes_every_map_of_the_stem_and_no_other(place):
    longer = OutputNames(place.folder, "sub-01_desc-preproc")
    other = OutputNames(place.folder, "sub-01_acq-a")
    for names in (place, longer, other):
        add(names, "vae_regularizer")
    place.map("orphan").write_text("without a sidecar")
    assert place.sidecars() == [place.sidecar("vae_regularizer")]
    place.clear()
    left = {path.name for path in place.folder.iterdir()}
    assert left == {
        f"{names.stem}_desc-vae_regularizer_novelty.{ending}"
        for names in (longer, other)
        for ending in ("json", "nii.gz")
    } | {place.mask.name, place.background.name}


def test_the_settings_that_shape_scores_are_in_the_key():
    detector = tiny_detector()[0]
    (files, _) = scan_folder(tiny_cohort().patients)
    own = settings_sha256(detector, ReadOptions())
    assert key_of(detector, files, ReadOptions(), "f" * 64)["SettingsSha256"] == own
    assert len(own) == 64
    changed = [
        settings_sha256(replace(detector, settings=replace(detector.settings, draws=3)), ReadOptions()),
        settings_sha256(
            replace(detector, settings=replace(detector.settings, batch_voxels=7)), ReadOptions()
        ),
        settings_sha256(replace(detector, seed=99), ReadOptions()),
        settings_sha256(detector, ReadOptions(median_otsu=MedianOtsuSettings(passes=2))),
    ]
    assert len({own, *changed}) == 5
    # A limit refuses a scan or does nothing: raising it for one must not redo the others.
    assert settings_sha256(detector, ReadOptions(nifti=NiftiSettings(max_gib=80.0))) == own
