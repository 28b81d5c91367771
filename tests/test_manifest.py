"""Data manifests: roles, patterns, a root that may be anywhere, and words for every mistake in one."""

import images
import numpy as np
import pytest

from mednovelty.errors import SettingsError
from mednovelty.io.manifest import read_manifest
from mednovelty.io.scan_folder import scan_folder


def scan(folder, name):
    return images.save_scan(folder, name, images.signal((4, 5, 3)))


def mask(path):
    return images.save(path, np.ones((4, 5, 3), np.uint8))


def ids(found):
    return [files.id for files in found]


MANIFEST = """
[dataset]
name = "small"
licence = "CC0"
[files]
root = "{root}"
dwi = ["*/sub-*_dwi.nii.gz"]
masks = "lesions/{{id}}_mask.nii.gz"
[roles]
normal = ["sub-c*"]
test = "sub-p*"
"""


class TestManifest:
    @pytest.fixture
    def cohort(self, tmp_path):
        for folder, name in (("controls", "sub-c01"), ("controls", "sub-c02"), ("patients", "sub-p01")):
            scan(tmp_path / "data" / folder, f"{name}_dwi")
        scan(tmp_path / "data" / "others", "sub-x01_dwi")
        mask(tmp_path / "data" / "lesions" / "sub-p01_mask.nii.gz")
        return tmp_path

    def write(self, folder, text=MANIFEST, root="data"):
        path = folder / "small.toml"
        path.write_text(text.format(root=root))
        return path

    def test_roles(self, cohort):
        path = self.write(cohort)
        found = scan_folder(path)
        assert [(f.id, f.role) for f in found] == [
            ("sub-c01", "normal"),
            ("sub-c02", "normal"),
            ("sub-p01", "test"),
        ]
        assert [(s.path, s.code) for s in found.skipped] == [("others/sub-x01_dwi.nii.gz", "role")]
        assert ids(scan_folder(path, role="test")) == ["sub-p01"]
        assert ids(found.with_roles("test")) == ["sub-p01"]
        assert found.manifest.lesion_mask_of("sub-p01") == cohort / "data" / "lesions" / "sub-p01_mask.nii.gz"
        assert found.manifest.lesion_mask_of("sub-c01") is None
        assert found.manifest.mask_folder == cohort / "data" / "lesions"

    def test_root_from_the_environment(self, cohort, monkeypatch):
        path = self.write(cohort, root="$SMALL_DATA/data")
        monkeypatch.delenv("SMALL_DATA", raising=False)
        with pytest.raises(SettingsError, match="the environment variable SMALL_DATA is not set"):
            read_manifest(path)
        monkeypatch.setenv("SMALL_DATA", str(cohort))
        assert len(scan_folder(path)) == 3

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("licence =", "license =", r"dataset\.license is unknown; did you mean dataset\.licence\?"),
            ("[roles]", "[role]", r"role is unknown; did you mean roles\?"),
            ('name = "small"', "", r"dataset\.name is missing"),
            ('dwi = ["*/sub-*_dwi.nii.gz"]', "", r"files\.dwi, the patterns of the images, is missing"),
            ('dwi = ["*/sub-*_dwi.nii.gz"]', "dwi = 3", "dwi must be text or a list of texts, found 3"),
            ('name = "small"', "name = 3", "name must be text, found 3"),
            ('[dataset]\nname = "small"\nlicence = "CC0"', "dataset = 3", "dataset must be a table"),
            ("*/sub-*", "../*/sub-*", r"pattern '\.\./\*/sub-\*_dwi\.nii\.gz' leaves files\.root"),
            ("[files]", "[files", "not TOML"),
            ('"{root}"', '"nowhere"', "nowhere is not a folder"),
        ],
    )
    def test_what_is_wrong_is_told(self, cohort, old, new, words):
        assert old in MANIFEST
        with pytest.raises(SettingsError, match=r"^small\.toml: .*" + words):
            read_manifest(self.write(cohort, MANIFEST.replace(old, new)))

    def test_two_roles_for_one_scan(self, cohort):
        path = self.write(cohort, MANIFEST.replace('"sub-p*"', '["sub-p*", "sub-c02"]'))
        with pytest.raises(SettingsError, match="sub-c02 is both normal and test"):
            scan_folder(path)

    def test_a_pattern_without_files(self, cohort):
        path = self.write(cohort, MANIFEST.replace("*/sub-*", "*/sob-*"))
        with pytest.raises(SettingsError, match=r"no file matches '\*/sob-\*_dwi\.nii\.gz'"):
            scan_folder(path)

    def test_a_role_nobody_has(self, cohort):
        path = self.write(cohort)
        with pytest.raises(SettingsError, match="gives no scan the role 'tset'; it has normal, test"):
            scan_folder(path, role="tset")
        with pytest.raises(SettingsError, match="role 'test' needs a data manifest"):
            scan_folder(cohort / "data", role="test")

    @pytest.mark.parametrize("name", ["demo", "twins"])
    def test_the_manifests_in_the_repository(self, tmp_path, monkeypatch, name):
        from conftest import ROOT

        monkeypatch.setenv("MEDNOVELTY_TWINS", str(tmp_path))
        text = (ROOT / "data_manifests" / f"{name}.toml").read_text()
        (tmp_path / "m.toml").write_text(text.replace("../demo/cohort", str(tmp_path)))
        for i in range(1, 9):
            scan(tmp_path / "controls" / f"sub-c{i:02d}" / "dwi", f"sub-c{i:02d}_dwi")
        scan(tmp_path / "patients" / "sub-p01" / "dwi", "sub-p01_dwi")
        lesions = mask(tmp_path / "lesions" / "sub-p01_mask.nii.gz")
        found = scan_folder(tmp_path / "m.toml")
        assert [f.role for f in found] == ["normal"] * 7 + ["validation", "test"]
        assert found.manifest.lesion_mask_of("sub-p01") == lesions
