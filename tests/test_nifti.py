"""Reading NIfTI: what nibabel reads is read alike, the damaged is refused. Writing: whole, bare, in place."""

import errno
import gzip
import hashlib
import os
import threading

import images
import nibabel as nib
import numpy as np
import pytest

from mednovelty.errors import GeometryError, ScanError
from mednovelty.io import orientation, readers
from mednovelty.io.guard import shown
from mednovelty.io.nifti import NiftiReader, NiftiSettings, read_volume

NIFTI2 = nib.Nifti2Image
FIELD = {
    "pixdim": 76,
    "vox_offset": 108,
    "slope": 112,
    "units": 123,
    "descrip": 148,
    "qform_code": 252,
    "srow_x": 280,
}


def stacked(source):
    return np.stack(list(source.volumes()), -1)


class TestReading:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize(
        ("dtype", "kind", "endianness"),
        [
            (np.int16, nib.Nifti1Image, "<"),
            (np.int16, nib.Nifti1Image, ">"),
            (np.float32, NIFTI2, "<"),
            (np.float64, NIFTI2, ">"),
            (np.uint8, nib.Nifti1Image, ">"),
        ],
    )
    def test_reads_what_nibabel_reads(self, tmp_path, suffix, dtype, kind, endianness):
        data = images.signal(dtype=dtype) % 251
        path = images.save(tmp_path / f"a{suffix}", data, kind=kind, endianness=endianness)
        assert nib.load(path).header.endianness == endianness
        source = NiftiReader.open(path)
        found = list(source.volumes())
        assert np.array_equal(np.stack(found, -1), data)
        assert all(v.flags.f_contiguous and v.dtype == dtype and v.dtype.isnative for v in found)
        assert np.array_equal(source.grid.affine, nib.load(path).affine)
        assert (source.ndim, source.n_channels, source.grid.shape) == (4, 5, images.SHAPE)
        assert source.warnings == []

    def test_hash_is_of_the_file_and_known_only_at_its_end(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", images.signal())
        source = NiftiReader.open(path)
        with pytest.raises(ValueError, match="only after all volumes"):
            _ = source.sha256
        stacked(source)
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_can_be_read_twice(self, tmp_path):
        source = NiftiReader.open(images.save(tmp_path / "a.nii.gz", images.signal()))
        assert np.array_equal(stacked(source), stacked(source))

    def test_stopping_early_leaves_no_thread(self, tmp_path):
        source = NiftiReader.open(images.save(tmp_path / "a.nii.gz", images.signal()))
        before = threading.active_count()
        volumes = source.volumes()
        next(volumes)
        volumes.close()
        assert threading.active_count() == before

    def test_scaling(self, tmp_path):
        path = images.save(tmp_path / "a.nii", images.signal()[..., 0])
        images.header_field(path, FIELD["slope"], "ff", 0.5, 10)
        volume = read_volume(path)
        assert volume.data.dtype == np.float32
        assert np.array_equal(volume.data[0], images.signal()[..., 0] * np.float32(0.5) + 10)

    @pytest.mark.parametrize(("slope", "warns"), [(0.0, False), (np.nan, True)])
    def test_slope_0_or_nan_means_unscaled(self, tmp_path, slope, warns):
        path = images.save(tmp_path / "a.nii", images.signal())
        images.header_field(path, FIELD["slope"], "ff", slope, 7)
        source = NiftiReader.open(path)
        assert (source.slope, source.inter) == (1, 0)
        assert [w for w in source.warnings if "taken as unscaled" in w] == source.warnings
        assert bool(source.warnings) == warns

    def test_a_volume_is_read_by_the_reader_of_its_suffix(self, tmp_path, monkeypatch):
        class Doubling:
            @staticmethod
            def open(path, settings):
                source = NiftiReader.open(path, settings)
                source.slope = 2.0
                return source

        data = images.signal()[..., 0]
        images.save(tmp_path / "a.nii", data).rename(tmp_path / "a.dbl")
        monkeypatch.setattr(readers, "_by_suffix", lambda: {".dbl": Doubling, ".nii": NiftiReader})
        assert np.array_equal(read_volume(tmp_path / "a.dbl").data[0], 2 * data.astype(np.float32))

    def test_3d_is_wanted_of_a_volume(self, tmp_path):
        with pytest.raises(ScanError, match=r"a\.nii: must be 3-D, found 4-D with 5 volumes"):
            read_volume(images.save(tmp_path / "a.nii", images.signal()))

    def test_what_follows_the_voxels_is_told(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", images.signal())
        images.write(path, images.read(path) + b"PatientName=DOE")
        source = NiftiReader.open(path)
        assert np.array_equal(stacked(source), images.signal())
        assert source.warnings == ["a.nii.gz: 15 bytes follow the voxels; ignored"]

    def test_content_decides_not_the_name(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", images.signal())
        path.rename(tmp_path / "b.nii")
        source = NiftiReader.open(tmp_path / "b.nii")
        assert np.array_equal(stacked(source), images.signal())
        assert source.warnings == ["b.nii: gzip, though not named .gz; read by its content"]


class TestDamage:
    def test_every_flipped_bit_is_refused(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", images.signal((11, 13, 12)))
        good = path.read_bytes()
        rng = np.random.default_rng(3)
        for bit in rng.choice(np.arange(12 * 8, len(good) * 8), 100, replace=False):
            damaged = bytearray(good)
            damaged[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(damaged)
            with pytest.raises(ScanError, match=r"^a\.nii\.gz: "):
                stacked(NiftiReader.open(path))

    def test_every_cut_is_refused(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", images.signal())
        good = path.read_bytes()
        for length in (1, 15, 100, len(good) // 2, len(good) - 9, len(good) - 8, len(good) - 1):
            path.write_bytes(good[:length])
            with pytest.raises(ScanError, match=r"a\.nii\.gz: (cut short|not a NIfTI)"):
                stacked(NiftiReader.open(path))

    def test_members_and_zero_padding_are_gzip_too(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", images.signal())
        raw = images.read(path)
        members = b"".join(gzip.compress(raw[i : i + 999]) for i in range(0, len(raw), 999))
        path.write_bytes(members + bytes(300_000))
        source = NiftiReader.open(path)
        assert np.array_equal(stacked(source), images.signal())
        assert source.warnings == []
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_text_behind_the_gzip_stream_is_told(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", images.signal())
        path.write_bytes(path.read_bytes() + b"garbage")
        source = NiftiReader.open(path)
        assert np.array_equal(stacked(source), images.signal())
        assert source.warnings == ["a.nii.gz: bytes that are no gzip follow the gzip stream; ignored"]

    def test_a_bomb_is_refused_from_its_header(self, tmp_path):
        path = images.save(tmp_path / "a.nii", np.zeros((2, 2, 2, 2), np.int16))
        header = bytearray(path.read_bytes()[:352])
        header[40:50] = np.array([4, 800, 800, 800, 2], "<i2").tobytes()
        mebibyte = gzip.compress(bytes(1 << 20))
        bomb = tmp_path / "bomb.nii.gz"
        bomb.write_bytes(gzip.compress(bytes(header)) + mebibyte * 1954)
        with pytest.raises(
            ScanError, match=r"bomb\.nii\.gz: 1\.91 GiB of voxels are squeezed \d+ times"
        ) as caught:
            NiftiReader.open(bomb)
        assert caught.value.code == "file.bomb"

    def test_a_bomb_behind_the_voxels_is_not_inflated(self, tmp_path):
        path = images.save(tmp_path / "a.nii.gz", images.signal())
        path.write_bytes(path.read_bytes() + gzip.compress(bytes(1 << 20)) * 100)
        with pytest.raises(ScanError, match="inflates to more than 64 MiB beyond"):
            stacked(NiftiReader.open(path))

    def test_limits(self, tmp_path):
        path = images.save(tmp_path / "a.nii", images.signal((40, 41, 43)))
        with pytest.raises(ScanError, match=r"asks for 0.000657 GiB of voxels, over the limit of 0.0001 GiB"):
            NiftiReader.open(path, NiftiSettings(max_gib=1e-4))
        with pytest.raises(ScanError, match=r"0.000131 GiB a volume, over the limit of 0.0001 GiB"):
            NiftiReader.open(path, NiftiSettings(max_volume_gib=1e-4))

    def test_a_file_that_changes_is_refused(self, tmp_path):
        path = images.save(tmp_path / "a.nii", images.signal())
        other = images.save(tmp_path / "b.nii", images.signal(seed=1))
        source = NiftiReader.open(path)
        volumes = source.volumes()
        next(volumes)
        os.replace(other, path)
        with pytest.raises(ScanError, match=r"a\.nii: changed while it was read") as caught:
            list(volumes)
        assert caught.value.code == "file.changed"
        with pytest.raises(ScanError, match=r"a\.nii: changed"):
            next(source.volumes())


class TestWhatIsNoFile:
    def test_kinds(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.nii")
        (tmp_path / "folder.nii").mkdir()
        (tmp_path / "empty.nii").touch()
        (tmp_path / "dangling.nii").symlink_to("nowhere")
        (tmp_path / "loop.nii").symlink_to("loop.nii")
        (tmp_path / "device.nii").symlink_to("/dev/zero")
        for name, code, words in [
            ("pipe.nii", "file.special", "not a regular file"),
            ("folder.nii", "file.folder", "is a folder"),
            ("empty.nii", "file.empty", r"empty \(0 bytes\)"),
            ("dangling.nii", "file.link", "target is absent"),
            ("loop.nii", "file.link", "leads back to itself"),
            ("device.nii", "file.special", "not a regular file"),
            ("absent.nii", "file.absent", "no such file"),
        ]:
            with pytest.raises(ScanError, match=f"^{name}: .*{words}") as caught:
                NiftiReader.open(tmp_path / name)
            assert caught.value.code == code

    def test_permission(self, tmp_path, monkeypatch):
        path = images.save(tmp_path / "a.nii", images.signal())

        def refuse(*_):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(ScanError, match=r"a\.nii: permission denied"):
            NiftiReader.open(path)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"<!DOCTYPE html>" + b" " * 600, "web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
            (b"/annex/objects/SHA256E-s1--0.nii.gz\n", "git-annex pointer"),
            (b"BZh91AY" + bytes(600), "compressed in a way"),
            (bytes(128) + b"DICM" + bytes(600), "DICOM"),
        ],
    )
    def test_other_content_is_named_but_not_printed(self, tmp_path, content, words):
        (tmp_path / "a.nii").write_bytes(content)
        with pytest.raises(ScanError, match=words) as caught:
            NiftiReader.open(tmp_path / "a.nii")
        assert caught.value.code == "file.not_nifti"

    def test_names_are_shown_on_one_line(self):
        assert shown("a/sub\n\x1b[31m\x7f.nii") == "sub\\x0a\\x1b[31m\\x7f.nii"
        assert shown(os.fsdecode(b"\xff\xfe.nii")) == "\\xff\\xfe.nii"
        assert shown("Zo\u00eb\u202e.nii") == "Zoë\\u202e.nii"


class TestGeometry:
    def affected(self, tmp_path, sform=None, codes=(1, 1), qform=images.LAS):
        """Save an image by nibabel and plant another sform into its bytes."""
        path = images.save(tmp_path / "a.nii", images.signal(), qform, codes=codes)
        if sform is not None:
            images.header_field(path, FIELD["srow_x"], "12f", *np.asarray(sform)[:3].ravel())
        return path

    @pytest.mark.parametrize("codes", [(1, 0), (0, 1), (4, 2)])
    def test_one_form_is_enough(self, tmp_path, codes):
        source = NiftiReader.open(self.affected(tmp_path, codes=codes))
        assert np.allclose(source.grid.affine, images.LAS, atol=1e-5)
        assert source.warnings == []

    def test_unknown_orientation_only_when_asked_for(self, tmp_path):
        path = self.affected(tmp_path, codes=(0, 0))
        with pytest.raises(GeometryError, match="left and right cannot be told") as caught:
            NiftiReader.open(path)
        assert caught.value.code == "geometry.unknown"
        source = NiftiReader.open(path, NiftiSettings(allow_unknown_orientation=True))
        assert np.allclose(source.grid.affine, nib.load(path).affine)
        assert source.warnings == ["a.nii: no orientation in the file; left and right are a guess"]

    def test_shear_is_refused(self, tmp_path):
        sheared = images.LAS.copy()
        sheared[0, 1] = 0.2
        with pytest.raises(GeometryError, match=r"sheared: two voxel axes are 5.7 degrees off a right angle"):
            NiftiReader.open(self.affected(tmp_path, sheared, codes=(1, 0)))

    def test_forms_that_disagree_by_more_than_half_a_voxel_are_refused(self, tmp_path):
        moved = images.LAS.copy()
        moved[1, 3] += 0.76  # The smallest voxel size is 1.5 mm.
        with pytest.raises(GeometryError, match=r"put voxels up to 0\.76 mm apart; programs") as caught:
            NiftiReader.open(self.affected(tmp_path, moved))
        assert caught.value.code == "geometry.forms_disagree"
        moved[1, 3] -= 0.02
        source = NiftiReader.open(self.affected(tmp_path, moved))
        assert source.warnings == ["a.nii: sform and qform put voxels up to 0.74 mm apart; used the sform"]
        assert np.allclose(source.grid.affine, moved, atol=1e-5)

    def test_left_and_right_are_named_when_the_forms_differ_in_them(self, tmp_path):
        with pytest.raises(GeometryError, match="left and right among them"):
            NiftiReader.open(self.affected(tmp_path, np.diag([-1, 1, 1, 1]) @ images.LAS))

    def test_wrong_voxel_size_beside_a_right_sform_is_told(self, tmp_path):
        path = self.affected(tmp_path)
        images.header_field(path, FIELD["pixdim"] + 4, "f", 2.5)
        source = NiftiReader.open(path)
        assert np.allclose(source.grid.spacing_mm, [1.5, 2, 3], atol=1e-5)
        assert source.warnings == [
            "a.nii: voxel sizes 2.5 x 2 x 3 mm in pixdim, 1.5 x 2 x 3 mm in the sform; used the sform"
        ]

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ((0, 0, np.nan), "geometry.affine"),
            ((slice(0, 3), 2, 0.0), "geometry.singular"),
            ((2, 3, 2e4), "geometry.origin"),
            ((slice(0, 3), slice(0, 3), np.diag([1e-4, 1, 1])), "geometry.spacing"),
        ],
    )
    def test_no_scan_is_there(self, change, code):
        affine = images.LAS.copy()
        affine[change[0], change[1]] = change[2]
        with pytest.raises(GeometryError, match=r"^scan: ") as caught:
            orientation.check_affine(affine, "scan")
        assert caught.value.code == code
