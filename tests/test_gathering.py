"""Scans become voxels: whose acquisition counts, who is held out, what is left out."""

import logging
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cohorts import FAST, tiny_cohort
from dipy.core.gradients import gradient_table

from mednovelty.annotations import Annotations
from mednovelty.errors import ScanError
from mednovelty.gathering import gather_scans, gather_voxels
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder


@cache
def controls():
    cohort = tiny_cohort()
    return tuple(read_scan(files) for files in scan_folder(cohort.controls, brain_masks=cohort.brains))


def people(n):
    """Return n scans in memory, all different, with ids and hashes of their own."""
    made = []
    for i in range(n):
        scan = controls()[i % 3]
        made.append(replace(scan, id=f"sub-{i}", sha256=f"{i:064x}", stored=scan.stored + np.int16(i)))
    return made


def other_b(scan):
    bvals = np.where(scan.gradients.bvals > 50, 2500, 0)
    return replace(scan, gradients=gradient_table(bvals, bvecs=scan.gradients.bvecs, b0_threshold=50))


def roles(gathered):
    return {scan.id: scan.role for scan in gathered.scans}


def gathered(scans, settings=FAST, seed=0, **rest):
    return gather_scans(scans, settings, seed, **rest)


def test_a_fifth_is_held_out_and_the_seed_decides_who():
    found = []
    for seed in range(6):
        with gathered(people(5), seed=seed) as voxels:
            held_out = [scan for scan, role in roles(voxels).items() if role == "validation"]
            assert list(voxels.validation.scans) == held_out
            assert len(voxels.training.scans) == 4
            assert len(voxels.training) + len(voxels.validation) == len(voxels.table)
            found += held_out
            assert voxels.notes == ()
    assert len(found) == 6
    assert len(set(found)) > 1


def test_channels_are_divided_by_their_means_over_training_scans_only():
    with gathered(people(4)) as voxels:
        means = voxels.training.moments().mean
        assert means == pytest.approx(1, rel=1e-4)
        assert np.abs(voxels.validation.moments().mean - 1).max() > 1e-4


@pytest.mark.parametrize("first", ["odd", "usual"])
def test_the_usual_acquisition_counts_whoever_comes_first(first):
    scans = people(4)
    odd = other_b(scans[0])
    listed = [odd, *scans[1:]] if first == "odd" else [*scans[1:], odd]
    said = {}
    for seed in range(4):
        with gathered(listed, seed=seed, on_scan=said.__setitem__) as voxels:
            assert sorted(roles(voxels)) == ["sub-1", "sub-2", "sub-3"]
            assert "left out: sub-0: acquired with" in voxels.notes[0]
    assert "b=2500" in said["sub-0"]
    assert said["sub-1"] == ""


def test_same_shells_but_other_directions_are_another_acquisition():
    scans = people(3)
    turned = scans[0].gradients.bvecs[:, [1, 2, 0]]
    table = gradient_table(scans[0].gradients.bvals, bvecs=turned, b0_threshold=50)
    with gathered([replace(scans[0], gradients=table), *scans[1:]]) as voxels:
        assert sorted(roles(voxels)) == ["sub-1", "sub-2"]


def test_one_of_two_damaged_leaves_a_single_scan_split_by_slab():
    good, bad = people(2)
    bad = replace(bad, gradients=None)
    with gathered([bad, good]) as voxels:
        assert roles(voxels) == {"sub-0": "training"}
        assert voxels.notes[0].startswith("left out: sub-1")
        assert "a single scan: its last voxels" in voxels.notes[1]
        total = len(voxels.training) + len(voxels.validation)
        assert total == good.n_voxels
        assert len(voxels.validation) == round(0.2 * total)
        both = np.concatenate([voxels.training.take(np.arange(3)), voxels.validation.take(np.arange(-3, 0))])
        whole = voxels.table.take(np.r_[0:3, total - 3 : total])
        assert np.array_equal(both, whole)


class Listed:
    """A scan with a role, as a manifest lists it."""

    def __init__(self, scan, role):
        self.id, self.role, self.scan = scan.id, role, scan


