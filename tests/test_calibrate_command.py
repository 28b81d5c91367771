"""``fit --calibrate``, ``calibrate`` and the maps of p-values of ``score``, as a user meets them."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from calibrated_models import calibrated_model, run
from cohorts import FAST_TOML, tiny_cohort, tiny_detector
from scipy.stats import norm

from mednovelty.calibrate.files import load_calibration
from mednovelty.detector import Detector
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.told_calibrations import ToldCalibrations

SCORES = "vae_regularizer,reconstruction_error"


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A copy of the small detector, calibrated on the scan that its fit held out."""
    return calibrated_model(tmp_path_factory.mktemp("calibrated"), SCORES.split(","))


@pytest.fixture
def model(calibrated, tmp_path):
    return shutil.copytree(calibrated, tmp_path / "model")


def image(path):
    return nibabel.load(path).get_fdata()


def map_of(out, kind, score="vae_regularizer", id="sub-p01"):
    return out / id / "dwi" / f"{id}_desc-{score}_{kind}"


def score(model, out, *words, code=0):
    return run("score", model, tiny_cohort().patients, "-o", out, "--scores", SCORES, *words, code=code)


def test_the_scans_that_a_detector_was_trained_on_are_left_out(calibrated):
    detector, calibration = Detector.load(calibrated), load_calibration(calibrated)
    held_out = [scan.id for scan in detector.scans if scan.role == "validation"]
    assert len(held_out) == 1
    assert [scan.id for scan in calibration.scans] == held_out
    assert calibration.detector_sha256 == detector.sha256
    assert calibration.scores == ("vae_regularizer", "reconstruction_error")


def test_p_values_are_those_of_the_maps_by_hand(calibrated, tmp_path):
    result = score(calibrated, tmp_path / "out", "--z")
    assert "calibrated on 1 scan: p-values of voxels do not know how people differ" in result.stderr
    assert "not calibrated, raw maps only" not in result.stderr
    out, calibration = tmp_path / "out", load_calibration(calibrated)
    mask = image(map_of(out, "brain_mask.nii.gz", "x").with_name("sub-p01_desc-brain_mask.nii.gz")) > 0
    for name in SCORES.split(","):
        normals = calibration.maps(0).values(name)
        raw = image(map_of(out, "novelty.nii.gz", name))[mask]
        expected = [(1 + (normals >= one).sum()) / (1 + len(normals)) for one in raw.astype(np.float32)]
        p = image(map_of(out, "pvalue.nii.gz", name))
        assert p[mask] == pytest.approx(-np.log10(expected), rel=1e-6)
        assert not p[~mask].any()
        z = image(map_of(out, "z.nii.gz", name))
        quantiles = norm.isf(np.minimum(expected, 1 - 1 / (1 + len(normals))))
        assert z[mask] == pytest.approx(quantiles, abs=1e-5)
        told = json.loads(map_of(out, "novelty.json", name).read_text())["Calibration"]
        assert (told["Scans"], told["Voxels"], told["Method"]) == (1, len(normals), "held-out scans")
        assert told["SmallestP"] == pytest.approx(1 / (1 + len(normals)))
        assert set(told["Files"]) == {"pvalue", "z"}
    # The trivial baselines have none.
    assert not map_of(out, "pvalue.nii.gz", "raw_dwi").exists()
    assert json.loads(map_of(out, "novelty.json", "raw_dwi").read_text())["Calibration"] is None
    assert set(ToldCalibrations.read(out).records) == {calibration.sha256}
    assert json.loads((out / "run.json").read_text())["CalibrationSha256"] == calibration.sha256


def test_the_calibration_scans_maps_are_those_that_score_gives(calibrated):
    detector, maps = Detector.load(calibrated), load_calibration(calibrated).maps(0)
    cohort = tiny_cohort()
    files = next(f for f in scan_folder(cohort.controls, brain_masks=cohort.brains) if f.id == maps.id)
    scored = detector.score(read_scan(files), "vae_regularizer")["vae_regularizer"]
    assert np.array_equal(maps.volume(maps.values("vae_regularizer")), scored.data)
    assert np.allclose(maps.affine, scored.affine)


