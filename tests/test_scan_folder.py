"""Finding scans: what is one, what belongs to it, what it is called, and what was left out."""

import os
import re

import images
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.names import scan_id
from mednovelty.io.scan_folder import find_scans, scan_folder

SMALL = images.signal((4, 5, 3))
MASK = np.ones((4, 5, 3), np.uint8)


def scan(folder, name="sub-01_dwi"):
    return images.save_scan(folder, name, SMALL)


def mask(path):
    return images.save(path, MASK)


def ids(found):
    return [files.id for files in found]


def skipped(found):
    return {s.path: s.code for s in found.skipped}


class TestBids:
    def test_subjects_and_sessions_in_order(self, tmp_path):
        scan(tmp_path / "sub-02" / "dwi", "sub-02_dwi")
        scan(tmp_path / "sub-01" / "ses-b" / "dwi", "sub-01_ses-b_acq-x_dwi")
        scan(tmp_path / "sub-01" / "ses-a" / "dwi", "sub-01_ses-a_dwi")
        images.save(tmp_path / "sub-02" / "anat" / "sub-02_T1w.nii.gz", MASK)
        found = scan_folder(tmp_path)
        assert ids(found) == ["sub-01_ses-a", "sub-01_ses-b_acq-x", "sub-02"]
        assert found[1].entities == (("sub", "01"), ("ses", "b"), ("acq", "x"))
        assert found[2].relative == "sub-02/dwi/sub-02_dwi.nii.gz"
        assert found[2].bval == tmp_path / "sub-02" / "dwi" / "sub-02_dwi.bval"
        assert skipped(found) == {"sub-02/anat/sub-02_T1w.nii.gz": "image.not_dwi"}

    def test_masks_of_the_brain_not_of_lesions(self, tmp_path):
        folder = tmp_path / "sub-01" / "dwi"
        scan(folder)
        mask(folder / "sub-01_label-lesion_mask.nii.gz")
        mask(folder / "sub-01_desc-lesion_mask.nii.gz")
        assert scan_folder(tmp_path)[0].mask is None
        brain = mask(folder / "sub-01_desc-brain_mask.nii.gz")
        found = scan_folder(tmp_path)
        assert found[0].mask == brain
        assert skipped(found) == {
            "sub-01/dwi/sub-01_label-lesion_mask.nii.gz": "mask",
            "sub-01/dwi/sub-01_desc-lesion_mask.nii.gz": "mask",
        }

    def test_a_mask_of_another_session_or_space_is_not_taken(self, tmp_path):
        folder = tmp_path / "sub-01" / "ses-a" / "dwi"
        scan(folder, "sub-01_ses-a_dwi")
        mask(folder / "sub-01_ses-b_desc-brain_mask.nii.gz")
        mask(folder / "sub-01_ses-a_space-T1w_desc-brain_mask.nii.gz")
        mask(folder / "sub-01_desc-brain_mask.nii.gz")
        assert scan_folder(tmp_path)[0].mask is None
        brain = mask(folder / "sub-01_ses-a_desc-brain_mask.nii.gz")
        assert scan_folder(tmp_path)[0].mask == brain

    def test_derivatives_are_looked_through_for_masks_but_not_scanned_twice(self, tmp_path):
        scan(tmp_path / "sub-01" / "dwi")
        derived = tmp_path / "derivatives" / "prep" / "sub-01" / "dwi"
        scan(derived, "sub-01_desc-preproc_dwi")
        brain = mask(derived / "sub-01_desc-brain_mask.nii.gz")
        found = scan_folder(tmp_path)
        assert ids(found) == ["sub-01"]
        assert found[0].mask == brain
        assert skipped(found) == {
            "derivatives/prep/sub-01/dwi/sub-01_desc-preproc_dwi.nii.gz": "derivatives",
        }
        (own,) = scan_folder(tmp_path / "derivatives" / "prep")
        assert (own.id, own.mask) == ("sub-01_desc-preproc", brain)

    def test_gradients_are_inherited(self, tmp_path):
        path = scan(tmp_path / "sub-01" / "dwi", "sub-01_acq-x_dwi")
        for suffix in ("bval", "bvec"):
            (path.parent / f"sub-01_acq-x_dwi.{suffix}").rename(tmp_path / f"acq-x_dwi.{suffix}")
        (tmp_path / "acq-y_dwi.bval").write_text("0 1")
        (files,) = scan_folder(tmp_path)
        assert files.bval == tmp_path / "acq-x_dwi.bval"
        assert files.bvec == tmp_path / "acq-x_dwi.bvec"