@pytest.fixture
def listed(monkeypatch):
    """Let scans with roles be read from memory."""
    monkeypatch.setattr("mednovelty.gathering.scan_of", lambda files, options: files.scan)
    monkeypatch.setattr("mednovelty.signal_scale._gradients", lambda files, options: files.scan.gradients)
    return Listed


def test_the_manifest_says_who_is_held_out(listed):
    scans = people(5)
    asked = [listed(scan, "validation" if scan.id in ("sub-1", "sub-4") else "normal") for scan in scans]
    with gathered(asked) as voxels:
        assert sorted(voxels.validation.scans) == ["sub-1", "sub-4"]
        assert sorted(voxels.training.scans) == ["sub-0", "sub-2", "sub-3"]
        assert voxels.notes == ()


def test_others_are_held_out_where_the_manifest_s_own_cannot_be_read(listed):
    scans = people(4)
    asked = [listed(scan, "normal") for scan in scans[1:]]
    asked.append(listed(replace(scans[0], gradients=None), "validation"))
    with gathered(asked) as voxels:
        assert len(voxels.validation.scans) == 1
        assert "no scan with the role validation can be used" in voxels.notes[-1]


def test_nothing_left_to_train_on(listed):
    with pytest.raises(ScanError, match="every usable scan is held out") as raised:
        gathered([listed(scan, "validation") for scan in people(2)])
    assert raised.value.code == "cohort.roles"


def test_no_scan_at_all():
    with pytest.raises(ScanError, match="no scan can be used for training: the list is empty"):
        gathered([])
    with pytest.raises(
        ScanError, match="no scan can be used for training: left out: sub-0: has no gradients"
    ):
        gathered([replace(people(1)[0], gradients=None)])


def test_the_same_id_twice():
    scans = people(3)
    with pytest.raises(ScanError, match="sub-0: 2 scans have this id") as raised:
        gathered([scans[0], scans[1], replace(scans[2], id="sub-0")])
    assert raised.value.code == "cohort.same_id"


def test_the_same_file_twice_is_used_once(tmp_path):
    cohort = tiny_cohort()
    shutil.copytree(cohort.controls, tmp_path / "controls")
    first = sorted((tmp_path / "controls").iterdir())[0]
    copy = tmp_path / "controls" / "sub-copy" / "dwi"
    copy.mkdir(parents=True)
    for file in (first / "dwi").iterdir():
        shutil.copy(file, copy / file.name.replace(first.name, "sub-copy"))
    shutil.copytree(cohort.brains, tmp_path / "brains")
    shutil.copy(
        tmp_path / "brains" / f"{first.name}_mask.nii.gz", tmp_path / "brains" / "sub-copy_mask.nii.gz"
    )
    with gathered(scan_folder(tmp_path / "controls", brain_masks=tmp_path / "brains")) as voxels:
        assert len(voxels.scans) == 3
        (note,) = [note for note in voxels.notes if note.startswith("left out")]
        assert "the same file, byte for byte" in note


def test_a_surprise_fails_only_its_scan(listed, monkeypatch, caplog):
    def read(files, options):
        if files.id == "sub-1":
            raise RuntimeError("surprise")
        return files.scan

    monkeypatch.setattr("mednovelty.gathering.scan_of", read)
    with (
        caplog.at_level(logging.DEBUG, "mednovelty"),
        gathered([listed(s, "normal") for s in people(3)]) as voxels,
    ):
        assert len(voxels.scans) == 2
        assert voxels.notes == ("left out: sub-1: unexpected RuntimeError: surprise",)


def test_memory_and_disk_hold_the_same(tmp_path):
    with gathered(people(3)) as memory, gathered(
        people(3), replace(FAST, cache_bytes=100_000), folder=tmp_path
    ) as disk:  # fmt: skip
        assert disk.table.on_disk
        assert disk.training.on_disk
        assert not memory.training.on_disk
        assert disk.training.fingerprint() == memory.training.fingerprint()
        assert disk.validation.fingerprint() == memory.validation.fingerprint()
    assert list(tmp_path.iterdir()) == []


