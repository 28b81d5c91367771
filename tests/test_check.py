"""``check`` finds what is wrong with a cohort and tells it once, with codes that stay."""

import hashlib

import images
import numpy as np
import pytest

from mednovelty.errors import StoppedError
from mednovelty.io import check
from mednovelty.io.check import check_folder


@pytest.fixture
def cohort(tmp_path):
    for i in range(1, 4):
        images.save_scan(tmp_path / f"sub-0{i}" / "dwi", f"sub-0{i}_dwi", images.signal(seed=i))
    return tmp_path


def path_of(cohort, i, suffix=".nii.gz"):
    return cohort / f"sub-0{i}" / "dwi" / f"sub-0{i}_dwi{suffix}"


def told(report):
    return [(f.scan, f.severity, f.code) for f in report.findings]


class TestGood:
    def test_nothing_but_that_masks_are_absent(self, cohort):
        report = check_folder(cohort, deep=True)
        assert told(report) == [("", "info", "mask.absent")]
        assert "3 of 3 scans have no brain mask" in report.findings[0].message
        assert (report.n_scans, report.n_failed, report.exit_code) == (3, 0, 0)
        assert report.summary() == "3 of 3 scans can be used; 0 errors, 0 warnings"

    def test_rows_are_plain(self, cohort):
        (row,) = check_folder(cohort).rows()
        assert sorted(row) == ["code", "message", "scan", "severity"]
        assert all(isinstance(value, str) for value in row.values())

    def test_order_and_sign_of_directions_do_not_matter(self, cohort):
        order = [0, 2, 1, 3, 4]
        images.save_gradients(path_of(cohort, 2, ""), images.BVALS[order], -images.WORLD[order])
        assert told(check_folder(cohort)) == [("", "info", "mask.absent")]


class TestBad:
    def test_each_family_and_the_others_go_on(self, cohort):
        path_of(cohort, 1).write_bytes(b"<html>")
        path_of(cohort, 2, ".bval").write_text("0 1000 1000 5")
        images.save(path_of(cohort, 2).with_name("sub-02_mask.nii.gz"), np.ones((6, 9, 6), np.uint8))
        report = check_folder(cohort)
        assert told(report)[:3] == [
            ("sub-01", "error", "file.not_nifti"),
            ("sub-02", "error", "gradients.count"),
            ("sub-02", "error", "geometry.shape"),
        ]
        assert (report.n_failed, report.exit_code) == (2, 6)
        assert report.summary().startswith("1 of 3 scans can be used; 3 errors")

    def test_none_is_usable(self, cohort):
        for i in range(1, 4):
            path_of(cohort, i).write_bytes(b"")
        assert check_folder(cohort).exit_code == 3

    def test_no_scan_at_all(self, tmp_path):
        (tmp_path / "empty").mkdir()
        report = check_folder(tmp_path / "empty")
        assert (told(report), report.exit_code) == ([("", "error", "folder.no_scan")], 3)

    def test_ids_that_collide_hide_nothing_else(self, cohort):
        images.save_scan(cohort / "again", "sub-01_dwi")
        path_of(cohort, 3).write_bytes(b"<html>")
        report = check_folder(cohort)
        assert told(report)[:2] == [("", "error", "ids.collide"), ("sub-03", "error", "file.not_nifti")]
        assert (
            "again/sub-01_dwi.nii.gz and sub-01/dwi/sub-01_dwi.nii.gz would both"
            in report.findings[0].message
        )
        # No scan_folder takes such a cohort, though three of its scans are sound.
        assert (report.n_scans, report.n_failed, report.exit_code) == (4, 1, 3)

    @pytest.mark.parametrize("step", ["open_image", "read_mask"])
    def test_a_stop_is_no_finding(self, cohort, monkeypatch, step):
        def stop(*_):
            raise StoppedError("stopped by a signal")

        images.save(path_of(cohort, 1).with_name("sub-01_mask.nii.gz"), np.ones(images.SHAPE, np.uint8))
        monkeypatch.setattr(check, step, stop)
        with pytest.raises(StoppedError, match="stopped by a signal"):
            check_folder(cohort, deep=True)

    def test_checksums_of_a_manifest_deep_down(self, cohort):
        sums = [hashlib.sha256(path_of(cohort, i).read_bytes()).hexdigest() for i in range(1, 4)]
        sums[1] = "0" * 64
        lines = [f'"sub-0{i}/dwi/sub-0{i}_dwi.nii.gz" = "{s}"' for i, s in enumerate(sums, 1)]
        (cohort / "data.toml").write_text(
            '[dataset]\nname = "x"\nlicence = "y"\n[files]\nroot = "."\ndwi = ["*/dwi/*_dwi.nii.gz"]\n'
            '[roles]\nnormal = ["*"]\n[checksums]\n' + "\n".join(lines)
        )
        assert told(check_folder(cohort / "data.toml")) == [("", "info", "mask.absent")]
        report = check_folder(cohort / "data.toml", deep=True)
        assert told(report) == [("sub-02", "error", "file.checksum"), ("", "info", "mask.absent")]
        assert "the manifest says 000" in report.findings[0].message

    def test_flipped_bits_are_found_only_deep_down(self, cohort):
        path = path_of(cohort, 3)
        raw = bytearray(path.read_bytes())
        raw[-5] ^= 1
        path.write_bytes(raw)
        assert check_folder(cohort).exit_code == 0
        report = check_folder(cohort, deep=True)
        assert told(report)[0] == ("sub-03", "error", "gzip.damaged")

    def test_voxels_and_mask_deep_down(self, cohort):
        data = images.signal()
        data[..., 2] = 0
        images.save(path_of(cohort, 1), data)
        images.save(path_of(cohort, 2).with_name("sub-02_mask.nii.gz"), np.zeros(images.SHAPE, np.uint8))
        assert [t for t in told(check_folder(cohort)) if t[1] != "info"] == []
        assert [t for t in told(check_folder(cohort, deep=True)) if t[1] != "info"] == [
            ("sub-02", "error", "mask.empty"),
            ("sub-01", "warning", "voxels.odd"),
        ]