def test_scans_that_made_detector_or_calibration_are_told(calibrated, tmp_path):
    cohort, out = tiny_cohort(), tmp_path / "out"
    words = ["--brain-masks", cohort.brains, "--scores", SCORES]
    said = run("score", calibrated, cohort.controls, "-o", out, *words).stderr
    own = load_calibration(calibrated).scans[0].id
    for id in ("sub-c01", "sub-c02", "sub-c03"):
        warnings = json.loads(map_of(out, "novelty.json", id=id).read_text())["Warnings"]
        assert any("was calibrated on this scan" in text for text in warnings) == (id == own)
        assert any("was trained on this scan" in text for text in warnings) == (id != own)
    assert "the detector was calibrated on this scan" in said
    assert "the detector was trained on this scan" in said


def test_what_stands_gets_p_values_without_another_word(model, tmp_path):
    out = tmp_path / "out"
    score(model, out, "--no-calibration")
    raw = map_of(out, "novelty.nii.gz").read_bytes()
    assert not map_of(out, "pvalue.nii.gz").exists()
    assert "these maps have no calibration" in run("combine", out, code=5).stderr
    assert "2 scored, 0 up to date" in score(model, out).stderr
    assert map_of(out, "novelty.nii.gz").read_bytes() == raw
    p = map_of(out, "pvalue.nii.gz").read_bytes()
    assert "0 scored, 2 up to date" in score(model, out).stderr
    # A map that was damaged, or is asked for now, is made again.
    map_of(out, "pvalue.nii.gz").write_bytes(p[:50])
    assert "1 scored, 1 up to date" in score(model, out).stderr
    assert map_of(out, "pvalue.nii.gz").read_bytes() == p
    assert "2 scored, 0 up to date" in score(model, out, "--z").stderr
    # Without z nothing is missing; p-values of another calibration, or none, are somebody else's.
    assert "0 scored, 2 up to date" in score(model, out).stderr
    words = score(model, out, "--no-calibration", code=5).stderr
    assert "by another calibration, by other regions, or that are not asked for now; choose" in words
    assert "pass --overwrite" in words
    assert "another detector" not in words
    score(model, out, "--no-calibration", "--overwrite")
    assert not map_of(out, "pvalue.nii.gz").exists()
    assert not map_of(out, "z.nii.gz").exists()


def test_without_a_calibration_it_is_said(tmp_path):
    result = score(tiny_detector()[1], tmp_path / "out")
    assert "not calibrated; raw maps only, no p-values: see mednovelty calibrate" in result.stderr
    assert not list((tmp_path / "out").rglob("*_pvalue.nii.gz"))
    for option in (["--z"], ["--regions", tmp_path]):
        words = score(tiny_detector()[1], tmp_path / "no", *option, code=2).stderr
        assert f"{option[0]}: is for calibrated scores" in words


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["--set", "maps.median_px=3"],
            4,
            "calibrated with scoring.maps.median_px=0, and is to score with 3",
        ),
        (["--regions", "."], 2, "calibrated without label images"),
    ],
)
def test_scoring_otherwise_than_calibrated_is_refused(calibrated, tmp_path, words, code, said):
    assert said in score(calibrated, tmp_path / "out", *words, code=code).stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_or_foreign_calibration_is_refused(model, tmp_path):
    record = (model / "calibration.json").read_text()
    (model / "calibration.json").write_text(record.replace(tiny_detector()[0].sha256, "0" * 64))
    assert "belongs to another detector (000000000000" in score(model, tmp_path / "out", code=4).stderr
    assert "belongs to another detector" in run("calibrate", model, code=4).stderr
    (model / "calibration.json").write_text(record[:-40])
    assert "calibration.json: not readable as JSON" in score(model, tmp_path / "out", code=4).stderr
    assert not (tmp_path / "out").exists()
    score(model, tmp_path / "out", "--no-calibration")


