"""Structural scans as they are read: the right numbers in the right voxels, and words for what is wrong."""

import gzip
import hashlib
from dataclasses import replace

import images
import nibabel as nib
import numpy as np
import pytest
import structural_images as made

from mednovelty.errors import GeometryError, ScanError
from mednovelty.io.nifti import write_map
from mednovelty.io.nifti_source import NiftiSettings
from mednovelty.io.read_scan import ReadOptions, gradients_of, read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.io.structural import input_sha256, read_structural

CONTRASTS = ("FLAIR", "T1w", "T2w")
SLOPE, INTER = 112, 116
"""Where a NIfTI-1 header has them."""


def files_of(folder, contrasts=CONTRASTS, mask=True, affine=images.LAS, **data):
    """Write a subject; return its files."""
    for seed, contrast in enumerate(contrasts):
        made.save(folder / f"p07_{contrast}.nii.gz", data.get(contrast, made.volume(seed)), affine)
    if mask:
        shape = next(iter(data.values()), made.INSIDE).shape[:3]
        own = made.INSIDE if shape == made.SHAPE else np.ones(shape)
        images.save(folder / "p07_brain_mask.nii.gz", own.astype(np.uint8), affine)
    (files,) = scan_folder(folder, contrasts=contrasts)
    return files


def by_nibabel(files, channel):
    return nib.load(files.contrasts[channel][1]).get_fdata()


def dense(scan, channel):
    """Put a channel back where it came from, by hand."""
    volume = np.full(scan.mask.shape, np.nan)
    index = np.array(np.unravel_index(np.flatnonzero(scan.mask.ravel(order="F")), scan.mask.shape, order="F"))
    volume[tuple(index)] = scan.voxels()[:, channel]
    return volume


