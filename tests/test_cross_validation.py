"""Brain masks that are made once for all folds, and detectors that are only trained where there are none."""

import nibabel as nib
import numpy as np
import pytest
from made_up_sets import OBLIQUE, person, save, write_lgg

from mednovelty import cross_validation
from mednovelty.benchmarks.scan_sets import scan_manifest
from mednovelty.cross_validation import fold_detector, masked_scans
from mednovelty.errors import ScanError
from mednovelty.io.folds import with_fold
from mednovelty.io.read_scan import ReadOptions, read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.model_folder import fit_settings

TREE = {
    "method": "image_vae",
    "scores": ["rec_error"],
    "train": {"max_epochs": 1, "batch_size": 16},
    "view_settings": {"size": [16, 16]},
    "method_settings": {"widths": [4, 8], "latent": 5},
}


@pytest.fixture
def scans(tmp_path):
    """Five patients, one contrast."""
    manifest = scan_manifest("lgg", write_lgg(tmp_path / "lgg"))
    return scan_folder(manifest, kind="structural", contrasts=["FLAIR"])


def test_masks_are_made_once_and_the_folders_own_counts(scans, tmp_path, monkeypatch):
    folder, read = tmp_path / "brains", []
    half = person(31)[0] > 0
    half[:, 12:] = False
    save(folder / "sub-001_mask.nii.gz", half.astype(np.uint8), OBLIQUE)
    monkeypatch.setattr(
        cross_validation, "read_scan", lambda files, **how: read.append(files.id) or read_scan(files, **how)
    )
    masked = masked_scans(scans, folder, ReadOptions())
    assert read == ["sub-002", "sub-003", "sub-004", "sub-005"]
    assert masked_scans(scans, folder, ReadOptions()) == masked
    assert len(read) == 4
    np.testing.assert_array_equal(read_scan(masked[0]).mask, half)
    for number, files in enumerate(masked[1:], start=2):
        made = nib.load(files.mask)
        np.testing.assert_allclose(made.affine, OBLIQUE, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(made.dataobj) > 0, person(30 + number)[0] > 0)


def test_a_scan_that_cannot_be_read_stops_nobody(scans, tmp_path):
    scans[1].image.write_bytes(b"no image")
    masked = masked_scans(scans, tmp_path / "brains", ReadOptions())
    assert [files.mask is None for files in masked] == [False, True, False, False, False]
    with pytest.raises(ScanError, match=r"sub-002_FLAIR"):
        read_scan(masked[1])


def test_what_is_trained_stays_so(scans, tmp_path):
    mine, told = with_fold(scans, 0), []
    how = {"recipe": "slices", "seed": 3, "ids": [files.id for files in scans]}
    settings = fit_settings(TREE, where="test", recipe="slices")
    detector = fold_detector(mine, settings, tmp_path / "model", **how,
                             on_scan=lambda id, message: told.append(id))  # fmt: skip
    tested = [files.id for files in mine if files.role == "test"]
    assert len(told) == 4
    assert not set(told) & set(tested)
    # Slices that touch a lesion are left out: with them there are more.
    free = sum(seen.n_voxels for seen in detector.scans)
    whole = fold_detector(mine, settings, tmp_path / "whole", **how, lesions=False)
    assert free < sum(seen.n_voxels for seen in whole.scans)
    before = (tmp_path / "model" / "detector.json").read_bytes()
    again = fold_detector(mine, settings, tmp_path / "model", **how)
    assert again.sha256 == detector.sha256
    assert len(told) == 4
    assert (tmp_path / "model" / "detector.json").read_bytes() == before
    assert not list((tmp_path / "model").glob("checkpoint*"))
