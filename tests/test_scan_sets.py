"""Sets of scans of those who have them: how they lie, and what is told where they do not."""

import numpy as np
import pytest
from made_up_sets import (
    person,
    save,
    write_brats,
    write_hcp,
    write_isles,
    write_lgg,
    write_open_ms,
)

import mednovelty as mn
from mednovelty.benchmarks.scan_sets import content_sha256, found_root, is_scan_set, scan_manifest, unchecked
from mednovelty.benchmarks.set_manifests import OWN as MANIFESTS
from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.manifest import read_manifest
from mednovelty.io.scan_folder import scan_folder
from mednovelty.lesion_masks import lesions_in

SETS = {
    "brats": (write_brats, {"Brats17_TCIA_192_1", "Brats17_2013_0_1", "BraTS20_Training_001"}),
    "isles": (write_isles, {"1", "2"}),
    "hcp": (write_hcp, {"100300", "100301", "100302"}),
    "lgg": (write_lgg, {f"sub-00{k}" for k in range(1, 6)}),
    "open_ms": (write_open_ms, {"patient07", "patient19"}),
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_found_as_it_lies(name, tmp_path, monkeypatch):
    write, ids = SETS[name]
    write(tmp_path / name)
    assert is_scan_set(name)
    assert found_root(name, tmp_path) == tmp_path / name
    assert found_root(name, tmp_path / name) == tmp_path / name
    place = "ms" if name == "open_ms" else name
    (tmp_path / name).rename(tmp_path / place)
    monkeypatch.setenv("MEDNOVELTY_DATA", str(tmp_path))
    assert found_root(name, None) == tmp_path / place
    scans = scan_folder(scan_manifest(name, tmp_path / place), kind="structural")
    assert {files.id for files in scans} == ids
    # Every contrast is the patient's own, and T1 is not the one with contrast agent.
    for files in scans:
        assert len({path for _, path in files.contrasts}) == len(files.contrasts)
    assert f"no checksums of {name}" in unchecked(name)


@pytest.mark.parametrize("name", [name for name in SETS if name != "hcp"])
def test_each_patient_has_its_own_lesion(name, tmp_path):
    root = SETS[name][0](tmp_path / name)
    manifest = scan_manifest(name, root)
    scans = scan_folder(manifest, kind="structural", contrasts=list(manifest.contrasts)[:1])
    lesion_of = lesions_in(manifest, [files.id for files in scans], tmp_path / "x")
    first = {"brats": 0, "isles": 11, "lgg": 31, "open_ms": 7}[name]
    seeds = dict(zip(sorted(files.id for files in scans), range(first, first + 9), strict=False))
    if name == "brats":
        seeds = {"Brats17_TCIA_192_1": 0, "Brats17_2013_0_1": 1, "BraTS20_Training_001": 2}
    if name == "open_ms":
        seeds = {"patient07": 7, "patient19": 19}
    for files in scans:
        scan = mn.read_scan(files)
        values, lesion = person(seeds[files.id])
        np.testing.assert_array_equal(lesion_of(scan), lesion)
        np.testing.assert_array_equal(scan.mask, values > 0)


def test_what_is_not_there_is_told_with_what_to_fetch(tmp_path, monkeypatch):
    with pytest.raises(
        ScanError, match=r"brats: no scan fits .*_flair\.nii\*.*looked in: .*Nothing is downl"
    ):
        found_root("brats", tmp_path)
    monkeypatch.delenv("MEDNOVELTY_DATA", raising=False)
    words = r"looked in: nowhere: give --data, or set MEDNOVELTY_DATA.*accept the data use terms.*Licence: WU"
    with pytest.raises(ScanError, match=words) as raised:
        found_root("hcp", None)
    assert raised.value.code == "scans.missing"
    # A folder of other scans is no such set.
    save(tmp_path / "hcp" / "a.nii.gz", person(1)[0])
    with pytest.raises(ScanError, match="hcp: no scan fits"):
        found_root("hcp", tmp_path)


def test_the_hash_is_of_every_file_that_counts(tmp_path):
    root = write_brats(tmp_path / "brats")

    def told():
        content_sha256.cache_clear()
        return content_sha256("brats", root)

    before = told()
    (root / "notes.txt").write_text("no scan")
    assert told() == before
    seg = root / "LGG" / "Brats17_2013_0_1" / "Brats17_2013_0_1_seg.nii.gz"
    save(seg, np.zeros_like(person(1)[1], np.uint8))
    after = told()
    assert after != before
    seg.with_name("Brats17_2013_0_1_t1ce.nii.gz").unlink()
    assert told() not in (before, after)


def test_two_masks_of_one_patient_are_refused(tmp_path):
    root = write_isles(tmp_path / "isles")
    save(root / "Training" / "2" / "VSD.Brain.OT.1" / "VSD.Brain.OT.1.nii", person(1)[1].astype(np.uint8))
    manifest = scan_manifest("isles", root)
    assert manifest.lesion_mask_of("1") is not None
    with pytest.raises(ScanError, match=r"2 has two lesion masks, .*OT.* and .*OT.*; keep one"):
        manifest.lesion_mask_of("2")


def test_a_root_that_is_given_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDNOVELTY_DATA", "/nowhere")
    root = write_open_ms(tmp_path / "elsewhere")
    assert read_manifest(MANIFESTS / "open_ms.toml", root).root == root
    with pytest.raises(SettingsError, match=r"files.root .*nothing is not a folder"):
        read_manifest(MANIFESTS / "open_ms.toml", tmp_path / "nothing")


@pytest.mark.parametrize("name", [*SETS, "hcp_dwi"])
def test_manifests_say_where_from_and_under_what_licence(name):
    link = MANIFESTS.parents[2] / "data_manifests" / f"{name}.toml"
    assert link.read_bytes() == (MANIFESTS / f"{name}.toml").read_bytes()
    manifest = read_manifest(MANIFESTS / f"{name}.toml", MANIFESTS)
    assert manifest.name == name
    assert all((manifest.licence, manifest.source, manifest.citation, manifest.fetch))


def test_diffusion_of_hcp_lies_as_it_is_unpacked(tmp_path):
    rng = np.random.default_rng(0)
    for who in ("100307", "100408"):
        folder = tmp_path / who / "T1w" / "Diffusion"
        values, _ = person(int(who), ill=False)
        data = values[..., None] * np.linspace(1, 0.3, 8, dtype=np.float32)
        affine = np.diag([-1.25, 1.25, 1.25, 1])
        save(folder / "data.nii.gz", data, affine)
        save(folder / "nodif_brain_mask.nii.gz", (values > 0).astype(np.uint8), affine)
        (folder / "bvals").write_text("5 1000 1000 1000 2000 2000 2000 2000\n")
        directions = rng.normal(size=(3, 8))
        np.savetxt(folder / "bvecs", directions / np.linalg.norm(directions, axis=0))
    scans = scan_folder(scan_manifest("hcp_dwi", tmp_path))
    assert len({files.id for files in scans}) == 2
    for files in scans:
        scan = mn.read_scan(files)
        assert (scan.n_channels, scan.mask.sum()) == (8, (person(0)[0] > 0).sum())
        assert any(who in files.id for who in ("100307", "100408"))
