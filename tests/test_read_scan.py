"""A scan in memory is the file's: each voxel in its place, in its units, none that is not a number."""

import hashlib
import json
from dataclasses import replace

import images
import nibabel as nib
import numpy as np
import pytest

from mednovelty.errors import GeometryError, GradientError, ScanError, SettingsError
from mednovelty.io.nifti import NiftiSettings, write_map
from mednovelty.io.read_scan import ReadOptions, read_scan
from mednovelty.io.scan_folder import scan_folder

FULL = np.ones(images.SHAPE, np.uint8)
INSIDE = images.signal(n=1)[..., 0] > 500


def with_mask(path, mask=INSIDE, affine=images.LAS):
    images.save(path.with_name("sub-01_desc-brain_mask.nii.gz"), np.asarray(mask, np.uint8), affine)
    return path


class TestVoxels:
    @pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8, np.float64, np.int64])
    @pytest.mark.parametrize("endianness", ["<", ">"])
    def test_each_channel_in_the_order_of_the_file(self, tmp_path, dtype, endianness):
        data = (images.signal() % 251).astype(dtype)
        path = with_mask(images.save_scan(tmp_path))
        images.save(path, data, endianness=endianness)
        scan = read_scan(path)
        by_hand = np.stack(
            [volume.ravel(order="F")[INSIDE.ravel(order="F")] for volume in np.moveaxis(data, -1, 0)]
        )
        assert np.array_equal(scan.stored, by_hand)
        assert scan.stored.dtype == (np.float32 if np.dtype(dtype).itemsize == 8 else dtype)
        assert scan.stored.dtype.isnative
        assert np.array_equal(scan.mask, INSIDE)
        assert scan.whole_mean == pytest.approx(float(data.mean(dtype=np.float64)), rel=1e-6)

    def test_a_voxel_keeps_its_place_in_the_world(self, tmp_path):
        data = images.signal()
        data[2, 5, 4] = [9001, 9002, 9003, 9004, 9005]
        scan = read_scan(with_mask(images.save_scan(tmp_path, data=data), FULL))
        (n,) = np.flatnonzero(scan.stored[0] == 9001)
        scores = np.zeros(scan.n_voxels)
        scores[n] = 1
        write_map(tmp_path / "map.nii.gz", scan.assemble(scores, "map"))
        loaded = nib.load(tmp_path / "map.nii.gz")
        assert np.argwhere(loaded.get_fdata()).tolist() == [[2, 5, 4]]
        assert np.allclose(loaded.affine @ [2, 5, 4, 1], images.LAS @ [2, 5, 4, 1], atol=1e-4)

    def test_scaling_is_kept_beside_the_stored_numbers(self, tmp_path):
        path = with_mask(images.save_scan(tmp_path))
        images.header_field(path, 112, "ff", 0.5, 3)
        scan = read_scan(path)
        data = images.signal() * 0.5 + 3
        assert scan.stored.dtype == np.int16
        assert np.allclose(scan.voxels()[:, 4], data[..., 4].ravel(order="F")[INSIDE.ravel(order="F")])
        assert np.allclose(scan.background, data[..., [0, 3]].mean(-1))
        assert scan.whole_mean == pytest.approx(data.mean())
        assert (scan.facts["slope"], scan.facts["inter"]) == (0.5, 3)

    def test_what_else_a_scan_tells(self, tmp_path):
        path = with_mask(images.save_scan(tmp_path, "sub-01_ses-2_dwi"))
        path.with_name("sub-01_desc-brain_mask.nii.gz").rename(tmp_path / "sub-01_ses-2_mask.nii.gz")
        secret = {"EchoTime": 0.09, "PatientName": "DOE", "RepetitionTime": "DOE", "FlipAngle": True}
        (tmp_path / "sub-01_ses-2_dwi.json").write_text(json.dumps(secret))
        scan = read_scan(path)
        assert scan.id == "sub-01_ses-2"
        assert scan.entities == (("sub", "01"), ("ses", "2"))
        assert scan.source == path
        assert scan.mask_source == "sub-01_ses-2_mask.nii.gz"
        assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert scan.facts["shells"] == [(0, 2), (1000, 2), (2000, 1)]
        assert scan.facts["n_b0"] == 2
        assert scan.facts["sidecar"] == {"EchoTime": 0.09}
        assert np.allclose(scan.gradients.bvecs, images.WORLD, atol=1e-6)
        assert np.allclose(scan.grid.affine, images.LAS, atol=1e-5)
        assert scan.warnings == ()

    def test_without_gradients(self, tmp_path):
        path = images.save(tmp_path / "t1.nii.gz", images.signal()[..., 0])
        images.save(tmp_path / "t1_mask.nii.gz", INSIDE.astype(np.uint8))
        with pytest.raises(ScanError, match=r"t1\.nii\.gz: 4-D is needed, found 3-D: \(6, 9, 7\)"):
            read_scan(path)
        scan = read_scan(path, options=ReadOptions(gradients=False))
        assert scan.gradients is None
        assert scan.stored.shape == (1, INSIDE.sum())
        assert np.array_equal(scan.background, images.signal()[..., 0])

    def test_a_folder_with_one_scan(self, tmp_path):
        with_mask(images.save_scan(tmp_path))
        assert read_scan(tmp_path).id == "sub-01"
        images.save_scan(tmp_path, "sub-02_dwi")
        with pytest.raises(SettingsError, match="holds 2 scans, sub-01 and sub-02 among them"):
            read_scan(str(tmp_path))


