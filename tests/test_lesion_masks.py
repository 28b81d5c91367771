"""Lesion masks that fit no scan, or say nothing, are refused or told; none is taken for health in silence."""

import logging

import nibabel as nib
import numpy as np
import pytest
from test_image_recipes import run

from mednovelty.errors import ScanError
from mednovelty.explain_cohort import _region
from mednovelty.lesion_masks import lesions_in
from mednovelty.scan import Scan, Volume

SHAPE = (5, 6, 7)
SCAN = Scan.of(Volume(np.random.default_rng(0).normal(9, 1, (3, *SHAPE)), np.eye(4), "sub-01"),
               np.ones(SHAPE, bool))  # fmt: skip


def write(path, values):
    nib.Nifti1Image(np.asarray(values, np.float32), np.eye(4)).to_filename(path)


def marked(value):
    values = np.zeros(SHAPE)
    values[1:3, 2:4, 5] = value
    return values


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        (np.nan, "mask.not_finite", "4 voxels of the mask are not finite"),
        (0.4, "mask.faint", "marks 4 voxels with at most 0.4, and more than 0.5 is lesion"),
        (-1, "mask.negative", "a mask cannot be negative, found -1"),
    ],
)
def test_masks_whose_values_say_nothing_are_refused(tmp_path, value, code, said):
    path = tmp_path / f"{SCAN.id}_mask.nii.gz"
    write(path, marked(value))
    lesion_of = lesions_in(tmp_path, [SCAN.id], tmp_path / "x", each=False)
    with pytest.raises(ScanError, match=said) as caught:
        lesion_of(SCAN)
    assert caught.value.code == code
    with pytest.raises(ScanError, match="mask"):
        _region(path, SCAN)


def test_lesions_are_what_is_above_a_half_and_none_is_no_fault(tmp_path, caplog):
    path = tmp_path / f"{SCAN.id}_mask.nii.gz"
    write(path, marked(0.6))
    with caplog.at_level(logging.WARNING, "mednovelty"):
        assert lesions_in(tmp_path, [SCAN.id], tmp_path / "x")(SCAN).sum() == 4
    assert "4 voxels between 0 and 1; more than 0.5 counts as lesion" in caplog.text
    write(path, marked(0))
    assert not lesions_in(tmp_path, [SCAN.id], tmp_path / "x")(SCAN).any()


def test_masks_of_no_scan_are_told(tmp_path, caplog):
    write(tmp_path / "patient1_mask.nii.gz", marked(1))
    with pytest.raises(
        ScanError, match=r"no lesion mask fits a scan: scans sub-01; masks patient1_mask"
    ) as e:
        lesions_in(tmp_path, ["sub-01"], tmp_path / "x", each=False)
    assert e.value.code == "masks.none"
    write(tmp_path / "sub-01_mask.nii.gz", marked(1))
    with caplog.at_level(logging.WARNING, "mednovelty"):
        lesions_in(tmp_path, ["sub-01"], tmp_path / "x", each=False)
    assert "1 masks fit no scan and are not used: patient1_mask.nii.gz" in caplog.text


def test_fit_refuses_masks_of_no_scan(tmp_path):
    for number in range(3):
        path = tmp_path / f"scans/sub-{number}/anat/sub-{number}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        write(path, marked(1) + number)
    (tmp_path / "masks").mkdir()
    write(tmp_path / "masks/somebody_mask.nii.gz", marked(1))
    done = run("fit", tmp_path / "scans", "-o", tmp_path / "model", "--recipe", "slices",
               "--contrasts", "FLAIR", "--method", "fcdd", "--masks", tmp_path / "masks")  # fmt: skip
    assert done.exit_code == 3
    assert "no lesion mask fits a scan" in done.stderr
