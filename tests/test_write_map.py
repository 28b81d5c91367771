"""Writing maps: in the right place for every reader, bare of anything else, and whole or not at all."""

import errno
import os
from pathlib import Path

import images
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mednovelty.errors import OutputError
from mednovelty.io import atomic
from mednovelty.io.atomic import TEMPORARY_PREFIX, write_bytes_atomic, write_text_atomic
from mednovelty.io.nifti import read_volume, write_map
from mednovelty.scan import Volume

UNITS, SLOPE = 123, 112  # Where these fields lie in a NIfTI-1 header.
AFFINES = {"las": images.LAS, "ras": images.RAS, "turned": images.LAS[:, [2, 0, 1, 3]]}


class TestWriting:
    @pytest.mark.parametrize("name", AFFINES)
    def test_itk_and_nibabel_find_a_voxel_where_it_is(self, tmp_path, name):
        sitk = pytest.importorskip("SimpleITK")
        data = np.zeros((1, *images.SHAPE), np.float32)
        data[0, 4, 2, 5] = 7.5
        affine = AFFINES[name]
        path = tmp_path / "map.nii.gz"
        write_map(path, Volume(data, affine, "map"))
        world = affine @ [4, 2, 5, 1]
        image = sitk.ReadImage(str(path))
        # ITK's world runs to the left and backwards.
        index = image.TransformPhysicalPointToIndex((-world[0], -world[1], world[2]))
        assert image.GetPixel(*index) == 7.5
        loaded = nib.load(path)
        assert loaded.get_fdata()[4, 2, 5] == 7.5
        assert np.allclose(loaded.affine @ [4, 2, 5, 1], world, atol=1e-4)

    def test_both_forms_say_the_same(self, tmp_path):
        write_map(tmp_path / "m.nii.gz", Volume(np.ones((1, *images.SHAPE)), images.LAS, "m"))
        header = nib.load(tmp_path / "m.nii.gz").header
        assert (int(header["sform_code"]), int(header["qform_code"]), int(header["intent_code"])) == (1, 1, 0)
        assert np.allclose(header.get_sform(), images.LAS, atol=1e-5)
        assert np.allclose(header.get_qform(), images.LAS, atol=1e-5)
        raw = images.read(tmp_path / "m.nii.gz")
        assert np.frombuffer(raw, "<f4", 2, SLOPE).tolist() == [1, 0]
        assert raw[UNITS] == 2
        assert header.get_data_dtype() == np.float32
        assert header.get_data_shape() == images.SHAPE

    def test_range_and_description(self, tmp_path):
        volume = Volume(np.ones((1, *images.SHAPE)), images.LAS, "m")
        write_map(tmp_path / "m.nii", volume, cal_min=0.5, cal_max=3, description="d" * 99)
        header = nib.load(tmp_path / "m.nii").header
        assert (float(header["cal_min"]), float(header["cal_max"])) == (0.5, 3)
        assert bytes(header["descrip"]).rstrip(b"\0") == b"d" * 79

    def test_nothing_of_the_inputs_header_comes_through(self, tmp_path):
        path = images.save(tmp_path / "in.nii", images.signal()[..., 0])
        for offset, width in ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16)):
            images.header_field(path, offset, f"{width}s", b"DOE^JOHN"[:width])
        raw = images.read(path)
        assert raw.count(b"DOE^JOHN") == 5
        write_map(tmp_path / "out.nii.gz", read_volume(path))
        assert b"DOE" not in images.read(tmp_path / "out.nii.gz")
        assert b"out.nii" not in (tmp_path / "out.nii.gz").read_bytes()

    def test_same_map_same_bytes(self, tmp_path):
        volume = Volume(np.random.default_rng(0).random((1, 8, 9, 7)), images.LAS, "m")
        write_map(tmp_path / "a.nii.gz", volume)
        write_map(tmp_path / "b.nii.gz", volume)
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()

    def test_masks_are_bytes_and_must_fit(self, tmp_path):
        mask = np.random.default_rng(0).random((1, *images.SHAPE)) > 0.5
        write_map(tmp_path / "m.nii.gz", Volume(mask, images.LAS, "m"), dtype=np.uint8)
        loaded = nib.load(tmp_path / "m.nii.gz")
        assert loaded.get_data_dtype() == np.uint8
        assert np.array_equal(np.asanyarray(loaded.dataobj), mask[0])
        with pytest.raises(OutputError, match=r"n\.nii: values of m do not fit uint8"):
            write_map(tmp_path / "n.nii", Volume(mask * 256, images.LAS, "m"), dtype=np.uint8)
        assert not (tmp_path / "n.nii").exists()

    def test_several_channels(self, tmp_path):
        data = np.random.default_rng(0).random((3, *images.SHAPE), np.float32)
        write_map(tmp_path / "m.nii.gz", Volume(data, images.LAS, "m"))
        assert np.array_equal(np.moveaxis(nib.load(tmp_path / "m.nii.gz").get_fdata(), -1, 0), data)

    @given(
        data=arrays(np.float32, (1, 3, 4, 5), elements=st.floats(-1e6, 1e6, width=32)),
        angle=st.floats(-180, 180),
        sizes=st.tuples(*[st.floats(0.3, 6)] * 3),
        flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    )
    def test_what_is_written_is_read(self, tmp_path_factory, data, angle, sizes, flips):
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        affine = np.eye(4)
        affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(np.multiply(sizes, flips))
        affine[:3, 3] = [10, -20, 30]
        path = tmp_path_factory.mktemp("map") / "m.nii.gz"
        write_map(path, Volume(data, affine, "m"))
        found = read_volume(path)
        assert found.data.tobytes(order="F") == data.tobytes(order="F")
        assert np.abs(found.affine - affine).max() < 1e-5


