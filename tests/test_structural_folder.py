"""Where structural scans are found, what they are called, and what is no scan."""

import re
from pathlib import Path

import images
import numpy as np
import pytest
from structural_images import bids, mask, save, told

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.contrasts import name_images
from mednovelty.io.scan_folder import find_scans, scan_folder


def rows(found):
    return [
        (files.id, [name for name, _ in files.contrasts], [path.name for _, path in files.contrasts])
        for files in found
    ]


class TestBids:
    def test_contrasts_in_the_order_asked_for(self, tmp_path):
        bids(tmp_path, "sub-02", "FLAIR", "T1w", "ce-GD_T1w")
        bids(tmp_path, "sub-01", "FLAIR", "T1w", session="ses-b")
        found = scan_folder(tmp_path, contrasts=("T1w", "FLAIR"))
        assert rows(found) == [
            ("sub-01_ses-b", ["T1w", "FLAIR"], ["sub-01_ses-b_T1w.nii.gz", "sub-01_ses-b_FLAIR.nii.gz"]),
            ("sub-02", ["T1w", "FLAIR"], ["sub-02_T1w.nii.gz", "sub-02_FLAIR.nii.gz"]),
        ]
        first = found[0]
        assert first.image == tmp_path / "sub-01" / "ses-b" / "anat" / "sub-01_ses-b_T1w.nii.gz"
        assert first.entities == (("sub", "01"), ("ses", "b"))
        assert first.relative == "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz"
        assert told(found) == {"ce-GD_T1w": "contrast.other"}

    def test_entities_make_a_contrast_of_its_own(self, tmp_path):
        bids(tmp_path, "sub-01", "T1w", "ce-GD_T1w", "acq-fast_run-2_T1w")
        assert rows(scan_folder(tmp_path, contrasts=["ce-GD_T1w"])) == [
            ("sub-01", ["ce-GD_T1w"], ["sub-01_ce-GD_T1w.nii.gz"])
        ]
        assert rows(scan_folder(tmp_path, contrasts="acq-fast_run-2_T1w"))[0][1] == ["acq-fast_run-2_T1w"]

    def test_a_subject_that_lacks_one_is_told(self, tmp_path):
        bids(tmp_path, "sub-01", "FLAIR", "T1w")
        bids(tmp_path, "sub-02", "FLAIR", "T2w")
        found = scan_folder(tmp_path, contrasts=("FLAIR", "T1w"))
        assert [files.id for files in found] == ["sub-01"]
        (missing,) = [s for s in found.skipped if s.code == "contrast.missing"]
        assert (missing.path, missing.why) == ("sub-02", "lacks T1w; has FLAIR, T2w")

    def test_two_images_of_one_contrast_are_told(self, tmp_path):
        folder = bids(tmp_path, "sub-01", "FLAIR")
        save(folder / "sub-01_FLAIR.nii")
        bids(tmp_path, "sub-02", "FLAIR")
        found = scan_folder(tmp_path, contrasts=["FLAIR"])
        assert [files.id for files in found] == ["sub-02"]
        assert found.skipped[0].code == "contrast.ambiguous"
        assert "sub-01_FLAIR.nii and sub-01/anat/sub-01_FLAIR.nii.gz" in found.skipped[0].why

    def test_what_is_no_scan(self, tmp_path):
        folder = bids(tmp_path, "sub-01", "FLAIR")
        images.save_scan(tmp_path / "sub-01" / "dwi", "sub-01_dwi")
        mask(folder / "sub-01_label-lesion_mask.nii.gz")
        mask(folder / "sub-01_label-lesion_roi.nii.gz")
        save(tmp_path / "derivatives" / "n4" / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz")
        found = scan_folder(tmp_path, kind="structural")
        assert rows(found) == [("sub-01", ["FLAIR"], ["sub-01_FLAIR.nii.gz"])]
        assert found[0].mask is None
        assert told(found) == {
            "sub-01/dwi/sub-01_dwi.nii.gz": "image.not_anat",
            "sub-01/anat/sub-01_label-lesion_mask.nii.gz": "mask",
            "sub-01/anat/sub-01_label-lesion_roi.nii.gz": "mask",
            "derivatives/n4/sub-01/anat/sub-01_FLAIR.nii.gz": "derivatives",
        }

    def test_derivatives_are_scans_where_they_are_all_there_is(self, tmp_path):
        bids(tmp_path / "derivatives" / "n4", "sub-01", "desc-n4_T1w")
        assert rows(scan_folder(tmp_path, kind="structural"))[0][:2] == ("sub-01", ["desc-n4_T1w"])

    def test_contrasts_of_several_folders(self, tmp_path):
        bids(tmp_path, "sub-01", "T1w")
        save(tmp_path / "sub-01" / "ct" / "sub-01_ct.nii.gz")
        assert rows(scan_folder(tmp_path, contrasts=("ct", "T1w")))[0][1] == ["ct", "T1w"]

    def test_brain_masks(self, tmp_path):
        folder = bids(tmp_path, "sub-01", "FLAIR", "T1w")
        bids(tmp_path, "sub-02", "FLAIR", "T1w")
        bids(tmp_path, "sub-03", "FLAIR", "T1w")
        beside = mask(folder / "sub-01_desc-brain_mask.nii.gz")
        mask(folder / "sub-01_space-MNI_desc-brain_mask.nii.gz")
        derived = mask(tmp_path / "derivatives" / "bet" / "sub-02" / "anat" / "sub-02_desc-brain_mask.nii.gz")
        mask(tmp_path / "derivatives" / "masks" / "sub-03_mask.nii.gz")
        found = scan_folder(tmp_path, contrasts=("FLAIR", "T1w"))
        assert [files.mask for files in found] == [beside, derived, None]
        assert told(found) == {
            "derivatives/masks/sub-03_mask.nii.gz": "mask",
            "sub-01/anat/sub-01_space-MNI_desc-brain_mask.nii.gz": "mask",
        }

    def test_brain_masks_of_a_folder_by_id(self, tmp_path):
        bids(tmp_path / "scans", "sub-01", "FLAIR")
        own = mask(tmp_path / "masks" / "sub-01_mask.nii.gz")
        found = scan_folder(tmp_path / "scans", contrasts=["FLAIR"], brain_masks=tmp_path / "masks")
        assert found[0].mask == own

    def test_two_of_one_id_are_refused(self, tmp_path):
        bids(tmp_path / "a", "sub-01", "FLAIR")
        bids(tmp_path / "b", "sub-01", "FLAIR")
        with pytest.raises(ScanError, match="would both be 'sub-01'"):
            scan_folder(tmp_path, contrasts=["FLAIR"])


class TestPlain:
    def test_a_folder_a_subject(self, tmp_path):
        for subject in ("patient07", "patient19"):
            for name in ("FLAIR", "T1", "T1POST", "lesion"):
                save(tmp_path / subject / f"{name}.nii.gz")
        own = mask(tmp_path / "patient07" / "brain_mask.nii.gz")
        mask(tmp_path / "patient19" / "mask.nii.gz")
        mask(tmp_path / "lesion_masks" / "patient07.nii.gz")
        found = scan_folder(tmp_path, contrasts=("FLAIR", "T1POST"))
        assert rows(found) == [
            ("patient07", ["FLAIR", "T1POST"], ["FLAIR.nii.gz", "T1POST.nii.gz"]),
            ("patient19", ["FLAIR", "T1POST"], ["FLAIR.nii.gz", "T1POST.nii.gz"]),
        ]
        assert [files.mask for files in found] == [own, None]
        assert told(found) == {
            "T1": "contrast.other",
            "lesion_masks/patient07.nii.gz": "mask",
            "patient07/lesion.nii.gz": "mask",
            "patient19/lesion.nii.gz": "mask",
            "patient19/mask.nii.gz": "mask",
        }

    def test_the_subjects_own_folder_gives_the_same_id(self, tmp_path):
        for name in ("FLAIR", "T1"):
            save(tmp_path / "patient07" / f"{name}.nii.gz")
        for path in (tmp_path, tmp_path / "patient07", tmp_path / "patient07" / "FLAIR.nii.gz"):
            found = scan_folder(path, contrasts=("FLAIR", "T1"))
            assert rows(found) == [("patient07", ["FLAIR", "T1"], ["FLAIR.nii.gz", "T1.nii.gz"])]

    def test_flat(self, tmp_path):
        for name in ("p07_FLAIR", "p07_T1_post", "p08_FLAIR", "p08_T1_post", "IXI002-Guys-0828-FLAIR"):
            save(tmp_path / f"{name}.nii.gz")
        own = mask(tmp_path / "p08_brain_mask.nii.gz")
        found = scan_folder(tmp_path, contrasts=("FLAIR", "T1_post"))
        assert [files.id for files in found] == ["p07", "p08"]
        assert found[1].mask == own
        assert ("IXI002-Guys-0828", "contrast.missing") in told(found).items()

    def test_names_that_only_the_asker_knows(self, tmp_path):
        for name in ("case_a_0000", "case_a_0001", "case_b_0000", "case_b_0001"):
            save(tmp_path / f"{name}.nii.gz")
        found = scan_folder(tmp_path, contrasts=("0001", "0000"))
        assert rows(found)[0] == ("case_a", ["0001", "0000"], ["case_a_0001.nii.gz", "case_a_0000.nii.gz"])

    def test_the_folder_in_the_file_name(self, tmp_path):
        for contrast in ("flair", "t1ce", "seg"):
            save(tmp_path / "BraTS20_001" / f"BraTS20_001_{contrast}.nii.gz")
        found = scan_folder(tmp_path, contrasts=("t1ce", "flair"))
        assert [files.id for files in found] == ["BraTS20_001"]
        assert told(found) == {"BraTS20_001/BraTS20_001_seg.nii.gz": "mask"}

    def test_one_contrast_need_not_be_named(self, tmp_path):
        for name in ("p07", "p08"):
            save(tmp_path / f"{name}.nii.gz")
        assert rows(scan_folder(tmp_path, kind="structural")) == [
            ("p07", ["image"], ["p07.nii.gz"]),
            ("p08", ["image"], ["p08.nii.gz"]),
        ]
        (tmp_path / "p07.nii.gz").rename(tmp_path / "p07_T2w.nii.gz")
        (tmp_path / "p08.nii.gz").rename(tmp_path / "p08_T2w.nii.gz")
        assert [row[:2] for row in rows(scan_folder(tmp_path, kind="structural"))] == [
            ("p07", ["T2w"]),
            ("p08", ["T2w"]),
        ]

    def test_a_name_that_recurs_in_subjects_folders_is_a_contrast(self, tmp_path):
        for subject in ("a", "b"):
            save(tmp_path / subject / "scan.nii.gz")
        assert [row[:2] for row in rows(scan_folder(tmp_path, kind="structural"))] == [
            ("a", ["scan"]),
            ("b", ["scan"]),
        ]
        found = scan_folder(tmp_path, contrasts=["image"])
        assert [files.id for files in found] == ["a_scan", "b_scan"]

    def test_several_have_to_be_chosen_from(self, tmp_path):
        for name in ("p07_FLAIR", "p08_FLAIR", "p08_T1"):
            save(tmp_path / f"{name}.nii.gz")
        words = r"several contrasts, of 2 subjects: FLAIR in 2, T1 in 1; .* --contrasts FLAIR,T1"
        with pytest.raises(SettingsError, match=words):
            scan_folder(tmp_path, kind="structural")

    def test_diffusion_scans_are_left_out(self, tmp_path):
        save(tmp_path / "p07" / "T1.nii.gz")
        images.save_scan(tmp_path / "p07", "dwi")
        found = scan_folder(tmp_path, kind="structural")
        assert [row[:2] for row in rows(found)] == [("p07", ["T1"])]
        assert told(found) == {"p07/dwi.nii.gz": "image.dwi"}

    def test_patients_in_a_folder_called_tumour(self, tmp_path):
        save(tmp_path / "tumour" / "p07_FLAIR.nii.gz")
        save(tmp_path / "lesions" / "p07.nii.gz")
        found = scan_folder(tmp_path, contrasts=["FLAIR"])
        assert [files.id for files in found] == ["tumour_p07"]
        assert told(found) == {"lesions/p07.nii.gz": "mask"}

    def test_nothing(self, tmp_path):
        save(tmp_path / "p07_T1.nii.gz")
        words = r"no scan found; looked for images .* of FLAIR; left out: T1: not asked for; 1 subjects"
        with pytest.raises(ScanError, match=words) as caught:
            scan_folder(tmp_path, contrasts=["FLAIR"])
        assert caught.value.code == "folder.no_scan"
        (tmp_path / "p07_T1.nii.gz").unlink()
        assert len(find_scans(tmp_path, kind="structural")) == 0

    @pytest.mark.parametrize(
        ("contrasts", "words"),
        [(("FLAIR", "FLAIR"), "'FLAIR' is asked for twice"), ((), "must be names"), (("T1", ""), "must be")],
    )
    def test_what_cannot_be_asked_for(self, tmp_path, contrasts, words):
        with pytest.raises(SettingsError, match=words):
            scan_folder(tmp_path, contrasts=contrasts)
        with pytest.raises(SettingsError, match="diffusion scans have none"):
            scan_folder(tmp_path, contrasts=["FLAIR"], kind="dwi")


class TestOneImage:
    @pytest.mark.parametrize(
        ("name", "contrasts", "expected"),
        [
            ("p07_FLAIR", None, ("p07", ["FLAIR"])),
            ("sub-01_ce-GD_T1w", None, ("sub-01", ["ce-GD_T1w"])),
            ("p07", None, ("p07", ["image"])),
            ("p07", ["CT"], ("p07", ["CT"])),
        ],
    )
    def test_its_contrast(self, tmp_path, name, contrasts, expected):
        path = save(tmp_path / f"{name}.nii.gz")
        save(tmp_path / "other_T2.nii.gz")
        (files,) = scan_folder(path, kind="structural", contrasts=contrasts)
        assert (files.id, [contrast for contrast, _ in files.contrasts]) == expected
        assert files.image == path

    def test_mask_and_sidecar_beside_it(self, tmp_path):
        path = save(tmp_path / "p07_FLAIR.nii.gz")
        own = mask(tmp_path / "p07_brain_mask.nii.gz")
        (tmp_path / "p07_FLAIR.json").write_text("{}")
        (files,) = scan_folder(path, kind="structural")
        assert (files.mask, files.sidecar) == (own, tmp_path / "p07_FLAIR.json")


def test_ids_cannot_escape_and_stay_apart():
    root = Path("/data")
    paths = [root / "a b" / "FLAIR.nii.gz", root / "a-b" / "FLAIR.nii.gz", root / "a" / "..b_FLAIR.nii.gz"]
    ids = [image.id for image in name_images(paths, root)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in ids)
    assert ids[1] == "a-b"


def test_the_diffusion_path_is_as_it_was(tmp_path):
    bids(tmp_path, "sub-01", "FLAIR")
    images.save_scan(tmp_path / "sub-01" / "dwi", "sub-01_dwi", np.asarray(images.signal()))
    (files,) = scan_folder(tmp_path)
    assert files.image.name == "sub-01_dwi.nii.gz"
    assert (files.contrasts, files.fold) == ((), None)