def test_a_calibration_that_stands_is_told_and_kept(model):
    told = json.loads(run("calibrate", model, "--json").stdout)
    assert told["sha256"] == load_calibration(model).sha256
    assert set(told["scores"]) == set(SCORES.split(","))
    controls = tiny_cohort().controls
    assert "pass --overwrite to do it anew" in run("calibrate", model, controls, code=5).stderr
    words = run("calibrate", tiny_detector()[1], code=4).stderr
    assert "not calibrated; give a folder of normal scans" in words


def test_nobody_left_to_calibrate_with_is_said(tmp_path):
    model = shutil.copytree(tiny_detector()[1], tmp_path / "model")
    trained = [scan.id for scan in tiny_detector()[0].scans if scan.role == "training"]
    for id in trained:
        shutil.copytree(tiny_cohort().controls / id, tmp_path / "controls" / id)
    words = run("calibrate", model, tmp_path / "controls", code=3).stderr
    assert f"{trained[0]}: left out: the detector was trained on it" in words
    assert "no scan can be used to calibrate" in words
    assert load_calibration(model) is None


def test_others_of_which_one_is_bad(tmp_path):
    model = shutil.copytree(tiny_detector()[1], tmp_path / "model")
    others = shutil.copytree(tiny_cohort().patients, tmp_path / "others")
    bad = others / "sub-p02" / "dwi" / "sub-p02_dwi.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-1000])
    words = ["--scores", "vae_regularizer", "--masks", tiny_cohort().lesions, "--json"]
    told = json.loads(run("calibrate", model, others, *words, code=6).stdout)
    assert [failure["id"] for failure in told["failures"]] == ["sub-p02"]
    assert told["scans"] == ["sub-p01"]
    lesion = image(tiny_cohort().lesions / "sub-p01_mask.nii.gz") > 0
    kept = load_calibration(model).maps(0).mask
    assert lesion.any()
    assert not (kept & lesion).any()


def test_classes_of_tissue_have_their_own_nulls(tmp_path, monkeypatch):
    monkeypatch.setattr("mednovelty.calibrate.nulls.FEWEST_VOXELS", 100)
    model = shutil.copytree(tiny_detector()[1], tmp_path / "model")
    run("calibrate", model, tiny_cohort().controls, "--scores", SCORES, "--regions", "classes")
    calibration = load_calibration(model)
    assert len(calibration.nulls["vae_regularizer"]) > 4
    score(model, tmp_path / "out")
    raw, p = (image(map_of(tmp_path / "out", f"{kind}.nii.gz")) for kind in ("novelty", "pvalue"))
    pooled = calibration.nulls["vae_regularizer"]["all"].p(raw[raw > 0])
    # Ordered by p within a class, no longer over all.
    assert (np.abs(p[raw > 0] + np.log10(pooled)) > 0.01).mean() > 0.5


