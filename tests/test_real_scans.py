"""The job on real scans, where they are at hand; written by nibabel, read by everything else."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

import mednovelty as mn
from mednovelty.cohort import score_cohort
from mednovelty.fitting import FitSettings
from mednovelty.train import TrainSettings

pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture(scope="module")
def slices(real_data, tmp_path_factory):
    """Split the two-shell scan into its two slices, a folder each."""
    root = tmp_path_factory.mktemp("slices")
    stem = real_data / "dwi" / "two_shell" / "b1k_b2k"
    scan = nib.load(f"{stem}_example_slices_24_38.nii.gz")
    mask = nib.load(f"{stem}_example_slices_24_38_mask.nii.gz")
    for k in range(2):
        (root / f"slice{k}").mkdir()
        nib.save(scan.slicer[:, :, k : k + 1], root / f"slice{k}" / f"slice{k}.nii.gz")
        nib.save(mask.slicer[:, :, k : k + 1], root / f"slice{k}" / f"slice{k}_mask.nii.gz")
        for suffix in ("bval", "bvec"):
            shutil.copy(f"{stem}.{suffix}", root / f"slice{k}" / f"slice{k}.{suffix}")
    return root


def test_two_shells_fit_on_one_slice_score_the_other(slices, tmp_path):
    settings = FitSettings(train=TrainSettings(max_epochs=10))
    detector = mn.Detector.fit(mn.scan_folder(slices / "slice0"), settings=settings).save(tmp_path / "model")
    assert detector.scheme.describe() == "103 volumes: 13 at b=0, 30 at b=1000, 60 at b=2000"
    assert not detector.fitted.summary["collapsed"]

    result = score_cohort(detector, mn.scan_folder(slices / "slice1"), tmp_path / "out")
    assert result.exit_code == 0
    original = nib.load(slices / "slice1" / "slice1.nii.gz")
    mask = nib.load(slices / "slice1" / "slice1_mask.nii.gz").get_fdata() > 0
    maps = list((tmp_path / "out").rglob("*_novelty.nii.gz"))
    assert len(maps) == 9
    for path in maps:
        written = nib.load(path)
        np.testing.assert_allclose(written.affine, original.affine, atol=1e-4)
        assert written.get_fdata()[mask].std() > 0


def test_both_shells_are_looked_at(slices, tmp_path):
    settings = FitSettings(
        train=TrainSettings(max_epochs=3), scores=("nearest_normal", "reconstruction_error")
    )
    detector = mn.Detector.fit(mn.scan_folder(slices / "slice0"), settings=settings)
    scan = mn.read_scan(slices / "slice1" / "slice1.nii.gz")
    before = detector.score(scan)
    for shell in (1000, 2000):
        changed = scan.scaled(np.where(np.abs(scan.gradients.bvals - shell) < 100, 1.3, 1.0))
        for name, novelty in detector.score(changed).items():
            assert np.median(novelty.values / before[name].values) > 1.1, (shell, name)


def test_the_whole_brain_scan_is_another_acquisition(slices, real_data, tmp_path):
    settings = FitSettings(train=TrainSettings(max_epochs=1), scores=("vae_regularizer",))
    detector = mn.Detector.fit(mn.scan_folder(slices / "slice0"), settings=settings).save(tmp_path / "model")
    scans = mn.scan_folder(real_data / "dwi" / "single_shell")
    result = score_cohort(detector, scans, tmp_path / "out")
    assert result.exit_code == 3
    assert "33 volumes: 1 at b=0, 32 at b=1000; the detector knows 103 volumes" in result.failures[0].message
    assert json.loads((tmp_path / "out" / "run.json").read_text())["ExitCode"] == 3