def test_voxels_of_an_array():
    x = np.arange(60.0).reshape(20, 3)
    ids = np.repeat(["a", "b", "c", "d"], 5)
    with gather_voxels(x, ids, FAST, 0) as voxels:
        (held_out,) = voxels.validation.scans
        assert np.array_equal(voxels.validation.take(np.arange(5)), x[ids == held_out])
        assert sorted(voxels.training.scans) == sorted(set("abcd") - {held_out})
    with gather_voxels(x, None, FAST, 0) as voxels:
        assert np.array_equal(voxels.validation.take(np.arange(4)), x[16:])
        assert len(voxels.training) == 16
    with pytest.raises(ScanError, match="2 voxels are too few"):
        gather_voxels(x[:2], None, FAST, 0)


def lesion_in(scan, n=40):
    """Return a lesion of n voxels of the mask, and of some outside."""
    lesion = ~scan.mask
    lesion[tuple(axis[7 : 7 + n] for axis in np.nonzero(scan.mask))] = True
    return lesion


def test_lesions_are_labelled_for_methods_that_learn_from_them_and_never_held_out_by_chance():
    settings = replace(FAST, method="deep_sad", method_settings=None)
    scans = people(5)
    marked = scans[2].id

    def lesion_of(scan):
        return lesion_in(scan) if scan.id == marked else None

    for seed in range(6):
        with gathered(
            scans, settings, seed, known=Annotations.of(settings, seed, lesion_of=lesion_of)
        ) as voxels:
            found = roles(voxels)
            assert found[marked] == "training"
            assert sum(role == "validation" for role in found.values()) == 1
            rows = voxels.table.array()[voxels.table.scans[marked]]
            held = voxels.table.array()[voxels.table.scans[f"held out of {marked}"]]
            assert voxels.table.shape == (scans[2].n_channels,)
            assert rows.shape == (scans[2].n_voxels - 8, scans[2].n_channels + 1)
            assert held.shape == (8, scans[2].n_channels + 1)
            inside = lesion_in(scans[2]) & scans[2].mask
            order = np.flatnonzero(scans[2].mask.ravel(order="F"))
            expected = np.where(inside.ravel(order="F")[order], -1, 0)
            runs = [np.delete(expected, np.flatnonzero(expected)[n : n + 8]) for n in range(33)]
            assert any(np.array_equal(rows[:, -1], run) for run in runs)
            assert (held[:, -1] == -1).all()
            assert (rows[:, -1] < 0).sum() == 32
            theirs = np.r_[voxels.table.scans[marked], voxels.table.scans[f"held out of {marked}"]]
            assert not np.delete(voxels.table.array()[:, -1], theirs).any()
            assert f"{marked}: 40 voxels of its lesion are labelled as abnormal" in voxels.notes
            assert any("8 of its 40 abnormal samples" in note for note in voxels.notes)
    with gathered(scans, FAST, known=Annotations.of(FAST, 0, lesion_of=lesion_of)) as voxels:
        rows = voxels.table.array()[voxels.table.scans[marked]]
        assert rows.shape == (scans[2].n_voxels - 40, scans[2].n_channels)


def test_means_of_channels_are_those_of_healthy_voxels():
    scans = people(3)
    sick = scans[1]
    stored = sick.stored.copy()
    where = lesion_in(sick).ravel(order="F")[np.flatnonzero(sick.mask.ravel(order="F"))]
    stored[1, where] = stored[1].max()
    scans[1] = replace(sick, stored=stored)

    def means(method):
        settings = replace(FAST, method=method, method_settings=None)
        lesion_of = {sick.id: lesion_in(sick)}.get
        known = Annotations.of(settings, 0, lesion_of=lambda scan: lesion_of(scan.id))
        with gathered(scans, settings, known=known) as voxels:
            rows = voxels.training.array()
            healthy = rows[rows[:, -1] >= 0][:, :-1] if method == "deep_sad" else rows
            return healthy.mean(0)

    # Each channel's mean over healthy training voxels is 1, but for what the scan's own mean makes of it.
    np.testing.assert_allclose(means("deep_sad"), 1, rtol=0.02)
