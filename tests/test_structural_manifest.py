"""Data manifests of structural scans: patterns a contrast, folds, and those in the repository."""

import hashlib
from collections import Counter

import pytest
from conftest import ROOT
from structural_images import bids, mask, save, told

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.folds import Folds, with_fold
from mednovelty.io.manifest import read_manifest
from mednovelty.io.patterns import id_in
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder

MANIFEST = """
[dataset]
name = "small"
licence = "CC0"
[files]
root = "data"
masks = "derivatives/masks/{id}_mask.nii.gz"
contrasts = { FLAIR = "sub-*/anat/*_FLAIR.nii.gz", T1w = "sub-*/anat/*_T1w.nii.gz" }
[folds]
count = 3
seed = 1
"""


def write(folder, text=MANIFEST):
    path = folder / "small.toml"
    path.write_text(text)
    return path


@pytest.fixture
def cohort(tmp_path):
    for i in range(1, 8):
        bids(tmp_path / "data", f"sub-{i:02d}", "FLAIR", "T1w", "ce-GD_T1w")
        mask(tmp_path / "data" / "derivatives" / "masks" / f"sub-{i:02d}_mask.nii.gz")
    return tmp_path


class TestContrasts:
    def test_files_and_masks(self, cohort):
        found = scan_folder(write(cohort))
        assert [files.id for files in found] == [f"sub-{i:02d}" for i in range(1, 8)]
        assert [(name, path.name) for name, path in found[2].contrasts] == [
            ("FLAIR", "sub-03_FLAIR.nii.gz"),
            ("T1w", "sub-03_T1w.nii.gz"),
        ]
        assert found[2].mask is None
        masks = cohort / "data" / "derivatives" / "masks"
        assert found.manifest.lesion_mask_of("sub-03") == masks / "sub-03_mask.nii.gz"
        assert read_scan(found[0]).contrasts == ("FLAIR", "T1w")

    def test_some_of_them_in_another_order(self, cohort):
        path = write(cohort)
        (files, *_) = scan_folder(path, contrasts=("T1w",))
        assert [name for name, _ in files.contrasts] == ["T1w"]
        (files, *_) = scan_folder(path, contrasts=("T1w", "FLAIR"))
        assert [name for name, _ in files.contrasts] == ["T1w", "FLAIR"]
        with pytest.raises(SettingsError, match=r"^small\.toml: has no contrast 'T2w'; it has FLAIR, T1w"):
            scan_folder(path, contrasts=("FLAIR", "T2w"))

    def test_a_name_of_the_manifests_own(self, tmp_path):
        for subject in ("patient07", "patient19"):
            save(tmp_path / "data" / subject / "T1POST.nii.gz")
            mask(tmp_path / "data" / subject / "inside.nii.gz")
        text = (
            MANIFEST.partition("contrasts")[0]
            + 'contrasts = { T1c = "%s" }\nbrain_masks = "{id}/inside.nii.gz"'
        )
        for pattern in ("{id}/T1POST.nii.gz", "patient*/T1POST.nii.gz"):
            found = scan_folder(write(tmp_path, text % pattern))
            assert [files.id for files in found] == ["patient07", "patient19"]
            assert [files.contrasts[0][0] for files in found] == ["T1c", "T1c"]
            assert [files.mask.parent.name for files in found] == ["patient07", "patient19"]

    def test_an_id_twice_is_the_same(self, cohort):
        text = MANIFEST.replace("sub-*/anat/*_T1w", "{id}/anat/{id}_T1w")
        (files, *_) = scan_folder(write(cohort, text), contrasts=["T1w"])
        assert files.image.name == "sub-01_T1w.nii.gz"
        text = MANIFEST.replace("sub-*/anat/*_T1w", "sub-*/anat/{id}_T1w")
        assert len(scan_folder(write(cohort, text), contrasts=["T1w"])) == 7

    def test_who_lacks_one_is_told_and_moves_nobody(self, cohort):
        path = write(cohort)
        before = {files.id: files.fold for files in scan_folder(path)}
        (cohort / "data" / "sub-02" / "anat" / "sub-02_T1w.nii.gz").unlink()
        (cohort / "data" / "sub-02" / "anat" / "sub-02_ce-GD_T1w.nii.gz").unlink()
        found = scan_folder(path)
        assert told(found) == {"sub-02": "contrast.missing"}
        assert {files.id: files.fold for files in found} == {k: v for k, v in before.items() if k != "sub-02"}
        assert len(scan_folder(path, contrasts=["FLAIR"])) == 7

    def test_checksums_of_each_image(self, cohort):
        path = cohort / "data" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
        right = hashlib.sha256(path.read_bytes()).hexdigest()
        text = MANIFEST + '[checksums]\n"sub-01/anat/sub-01_T1w.nii.gz" = "%s"'
        read_scan(scan_folder(write(cohort, text % right))[0])
        with pytest.raises(ScanError, match=r"^sub-01_T1w\.nii\.gz: its sha256 is .* the manifest says 00"):
            read_scan(scan_folder(write(cohort, text % "00"))[0])