class TestUnusableVoxels:
    def read(self, tmp_path, data, mask=FULL):
        path = images.save_scan(tmp_path, data=data)
        return read_scan(path if mask is None else with_mask(path, mask))

    def test_they_leave_the_mask_and_nothing_else_changes(self, tmp_path):
        data = images.signal(dtype=np.float32)
        clean = data.copy()
        data[3, 4, 2, 1] = np.nan
        data[2, 2, 2, 0] = np.inf
        data[0, 1, 6, 4] = -np.inf
        data[5, 5, 5, 2] = 3e38
        scan = self.read(tmp_path, data)
        bad = {(3, 4, 2), (2, 2, 2), (0, 1, 6), (5, 5, 5)}
        assert {tuple(v) for v in np.argwhere(~scan.mask)} == bad
        for channel in range(5):
            assert np.array_equal(scan.stored[channel], clean[..., channel].T[scan.mask.T])
        assert np.isfinite(scan.background).all()
        assert scan.background[2, 2, 2] == 0
        usable = np.isfinite(data) & (np.abs(data) < 1e18)
        assert scan.whole_mean == pytest.approx(data[usable].mean(dtype=np.float64), rel=1e-6)
        assert scan.warnings == (
            "sub-01_dwi.nii.gz: 3 voxel values are not finite; voxels with them were taken out of the mask",
            "sub-01_dwi.nii.gz: 1 voxel values are over 1e+18; voxels with them were taken out of the mask",
        )

    def test_outside_the_mask_they_are_only_counted(self, tmp_path):
        data = images.signal(dtype=np.float32)
        data[0, 0, 0, 2] = np.nan
        scan = self.read(tmp_path, data, INSIDE)
        assert np.array_equal(scan.mask, INSIDE)
        assert len(scan.warnings) == 1

    @pytest.mark.parametrize("masked", [True, False])
    @pytest.mark.parametrize(
        ("change", "code", "words"),
        [
            (lambda d: d * np.nan, "voxels.not_finite", "no voxel of it is finite"),
            (lambda d: d * 0, "voxels.empty", "every voxel is 0"),
            (lambda d: d * 0 + 500, "voxels.constant", "constant: every voxel is 500"),
            (lambda d: d * [0, 1, 1, 0, 1], "voxels.b0_empty", "b=0 is empty: volumes 0, 3 are all 0"),
        ],
    )
    def test_nothing_sensible_is_left(self, tmp_path, change, code, words, masked):
        data = change(images.signal(dtype=np.float32)).astype(np.float32)
        with pytest.raises(ScanError, match=rf"^sub-01_dwi\.nii\.gz: .*{words}") as caught:
            self.read(tmp_path, data, FULL if masked else None)
        assert caught.value.code == code

    def test_a_mask_without_a_usable_voxel(self, tmp_path):
        data = images.signal(dtype=np.float32)
        data[1, 2, 3] = np.nan
        mask = np.zeros(images.SHAPE)
        mask[1, 2, 3] = 1
        with pytest.raises(ScanError, match="no voxel of the mask is finite in every volume"):
            self.read(tmp_path, data, mask)

    def test_scaled_beyond_float32(self, tmp_path):
        path = with_mask(images.save_scan(tmp_path))
        images.header_field(path, 112, "f", 3e38)
        with pytest.raises(ScanError, match=r"scaled by 3e\+38, voxels reach .* is scl_slope right"):
            read_scan(path)

    def test_integers_beyond_float32(self, tmp_path):
        data = images.signal().astype(np.uint64) + np.uint64(1 << 60)
        with pytest.raises(ScanError, match=r"integers up to 1.15e\+18 do not fit float32"):
            self.read(tmp_path, data)
        data = images.signal().astype(np.int64) + (1 << 25)
        assert self.read(tmp_path, data).warnings == (
            f"sub-01_dwi.nii.gz: values up to {data.max():g} were rounded to float32's 24 bits",
        )

    def test_dropped_volumes_and_negative_voxels_are_told(self, tmp_path):
        data = images.signal()
        data[..., 2] = 0
        data[1:3, 1:4, 1, 4] = -7
        assert self.read(tmp_path, data).warnings == (
            "sub-01_dwi.nii.gz: volumes 2 are all 0",
            "sub-01_dwi.nii.gz: 6 voxel values are negative",
        )