class TestPlain:
    def test_what_has_gradients_is_a_scan(self, tmp_path):
        scan(tmp_path / "p1", "data")
        scan(tmp_path / "p2", "data")
        images.save(tmp_path / "p1" / "bold.nii.gz", SMALL)
        images.save(tmp_path / "p1" / "t1.nii", MASK)
        found = scan_folder(tmp_path)
        assert ids(found) == ["p1_data", "p2_data"]
        assert skipped(found) == {"p1/bold.nii.gz": "image.no_gradients", "p1/t1.nii": "image.3d"}

    def test_mrtrix(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", SMALL)
        (tmp_path / "a.b").write_text("")
        (files,) = scan_folder(tmp_path)
        assert (files.image, files.grad_b, files.bval) == (path, tmp_path / "a.b", None)

    @pytest.mark.parametrize("name", ["nodif_brain_mask", "data_mask", "data_brain_mask", "mask"])
    def test_masks(self, tmp_path, name):
        scan(tmp_path, "data")
        assert scan_folder(tmp_path)[0].mask is None
        found = mask(tmp_path / f"{name}.nii.gz")
        assert scan_folder(tmp_path)[0].mask == found
        assert scan_folder(tmp_path / "data.nii.gz")[0].mask == found

    def test_a_mask_without_a_name_belongs_to_nobody_where_there_are_two(self, tmp_path):
        scan(tmp_path, "a")
        scan(tmp_path, "b")
        mask(tmp_path / "nodif_brain_mask.nii.gz")
        own = mask(tmp_path / "b_mask.nii.gz")
        assert [files.mask for files in scan_folder(tmp_path)] == [None, own]

    def test_lesions_folder_beside_the_scans(self, tmp_path):
        scan(tmp_path / "lesions", "sub-01_dwi")
        mask(tmp_path / "lesions" / "sub-01_mask.nii.gz")
        assert scan_folder(tmp_path)[0].mask is None

    def test_damaged_images_are_scans_that_will_fail(self, tmp_path):
        path = scan(tmp_path, "a")
        path.write_bytes(path.read_bytes()[:40])
        (tmp_path / "b.nii.gz").symlink_to("nowhere")
        assert ids(scan_folder(tmp_path)) == ["a", "b"]

    def test_nothing(self, tmp_path):
        images.save(tmp_path / "t1.nii", MASK)
        with pytest.raises(ScanError, match=r"no scan found; looked for .*t1\.nii: a 3-D image") as caught:
            scan_folder(tmp_path)
        assert caught.value.code == "folder.no_scan"
        assert len(find_scans(tmp_path)) == 0

    def test_hidden_files_are_not_looked_at(self, tmp_path):
        scan(tmp_path, "a")
        scan(tmp_path / ".git", "b")
        (tmp_path / ".writing-0.tmp").touch()
        found = scan_folder(tmp_path)
        assert ids(found) == ["a"]
        assert found.skipped == ()


class TestBrainMaskFolder:
    def test_by_id(self, tmp_path):
        scan(tmp_path / "scans", "sub-01_dwi")
        scan(tmp_path / "scans", "sub-02_dwi")
        scan(tmp_path / "scans", "sub-03_dwi")
        first = mask(tmp_path / "masks" / "sub-01_desc-brain_mask.nii.gz")
        second = mask(tmp_path / "masks" / "deep" / "sub-02.nii.gz")
        mask(tmp_path / "masks" / "lesions" / "sub-03_mask.nii.gz")
        found = scan_folder(tmp_path / "scans", brain_masks=tmp_path / "masks")
        # One that is asked for and absent must fail, not be made up.
        assert [files.mask for files in found] == [first, second, tmp_path / "masks" / "sub-03_mask.nii.gz"]

    def test_must_be_a_folder(self, tmp_path):
        scan(tmp_path, "a")
        with pytest.raises(SettingsError, match="none: the folder of brain masks does not exist"):
            scan_folder(tmp_path, brain_masks=tmp_path / "none")


class TestIds:
    def test_two_scans_of_one_id_are_refused(self, tmp_path):
        scan(tmp_path / "siteA", "sub-01_dwi")
        scan(tmp_path / "siteB", "sub-01_dwi")
        with pytest.raises(
            ScanError, match=r"siteA/sub-01_dwi\.nii\.gz and siteB/sub-01_dwi\.nii\.gz"
        ) as caught:
            scan_folder(tmp_path)
        assert caught.value.code == "ids.collide"

    def test_two_scans_that_differ_in_case_are_refused(self, tmp_path):
        scan(tmp_path / "a", "sub-Zo_dwi")
        scan(tmp_path / "b", "sub-zO_dwi")
        with pytest.raises(ScanError, match="would both be 'sub-zO'"):
            scan_folder(tmp_path)

    @pytest.mark.parametrize(
        ("relative", "start"),
        [
            ("sub-01_dwi.nii.gz", "sub-01"),
            ("a/b/c.nii", "a_b_c"),
            ("../../etc/x.nii", "etc_x_hash-"),
            ("-rf.nii", "rf_hash-"),
            ("sub-Zo\u00eb_dwi.nii", "sub-Zo_hash-"),
            ("\udcff\udcfe.nii", "scan_hash-"),
            ("s" * 240 + ".nii.gz", "s" * 120 + "_hash-"),
        ],
    )
    def test_by_hand(self, relative, start):
        found = scan_id(relative)
        assert found.startswith(start)
        assert len(found) == len(start) + (8 if start.endswith("_hash-") else 0)

    @given(st.lists(st.text(min_size=1).filter(lambda part: "/" not in part), min_size=1, max_size=4))
    def test_no_id_leaves_its_folder(self, parts):
        found = scan_id("/".join([*parts[:-1], parts[-1] + "_dwi.nii.gz"]))
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}", found)
        assert ".." not in found

    @given(
        st.text(min_size=1).filter(lambda s: "/" not in s), st.text(min_size=1).filter(lambda s: "/" not in s)
    )
    def test_names_that_were_changed_stay_apart(self, one, other):
        ids = scan_id(f"x/{one}\u00e9.nii"), scan_id(f"x/{other}\u00e9.nii")
        assert (ids[0] == ids[1]) == (one == other)