class TestAtomicity:
    volume = Volume(np.ones((1, *images.SHAPE)), images.LAS, "m")

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    @pytest.mark.parametrize("existing", [b"older", None])
    def test_a_full_disk_leaves_what_was_there(self, tmp_path, monkeypatch, call, existing):
        path = tmp_path / "map.nii.gz"
        if existing:
            path.write_bytes(existing)

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, full)
        with pytest.raises(OutputError, match=r"^map\.nii\.gz: cannot be written in .*: the disk is full"):
            write_map(path, self.volume)
        assert [p.read_bytes() for p in tmp_path.iterdir()] == ([existing] if existing else [])

    def test_a_disk_that_stores_something_else_is_noticed(self, tmp_path, monkeypatch):
        real = atomic._write_new

        def one_voxel_off(path, content):
            real(path, bytes(content[:-8]) + b"\0\0\0\0" + bytes(content[-4:]))

        monkeypatch.setattr(atomic, "_write_new", one_voxel_off)
        with pytest.raises(OutputError, match=r"map\.nii: what was read back is not what was written"):
            write_map(tmp_path / "map.nii", self.volume)
        with pytest.raises(OutputError, match=r"a\.txt: .*read back"):
            write_text_atomic(tmp_path / "a.txt", "a text of some length")
        assert list(tmp_path.iterdir()) == []

    def test_a_link_is_replaced_and_its_target_kept(self, tmp_path):
        (tmp_path / "precious").write_bytes(b"precious")
        (tmp_path / "out").symlink_to("precious")
        write_bytes_atomic(tmp_path / "out", b"new")
        assert (tmp_path / "precious").read_bytes() == b"precious"
        assert (tmp_path / "out").read_bytes() == b"new"
        assert not (tmp_path / "out").is_symlink()

    def test_the_folder_must_be_there(self, tmp_path):
        with pytest.raises(OutputError, match=r"x: cannot be written in .*: its folder does not exist"):
            write_bytes_atomic(tmp_path / "none" / "x", b"")

    def test_a_long_name_has_a_short_temporary_one(self, tmp_path):
        write_text_atomic(tmp_path / ("x" * 255), "Zoë\n")
        assert (tmp_path / ("x" * 255)).read_bytes() == "Zoë\n".encode()

    def test_a_process_that_is_stopped_leaves_only_a_temporary_file(self, tmp_path, monkeypatch):
        class Killed(BaseException):
            pass

        def killed(*_):
            raise Killed

        monkeypatch.setattr(os, "replace", killed)
        monkeypatch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            write_bytes_atomic(tmp_path / "out", b"new")
        assert [p.name.startswith(TEMPORARY_PREFIX) for p in tmp_path.iterdir()] == [True]