class TestMasks:
    def read(self, tmp_path, mask, affine=images.LAS):
        path = images.save_scan(tmp_path)
        images.save(tmp_path / "sub-01_mask.nii.gz", mask, affine)
        return read_scan(path)

    def test_255_is_inside(self, tmp_path):
        scan = self.read(tmp_path, INSIDE.astype(np.uint8) * np.uint8(255))
        assert np.array_equal(scan.mask, INSIDE)
        assert scan.warnings == ()

    def test_labels_are_inside(self, tmp_path):
        labels = INSIDE * np.arange(1, 8, dtype=np.int16)
        assert labels.max() == 6
        scan = self.read(tmp_path, labels)
        assert np.array_equal(scan.mask, INSIDE)
        assert scan.warnings == (
            "sub-01_mask.nii.gz: the mask holds labels up to 6; inside is what is not 0",
        )

    @pytest.mark.parametrize("top", [1.0, 0.9])
    def test_fractions_have_a_threshold(self, tmp_path, top):
        fractions = np.where(INSIDE, np.float32(top), np.float32(0.2))
        fractions[0, 0, 0] = 0.5
        scan = self.read(tmp_path, fractions)
        assert np.array_equal(scan.mask, INSIDE)
        assert scan.warnings == ("sub-01_mask.nii.gz: the mask holds fractions; inside is what is above 0.5",)

    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (1, 2, 0)])
    @pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
    def test_stored_along_other_axes(self, tmp_path, axes, flips):
        mask = INSIDE.copy()
        mask[0, 1, 2] = mask[5, 8, 0] = True
        # By hand: flip and transpose the array, and let the affine follow each step.
        affine = images.LAS.copy()
        stored = mask
        for axis in flips:
            stored = np.flip(stored, axis)
            affine[:3, 3] += affine[:3, axis] * (stored.shape[axis] - 1)
            affine[:3, axis] *= -1
        stored, affine = stored.transpose(axes), affine[:, [*axes, 3]]
        scan = self.read(tmp_path, stored.astype(np.uint8), affine)
        assert np.array_equal(scan.mask, mask)
        moved = axes != (0, 1, 2) or flips != ()
        assert len(scan.warnings) == moved
        assert not moved or "turned to fit in world space" in scan.warnings[0]

    @pytest.mark.parametrize(
        ("mask", "affine", "code", "words"),
        [
            (FULL[..., 1:], images.LAS, "geometry.shape", r"shape \(6, 9, 6\) does not fit .*\(6, 9, 7\)"),
            (FULL, images.LAS + np.eye(4, k=3) * 10, "geometry.affine", "voxels lie up to 10 mm away"),
            (FULL * 0, images.LAS, "mask.empty", "the mask is empty"),
            (FULL * np.float32(0.3), images.LAS, "mask.empty", "the mask is empty"),
            (
                FULL * np.float32(np.nan),
                images.LAS,
                "mask.not_finite",
                "378 voxels of the mask are not finite",
            ),
            (FULL * np.int16(-1), images.LAS, "mask.negative", "cannot be negative, found -1"),
            (np.stack([FULL, FULL], -1), images.LAS, "mask.dims", "must be 3-D, found 4-D with 2 volumes"),
        ],
    )
    def test_refused(self, tmp_path, mask, affine, code, words):
        with pytest.raises(ScanError, match=r"^sub-01_mask\.nii\.gz: .*" + words) as caught:
            self.read(tmp_path, mask, affine)
        assert caught.value.code == code

    def test_without_one_it_is_made_and_said(self, tmp_path):
        scan = read_scan(images.save_scan(tmp_path))
        assert np.count_nonzero(scan.mask & INSIDE) > 0.9 * INSIDE.sum()
        assert scan.mask_source.startswith("dipy median_otsu on the mean b=0 (median_radius=1, numpass=4")


