"""``explain`` as a user meets it: what it writes, when it is done, what it refuses."""

import csv
import json
import os
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from cohorts import tiny_cohort, tiny_detector
from typer.testing import CliRunner

from mednovelty.cli import app
from mednovelty.errors import ScanError, SettingsError
from mednovelty.explain_cohort import _region, scores_to_explain
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.report.relevance import on_disc

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SCORE = "reconstruction_error"
ENDINGS = {
    ".nii.gz", ".json", ".png", "-gradients.nii.gz", "-gradients.tsv", "-gradients.png", "-shells.tsv",
}  # fmt: skip


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env=ENVIRONMENT)


def explain(out, *words, scans=None):
    return run("explain", tiny_detector()[1], scans or tiny_cohort().patients, "-o", out, *words)


def start(id="sub-p01"):
    return f"{id}/dwi/{id}_desc-{SCORE}_relevance"


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    out = tmp_path_factory.mktemp("explained")
    result = explain(out, "--score", SCORE, "--json")
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


@pytest.fixture
def again(explained, tmp_path):
    return shutil.copytree(explained[0], tmp_path / "out")


def sidecar(out, id="sub-p01"):
    return json.loads((out / f"{start(id)}.json").read_text())


def test_every_scan_has_its_files_beside_where_maps_would_be(explained):
    out, told = explained
    for id in ("sub-p01", "sub-p02"):
        names = {path.name for path in (out / id / "dwi").iterdir()}
        prefix = f"{id}_desc-{SCORE}_relevance"
        assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == ENDINGS
        assert {f"{id}_desc-background.nii.gz", f"{id}_desc-brain_mask.nii.gz"} <= names
    assert [row["status"] for row in told["Scans"]] == ["done", "done"]
    assert told["Scores"] == [SCORE]
    assert told == json.loads((out / "explain.json").read_text())
    assert "*_relevance*" in (out / ".bidsignore").read_text().split()
    assert not (out / "run.json").exists()


def test_images_lie_where_the_scan_does(explained):
    out, _ = explained
    scan = nib.load(tiny_cohort().patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz")
    summed, each = nib.load(out / f"{start()}.nii.gz"), nib.load(out / f"{start()}-gradients.nii.gz")
    assert summed.shape == scan.shape[:3]
    assert each.shape == scan.shape
    for image in (summed, each):
        np.testing.assert_allclose(image.affine, scan.affine, atol=1e-4)
        assert image.header["qform_code"] == image.header["sform_code"] == 1
    np.testing.assert_allclose(each.get_fdata().sum(-1), summed.get_fdata(), rtol=1e-4, atol=1e-5)
    assert summed.get_fdata().max() > 0


def test_the_sidecar_tells_what_was_explained_of_what(explained):
    told = sidecar(explained[0])
    assert told["ScanId"] == "sub-p01"
    assert told["Score"]["name"] == SCORE
    assert told["Detector"]["Sha256"] == told["DetectorSha256"] == tiny_detector()[0].sha256
    assert told["Relevance"]["rule"] == "lrp: squared error of each input"
    assert told["Relevance"]["constant"] == 0
    sums = told["Relevance"]
    assert sums["mean_score"] == pytest.approx(sums["mean_relevance"] + sums["constant"] + sums["lost"])
    assert told["Region"] is None
    assert not any(os.path.isabs(source) for source in told["Sources"])
    assert "Relevance for reconstruction_error, summed over gradients" in told["Description"]
    assert len(told["FilesSha256"]) == len(ENDINGS) - 1


def test_what_is_done_is_left_alone_and_what_was_damaged_is_made_again(again):
    image, whole = again / f"{start()}-gradients.nii.gz", sidecar(again)["FilesSha256"]
    untouched = (again / f"{start('sub-p02')}.json").stat().st_mtime_ns
    image.write_bytes(image.read_bytes()[:-5])
    result = explain(again, "--score", SCORE, "--json")
    assert result.exit_code == 0, result.output
    assert [row["status"] for row in json.loads(result.stdout)["Scans"]] == ["done", "up to date"]
    assert sidecar(again)["FilesSha256"] == whole
    assert (again / f"{start('sub-p02')}.json").stat().st_mtime_ns == untouched


def test_other_relevance_is_replaced_only_when_asked(again):
    result = explain(again, "--score", SCORE, "--method", "gradient-x-input")
    assert result.exit_code == 5
    assert "holds relevance of sub-p01 for reconstruction_error by another detector" in result.output
    assert sidecar(again)["ExplainMethod"] == "auto"
    assert (again / "explain-failures.tsv").read_text().count("output.exists") == 2
    result = explain(again, "--score", SCORE, "--method", "gradient-x-input", "--overwrite")
    assert result.exit_code == 0
    assert sidecar(again)["Relevance"]["rule"] == "gradient x input"
    assert sidecar(again)["Relevance"]["conserves"] is False


def test_masks_say_of_which_voxels_tables_tell(explained, again):
    masks = tiny_cohort().lesions
    one = again.parent / "masks"
    one.mkdir()
    shutil.copy(masks / "sub-p01_mask.nii.gz", one)
    result = explain(again, "--score", SCORE, "--masks", one, "--overwrite")
    assert result.exit_code == 0, result.output
    assert "1 of 2 scans have no mask" in result.output
    lesion = np.asarray(nib.load(one / "sub-p01_mask.nii.gz").dataobj) > 0.5
    inside = np.asarray(nib.load(again / "sub-p01/dwi/sub-p01_desc-brain_mask.nii.gz").dataobj) > 0
    assert sidecar(again)["Region"] == {"Voxels": int((lesion & inside).sum())}
    assert sidecar(again, "sub-p02")["Region"] is None
    each = nib.load(again / f"{start()}-gradients.nii.gz").get_fdata()[lesion & inside]
    rows = list(csv.DictReader((again / f"{start()}-gradients.tsv").open(), delimiter="\t"))
    for row in rows:
        assert float(row["mean_relevance"]) == pytest.approx(each[:, int(row["volume"])].mean(), rel=1e-4)
    before = sidecar(explained[0])["FilesSha256"]
    assert (
        sidecar(again)["FilesSha256"][f"{start()}.nii.gz".rpartition("/")[2]]
        == before[f"{start()}.nii.gz".rpartition("/")[2]]
    )


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda lesion: np.where(lesion > 0, np.nan, 0), "mask.not_finite"),
        (lambda lesion: -lesion, "mask.negative"),
        (lambda lesion: 0 * lesion, "mask.empty"),
    ],
)
def test_a_mask_that_is_none_is_refused_for_its_scan(made, code, tmp_path):
    files, lesion = first_scan()
    with pytest.raises(ScanError) as caught:
        _region(saved(made(lesion.get_fdata()), lesion, tmp_path), read_scan(files))
    assert caught.value.code == code