class TestGood:
    @pytest.mark.parametrize("affine", [images.LAS, images.RAS, images.RAS[:, [2, 0, 1, 3]]])
    def test_each_channel_in_its_voxels(self, tmp_path, affine):
        files = files_of(tmp_path, affine=affine)
        scan = read_scan(files)
        assert scan.contrasts == CONTRASTS
        assert scan.stored.shape == (3, made.INSIDE.sum())
        assert scan.stored.dtype == np.float32
        assert np.array_equal(scan.mask, made.INSIDE)
        for channel in range(3):
            expected = by_nibabel(files, channel)
            assert np.array_equal(dense(scan, channel)[scan.mask], expected[scan.mask])
        assert np.array_equal(scan.background, by_nibabel(files, 0))
        np.testing.assert_allclose(scan.grid.affine, nib.load(files.image).affine, atol=1e-5)
        assert (scan.id, scan.gradients, scan.warnings) == ("p07", None, ())
        assert (scan.scale.tolist(), scan.offset.tolist()) == ([1, 1, 1], [0, 0, 0])
        assert scan.mask_source == "p07_brain_mask.nii.gz"
        mean = np.mean([by_nibabel(files, channel).mean() for channel in range(3)])
        assert scan.whole_mean == pytest.approx(mean)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64])
    def test_slopes_are_applied(self, tmp_path, dtype):
        files = files_of(tmp_path, FLAIR=made.volume(8).clip(0, 200).astype(dtype))
        for channel, (slope, inter) in enumerate(((0.5, -3.0), (2.5, 10.0), (1.0, 0.0))):
            images.header_field(files.contrasts[channel][1], SLOPE, "f", slope)
            images.header_field(files.contrasts[channel][1], INTER, "f", inter)
        scan = read_scan(files)
        for channel in range(3):
            expected = by_nibabel(files, channel)
            np.testing.assert_allclose(dense(scan, channel)[scan.mask], expected[scan.mask], rtol=1e-6)
        np.testing.assert_allclose(scan.background, by_nibabel(files, 0), rtol=1e-6)
        assert scan.background.min() == -3
        assert scan.facts["contrasts"]["T1w"]["slope"] == 2.5
        assert scan.facts["spacing_mm"] == [1.5, 2.0, 3.0]

    def test_negative_values_are_allowed(self, tmp_path):
        files = files_of(tmp_path, ("CT",), CT=made.volume(3) - np.int16(1024))
        scan = read_scan(files)
        assert scan.stored.min() < -700
        assert scan.warnings == ()

    def test_four_dimensions_with_one_volume(self, tmp_path):
        files = files_of(tmp_path, T1w=made.volume(5)[..., None])
        assert np.array_equal(read_scan(files).stored[1], made.volume(5).ravel("F")[made.INSIDE.ravel("F")])

    def test_maps_lie_where_the_scan_does(self, tmp_path):
        data = made.volume(2)
        data[2, 5, 1] = 2000
        scan = read_scan(files_of(tmp_path, ("FLAIR",), FLAIR=data))
        volume = scan.assemble(scan.voxels()[:, 0], "map")
        path = tmp_path / "map.nii.gz"
        write_map(path, volume)
        image = nib.load(path)
        voxel = np.unravel_index(image.get_fdata().argmax(), image.shape)
        world = image.affine @ [*voxel, 1]
        np.testing.assert_allclose(world, images.LAS @ [2, 5, 1, 1], atol=1e-4)

    def test_the_voxels_of_a_contrast_that_are_not_finite(self, tmp_path):
        data = made.volume(4, dtype=np.float32)
        data[2, 3, 2] = np.nan
        other = made.volume(5, dtype=np.float32)
        other[0, 0, 0] = np.inf
        other[3, 4, 2] = -np.inf
        files = files_of(tmp_path, T1w=data, T2w=other)
        scan = read_scan(files)
        assert set(zip(*np.nonzero(made.INSIDE & ~scan.mask), strict=True)) == {(2, 3, 2), (3, 4, 2)}
        assert scan.stored.shape == (3, made.INSIDE.sum() - 2)
        assert np.array_equal(dense(scan, 0)[scan.mask], by_nibabel(files, 0)[scan.mask])
        assert np.array_equal(dense(scan, 2)[scan.mask], other[scan.mask])
        assert scan.warnings == (
            "p07_T1w.nii.gz: 1 voxel values are not finite; voxels with them were taken out of the mask",
            "p07_T2w.nii.gz: 2 voxel values are not finite; voxels with them were taken out of the mask",
        )

    def test_one_image_for_two_contrasts_is_told(self, tmp_path):
        scan = read_scan(files_of(tmp_path, T2w=made.volume(0), T1w=made.volume(0)))
        what = "the same voxels as p07_FLAIR.nii.gz; one image stands for two contrasts"
        assert scan.warnings == (f"p07_T1w.nii.gz: {what}", f"p07_T2w.nii.gz: {what}")

    def test_gradients_are_not_asked_for(self, tmp_path):
        assert gradients_of(files_of(tmp_path)) is None


class TestMask:
    def test_what_is_not_0(self, tmp_path):
        data = made.volume(1)
        data[3, 4, 2] = 0
        scan = read_scan(files_of(tmp_path, ("FLAIR",), mask=False, FLAIR=data))
        assert np.array_equal(scan.mask, made.INSIDE)
        assert scan.mask_source.startswith("every voxel that is not 0")
        assert scan.warnings == ()

    def test_a_head_in_noise_comes_with_a_warning(self, tmp_path):
        shape = (20, 23, 18)
        rng = np.random.default_rng(0)
        axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
        head = sum(x * x for x in axes) < 0.5
        data = (head * 400 + rng.integers(1, 40, shape)).astype(np.int16)
        scan = read_scan(files_of(tmp_path, ("T1w",), mask=False, T1w=data))
        assert np.count_nonzero(scan.mask & head) > 0.95 * head.sum()
        assert np.count_nonzero(scan.mask & ~head) < 0.05 * head.sum()
        assert len(scan.warnings) == 1
        assert scan.warnings[0].startswith("p07_T1w.nii.gz: ")
        assert "skull" in scan.warnings[0]