class TestFiles:
    def test_no_gradients(self, tmp_path):
        path = images.save_scan(tmp_path)
        path.with_name("sub-01_dwi.bvec").unlink()
        with pytest.raises(
            GradientError, match=r"^sub-01_dwi\.bvec: no such file beside sub-01_dwi\.nii\.gz"
        ):
            read_scan(path)

    def test_a_checksum_of_the_manifest(self, tmp_path):
        path = with_mask(images.save_scan(tmp_path))
        (files,) = scan_folder(tmp_path)
        right = hashlib.sha256(path.read_bytes()).hexdigest()
        assert read_scan(replace(files, sha256=right)).sha256 == right
        with pytest.raises(ScanError, match=r"its sha256 is .*, the manifest says 00") as caught:
            read_scan(replace(files, sha256="00"))
        assert caught.value.code == "file.checksum"

    @pytest.mark.parametrize("text", ['{"EchoTime": ', "[" * 100_000, "\0", "[1, 2]"])
    def test_a_broken_sidecar_is_left_alone(self, tmp_path, text):
        path = with_mask(images.save_scan(tmp_path))
        path.with_name("sub-01_dwi.json").write_text(text)
        scan = read_scan(path)
        assert scan.facts.get("sidecar", {}) == {}
        assert len(scan.warnings) == (text != "[1, 2]")

    def test_unknown_orientation_when_asked_for(self, tmp_path):
        path = images.save_scan(tmp_path)
        images.save(path, images.signal(), codes=(0, 0))
        with pytest.raises(GeometryError, match="left and right cannot be told"):
            read_scan(path)
        options = ReadOptions(nifti=NiftiSettings(allow_unknown_orientation=True))
        assert read_scan(path, options=options).warnings == (
            "sub-01_dwi.nii.gz: no orientation in the file; left and right are a guess",
        )

    def test_less_than_a_slice_is_no_scan(self, tmp_path):
        path = images.save_scan(tmp_path, data=images.signal((1, 1, 6)))
        with pytest.raises(ScanError, match=r"\(1, 1, 6\) voxels are less than one slice"):
            read_scan(path)


@pytest.mark.data
def test_real_scans_agree_with_nibabel(real_data):
    for folder, n_b0 in (("single_shell", 1), ("two_shell", 13)):
        scan = read_scan(real_data / "dwi" / folder)
        data = np.asanyarray(nib.load(scan.source).dataobj)
        index = np.flatnonzero(scan.mask.ravel(order="F"))
        for channel in (0, scan.n_channels - 1):
            assert np.array_equal(scan.stored[channel], data[..., channel].ravel(order="F")[index])
        assert scan.facts["n_b0"] == n_b0
        assert np.allclose(np.linalg.norm(scan.gradients.bvecs, axis=1), ~scan.gradients.b0s_mask)
