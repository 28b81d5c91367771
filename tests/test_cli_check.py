"""``check`` as a user meets it: which kind of scans, what is told of structural ones, exit codes."""

import json
import os

import images
import numpy as np
import pytest
import structural_images as made
from cohorts import tiny_cohort
from typer.testing import CliRunner

from mednovelty.cli import app
from mednovelty.io.scan_folder import kind_of

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
ASKED = ["--recipe", "slices", "--contrasts", "FLAIR,T1w"]


def check(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)], env=ENVIRONMENT)


def findings(*words):
    told = json.loads(check(*words, "--json").stdout)
    return told["kind"], told["exit_code"], {(f["scan"], f["code"]): f["message"] for f in told["findings"]}


@pytest.fixture
def cohort(tmp_path):
    for i in range(1, 5):
        made.bids(tmp_path, f"sub-0{i}", "FLAIR", "T1w")
    return tmp_path


def path_of(cohort, i, contrast):
    return cohort / f"sub-0{i}" / "anat" / f"sub-0{i}_{contrast}.nii.gz"


@pytest.mark.parametrize("words", [ASKED, ASKED[2:]])
def test_structural_scans(cohort, words):
    result = check(cohort, *words)
    assert result.exit_code == 0, result.output
    assert "4 of 4 scans can be used; 0 errors, 0 warnings" in result.stdout
    assert "4 of 4 scans have no brain mask" in result.stdout


def test_what_differs_is_told(cohort):
    path_of(cohort, 1, "T1w").unlink()
    wide, turned = images.LAS @ np.diag([1.5, 1, 1, 1]), images.LAS[:, [0, 2, 1, 3]]
    for contrast in ("FLAIR", "T1w"):
        made.save(path_of(cohort, 2, contrast), affine=wide)
    path_of(cohort, 3, "T1w").write_bytes(b"<html></html>" * 40)
    made.bids(cohort, "sub-05", "FLAIR", "T1w")
    made.bids(cohort, "sub-06", "FLAIR", "T1w")
    for contrast in ("FLAIR", "T1w"):
        made.save(path_of(cohort, 6, contrast), affine=turned)
    result = check(cohort, *ASKED)
    assert result.exit_code == 6
    assert "4 of 5 scans can be used" in result.stdout
    kind, code, told = findings(cohort, *ASKED)
    assert (kind, code) == ("structural", 6)
    assert told["", "skipped.contrast.missing"] == "sub-01: lacks T1w; has FLAIR"
    assert "voxel sizes in mm (2.25, 2.0, 3.0)" in told["sub-02", "space.spacing"]
    assert told["sub-03", "file.not_nifti"].startswith("sub-03_T1w.nii.gz: ")
    assert "axes LSA; 3 of 4 scans have LAS" in told["sub-06", "space.axes"]
    assert "warning  space.axes" in result.stdout


def test_the_kind_is_found_where_it_can_be(cohort, tmp_path):
    assert findings(tiny_cohort().controls)[:2] == ("dwi", 0)
    result = check(cohort)
    assert result.exit_code == 2
    assert "FLAIR in 4, T1w in 4; say which, in the order of the channels" in result.stderr
    for i in range(1, 5):
        path_of(cohort, i, "T1w").unlink()
    result = check(cohort)
    assert (result.exit_code, "checked as structural scans" in result.stderr) == (0, True)
    assert "4 of 4 scans can be used" in result.stdout
    assert findings(path_of(cohort, 1, "FLAIR"))[:2] == ("structural", 0)
    path_of(cohort, 2, "FLAIR").write_bytes(b"<html></html>" * 40)
    assert findings(cohort)[:2] == ("structural", 6)


def test_any_trace_of_diffusion_makes_it_diffusion(cohort):
    assert kind_of(cohort) == "structural"
    (cohort / "sub-01" / "dwi").mkdir()
    (cohort / "sub-01" / "dwi" / "sub-01_dwi.nii.gz").write_bytes(b"no image")
    assert kind_of(cohort) == "dwi"
    (cohort / "sub-01" / "dwi" / "sub-01_dwi.nii.gz").unlink()
    four = images.save(cohort / "four.nii.gz", images.signal())
    assert kind_of(cohort) == kind_of(four) == "dwi"
    images.save_gradients(cohort / "four")
    assert kind_of(cohort) == "dwi"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--recipe", "qspace", "--contrasts", "FLAIR"], 2, "--contrasts is for structural scans"),
        (["--recipe", "slice"], 2, "no recipe is called 'slice'"),
        (["--recipe", "qspace"], 3, "no scan found"),
        (["--contrasts", "T2w"], 3, "no scan found"),
    ],
)
def test_what_cannot_be_checked_is_said(cohort, words, code, said):
    result = check(cohort, *words)
    assert result.exit_code == code, result.output
    assert said in result.output


def test_a_folder_that_is_not_there(tmp_path):
    assert findings(tmp_path / "none")[:2] == ("dwi", 3)
