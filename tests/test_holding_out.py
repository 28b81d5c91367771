"""Anomalies are held out where they are trained on; where none can be, normals alone choose no epoch."""

import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_annotations import SAD, gathered, image_settings, rows_of
from test_gathering import lesion_in, people, roles

from mednovelty import gathering
from mednovelty.annotations import Labels
from mednovelty.curve import TrainingRecord
from mednovelty.methods.hypersphere import DeepSADMethod, DeepSADSettings
from mednovelty.train import TrainSettings, train
from mednovelty.voxel_cache import VoxelCache


def lesions_of(*ids):
    return lambda scan: lesion_in(scan) if scan.id in ids else None


def abnormal(rows):
    return int((rows[:, -1] < 0).sum())


@pytest.mark.parametrize("seed", range(3))
def test_of_two_annotated_scans_one_is_held_out_whole(seed):
    with gathered(people(6), seed=seed, lesion_of=lesions_of("sub-1", "sub-4")) as voxels:
        held = {id for id, role in roles(voxels).items() if role == "validation"}
        assert len(held & {"sub-1", "sub-4"}) == 1
        assert len(held) == 2
        assert set(voxels.validation.scans) == held
        assert set(voxels.training.scans) == set(roles(voxels)) - held
        assert abnormal(voxels.validation.array()) > 0
        assert abnormal(voxels.training.array()) > 0
        assert len(voxels.training) + len(voxels.validation) == len(voxels.table)
        assert any("held out whole: its anomalies help to choose the epoch" in note for note in voxels.notes)
        # Held-out scans have no say in the channels' means.
        normal = voxels.training.array()
        assert normal[normal[:, -1] == 0][:, :-1].mean(0) == pytest.approx(1, abs=2e-3)


def test_of_a_single_annotated_scan_a_run_of_its_anomalies_is_held_out():
    found = set()
    for seed in range(4):
        with gathered(people(5), seed=seed, lesion_of=lesions_of("sub-2")) as voxels:
            assert roles(voxels)["sub-2"] == "training"
            held, kept = abnormal(voxels.validation.array()), abnormal(voxels.training.array())
            assert held == round(0.2 * (held + kept)) > 0
            assert (rows_of(voxels, "held out of sub-2")[:, -1] == -1).all()
            assert len(voxels.training) + len(voxels.validation) == len(voxels.table)
            assert any("of the same patient as those that are trained on" in note for note in voxels.notes)
            found.add(rows_of(voxels, "held out of sub-2").tobytes())
    assert len(found) > 1


def test_an_id_that_only_the_file_tells_is_held_out_as_well(monkeypatch):
    monkeypatch.setattr(
        gathering, "scan_of", lambda files, options: replace(files, id=files.id.replace("sub", "scan"))
    )
    with gathered(people(6), seed=0, lesion_of=lesions_of("scan-1", "scan-4")) as voxels:
        held = {id for id, role in roles(voxels).items() if role == "validation"}
        assert len(held & {"scan-1", "scan-4"}) == 1
        assert set(voxels.validation.scans) == held
        assert abnormal(voxels.validation.array()) > 0


def test_sessions_of_a_subject_stay_together():
    scans = [replace(scan, id=f"sub-{n // 2}_ses-{n % 2}") for n, scan in enumerate(people(10))]
    for seed in range(6):
        for known in ({}, {"lesion_of": lesions_of("sub-1_ses-1", "sub-3_ses-0")}):
            with gathered(scans, seed=seed, **known) as voxels:
                sides = {}
                for id, role in roles(voxels).items():
                    sides.setdefault(id[:5], set()).add(role)
                assert len(roles(voxels)) == 10
                assert all(len(side) == 1 for side in sides.values()), sides
                assert [*sides.values()].count({"validation"}) == (2 if known else 1)


@dataclass(frozen=True)
class Lazy:
    """Files of a scan in memory, which counts how many are in use."""

    id: str
    scan: object
    entities: tuple = ()


def test_annotated_scans_wait_as_files(monkeypatch):
    alive = []

    def read(files, options):
        scan = replace(files.scan, stored=files.scan.stored.copy())
        alive.append(weakref.ref(scan.stored))
        assert sum(one() is not None for one in alive) <= 2
        return scan

    monkeypatch.setattr("mednovelty.gathering.scan_of", read)
    monkeypatch.setattr("mednovelty.signal_scale._gradients", lambda files, options: files.scan.gradients)
    scans = [Lazy(scan.id, scan) for scan in people(8)]
    with gathered(scans, lesion_of=lesions_of(*(f"sub-{n}" for n in range(1, 8)))) as voxels:
        assert len(roles(voxels)) == 8


def images(count, label, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, 2 * 16 * 20)).astype(np.float32)
    return np.column_stack([rows + 2 * (label < 0), np.full(count, label)])


def table(*blocks):
    found = VoxelCache(2 * 16 * 20 + 1, shape=(2, 16, 20))
    for number, block in enumerate(blocks):
        found.append(f"s{number}", block)
    return found


@pytest.mark.parametrize("kind", ["fcdd", "deep_sad", "hsc"])
@pytest.mark.parametrize("shown", [True, False])
def test_normals_alone_do_not_choose_the_epoch(kind, shown):
    method = method_for(kind)
    training = table(images(24, 0), images(8, -1, 1))
    validation = table(images(6, 0, 2), *([images(4, -1, 3)] if shown else []))
    model = method.build((2, 16, 20))
    how = TrainSettings(batch_size=16, max_epochs=5, patience=1, min_improvement=1e9, learning_rate=1e-3)
    record = train(method, model, training, validation, how)
    assert len(record.rows) - 1 == (1 if shown else 5)
    again = TrainingRecord.from_json(record.as_json())
    if not shown:
        assert record.best_epoch == again.best_epoch == 5
        assert {row.learning_rate for row in record.rows} == {1e-3}
    said = method.assess(model, training, validation, torch.Generator().manual_seed(0))
    assert ("so the last epoch was kept" in said["verdict"]) == (not shown)


def test_a_network_blind_to_what_it_was_trained_with_has_collapsed():
    method = method_for("fcdd")
    training, validation = table(images(24, 0), images(8, -1, 1)), table(images(6, 0, 2))
    model = method.build((2, 16, 20))
    method.start(model, training, torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        model.network.layers[-1].weight.zero_()
    said = method.assess(model, training, validation, torch.Generator().manual_seed(0))
    assert said["collapsed"]
    assert said["auroc"] is None
    assert "does not even find the anomalies it was trained with" in said["verdict"]


def test_labels_of_normals_alone_leave_early_stopping_as_it_is():
    method = DeepSADMethod(DeepSADSettings(pretrain_epochs=0))
    rows = table(images(24, 1))
    model = method.build((2, 16, 20))
    assert method.can_choose(model, rows, table(images(4, 0)))
    assert not method.can_choose(model, table(images(24, -1)), table(images(4, 0)))


def method_for(kind):
    from mednovelty.fitting import make_method

    tree = {"anomalies": "none", **({} if kind == "fcdd" else {"pretrain_epochs": 0})}
    return make_method(image_settings("slices", kind, method_settings=tree))


def test_labels_hold_out_whole_scans_too():
    labels = Labels({"sub-0": 1})
    with gathered(people(5), settings=SAD, labels=labels) as voxels:
        assert [*roles(voxels).values()].count("validation") == 1