class TestLinks:
    def test_circles_are_walked_once(self, tmp_path):
        scan(tmp_path / "a", "x")
        (tmp_path / "a" / "up").symlink_to("..")
        (tmp_path / "b").symlink_to("a")
        found = scan_folder(tmp_path)
        assert ids(found) == ["a_x"]
        assert skipped(found) == {"a/up": "link.loop", "b": "link.loop"}

    def test_a_linked_folder_elsewhere_is_followed(self, tmp_path):
        scan(tmp_path / "store" / "a", "x")
        (tmp_path / "study").mkdir()
        (tmp_path / "study" / "link").symlink_to("../store/a")
        assert ids(scan_folder(tmp_path / "study")) == ["link_x"]

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_that_cannot_be_read_is_told(self, tmp_path):
        scan(tmp_path, "a")
        (tmp_path / "locked").mkdir(mode=0)
        found = scan_folder(tmp_path)
        assert skipped(found) == {"locked": "folder.permission"}


@pytest.mark.data
def test_real_folders(real_data):
    (one,) = scan_folder(real_data / "dwi" / "single_shell")
    assert (one.bval.name, one.bvec.name) == ("Diffusion.bvals", "Diffusion.bvecs")
    assert one.mask.name == "nodif_brain_mask.nii.gz"
    (two,) = scan_folder(real_data / "dwi" / "two_shell")
    assert (two.bval.name, two.bvec.name) == ("b1k_b2k.bval", "b1k_b2k.bvec")
    assert two.mask.name == "b1k_b2k_example_slices_24_38_mask.nii.gz"