class TestFolds:
    def test_the_first_is_tested_unless_told_otherwise(self, cohort):
        found = scan_folder(write(cohort))
        assert found.manifest.folds == Folds(3, 1)
        assert Counter(files.role for files in found) == {"test": 3, "validation": 2, "normal": 2}
        assert [f.role for f in found] == [f.role for f in with_fold(found, 0)]
        assert scan_folder(write(cohort), role="test").scans == found.with_roles("test").scans
        tested = [f.id for k in range(3) for f in with_fold(found, k).with_roles("test")]
        assert sorted(tested) == [f"sub-{i:02d}" for i in range(1, 8)]

    def test_patterns(self, cohort):
        text = MANIFEST.replace("count = 3\nseed = 1", 'patterns = ["sub-0[1-3]", ["sub-04", "sub-05"]]')
        found = scan_folder(write(cohort, text))
        assert [files.fold for files in found] == [0, 0, 0, 1, 1]
        assert [s.code for s in found.skipped] == ["role", "role"]
        assert "puts it into no fold" in found.skipped[0].why

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("count = 3", "count = 1", r"\[folds\]: at least 2 folds are needed, not 1"),
            ("count = 3", 'count = "3"', r"folds\.count must be a whole number, found '3'"),
            ("seed = 1", "seed = true", r"folds\.seed must be a whole number, found True"),
            ("seed = 1", "sead = 1", r"folds\.sead is unknown; did you mean folds\.seed\?"),
            ("count = 3\nseed = 1", "", r"\[folds\] needs either count, and a seed if need be, or patterns"),
            ("count = 3", 'patterns = ["a", "b"]', r"\[folds\] needs either count"),
            ("count = 3\nseed = 1", 'patterns = "a"', r"folds\.patterns must be a list with an entry a fold"),
            ("count = 3\nseed = 1", 'patterns = ["a"]', r"\[folds\]: at least 2 folds are needed, not 1"),
            ("[folds]", '[roles]\nnormal = "*"\n[folds]', r"has \[roles\] and \[folds\]"),
            ("count = 3", "count = 9", "7 subjects cannot be split into 9 folds"),
            ('root = "data"', 'root = "data"\ndwi = "*"', r"has files\.dwi and files\.contrasts"),
            ("FLAIR =", '"a b" =', "'a b' cannot be a contrast's name"),
            ('"sub-*/anat/*_T1w.nii.gz"', "[]", r"files\.contrasts\.T1w, .* is empty"),
            ("sub-*/anat/*_T1w", "../*_T1w", r"pattern '\.\./\*_T1w\.nii\.gz' leaves files\.root"),
            ("*_T1w", "*_T9w", r"no file matches 'sub-\*/anat/\*_T9w\.nii\.gz'"),
        ],
    )
    def test_what_is_wrong_is_told(self, cohort, old, new, words):
        assert old in MANIFEST
        with pytest.raises(SettingsError, match=r"^small\.toml: .*" + words):
            scan_folder(write(cohort, MANIFEST.replace(old, new)))

    def test_the_kind_must_fit(self, cohort):
        with pytest.raises(SettingsError, match=r"^small\.toml: has files\.contrasts, but no files\.dwi"):
            scan_folder(write(cohort), kind="dwi")
        text = MANIFEST.partition("contrasts")[0] + 'dwi = "*"'
        with pytest.raises(SettingsError, match=r"^small\.toml: has files\.dwi, but no files\.contrasts"):
            scan_folder(write(cohort, text), kind="structural")


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("{id}/FLAIR.nii", "p7/FLAIR.nii", "p7"),
        ("{id}/FLAIR.nii", "a/p7/FLAIR.nii", None),
        ("*/{id}_FLAIR.nii", "a/p7_x_FLAIR.nii", "p7_x"),
        ("**/{id}.nii", "p7.nii", "p7"),
        ("**/{id}.nii", "a/b/p7.nii", "p7"),
        ("p[!0-3]/{id}?.nii", "p7/abc.nii", "ab"),
        ("p[0-3]/{id}.nii", "p7/abc.nii", None),
        ("{id}/{id}.nii", "p7/p8.nii", None),
        ("{id}.nii", "p7xnii", None),
    ],
)
def test_ids_in_patterns(pattern, path, expected):
    assert id_in(pattern, path) == expected


@pytest.mark.data
class TestTheManifestsInTheRepository:
    @pytest.fixture(autouse=True)
    def root(self, real_data, monkeypatch):
        monkeypatch.setenv("MEDNOVELTY_DATA", str(real_data))

    def test_lgg(self):
        found = scan_folder(ROOT / "data_manifests" / "lgg.toml")
        assert len(found) == 80
        assert [name for name, _ in found[0].contrasts] == ["FLAIR", "T1w", "ce-GD_T1w"]
        assert all(found.manifest.lesion_mask_of(files.id).is_file() for files in found)
        assert Counter(files.fold for files in found) == dict.fromkeys(range(5), 16)
        assert found.skipped == ()

    def test_open_ms(self):
        found = scan_folder(ROOT / "data_manifests" / "open_ms.toml", contrasts=("FLAIR", "T2"))
        assert [(files.id, files.role) for files in found] == [("patient07", "test"), ("patient19", "normal")]
        assert [f.role for f in with_fold(found, 1)] == ["normal", "test"]
        assert [found.manifest.lesion_mask_of(f.id).parent.name for f in found] == ["patient07", "patient19"]


@pytest.mark.parametrize(("name", "masks"), [("lgg", "sub-001"), ("open_ms", "patient07")])
def test_the_manifests_in_the_repository_can_be_read(tmp_path, monkeypatch, name, masks):
    monkeypatch.setenv("MEDNOVELTY_DATA", str(tmp_path))
    (tmp_path / "lgg").mkdir()
    (tmp_path / "ms").mkdir()
    manifest = read_manifest(ROOT / "data_manifests" / f"{name}.toml")
    assert manifest.folds is not None
    assert masks in str(manifest.root / manifest.masks.replace("{id}", masks))
