"""``score --combine`` and ``combine``, as a user meets them."""

import hashlib
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from calibrated_models import SCORES, calibrated_model, run
from cohorts import tiny_cohort

from mednovelty.calibrate.files import load_calibration
from mednovelty.combine.calibrated import Member, calibrated_again
from mednovelty.evaluation import evaluate

ASKED = "vae_regularizer,reconstruction_error"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return calibrated_model(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="module")
def other_model(model, tmp_path_factory):
    """The same detector under another hash, calibrated for itself."""
    return calibrated_model(tmp_path_factory.mktemp("other"), ["latent_euclidean"])


@pytest.fixture(scope="module")
def scored(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "out"
    score(model, out, "--combine", "fisher,mean_z", "--z")
    return out


@pytest.fixture(scope="module")
def other_scored(other_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("other-scored") / "out"
    score(other_model, out, "--no-segment", scores="latent_euclidean")
    return out


@pytest.fixture
def out(scored, tmp_path):
    return shutil.copytree(scored, tmp_path / "out")


def score(model, out, *words, code=0, scores=ASKED):
    return run("score", model, tiny_cohort().patients, "-o", out, "--scores", scores, *words, code=code)


def name(out, kind, score="fisher", id="sub-p01"):
    return out / id / "dwi" / f"{id}_desc-{score}_{kind}"


def image(path):
    return np.asarray(nib.load(path).dataobj)


def told(path):
    return json.loads(path.read_text())


def test_a_combination_is_a_score_like_any_other(model, scored):
    calibration = load_calibration(model)
    made = calibrated_again([Member(one, calibration, "OUT") for one in SCORES], ["fisher", "mean_z"])
    assert {member.score for member in made.members} == set(SCORES)
    for combination in ("fisher", "mean_z"):
        mask = image(name(scored, "mask.nii.gz", "brain")) > 0
        surprise = [image(name(scored, "pvalue.nii.gz", one.score))[mask] for one in made.members]
        statistic = made.statistic(combination, 10.0 ** -np.stack(surprise).astype(float))
        assert image(name(scored, "novelty.nii.gz", combination))[mask].tolist() == statistic.tolist()
        p = made.calibration.p(combination, statistic)
        own = image(name(scored, "pvalue.nii.gz", combination))
        assert own[mask] == pytest.approx(-np.log10(p), rel=1e-6)
        assert not own[~mask].any()
        assert own.max() > 1
        for kind in ("z.nii.gz", "mask.nii.gz", "dseg.nii.gz", "clusters.tsv"):
            assert name(scored, kind, combination).is_file(), kind
        controls = told(scored / "calibration.json")["Calibrations"][made.calibration.sha256]["Scores"]
        controls = controls[combination]
        assert controls["MaxScore"] == made.calibration.healthy[combination].max_score.tolist()
    raw, own = nib.load(name(scored, "novelty.nii.gz", SCORES[0])), nib.load(name(scored, "novelty.nii.gz"))
    assert (raw.affine == own.affine).all()


def test_its_sidecar_says_of_which_scores(model, scored):
    sidecar = told(name(scored, "novelty.json"))
    assert sorted(sidecar["Score"]["combination"]) == sorted(SCORES)
    assert {one["Score"] for one in sidecar["Combination"]["Of"]} == set(SCORES)
    member = told(name(scored, "novelty.json", SCORES[0]))
    of = next(one for one in sidecar["Combination"]["Of"] if one["Score"] == SCORES[0])
    assert of["PvalueSha256"] == member["Calibration"]["Files"]["pvalue"]
    assert sidecar["DetectorSha256"] == member["DetectorSha256"]
    assert sidecar["Calibration"]["Scans"] == 1
    assert sidecar["Score"]["trivial"] is False
    assert told(name(scored, "mask.json"))["Threshold"]["Q"] == 0.05
    rows = (scored / "cohort.tsv").read_text().splitlines()
    assert sum("\tfisher\t" in row for row in rows) == 2
    assert "fisher" in evaluate(scored, tiny_cohort().lesions).to_json()


def test_a_second_run_does_nothing_again(model, out):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_desc-fisher_*")}
    said = score(model, out, "--combine", "fisher,mean_z", "--z").stderr
    assert "2 up to date, 0 failed" in said
    assert "0 scans combined, 2 up to date, 0 failed" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # Nor does one without combinations take those away, or what the controls show of them.
    score(model, out)
    known = told(out / "calibration.json")["Calibrations"].values()
    assert {frozenset(one["Scores"]) for one in known} == {frozenset(SCORES), frozenset(("fisher", "mean_z"))}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    run("threshold", out, "--p", "0.05", "--scores", "fisher")
    assert told(name(out, "mask.json"))["Threshold"]["LimitMm3"] is not None


def test_a_damaged_map_of_a_combination_is_made_again(out):
    whole = image(name(out, "novelty.nii.gz"))
    name(out, "novelty.nii.gz").write_bytes(b"")
    assert "1 scans combined, 1 up to date, 0 failed" in run("combine", out, "--by", "fisher").stderr
    assert image(name(out, "novelty.nii.gz")).tolist() == whole.tolist()


def test_other_scores_under_the_same_name_are_not_replaced_unasked(model, scored, tmp_path):
    every = tmp_path / "every"
    shutil.copytree(scored, every)
    sidecar = told(name(every, "novelty.json"))
    sidecar["Combination"]["Of"][0]["Score"] = "another"
    name(every, "novelty.json").write_text(json.dumps(sidecar))
    said = run("combine", every, code=6).stderr
    assert (
        "holds fisher of sub-p01 of other scores or p-values; choose another folder, or pass --overwrite"
        in said
    )
    run("combine", every, "--overwrite")
    assert told(name(every, "novelty.json"))["Combination"]["Of"][0]["Score"] != "another"


def test_several_detectors_in_a_folder_of_their_own(scored, other_scored, tmp_path):
    made = tmp_path / "made"
    result = run("combine", scored, other_scored, "-o", made, "--by", "fisher,cauchy", "--json")
    assert [one["status"] for one in json.loads(result.stdout)["scans"]] == ["done", "done"]
    sidecar = told(name(made, "novelty.json"))
    assert {one["Score"] for one in sidecar["Combination"]["Of"]} == {*SCORES, "latent_euclidean"}
    for kind in ("pvalue.nii.gz", "mask.nii.gz", "clusters.tsv"):
        assert name(made, kind).is_file(), kind
    for kind in ("mask.nii.gz", "background.nii.gz"):
        stem = "brain_" if kind.startswith("mask") else ""
        standing = made / "sub-p01" / "dwi" / f"sub-p01_desc-{stem}{kind}"
        assert np.array_equal(image(standing), image(scored / standing.relative_to(made)))
    assert not name(made, "novelty.nii.gz", SCORES[0]).exists()
    (controls,) = told(made / "calibration.json")["Calibrations"].values()
    assert set(controls["Scores"]) == {"fisher", "cauchy"}
    # The order of folders is nothing that counts.
    run("combine", other_scored, scored, "-o", tmp_path / "again", "--no-segment")
    assert np.array_equal(
        image(name(made, "novelty.nii.gz")), image(name(tmp_path / "again", "novelty.nii.gz"))
    )
    assert "0 scans combined, 2 up to date" in run("combine", other_scored, scored, "-o", made).stderr
    assert "does not say which detector made its maps" in run("combine", made, code=2).stderr


def test_what_does_not_fit_is_told(model, scored, other_scored, out, tmp_path):
    shutil.rmtree(out / "sub-p02")
    said = run(
        "combine", out, other_scored, "-o", tmp_path / "a", "--no-segment", "--detector", model, code=4
    )
    assert "its maps were made with a calibration" in said.stderr
    elsewhere = run("combine", other_scored, scored, "-o", out, code=5).stderr
    assert "holds the maps of another detector; choose another folder" in elsewhere
    assert (
        "maps of several detectors go to a folder of their own" in run("combine", out, scored, code=2).stderr
    )


def test_scans_that_only_one_folder_has_fail_and_stop_no_other(
    model, out, other_model, other_scored, tmp_path
):
    shutil.rmtree(out / "sub-p02")
    made = tmp_path / "made"
    # The copy does not lie where it was, seen from the detector.
    detectors = ("--detector", model, "--detector", other_model)
    said = run("combine", out, other_scored, "-o", made, *detectors, "--no-segment", code=6).stderr
    assert f"failed: sub-p02: there are no maps of it in {out}" in said
    assert name(made, "pvalue.nii.gz").is_file()
    assert not (made / "sub-p02").exists()


def test_maps_of_other_images_and_on_other_grids_are_refused(
    model, scored, other_model, other_scored, tmp_path
):
    other = shutil.copytree(other_scored, tmp_path / "other")
    where = ("--detector", model, "--detector", other_model, "--no-segment")
    sidecar = name(other, "novelty.json", "latent_euclidean")
    sidecar.write_text(json.dumps(told(sidecar) | {"InputSha256": "7" * 64}))
    said = run("combine", scored, other, "-o", tmp_path / "a", *where, code=6).stderr
    assert "failed: sub-p01: its maps are of different images (" in said
    assert "777777777777" in said
    run("combine", scored, other, "-o", tmp_path / "b", *where, "--other-images")
    # The same values, 1 mm away along each axis; the sidecar tells of them.
    path = name(other, "pvalue.nii.gz", "latent_euclidean", "sub-p02")
    loaded = nib.load(path)
    shift = loaded.affine.copy()
    shift[:3, 3] += 1.0
    nib.save(nib.Nifti1Image(np.asarray(loaded.dataobj), shift), path)
    sidecar = name(other, "novelty.json", "latent_euclidean", "sub-p02")
    facts = told(sidecar)
    facts["Calibration"]["Files"]["pvalue"] = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar.write_text(json.dumps(facts))
    said = run("combine", scored, other, "-o", tmp_path / "c", *where, "--other-images", code=6).stderr
    assert "its voxels lie up to 1 mm away from those of" in said
    # A map that is not what its sidecar tells of.
    facts["Calibration"]["Files"]["pvalue"] = "0" * 64
    sidecar.write_text(json.dumps(facts))
    said = run("combine", scored, other, "-o", tmp_path / "d", *where, "--other-images", code=6).stderr
    assert "is not the map that its sidecar tells of; score sub-p02 again" in said


def test_score_refuses_what_it_cannot_combine_before_it_scores(model, tmp_path):
    out = tmp_path / "out"
    said = score(model, out, "--combine", "fishr", code=2).stderr
    assert "no combination is called 'fishr'; did you mean 'fisher'?" in said
    said = score(model, out, "--combine", "fisher", scores="vae_regularizer", code=2).stderr
    assert "--combine: needs two calibrated scores or more, and of vae_regularizer there is vae_reg" in said
    said = score(model, out, "--combine", "fisher", "--no-calibration", code=2).stderr
    assert "there are none; see mednovelty calibrate" in said
    assert not out.exists()