class TestBad:
    @pytest.mark.parametrize(
        ("data", "affine", "words", "code"),
        [
            (
                made.volume(1, (7, 9, 6)),
                images.LAS,
                r"shape \(7, 9, 6\) does not fit the voxels of p07_FLAIR.nii.gz, \(7, 9, 5\)",
                "geometry.shape",
            ),
            (
                made.volume(1),
                images.LAS + np.eye(4, k=3) * 0.5,
                "voxels lie up to 0.5 mm away from those of p07_FLAIR.nii.gz",
                "geometry.affine",
            ),
            (made.volume(1), images.RAS, "mm away from those of p07_FLAIR.nii.gz", "geometry.affine"),
        ],
    )
    def test_another_grid(self, tmp_path, data, affine, words, code):
        files = files_of(tmp_path)
        made.save(tmp_path / "p07_T1w.nii.gz", data, affine)
        with pytest.raises(GeometryError, match=r"^p07_T1w\.nii\.gz: .*" + words) as caught:
            read_scan(files)
        assert caught.value.code == code

    def test_a_grid_within_a_hundredth_of_a_millimetre(self, tmp_path):
        files = files_of(tmp_path)
        made.save(tmp_path / "p07_T1w.nii.gz", made.volume(1), images.LAS + np.eye(4, k=3) * 0.005)
        assert read_scan(files).n_channels == 3

    @pytest.mark.parametrize(
        ("data", "words", "code"),
        [
            (made.volume(1) * 0, "empty: every voxel is 0", "voxels.empty"),
            (made.volume(1) * 0 + 7, "constant: every voxel is 7", "voxels.constant"),
            (
                np.where(made.INSIDE, np.int16(5), made.volume(1) - np.int16(9)),
                "constant inside the brain mask: every voxel is 5",
                "voxels.constant",
            ),
            (made.volume(1) * np.float32(np.nan), "no voxel of it is finite", "voxels.not_finite"),
            (np.stack([made.volume(1)] * 3, -1), "found 4-D with 3 volumes", "header.dims"),
        ],
    )
    @pytest.mark.parametrize("contrast", ["FLAIR", "T2w"])
    def test_voxels(self, tmp_path, data, words, code, contrast):
        files = files_of(tmp_path, **{contrast: data})
        with pytest.raises(ScanError, match=rf"^p07_{contrast}\.nii\.gz: .*" + words) as caught:
            read_scan(files)
        assert caught.value.code == code

    def test_no_voxel_is_finite_in_all(self, tmp_path):
        one, other = made.volume(4, dtype=np.float32), made.volume(5, dtype=np.float32)
        one[:4], other[4:] = np.nan, np.inf
        with pytest.raises(ScanError, match=r"^p07_FLAIR\.nii\.gz: no voxel of the mask is finite in every"):
            read_scan(files_of(tmp_path, T1w=one, T2w=other))

    def test_less_than_a_slice(self, tmp_path):
        data = np.arange(9, dtype=np.int16).reshape(1, 9, 1)
        with pytest.raises(ScanError, match=r"\(1, 9, 1\) voxels are less than one slice") as caught:
            read_scan(files_of(tmp_path, ("CT",), mask=False, CT=data))
        assert caught.value.code == "voxels.too_few"

    def test_a_mask_on_another_grid(self, tmp_path):
        files = files_of(tmp_path)
        images.save(files.mask, np.ones((7, 9, 4), np.uint8))
        with pytest.raises(GeometryError, match=r"^p07_brain_mask\.nii\.gz: shape \(7, 9, 4\)"):
            read_scan(files)

    @pytest.mark.parametrize("contrast", CONTRASTS)
    def test_damaged_files(self, tmp_path, contrast):
        files = files_of(tmp_path)
        path = tmp_path / f"p07_{contrast}.nii.gz"
        whole = path.read_bytes()
        flipped = bytearray(gzip.compress(gzip.decompress(whole), 0))
        flipped[-300] ^= 4
        damaged = {
            "gzip.cut_short": whole[: len(whole) // 2],
            "file.empty": b"",
            "file.not_nifti": b"<html></html>" * 40,
            "gzip.damaged": bytes(flipped),
        }
        for code, content in damaged.items():
            path.write_bytes(content)
            with pytest.raises(ScanError, match=rf"^p07_{contrast}\.nii\.gz: ") as caught:
                read_scan(files)
            assert caught.value.code == code
        path.unlink()
        with pytest.raises(ScanError, match=rf"^p07_{contrast}\.nii\.gz: no such file") as caught:
            read_scan(files)
        assert caught.value.code == "file.absent"

    def test_a_header_that_asks_for_too_much(self, tmp_path):
        files = files_of(tmp_path)
        images.header_field(files.contrasts[2][1], 42, "3h", 30000, 30000, 30000)
        with pytest.raises(
            ScanError, match=r"^p07_T2w\.nii\.gz: its header asks for .* over the limit of 64 GiB"
        ):
            read_scan(files)

    def test_limits_and_wishes_are_passed_on(self, tmp_path):
        files = files_of(tmp_path)
        for _, path in files.contrasts:
            images.save(path, made.volume(len(path.name)), codes=(0, 0))
        with pytest.raises(GeometryError, match="left and right cannot be told"):
            read_scan(files)
        images.save(files.mask, made.INSIDE.astype(np.uint8), codes=(0, 0))
        options = ReadOptions(nifti=NiftiSettings(allow_unknown_orientation=True))
        assert read_structural(files, options).n_channels == 3


class TestHash:
    def test_of_one_contrast_it_is_the_files(self, tmp_path):
        files = files_of(tmp_path, ("FLAIR",))
        own = hashlib.sha256(files.image.read_bytes()).hexdigest()
        assert read_scan(files).sha256 == input_sha256(files) == own
        assert input_sha256(replace(files, contrasts=())) == own

    def test_of_several_it_is_that_of_a_list(self, tmp_path):
        files = files_of(tmp_path)
        lines = [
            f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for name, path in files.contrasts
        ]
        expected = hashlib.sha256("".join(lines).encode()).hexdigest()
        assert read_scan(files).sha256 == input_sha256(files) == expected

    def test_it_changes_with_each_file_and_with_their_order(self, tmp_path):
        files = files_of(tmp_path)
        before = {input_sha256(files), input_sha256(replace(files, contrasts=files.contrasts[::-1]))}
        for seed, (_, path) in enumerate(files.contrasts):
            made.save(path, made.volume(20 + seed))
            before.add(input_sha256(files))
        assert len(before) == 5


@pytest.mark.data
class TestRealScans:
    def test_ms(self, real_data):
        found = scan_folder(real_data / "ms", contrasts=("FLAIR", "T1POST"))
        assert [files.id for files in found] == ["patient07", "patient19"]
        scan = read_scan(found[0])
        lesion = nib.load(real_data / "ms" / "patient07" / "lesion.nii.gz").get_fdata() > 0
        assert lesion.sum() == 1300
        assert not np.any(lesion & ~scan.mask)
        for channel in range(2):
            np.testing.assert_allclose(
                dense(scan, channel)[scan.mask], by_nibabel(found[0], channel)[scan.mask], rtol=1e-6
            )

    def test_lgg(self, real_data):
        found = scan_folder(real_data / "lgg", contrasts=("FLAIR", "T1w", "ce-GD_T1w"))
        assert [files.id for files in found] == [f"sub-{i:03d}" for i in range(1, 81)]
        assert {files.mask for files in found} == {None}
        repeated = [
            files.id
            for files in found
            if any("one image stands for two" in warning for warning in read_scan(files).warnings)
        ]
        assert repeated == [f"sub-{i:03d}" for i in (23, 26, 39, 50, 56, 70, 74, 79)]


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (0, 2, 1)])
@pytest.mark.parametrize("maker", ["head", "brain"])
def test_the_mask_does_not_depend_on_how_axes_are_stored(tmp_path, order, maker):
    from test_structural_mask import SPACING as HEAD_MM
    from test_structural_mask import head as phantom

    affine, found = np.diag([*HEAD_MM, 1.0]), {}
    turned = affine.copy()
    turned[:, :3] = affine[:, list(order)]
    turned[:3, 0] *= -1
    for name, image, at in (
        ("stored", phantom(), affine),
        ("turned", phantom().transpose(order)[::-1], turned),
    ):
        nib.save(nib.Nifti1Image(image, at), tmp_path / f"{name}_FLAIR.nii.gz")
        files = scan_folder(tmp_path / f"{name}_FLAIR.nii.gz", kind="structural")[0]
        found[name] = read_structural(files, ReadOptions(structural_mask=maker)).mask
    np.testing.assert_array_equal(found["turned"], found["stored"].transpose(order)[::-1])