class TestDifferences:
    def one(self, cohort, deep=False):
        (finding,) = [f for f in check_folder(cohort, deep=deep).findings if f.code != "mask.absent"]
        return finding

    def test_shells(self, cohort):
        images.save_gradients(path_of(cohort, 2, ""), [0, 1000, 1000, 5, 3000])
        finding = self.one(cohort)
        assert (finding.scan, finding.severity, finding.code) == ("sub-02", "warning", "scheme.shells")
        assert finding.message == (
            "sub-02: shells 2 at b=0, 2 at b=1000, 1 at b=3000; "
            "2 of 3 scans have 2 at b=0, 2 at b=1000, 1 at b=2000"
        )

    def test_directions(self, cohort):
        world = images.WORLD.copy()
        world[1] = [np.cos(0.1), np.sin(0.1), 0]
        images.save_gradients(path_of(cohort, 3, ""), world=world)
        finding = self.one(cohort)
        assert (finding.scan, finding.severity, finding.code) == ("sub-03", "warning", "scheme.directions")
        assert finding.message == "sub-03: lacks 1 of 3 directions of sub-01, the farthest by 5.7 degrees"

    def test_a_direction_measured_twice_instead_of_another(self, cohort):
        world = images.WORLD.copy()
        world[1] = world[2]
        images.save_gradients(path_of(cohort, 2, ""), world=world)
        assert self.one(cohort).message.startswith("sub-02: lacks 1 of 3 directions of sub-01")

    def test_spacing(self, cohort):
        images.save(path_of(cohort, 1), images.signal(), images.LAS @ np.diag([1.2, 1, 1, 1]))
        finding = self.one(cohort)
        assert (finding.scan, finding.severity, finding.code) == ("sub-01", "warning", "space.spacing")
        assert "(1.8, 2.0, 3.0); 2 of 3 scans have (1.5, 2.0, 3.0)" in finding.message

    def test_shape(self, cohort):
        images.save(path_of(cohort, 1), images.signal((7, 9, 7)))
        finding = self.one(cohort)
        assert (finding.scan, finding.severity, finding.code) == ("sub-01", "info", "space.shape")

    def test_axes(self, cohort):
        images.save(path_of(cohort, 3), images.signal(), images.RAS)
        finding = self.one(cohort)
        assert (finding.scan, finding.severity, finding.code) == ("sub-03", "info", "space.axes")
        assert "RAS; 2 of 3 scans have LAS" in finding.message

    def test_the_same_file_twice(self, cohort):
        path_of(cohort, 3).write_bytes(path_of(cohort, 1).read_bytes())
        finding = self.one(cohort, deep=True)
        assert (finding.scan, finding.code) == ("sub-03", "cohort.duplicate")
        assert finding.message == "sub-03: the same file, byte for byte, as sub-01"
