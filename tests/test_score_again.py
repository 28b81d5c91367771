"""Scoring again into a folder that holds maps: what is up to date, what is replaced, what is left alone."""

import json
import shutil

import pytest
from cohorts import tiny_cohort, tiny_detector

from mednovelty.cohort import CohortSettings, score_cohort
from mednovelty.io.read_scan import ReadOptions
from mednovelty.io.scan_folder import scan_folder
from mednovelty.preprocess.brain_mask import MedianOtsuSettings

BASELINES = {"raw_b0", "raw_dwi", "raw_attenuation"}


@pytest.fixture
def patients(tmp_path):
    return shutil.copytree(tiny_cohort().patients, tmp_path / "patients")


def score(patients, out, *scores, overwrite=False):
    detector, _ = tiny_detector()
    settings = CohortSettings(scores, overwrite)
    return score_cohort(detector, scan_folder(patients), out, settings=settings)


def statuses(result):
    return [(outcome.id, outcome.status) for outcome in result.outcomes]


def maps_of(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*_novelty.nii.gz"))}


def test_scoring_again_does_nothing(patients, tmp_path):
    out = tmp_path / "out"
    score(patients, out, "vae_regularizer")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_novelty.*")}
    result = score(patients, out, "vae_regularizer")
    assert {status for _, status in statuses(result)} == {"up to date"}
    assert result.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*_novelty.*")} == before


def test_what_is_not_whole_is_done_again(patients, tmp_path):
    out = tmp_path / "out"
    score(patients, out, "vae_regularizer")
    expected = maps_of(out)
    cut, orphan = sorted(out.rglob("*vae_regularizer_novelty.nii.gz"))
    cut.write_bytes(cut.read_bytes()[:100])
    orphan.with_name(orphan.name.replace(".nii.gz", ".json")).unlink()
    result = score(patients, out, "vae_regularizer")
    assert {status for _, status in statuses(result)} == {"done"}
    assert maps_of(out) == expected


def made_by_another_detector(out, id):
    for path in out.rglob(f"{id}_desc-*_novelty.json"):
        path.write_text(path.read_text().replace(tiny_detector()[0].sha256, "0" * 64))


def test_another_detectors_maps_are_that_scans_failure(patients, tmp_path):
    out = tmp_path / "out"
    score(patients, out, "vae_regularizer")
    made_by_another_detector(out, "sub-p01")
    for path in out.rglob("sub-p02*_novelty.json"):
        path.unlink()
    before = maps_of(out / "sub-p01")
    result = score(patients, out, "vae_regularizer")
    assert statuses(result) == [("sub-p01", "failed"), ("sub-p02", "done")]
    (failure,) = result.failures
    assert failure.code == "output.exists"
    assert "holds maps of sub-p01 by another detector" in failure.message
    assert "pass --overwrite" in failure.message
    assert result.exit_code == 6
    assert maps_of(out / "sub-p01") == before
    made_by_another_detector(out, "sub-p02")
    assert score(patients, out, "vae_regularizer").exit_code == 5
    assert {s for _, s in statuses(score(patients, out, "vae_regularizer", overwrite=True))} == {"done"}


def test_overwriting_leaves_no_map_of_the_detector_before(patients, tmp_path):
    out = tmp_path / "out"
    score(patients, out, "vae_regularizer", "reconstruction_error")
    made_by_another_detector(out, "sub-p01")
    stranger = out / "sub-p01" / "dwi" / "sub-p01_acq-a_desc-vae_regularizer_novelty.json"
    stranger.write_text("{}")
    result = score(patients, out, "negative_elbo", overwrite=True)
    assert statuses(result) == [("sub-p01", "done"), ("sub-p02", "done")]
    of_one, of_two = (
        {path.name.split("_desc-")[1].split("_novelty")[0] for path in out.rglob(f"{id}_desc-*_novelty.*")}
        for id in ("sub-p01", "sub-p02")
    )
    assert of_one == {"negative_elbo"} | BASELINES
    # Whose detector was the same, keeps what it had.
    assert of_two == {"negative_elbo", "vae_regularizer", "reconstruction_error"} | BASELINES
    assert stranger.exists()


def test_maps_of_scores_that_are_not_asked_for_count_too(patients, tmp_path):
    out = tmp_path / "out"
    settings = CohortSettings("vae_regularizer", baselines=False)
    score_cohort(tiny_detector()[0], scan_folder(patients), out, settings=settings)
    made_by_another_detector(out, "sub-p02")
    settings = CohortSettings("reconstruction_error", baselines=False)
    result = score_cohort(tiny_detector()[0], scan_folder(patients), out, settings=settings)
    assert statuses(result) == [("sub-p01", "done"), ("sub-p02", "failed")]
    assert len(list(out.rglob("sub-p01*_novelty.nii.gz"))) == 2
    assert not list(out.rglob("sub-p02*reconstruction_error*"))


def test_a_failed_scan_keeps_the_maps_it_was_to_overwrite(patients, tmp_path):
    out = tmp_path / "out"
    score(patients, out, "vae_regularizer")
    made_by_another_detector(out, "sub-p01")
    before = maps_of(out)
    for bval in patients.rglob("sub-p01*.bval"):
        bval.write_text("0 " + bval.read_text())
    assert score(patients, out, "vae_regularizer", overwrite=True).exit_code == 6
    assert maps_of(out) == before


def test_other_settings_are_not_up_to_date(patients, tmp_path):
    detector, scans, out = tiny_detector()[0], scan_folder(patients), tmp_path / "out"
    settings = CohortSettings("vae_regularizer", baselines=False)
    first = ReadOptions(median_otsu=MedianOtsuSettings(dilate_mm=2.5))
    score_cohort(detector, scans, out, settings=settings, options=first)
    again = score_cohort(detector, scans, out, settings=settings)
    assert {status for _, status in statuses(again)} == {"up to date"}
    other = ReadOptions(median_otsu=MedianOtsuSettings(dilate_mm=0))
    result = score_cohort(detector, scans, out, settings=settings, options=other)
    assert {failure.code for failure in result.failures} == {"output.exists"}
    told = {json.loads(path.read_text())["SettingsSha256"] for path in out.rglob("*_novelty.json")}
    of_the_run = json.loads((out / "run.json").read_text())["SettingsSha256"]
    assert len(told) == 1
    assert len(of_the_run) == 64
    assert of_the_run not in told


def test_a_changed_scan_is_not_up_to_date(patients, tmp_path):
    out = tmp_path / "out"
    score(patients, out, "vae_regularizer")
    first, second = (patients / f"sub-p0{i}" / "dwi" / f"sub-p0{i}_dwi.nii.gz" for i in (1, 2))
    shutil.copy(second, first)
    result = score(patients, out, "vae_regularizer")
    assert statuses(result) == [("sub-p01", "failed"), ("sub-p02", "up to date")]
    assert "from another file" in result.failures[0].message


def test_a_link_at_an_outputs_name_is_replaced_and_its_target_left(patients, tmp_path):
    out = tmp_path / "out"
    score(patients, out, "vae_regularizer")
    path = next(out.rglob("*vae_regularizer_novelty.nii.gz"))
    precious = tmp_path / "precious"
    precious.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(precious)
    kept = precious.read_bytes()
    score(patients, out, "vae_regularizer")
    assert not path.is_symlink()
    assert precious.read_bytes() == kept
