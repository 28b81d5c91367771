"""Which maps are finished and which mask belongs to which scan."""

import json

import pytest
from lesion_study import lesion_of, make_study, write

from mednovelty.errors import ScanError
from mednovelty.evaluation.files import find_maps, find_masks


@pytest.fixture
def study(tmp_path):
    return lambda n: make_study(tmp_path, n)


@pytest.mark.parametrize(
    "name",
    [
        "{}_mask.nii.gz",
        "{}_label-lesion_mask.nii.gz",
        "{}_lesion.nii.gz",
        "{}.nii.gz",
        "{}/anat/{}_space-dwi_label-lesion_mask.nii",
        "{}_desc-expert_mask.nii.gz",
        "{}_label-lesion_roi.nii.gz",
        "{}_desc-lesion_mask.nii.gz",
        "{}_space-MNI152NLin2009cAsym+x_label-lesion_mask.nii.gz",
        "{}_roi.nii.gz",
        "{}_lesion_mask.nii.gz",
        "{}_space-dwi_lesions.NII.GZ",
    ],
)
def test_masks_are_found_by_scan_id(tmp_path, name):
    path = write(tmp_path / name.format("sub-1_ses-2", "sub-1_ses-2"), lesion_of(1))
    found, strangers = find_masks(tmp_path, ["sub-1", "sub-1_ses-2"], besides=tmp_path / "out")
    assert found == {"sub-1_ses-2": path}
    assert strangers == []


@pytest.mark.parametrize(
    "name",
    [
        "sub-11_mask.nii.gz",
        "sub-1_ses-2_mask.nii.gz",
        "sub-1_ses-2_label-lesion_roi.nii.gz",
        "sub-1_dwi.nii.gz",
        "sub-1_dseg.nii.gz",  # tissues, as a rule
        "xsub-1_mask.nii",
    ],
)
def test_masks_of_other_scans_are_not_taken(tmp_path, name):
    path = write(tmp_path / name, lesion_of(1))
    assert find_masks(tmp_path, ["sub-1"], besides=tmp_path / "out") == ({}, [path])


def test_a_mask_goes_to_the_longest_id_that_it_names(tmp_path):
    path = write(tmp_path / "sub-1_desc-preproc_mask.nii.gz", lesion_of(1))
    found, _ = find_masks(tmp_path, ["sub-1", "sub-1_desc-preproc"], besides=tmp_path / "out")
    assert found == {"sub-1_desc-preproc": path}


def test_two_masks_for_a_scan_are_refused_by_name(tmp_path):
    write(tmp_path / "a" / "sub-1_mask.nii.gz", lesion_of(1))
    write(tmp_path / "b" / "sub-1_label-lesion_mask.nii.gz", lesion_of(1))
    with pytest.raises(
        ScanError, match=r"sub-1 has two lesion masks, .*a/sub-1_mask.* and .*b/sub-1_label-lesion"
    ):
        find_masks(tmp_path, ["sub-1"], besides=tmp_path / "out")


def test_brain_masks_hidden_files_and_the_runs_own_files_are_no_lesion_masks(tmp_path):
    for name in ("sub-1_desc-brain_mask.nii.gz", "sub-1_brain_mask.nii.gz", "._sub-1_mask.nii.gz",
                 "out/sub-1_desc-x_mask.nii.gz"):  # fmt: skip
        write(tmp_path / name, lesion_of(1))
    assert find_masks(tmp_path, ["sub-1"], besides=tmp_path / "out") == ({}, [])
    with pytest.raises(ScanError, match="not a folder; give the folder of the lesion masks"):
        find_masks(tmp_path / "nowhere", ["sub-1"], besides=tmp_path)


def test_a_map_without_its_sidecar_is_unfinished(study):
    out, _ = study(1)
    for path in out.rglob("*_novelty.json"):
        path.unlink()
    with pytest.raises(ScanError, match="no finished novelty map; run `mednovelty score` first"):
        find_maps(out)


def test_two_maps_of_one_score_are_refused_by_name(study):
    out, _ = study(1)
    sidecar = next(out.rglob("sub-01_desc-rawdwi_novelty.json"))
    sidecar.write_text(json.dumps({"ScanId": "sub-01", "Score": {"name": "raw_b0"}}))
    with pytest.raises(
        ScanError, match=r"has two maps of raw_b0, .*rawb0_novelty.nii.gz and .*rawdwi_novelty.nii.gz"
    ):
        find_maps(out)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "no usable sidecar"), ("[]", "no usable sidecar"), ('{"ScanId": "a"}', "no usable sidecar"),
     ('{"ScanId": 3, "Score": {"name": "a"}}', "must be texts"), ("[" * 100_000, "no usable sidecar")],
)  # fmt: skip
def test_a_damaged_sidecar_is_refused_by_name(study, text, words):
    out, _ = study(1)
    next(out.rglob("sub-01_desc-rawb0_novelty.json")).write_text(text)
    with pytest.raises(ScanError, match=rf"sub-01_desc-rawb0_novelty.json: .*{words}") as caught:
        find_maps(out)
    assert caught.value.code == "sidecar.damaged"


def test_a_map_or_brain_mask_that_is_gone_is_named(study):
    out, _ = study(1)
    next(out.rglob("*desc-brain_mask.nii.gz")).unlink()
    with pytest.raises(ScanError, match=r"sub-01_desc-brain_mask.nii.gz: gone from .*; score sub-01 again"):
        find_maps(out)


def test_the_runs_own_files_are_known_behind_a_link(tmp_path):
    own = write(tmp_path / "study" / "out" / "sub-1_mask.nii.gz", lesion_of(1))
    lesion = write(tmp_path / "study" / "masks" / "sub-2_mask.nii.gz", lesion_of(2))
    (tmp_path / "link").symlink_to(tmp_path / "study")
    found, strangers = find_masks(tmp_path / "link", ["sub-1", "sub-2"], besides=own.parent)
    assert [path.resolve() for path in found.values()] == [lesion.resolve()]
    assert strangers == []