def test_a_mask_of_fractions_has_something_inside(tmp_path):
    files, lesion = first_scan()
    inside = lesion.get_fdata() > 0
    region = _region(saved(0.8 * inside, lesion, tmp_path), read_scan(files))
    assert (region == inside).all()
    # One that is 0 or 0.4 is a mask that was scaled, and was taken to have nothing inside.
    with pytest.raises(ScanError, match="the mask is empty"):
        _region(saved(0.4 * inside, lesion, tmp_path), read_scan(files))


def first_scan():
    """Return the files of the first patient, and its lesion."""
    (files, *_) = scan_folder(tiny_cohort().patients)
    return files, nib.load(tiny_cohort().lesions / "sub-p01_mask.nii.gz")


def saved(values, like, tmp_path):
    path = tmp_path / "sub-p01_mask.nii"
    image = nib.Nifti1Image(values.astype(np.float32), like.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def test_without_a_name_a_score_of_the_model_is_explained():
    detector, _ = tiny_detector()
    assert detector.settings.scores[:2] == ("nearest_normal", "vae_regularizer")
    # nearest_normal looks normals up; of vae_regularizer nothing is conserved.
    assert scores_to_explain(detector, None, "auto") == ("reconstruction_error",)
    assert scores_to_explain(detector, None, "smoothgrad") == ("vae_regularizer",)
    assert scores_to_explain(with_scores(detector, "nearest_normal"), None, "auto") == ("nearest_normal",)
    searches = with_scores(detector, "nearest_normal", "latent_euclidean")
    with pytest.raises(
        SettingsError, match=r"none of nearest_normal, latent_euclidean, .* explained by smoothgrad"
    ):
        scores_to_explain(searches, None, "smoothgrad")


def with_scores(detector, *names):
    return replace(detector, settings=replace(detector.settings, scores=names))


def test_one_bad_scan_stops_nobody(tmp_path):
    scans = shutil.copytree(tiny_cohort().patients, tmp_path / "scans")
    image = scans / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz"
    image.write_bytes(image.read_bytes()[:2000])
    result = explain(tmp_path / "out", "--score", SCORE, scans=scans)
    assert result.exit_code == 6
    assert (tmp_path / "out" / f"{start('sub-p02')}.json").is_file()
    assert not (tmp_path / "out" / "sub-p01").exists()
    assert "sub-p01" in (tmp_path / "out" / "explain-failures.tsv").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--score", "reconstruction_eror"], 2, "did you mean 'reconstruction_error'"),
        (["--score", "cvdd"], 2, "cvdd: judges scans as a whole, and what explains it are its own maps"),
        (["--score", ","], 2, "--score ',' names no score"),
        (["--method", "magic"], 2, "method must be one of auto, lrp, gradient_x_input, smoothgrad"),
        (["--score", "vae_regularizer", "--method", "lrp"], 2, "is not written as a network"),
        (["--score", "latent_euclidean"], 2, "searches have no derivative"),
        (["--masks", "nowhere"], ScanError.exit_code, "not a folder"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path, words, code, said):
    result = explain(tmp_path / "out", *words)
    assert result.exit_code == code
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_the_scans_folder_is_no_place_for_relevance():
    result = explain(tiny_cohort().patients / "sub-p01" / "dwi")
    assert result.exit_code == 5
    assert "is a folder that scans are read from" in result.output


def test_opposite_directions_are_one_place_and_areas_are_equal():
    random = np.random.default_rng(0)
    directions = random.normal(size=(20_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = on_disc(directions)
    np.testing.assert_allclose(on_disc(-directions), places, atol=1e-12)
    # Evenly over the sphere is evenly over the disc: half of them lie within half its area.
    radius = np.linalg.norm(places, axis=1)
    assert radius.max() <= 1
    assert (radius < np.sqrt(0.5)).mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(on_disc(np.array([[0, 1.0, 0], [0, 0.6, 0.8]])), [[0, 1], [0, 0.6 / 1.8**0.5]])