def test_label_images_decide_which_null(tmp_path, monkeypatch):
    monkeypatch.setattr("mednovelty.calibrate.nulls.FEWEST_VOXELS", 50)
    model, cohort = shutil.copytree(tiny_detector()[1], tmp_path / "model"), tiny_cohort()
    atlas = tmp_path / "atlas"
    atlas.mkdir()
    for files in [*scan_folder(cohort.controls), *scan_folder(cohort.patients)]:
        source = nibabel.load(files.image)
        labels = np.ones(source.shape[:3], np.int16)
        labels[: source.shape[0] // 2] = 5
        nibabel.save(nibabel.Nifti1Image(labels, source.affine), atlas / f"{files.id}_dseg.nii.gz")
    run("calibrate", model, cohort.controls, "--scores", SCORES, "--regions", atlas)
    calibration, out = load_calibration(model), tmp_path / "out"
    assert list(calibration.nulls["vae_regularizer"]) == ["all", "1", "5"]
    assert "give those of the scans to score: --regions FOLDER" in score(model, out, code=2).stderr
    score(model, out, "--regions", atlas)
    raw, p = (image(map_of(out, f"{kind}.nii.gz")) for kind in ("novelty", "pvalue"))
    mask = image(map_of(out, "x").with_name("sub-p01_desc-brain_mask.nii.gz")) > 0
    half = np.zeros_like(mask)
    half[: mask.shape[0] // 2] = True
    for region, inside in (("5", mask & half), ("1", mask & ~half)):
        expected = calibration.nulls["vae_regularizer"][region].p(raw[inside])
        assert p[inside] == pytest.approx(-np.log10(expected), rel=1e-6)
    # Other labels, other p-values: those that stand are not up to date.
    (atlas / "sub-p02_dseg.nii.gz").unlink()
    result = score(model, out, "--regions", atlas, code=6)
    assert "sub-p02: no label image" in result.stderr
    shutil.copyfile(atlas / "sub-c01_dseg.nii.gz", atlas / "sub-p02_dseg.nii.gz")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "fast.toml"
    path.write_text(FAST_TOML)
    return path


def fit(settings, model, *words, code=0):
    cohort = tiny_cohort()
    masks = ["--brain-masks", cohort.brains, "--scores", SCORES]
    return run("fit", cohort.controls, "-o", model, "--settings", settings, *masks, *words, code=code)


def test_fit_calibrates_with_what_it_held_out_and_anew_when_it_fits_anew(settings, tmp_path):
    model = tmp_path / "model"
    told = json.loads(fit(settings, model, "--calibrate", "validation", "--json").stdout)
    first, detector = load_calibration(model), Detector.load(model)
    assert told["calibration"]["sha256"] == first.sha256
    assert first.method == told["calibration"]["method"] == "validation scans"
    assert [s.id for s in first.scans] == [s.id for s in detector.scans if s.role == "validation"]
    fit(settings, model, "--overwrite", "--seed", "3")
    assert load_calibration(model) is None
    assert not (model / "calibration").exists()


def test_leave_one_out_scores_each_scan_by_a_fit_without_it(settings, tmp_path):
    model = tmp_path / "model"
    words = fit(settings, model, "--calibrate", "leave-one-out", "--set", "train.max_epochs=1").stderr
    assert "fitting without sub-c02, 2 of 3" in words
    calibration = load_calibration(model)
    assert calibration.method == "leave-one-scan-out"
    assert [scan.id for scan in calibration.scans] == ["sub-c01", "sub-c02", "sub-c03"]
    # By hand: a fit on the two others.
    detector, cohort = Detector.load(model), tiny_cohort()
    listed = list(scan_folder(cohort.controls, brain_masks=cohort.brains))
    again = Detector.fit([listed[0], listed[2]], settings=detector.settings, seed=detector.seed)
    expected = again.score(read_scan(listed[1]), "vae_regularizer")["vae_regularizer"]
    assert np.array_equal(calibration.maps(1).values("vae_regularizer"), expected.values)
    assert not np.array_equal(
        expected.values, detector.score(read_scan(listed[1]), "vae_regularizer")["vae_regularizer"].values
    )
    # The same afterwards, by the command of its own.
    before = {score: calibration.healthy[score].share for score in calibration.scores}
    options = ["--leave-one-out", "--overwrite", "--brain-masks", cohort.brains]
    run("calibrate", model, cohort.controls, *options)
    after = load_calibration(model)
    assert all(np.array_equal(after.healthy[score].share, share) for score, share in before.items())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--calibrate", "valdation"], 2, "neither validation nor leave-one-out, nor a folder"),
        (["--calibrate", "{tmp}"], 3, "no scan found"),
        (["--calibrate", "validation", "--regions", "clases"], 2, "neither one nor classes, nor a folder"),
        (["--regions", "classes"], 2, "ask for it with --calibrate"),
    ],
)
def test_what_cannot_be_calibrated_is_said_before_training(settings, tmp_path, words, code, said):
    (tmp_path / "empty").mkdir()
    words = [word.format(tmp=tmp_path / "empty") for word in words]
    assert said in fit(settings, tmp_path / "model", *words, code=code).stderr
    assert not (tmp_path / "model").exists()
