"""``check`` over structural scans: each contrast by itself, against the first, and the cohort."""

import images
import numpy as np
import pytest
import structural_images as made

from mednovelty.errors import SettingsError
from mednovelty.io.check import check_folder

ASKED = ("FLAIR", "T1w")


@pytest.fixture
def cohort(tmp_path):
    for i in range(1, 4):
        made.bids(tmp_path, f"sub-0{i}", *ASKED)
        for contrast in ASKED:
            made.save(path_of(tmp_path, i, contrast), made.volume(10 * i + len(contrast)))
    return tmp_path


def path_of(cohort, i, contrast):
    return cohort / f"sub-0{i}" / "anat" / f"sub-0{i}_{contrast}.nii.gz"


def told(report):
    return [(f.scan, f.severity, f.code) for f in report.findings]


@pytest.mark.parametrize("deep", [False, True])
def test_good(cohort, deep):
    report = check_folder(cohort, contrasts=ASKED, deep=deep)
    assert told(report) == [("", "info", "mask.absent")]
    assert "3 of 3 scans have no brain mask; one will be made for each" in report.findings[0].message
    assert (report.n_scans, report.n_failed, report.exit_code) == (3, 0, 0)


def test_each_contrast_and_the_others_go_on(cohort):
    path_of(cohort, 1, "FLAIR").write_bytes(b"<html></html>" * 40)
    made.save(path_of(cohort, 2, "T1w"), made.volume(1, (7, 9, 4)))
    images.save(cohort / "sub-02" / "anat" / "sub-02_desc-brain_mask.nii.gz", np.ones((7, 8, 5), np.uint8))
    report = check_folder(cohort, contrasts=ASKED)
    assert told(report)[:3] == [
        ("sub-01", "error", "file.not_nifti"),
        ("sub-02", "error", "geometry.shape"),
        ("sub-02", "error", "geometry.shape"),
    ]
    assert [f.message.partition(":")[0] for f in report.findings[:3]] == [
        "sub-01_FLAIR.nii.gz",
        "sub-02_desc-brain_mask.nii.gz",
        "sub-02_T1w.nii.gz",
    ]
    assert (report.n_failed, report.exit_code) == (2, 6)


def test_two_wrong_contrasts_of_one_scan_are_both_told(cohort):
    made.save(path_of(cohort, 2, "T2w"), np.stack([made.volume(1)] * 2, -1))
    made.save(path_of(cohort, 2, "T1w"), made.volume(1), images.RAS)
    report = check_folder(cohort, contrasts=("FLAIR", "T1w", "T2w"))
    assert told(report)[:2] == [("sub-02", "error", "geometry.affine"), ("sub-02", "error", "header.dims")]
    assert {f.code for f in report.findings if f.severity == "warning"} == {"skipped.contrast.missing"}


def test_only_the_voxels_tell(cohort):
    made.save(path_of(cohort, 1, "T1w"), made.volume(1) * 0)
    made.save(path_of(cohort, 2, "T1w"), made.volume(20 + len("FLAIR")))
    for contrast in ASKED:
        path_of(cohort, 3, contrast).write_bytes(path_of(cohort, 2, contrast).read_bytes())
    assert check_folder(cohort, contrasts=ASKED).exit_code == 0
    report = check_folder(cohort, contrasts=ASKED, deep=True)
    assert told(report) == [
        ("sub-01", "error", "voxels.empty"),
        ("sub-02", "warning", "voxels.odd"),
        ("sub-03", "warning", "voxels.odd"),
        ("sub-03", "warning", "cohort.duplicate"),
        ("", "info", "mask.absent"),
    ]
    assert "one image stands for two contrasts" in report.findings[1].message


def test_what_differs_between_scans(cohort):
    affine = images.LAS @ np.diag([1, 1, 1.5, 1])
    for contrast in ASKED:
        made.save(path_of(cohort, 3, contrast), made.volume(1, (7, 9, 6)), affine)
    report = check_folder(cohort, contrasts=ASKED)
    assert told(report) == [
        ("sub-03", "warning", "space.spacing"),
        ("", "info", "mask.absent"),
        ("sub-03", "info", "space.shape"),
    ]
    assert (
        "voxel sizes in mm (1.5, 2.0, 4.5); 2 of 3 scans have (1.5, 2.0, 3.0)" in report.findings[0].message
    )


def test_subjects_that_lack_a_contrast(cohort):
    path_of(cohort, 2, "T1w").unlink()
    made.mask(cohort / "derivatives" / "masks" / "sub-01_mask.nii.gz")
    report = check_folder(cohort, contrasts=ASKED)
    assert told(report) == [
        ("", "warning", "skipped.contrast.missing"),
        ("", "info", "skipped.mask"),
        ("", "info", "mask.absent"),
    ]
    assert report.findings[0].message == "sub-02: lacks T1w; has FLAIR"


def test_which_contrasts_there_are(cohort):
    with pytest.raises(SettingsError, match="FLAIR in 3, T1w in 3; say which"):
        check_folder(cohort, kind="structural")
    report = check_folder(cohort, contrasts=["T2w"])
    assert (told(report)[0], report.exit_code) == (("", "error", "folder.no_scan"), 3)


@pytest.mark.data
def test_real_folders(real_data):
    report = check_folder(real_data / "lgg", contrasts=("FLAIR", "T1w", "ce-GD_T1w"))
    assert (report.n_scans, report.n_failed, report.exit_code) == (80, 0, 0)
    assert {f.code for f in report.findings} == {
        "header.odd",
        "mask.absent",
        "skipped.mask",
        "space.shape",
    }
    report = check_folder(real_data / "ms", contrasts=("FLAIR", "T1", "T1POST", "T2"), deep=True)
    assert (report.n_scans, report.n_failed) == (2, 0)
    assert not [f for f in report.findings if f.severity != "info"]
