"""Folders of scans: names, sidecars, resuming, and one bad scan among good ones."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from cohorts import tiny_cohort, tiny_detector

from mednovelty.cohort import CohortSettings, score_cohort
from mednovelty.errors import DetectorError, ScanError, UnknownPluginError
from mednovelty.io.scan_folder import scan_folder

BASELINES = {"raw_b0", "raw_dwi", "raw_attenuation"}


@pytest.fixture
def patients(tmp_path):
    return shutil.copytree(tiny_cohort().patients, tmp_path / "patients")


def score(patients, out, *scores, overwrite=False):
    detector, _ = tiny_detector()
    settings = CohortSettings(scores, overwrite)
    return score_cohort(detector, scan_folder(patients), out, settings=settings)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "out"
    return score(tiny_cohort().patients, out), out


def statuses(result):
    return [(outcome.id, outcome.status) for outcome in result.outcomes]


def maps_of(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*_novelty.nii.gz"))}


def test_every_score_and_every_baseline_has_a_map(scored):
    result, out = scored
    assert statuses(result) == [("sub-p01", "done"), ("sub-p02", "done")]
    assert result.exit_code == 0
    names = {path.name.split("_desc-")[1].removesuffix("_novelty.nii.gz") for path in maps_of(out)}
    assert names == set(tiny_detector()[0].settings.scores) | BASELINES
    assert {path.parent for path in maps_of(out)} == {
        (out / f"sub-p0{i}" / "dwi").relative_to(out) for i in (1, 2)
    }


def test_maps_equal_the_python_api(scored):
    import mednovelty as mn

    detector, _ = tiny_detector()
    image = tiny_cohort().patients / "sub-p02" / "dwi" / "sub-p02_dwi.nii.gz"
    maps = detector.score(mn.read_scan(image))
    for name, novelty in maps.items():
        (path,) = scored[1].rglob(f"sub-p02*_desc-{name}_novelty.nii.gz")
        written = nib.load(path)
        np.testing.assert_array_equal(np.asarray(written.dataobj), novelty.data)
        np.testing.assert_allclose(written.affine, nib.load(image).affine, atol=1e-5)
        assert written.get_data_dtype() == np.float32
        assert written.header["sform_code"] == written.header["qform_code"] == 1
        np.testing.assert_allclose(written.get_sform(), written.get_qform(), atol=1e-4)


def test_outside_the_mask_is_zero_and_the_mask_is_there(scored):
    for path in scored[1].rglob("*_novelty.nii.gz"):
        mask = nib.load(path.with_name(path.name.split("_desc-")[0] + "_desc-brain_mask.nii.gz")).get_fdata()
        values = nib.load(path).get_fdata()
        assert 200 < mask.sum() < mask.size
        assert not values[mask == 0].any()
        assert values[mask > 0].std() > 0


def test_raw_baselines_are_the_measured_signal(scored):
    image = nib.load(tiny_cohort().patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz").get_fdata()
    (path,) = scored[1].rglob("sub-p01*_desc-raw_dwi_novelty.nii.gz")
    values = nib.load(path).get_fdata()
    inside = values > 0
    np.testing.assert_allclose(values[inside], image[..., 3:].mean(-1)[inside], rtol=1e-5)


def test_sidecars_tell_what_a_reader_must_know(scored):
    (path,) = scored[1].rglob("sub-p01*_desc-latent_euclidean_novelty.json")
    told = json.loads(path.read_text())
    assert told["Score"]["equation"] == "Eq. (3)"
    assert told["Score"]["paper"] == "vasilev2018"
    assert told["Score"]["direction"] == "higher is more novel"
    assert told["Detector"]["Sha256"] == told["DetectorSha256"] == tiny_detector()[0].sha256
    assert told["Detector"]["ReferenceVoxels"] == len(tiny_detector()[0].reference)
    assert told["Detector"]["Neighbours"]["otherwise"] == {"Name": "exact"}
    assert told["Gradients"]["Scheme"] == "15 volumes: 3 at b=0, 12 at b=1200"
    assert told["Mask"]["Source"].startswith("dipy median_otsu")
    assert (path.parent / told["Sources"][0]).resolve().name == "sub-p01_dwi.nii.gz"
    assert told["Environment"]["BatchVoxels"] == 500
    assert told["Runtime"]["PeakMiB"] > 0
    assert "Calibration" in told
    assert "Warnings" in told


def test_the_run_leaves_its_record(scored):
    out = scored[1]
    run = json.loads((out / "run.json").read_text())
    assert [scan["status"] for scan in run["Scans"]] == ["done", "done"]
    assert run["ExitCode"] == 0
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert (out / "failures.tsv").read_text() == "scan\tcode\tmessage\tfile\n"
    assert "*_novelty.nii.gz" in (out / ".bidsignore").read_text()
    assert not any(line.endswith("/") for line in (out / ".bidsignore").read_text().splitlines())


def test_one_bad_scan_stops_nobody(scored, patients, tmp_path):
    bad = patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-9])
    result = score(patients, tmp_path / "out")
    assert [status for _, status in statuses(result)] == ["failed", "done"]
    assert result.exit_code == 6
    (line,) = (tmp_path / "out" / "failures.tsv").read_text().splitlines()[1:]
    assert "sub-p01_dwi.nii.gz" in line
    assert not [path for path in maps_of(tmp_path / "out") if "sub-p01" in str(path)]
    whole = {path: data for path, data in maps_of(scored[1]).items() if "sub-p02" in str(path)}
    assert maps_of(tmp_path / "out") == whole


def test_only_bad_scans_is_another_exit_code(patients, tmp_path):
    for bval in patients.rglob("*.bval"):
        bval.write_text("0 " + bval.read_text())
    result = score(patients, tmp_path / "out")
    assert result.exit_code == 3
    assert all("15" in failure.message and "16" in failure.message for failure in result.failures)


def test_another_acquisition_is_refused_with_what_differs(patients, tmp_path):
    for bval in patients.rglob("*.bval"):
        bval.write_text(bval.read_text().replace("1200", "3000"))
    result = score(patients, tmp_path / "out")
    assert result.exit_code == 3
    assert (
        "3 at b=0, 12 at b=3000; the detector knows 15 volumes: 3 at b=0, 12 at b=1200"
        in result.failures[0].message
    )
    assert result.failures[0].code == "scheme.shells"


def test_channels_in_another_order_give_the_same_maps(scored, patients, tmp_path):
    order = np.r_[7:15, 0:7]
    folder = patients / "sub-p01" / "dwi"
    image = nib.load(folder / "sub-p01_dwi.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., order], image.affine, image.header),
             folder / "sub-p01_dwi.nii.gz")  # fmt: skip
    for name in ("bval", "bvec"):
        path = folder / f"sub-p01_dwi.{name}"
        np.savetxt(path, np.atleast_2d(np.loadtxt(path))[:, order], fmt="%.6f")
    score(patients, tmp_path / "out", "reconstruction_error", "raw_attenuation")
    for name in ("reconstruction_error", "raw_attenuation"):
        (before,), (after,) = (
            list(out.rglob(f"sub-p01*{name}_novelty.nii.gz")) for out in (scored[1], tmp_path / "out")
        )
        np.testing.assert_allclose(
            nib.load(after).get_fdata(), nib.load(before).get_fdata(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "near"), [("negativ_elbo", "negative_elbo"), ("raw_attenuatoin", "raw_attenuation")]
)
def test_unknown_scores_are_refused_before_anything_is_read(patients, tmp_path, name, near):
    with pytest.raises(UnknownPluginError, match=f"did you mean '{near}'"):
        score(patients, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_a_text_is_one_score():
    assert CohortSettings("latent_euclidean").scores == ("latent_euclidean",)
    assert CohortSettings(["raw_b0", "raw_dwi"]).scores == ("raw_b0", "raw_dwi")


def test_nothing_to_score_makes_no_folder(patients, tmp_path):
    scans = replace(scan_folder(patients), scans=())
    with pytest.raises(ScanError, match="patients: no scan was found to score"):
        score_cohort(tiny_detector()[0], scans, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_detector_of_arrays_scores_no_scans(patients, tmp_path):
    detector = replace(tiny_detector()[0], preprocessing=())
    with pytest.raises(DetectorError, match="fitted on arrays and knows no scans; use score_voxels"):
        score_cohort(detector, scan_folder(patients), tmp_path / "out")
    assert not (tmp_path / "out").exists()
