"""``score`` of a calibrated detector segments too, once, and as the folder was segmented before."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from calibrated_models import SCORES, calibrated_model, run, score
from calibrations import calibration_of
from cohorts import tiny_cohort

from mednovelty.calibrate.healthy_scans import THRESHOLDS_P
from mednovelty.evaluation import evaluate
from mednovelty.evaluation.files import find_maps
from mednovelty.segment.controls import Controls

KINDS = ("mask.nii.gz", "dseg.nii.gz", "clusters.tsv", "mask.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return calibrated_model(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="module")
def scored(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "out"
    score(model, out)
    return out


@pytest.fixture
def out(scored, tmp_path):
    return shutil.copytree(scored, tmp_path / "out")


def name(out, kind, score=SCORES[0], id="sub-p01"):
    return out / id / "dwi" / f"{id}_desc-{score}_{kind}"


def image(path):
    return np.asarray(nib.load(path).dataobj)


def settings_of(path):
    return json.loads(path.read_text())["Settings"]


def test_calibrated_maps_are_segmented_on_the_scans_voxels(scored):
    rows = list(csv.DictReader((scored / "cohort.tsv").open(), delimiter="\t"))
    assert {(row["id"], row["score"]) for row in rows} == {
        (id, s) for id in ("sub-p01", "sub-p02") for s in SCORES
    }
    for row in rows:
        names = {kind: name(scored, kind, row["score"], row["id"]) for kind in (*KINDS, "pvalue.nii.gz")}
        surprise = image(names["pvalue.nii.gz"])
        told = json.loads(names["mask.json"].read_text())
        flagged = surprise >= -np.log10(told["Threshold"]["FlaggedP"] or 1e-99) * (1 - 1e-6)
        voxel_mm3 = abs(np.linalg.det(nib.load(names["mask.nii.gz"]).affine))
        assert float(row["flagged_mm3"]) == pytest.approx(flagged.sum() * voxel_mm3, rel=1e-5)
        mask = image(names["mask.nii.gz"]) > 0
        assert not (mask & ~flagged).any()
        assert (mask == (image(names["dseg.nii.gz"]) > 0)).all()
        assert (nib.load(names["mask.nii.gz"]).affine == nib.load(names["pvalue.nii.gz"]).affine).all()
        assert told["Calibration"]["Method"] == "held-out scans"
        assert row["controls"] == "1"
    assert settings_of(name(scored, "mask.json"))["Q"] == 0.05


def test_a_second_run_segments_nothing_again(model, out):
    before = {path: path.read_bytes() for path in out.rglob("*_mask.json")}
    said = score(model, out).stderr
    assert "0 maps segmented, 4 up to date" in said
    assert {path: path.read_bytes() for path in before} == before


def test_another_threshold_stays_when_scans_are_scored_again(model, out):
    assert "4 maps segmented" in run("threshold", out, "--p", "0.05", "--no-cluster-size").stderr
    found = image(name(out, "mask.nii.gz"))
    assert found.sum() > 0
    shutil.rmtree(out / "sub-p01")
    assert "2 maps segmented, 2 up to date" in score(model, out).stderr
    assert settings_of(name(out, "mask.json"))["P"] == 0.05
    assert (image(name(out, "mask.nii.gz")) == found).all()


def test_maps_that_are_made_anew_lose_their_segmentation(model, out):
    name(out, "mask.nii.gz", "brain").unlink()  # So that the scan is not done.
    score(model, out, "--no-segment")
    assert not any(name(out, kind, id="sub-p01").exists() for kind in KINDS)
    assert all(name(out, kind, id="sub-p02").exists() for kind in KINDS)
    assert name(out, "pvalue.nii.gz").exists()


def test_other_maps_of_a_scan_take_the_segmentation_with_them(model, out):
    assert name(out, "clusters.tsv").exists()
    # Without p-values they are others.
    score(model, out, "--no-calibration", "--overwrite")
    assert not [path for path in out.rglob("*") if path.name.endswith((*KINDS[1:], "pvalue.nii.gz"))]
    assert [path.name for path in sorted(out.rglob("*_mask.nii.gz"))] == [
        "sub-p01_desc-brain_mask.nii.gz",
        "sub-p02_desc-brain_mask.nii.gz",
    ]


def test_segmenting_can_be_left_out(model, tmp_path):
    score(model, tmp_path / "out", "--no-segment")
    assert name(tmp_path / "out", "pvalue.nii.gz").exists()
    assert not list((tmp_path / "out").rglob("*_clusters.tsv"))
    assert not (tmp_path / "out" / "cohort.tsv").exists()


def test_an_evaluation_takes_no_segmentation_for_a_lesion_mask(scored):
    found = evaluate(scored, tiny_cohort().lesions)
    assert sorted(found.scans) == ["sub-p01", "sub-p02"]
    assert set(SCORES) <= set(find_maps(scored)[0]["sub-p01"].maps)


def test_the_controls_are_those_of_the_calibration(tmp_path):
    rng = np.random.default_rng(2)
    scans = [{"a": rng.normal(size=150), "b": rng.normal(size=150)} for _ in range(3)]
    made = calibration_of(tmp_path / "model", scans)
    controls = Controls.from_told(json.loads(json.dumps(made.told())), "a", "calibration.json")
    assert controls.ids == ("sub-c01", "sub-c02", "sub-c03")
    assert controls.floor_p == made.floor_p("a") == 1 / 301
    healthy = made.healthy["a"]
    for connectivity in (6, 18, 26):
        for p in (0.3, 0.05, 0.0071):
            largest = healthy.largest_cluster_mm3(p, connectivity)
            assert controls.limit_mm3(p, connectivity) == largest.max()
            assert controls.p_cluster(largest[1], p, connectivity) == (1 + (largest >= largest[1]).sum()) / 4
    # As maps hold them.
    assert controls.maximum.tolist() == [float(np.float32(scan["a"].max())) for scan in scans]
    assert np.array_equal(controls.grid, THRESHOLDS_P)
    # Every voxel is at p <= 1, half of them or so at 0.5.
    assert controls.share[:, 0].mean() == pytest.approx(0.5, abs=0.1)
