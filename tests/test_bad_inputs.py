"""The corpus of hostile inputs: each case as its manifest says, by reading alone.

The corpus is written by ``../shared/tools/make_bad_inputs.py``, which shares no code with any reader.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import images
import numpy as np
import pytest
from conftest import ROOT

from mednovelty.errors import ScanError
from mednovelty.io.check import check_folder
from mednovelty.io.nifti import NiftiReader
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="hangs are caught by SIGALRM"),
]

DATA = Path(os.environ.get("MEDNOVELTY_DATA", ROOT.parent / "shared" / "data"))
MAKER = DATA.parent / "tools" / "make_bad_inputs.py"
CATEGORIES = ("container", "header", "voxels", "geometry", "gradients", "mask", "filesystem", "privacy")
SECONDS = 10

# INTERFACES.md rules here, and the corpus does not list it as another right answer.
REFUSED_BY_DESIGN = {
    "sform_qform_disagree": "forms over half a voxel apart: ITK and nibabel would see the scan in two places",
}
# Only a detector knows what it was trained on.
NOT_DECIDED_BY_READING = {"shell_unseen", "shell_extra", "volumes_more", "volumes_fewer"}
NEEDS_A_PLAIN_USER = {"unreadable_file", "unreadable_folder"}


def listed_ids():
    """Return the ids of the cases, found without writing the corpus, so that each is a test of its own."""
    if not MAKER.is_file():
        return []
    with tempfile.TemporaryDirectory() as folder:
        manifest = write(Path(folder) / "corpus")
        return [c["id"] for c in manifest["cases"] if c["category"] in CATEGORIES]


def write(folder):
    subprocess.run([sys.executable, MAKER, folder, "--no-bombs"], check=True, capture_output=True)
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def corpus():
    """Write the corpus where another user may read it too; return its folder and its manifest."""
    if not MAKER.is_file():
        pytest.skip(f"no {MAKER}")
    folder = Path(tempfile.mkdtemp(prefix="bad_inputs"))
    folder.chmod(0o755)
    manifest = write(folder / "corpus")
    yield folder / "corpus", manifest
    shutil.rmtree(folder)


@contextmanager
def no_hang():
    def stop(*_):
        raise TimeoutError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def plain_user():
    """Read as nobody where the tests run as root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def outcome(path):
    """Return ``refuse``, ``warn`` or ``accept``, the words, and the scans."""
    try:
        with no_hang():
            found = scan_folder(path)
            scans = [read_scan(files) for files in found]
    except ScanError as error:
        return "refuse", str(error), []
    words = [w for scan in scans for w in scan.warnings] + [s.why for s in found.skipped]
    return ("warn" if words else "accept"), "\n".join(words), list(zip(found, scans, strict=True))


def check_truth(truth, files, scan, folder):
    """Compare the decoded voxels, read through a full mask, and the affine."""
    if scan.mask.all():
        full = files
    else:
        mask = images.save(folder / "full.nii.gz", np.ones(scan.mask.shape, np.uint8), scan.grid.affine)
        full = replace(files, mask=mask)
    whole = read_scan(full)
    decoded = np.stack(
        [whole.voxels()[:, c].reshape(whole.mask.shape, order="F") for c in range(whole.n_channels)], -1
    )
    assert list(decoded.shape) == truth["shape"]
    assert hashlib.sha256(decoded.astype("<f4").tobytes(order="F")).hexdigest() == truth["sha256"]
    if truth["affine"] is not None:
        assert np.abs(whole.grid.affine - np.array(truth["affine"])).max() < 1e-5


@pytest.mark.parametrize("case_id", listed_ids() or ["none"])
def test_case(case_id, corpus, tmp_path):
    folder, manifest = corpus
    case = {c["id"]: c for c in manifest["cases"]}[case_id]
    if case_id in NOT_DECIDED_BY_READING:
        pytest.skip("decided by the detector")
    path = folder / case["path"]
    for step in case.get("setup", []):
        if step["op"] == "chmod":
            (folder / step["path"]).chmod(int(step["mode"], 8))
    target = path.parent if case["category"] == "mask" else path
    with plain_user() if case_id in NEEDS_A_PLAIN_USER else no_hang():
        got, words, scans = outcome(target)
    expected = ["refuse"] if case_id in REFUSED_BY_DESIGN else [case["expect"], *case.get("also", [])]
    assert got in expected, words
    if got == "refuse":
        assert case.get("names", path.name) in words
        assert "\n" not in words
    if got != "refuse" and "truth" in case:
        check_truth(case["truth"], *scans[0], tmp_path)
    assert case.get("canary", "\0") not in words
    assert case.get("canary", "\0") not in repr([scan.facts for _, scan in scans])
    if "marker" in case:
        marker = Path(case["marker"])
        assert not list((marker.parent if marker.is_absolute() else Path()).glob(marker.name))


@pytest.mark.parametrize(
    ("case_id", "words"),
    [
        ("gz_truncated_trailer", "no end and no checksum"),
        ("pair_img_missing", "sub-01_dwi.img is missing"),
        ("nan_all", "no voxel of it is finite"),
        ("all_zero", "empty"),
        ("constant", "constant"),
        ("b0_zero", "b=0 is empty"),
        ("scl_overflow", "too much for float32"),
        ("one_volume_zero", "volumes 3 are all 0"),
        ("negative", "27 voxel values are negative"),
        ("nan_some", "8 voxel values are not finite"),
        ("sform_qform_flip", "left and right"),
        ("both_one_short", "6 b-values for 7 volumes"),
        ("bvec_short_row", "row 2 has 6 numbers"),
        ("bvec_nan_dw", "volume 3"),
        ("mask_shape", "(8, 9, 6) does not fit the voxels of sub-01_dwi.nii.gz, (8, 9, 7)"),
        ("symlink_dangling", "target is absent"),
        ("symlink_dir_loop", "a link to a folder it lies in"),
        ("sidecar_deep", "sub-01_dwi.json: cannot be read as JSON"),
    ],
)
def test_the_duty_is_done_in_words(corpus, case_id, words):
    folder, manifest = corpus
    case = {c["id"]: c for c in manifest["cases"]}[case_id]
    path = folder / case["path"]
    assert words in outcome(path.parent if case["category"] == "mask" else path)[1]


def test_good_scans_beside_bad_ones(corpus):
    folder, manifest = corpus
    for good in manifest["good"]:
        got, words, scans = outcome(folder / good["path"])
        assert (got, words) == ("accept", "")
        source = NiftiReader.open(folder / good["path"])
        decoded = np.stack(list(source.volumes()), -1).astype("<f4")
        assert hashlib.sha256(decoded.tobytes(order="F")).hexdigest() == good["truth"]["sha256"]
        assert scans[0][1].n_voxels > 0
    assert check_folder(folder / "good", deep=True).exit_code == 0


def test_check_never_stops(corpus):
    folder, _ = corpus
    for case in sorted((folder / "cases").iterdir()):
        with no_hang():
            report = check_folder(case, deep=True)
        assert report.exit_code in (0, 3, 6)
        assert all("\n" not in finding.message for finding in report.findings)
