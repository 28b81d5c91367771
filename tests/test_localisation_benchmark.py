"""Lesions in brain scans as a benchmark: who trains, who is tested, and numbers worked out from the files."""

import json
import math

import numpy as np
import pytest
from image_folders import run, task_of
from made_up_sets import (
    OBLIQUE,
    RAS,
    person,
    save,
    write_brats,
    write_hcp,
    write_isles,
    write_lgg,
    write_open_ms,
)
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from mednovelty.benchmarks import localisation
from mednovelty.benchmarks.localisation import Localisation, first, healthy, split
from mednovelty.benchmarks.plan import plan_named
from mednovelty.benchmarks.scan_sets import scan_manifest
from mednovelty.errors import ScanError, SettingsError, UnknownPluginError
from mednovelty.io.scan_folder import scan_folder

TINY = {"epochs": 1, "size": 16, "batch": 16}
VAE = {"method_settings": {"widths": [4, 8], "latent": 5, "c": 0.5}}
OWN = ("rec_error", "kl_gradient", "raw_signed")


def by_name(found):
    """Return score and metric to number."""
    return {(row.score, row.metric): row.value for row in found.measured}


def pooled(seeds, change=1.0):
    """Return values and labels of some people's brains, all together, and lesions as one array of regions."""
    values, truth, regions = [], [], []
    for seed in seeds:
        contrast, lesion = person(seed)
        brain = contrast > 0
        values.append(contrast[brain] * change)
        truth.append(lesion[brain])
        regions.append((seed + 1) * 100 * lesion[brain] + ndimage.label(lesion, np.ones((3, 3, 3)))[0][brain])
    return np.concatenate(values), np.concatenate(truth), np.concatenate(regions)


def pro_up_to(values, regions, limit):
    """Return the area under the per-region overlap by its definition, point by point."""
    names = [name for name in np.unique(regions) if name]
    x, y = [0.0], [0.0]
    for t in np.unique(values)[::-1]:
        x.append((values[regions == 0] >= t).mean())
        y.append(np.mean([(values[regions == name] >= t).mean() for name in names]))
    end = np.interp(limit, x, y)
    kept = [(a, b) for a, b in zip(x, y, strict=True) if a < limit] + [(limit, end)]
    return np.trapezoid([b for _, b in kept], [a for a, _ in kept]) / limit


@pytest.mark.parametrize(
    "affine", [pytest.param(OBLIQUE, id="oblique"), pytest.param(RAS, id="RAS", marks=pytest.mark.slow)]
)
def test_brats_trains_on_others_and_finds_what_is_bright(tmp_path, affine):
    root, others = write_brats(tmp_path / "brats", affine), write_hcp(tmp_path / "hcp")
    found = run(
        "brats", root, "vae", "all", dataset="brats", scores=OWN, beside=("hcp", str(others)), **TINY, **VAE
    )
    told = found.told
    # Two subjects train, one of three chooses the epoch; nobody of brats is among them.
    assert (told["patients_tested"], told["scans_trained_on"], told["left_out"]) == (3, 2, [])
    assert told["thresholds_from"] == "voxels"
    numbers = by_name(found)
    values, truth, regions = pooled((0, 1, 2))
    assert numbers["raw_T2w", "auroc"] == pytest.approx(roc_auc_score(truth, values))
    assert numbers["raw_T2w", "ap"] == pytest.approx(average_precision_score(truth, values))
    assert numbers["raw_T2w", "aupro"] == pytest.approx(pro_up_to(values, regions, 0.3))
    best = max(((values >= t) & truth).sum() / ((values >= t) | truth).sum() for t in values[truth])
    assert numbers["raw_T2w", "iou"] == pytest.approx(best)
    apart = [roc_auc_score(truth, values) for values, truth, _ in (pooled([seed]) for seed in (0, 1, 2))]
    assert numbers["raw_T2w", "mean_auroc"] == pytest.approx(np.mean(apart))
    for metric in ("auroc", "ap"):
        trivial = max(numbers["raw_T2w", metric], numbers["raw_signed", metric])
        ahead = numbers["kl_gradient", metric] - trivial
        assert numbers["kl_gradient", f"{metric}_over_raw"] == pytest.approx(ahead)
    assert not any(score.startswith("raw") for score, metric in numbers if metric.endswith("over_raw"))
    # In the order of asking, what comes unasked last.
    assert list(dict.fromkeys(row.score for row in found.measured)) == [
        "rec_error",
        "kl_gradient",
        "raw_T2w",
        "raw_signed",
    ]
    assert json.loads(json.dumps(told)) == told


@pytest.mark.slow
def test_isles_is_tested_alike(tmp_path):
    root, others = write_isles(tmp_path / "isles"), write_hcp(tmp_path / "hcp")
    found = run(
        "isles", root, "vae", "all", dataset="isles", scores=OWN, beside=("hcp", str(others)), **TINY, **VAE
    )
    values, truth, _ = pooled((11, 12))
    assert by_name(found)["raw_T2w", "auroc"] == pytest.approx(roc_auc_score(truth, values))


def test_a_patient_is_tested_by_the_other(tmp_path):
    root = write_open_ms(tmp_path / "ms")
    found = run("open-ms", root, "vae", "patient19", dataset="open_ms", scores=OWN, **TINY, **VAE)
    values, truth, _ = pooled([19])
    assert by_name(found)["raw_FLAIR", "auroc"] == pytest.approx(roc_auc_score(truth, values))
    assert found.told["patients_tested"] == 1


def test_the_other_patients_lesions_are_not_trained_on(tmp_path, monkeypatch):
    root, seen = write_open_ms(tmp_path / "ms"), []
    fit = localisation.fold_detector

    def told(training, settings, folder, **how):
        detector = fit(training, settings, folder, **how)
        seen.append((how["lesions"], [(one.id, one.n_voxels) for one in detector.scans], settings))
        return detector

    monkeypatch.setattr(localisation, "fold_detector", told)
    run("open-ms", root, "vae", "patient07", dataset="open_ms", scores=OWN, **TINY, **VAE)
    ((lesions, scans, settings),) = seen
    assert lesions
    assert settings.annotations.lesions == "leave_out"
    # Of 12 slices with brain those of the other patient without a lesion.
    _, lesion = person(19)
    brain = person(19)[0] > 0
    free = brain.any((0, 1)) & ~lesion.any((0, 1))
    assert [(name, count <= free.sum()) for name, count in scans] == [("patient19", True)]
    assert scans[0][1] > 3


def test_windows(tmp_path):
    root = write_open_ms(tmp_path / "ms")
    found = run("open-ms", root, "vae", "patient07", dataset="open_ms", scores=OWN, recipe="patches",
                **(TINY | {"size": 8}), **VAE)  # fmt: skip
    assert by_name(found)["raw_FLAIR", "auroc"] > 0.8


@pytest.mark.slow
def test_synthetic_lesions_are_planted(tmp_path):
    root = write_lgg(tmp_path / "lgg")
    shapes = {"diameter_mm": [3.0, 10.0], "edge_mm": [1.0, 2.0], "most": 2}
    own = {
        "anomalies": ["hyperintense"],
        "width": 2,
        "anomaly_settings": {"hyperintense": {"shapes": shapes}},
    }
    found = run(
        "lgg", root, "synthetic_lesions", "1", dataset="lgg", mask="head", **TINY, method_settings=own
    )
    assert {row.score for row in found.measured} == {"synthetic_lesions_map", "raw_signed", "raw_FLAIR"}
    assert by_name(found)["raw_FLAIR", "auroc"] > 0.8


def test_folds_of_patients(tmp_path):
    root = write_lgg(tmp_path / "lgg", count=7)
    scans = scan_folder(scan_manifest("lgg", root), kind="structural", contrasts=["FLAIR"])
    tested = []
    for label in "12345":
        task, settings = task_of("lgg", root, "vae", label, dataset="lgg")
        mine = split(scans, task, settings)
        roles = {files.id: files.role for files in mine}
        assert sorted(roles.values()).count("test") in (1, 2)
        assert set(roles.values()) == {"test", "validation", "normal"}
        own = [id for id, role in roles.items() if role == "test"]
        # The folds are those of the manifest, the first called 1.
        assert own == [files.id for files in scans if files.fold == int(label) - 1]
        tested += own
    assert sorted(tested) == [f"sub-00{k}" for k in range(1, 8)]
    task, settings = task_of("lgg", root, "vae", "1", dataset="lgg", patients=1)
    assert sorted(files.role for files in split(scans, task, settings)) == ["normal", "test", "validation"]
    task, _ = task_of("lgg", root, "vae", "nobody", dataset="lgg")
    with pytest.raises(SettingsError, match=r"lgg: no scan is called 'nobody'; there are sub-001, "):
        split(scans, task, settings)
    assert len(first(scans, 1)) == 3  # Of each role one, as when the first fold is tested.
    assert first(scans, 0) is scans


@pytest.mark.slow
def test_lgg_is_masked_and_any_method_is_taken(tmp_path):
    root = write_lgg(tmp_path / "lgg")
    found = run(
        "lgg", root, "ae", "2", dataset="lgg", scores=("rec_error",), epochs=1, size=16, batch=16, mask="head"
    )
    assert {row.score for row in found.measured} == {"rec_error", "raw_FLAIR", "raw_signed"}
    assert found.told["scans_trained_on"] == 3


@pytest.mark.slow
def test_what_fails_is_told_and_left_out(tmp_path):
    root, others = write_brats(tmp_path / "brats"), write_hcp(tmp_path / "hcp")
    path = root / "BraTS20_Training_001" / "BraTS20_Training_001_t2.nii"
    path.write_bytes(path.read_bytes()[:-100])
    (others / "100301" / "T1w" / "T2w_acpc_dc_restore_brain.nii.gz").write_bytes(b"no image")
    found = run(
        "brats", root, "vae", "all", dataset="brats", scores=OWN, beside=("hcp", str(others)), **TINY, **VAE
    )
    assert [line.partition(":")[0] for line in found.told["left_out"]] == ["100301", "BraTS20_Training_001"]
    assert found.told["patients_tested"] == 2
    for path in root.rglob("*_t2.nii*"):
        path.write_bytes(b"no image either")
    with pytest.raises(ScanError, match=r"no patient could be scored: .*_t2"):
        run(
            "brats",
            root,
            "vae",
            "all",
            dataset="brats",
            scores=OWN,
            beside=("hcp", str(others)),
            **TINY,
            **VAE,
        )


def test_what_is_undefined_is_left_out(tmp_path):
    root = write_open_ms(tmp_path / "ms")
    save(root / "patient07" / "lesion.nii.gz", np.zeros_like(person(7)[1], np.uint8))
    found = run("open-ms", root, "vae", "patient07", dataset="open_ms", scores=OWN, **TINY, **VAE)
    assert not any(math.isnan(row.value) for row in found.measured)
    assert not any(row.metric in ("auroc", "ap", "aupro") for row in found.measured)


def test_contrasts_that_training_has_not_are_refused(tmp_path):
    others = write_hcp(tmp_path / "hcp")
    with pytest.raises(
        SettingsError, match=r"contrasts: hcp has no FLAIR, and training is on it; it has T2w, T1w"
    ):
        healthy(("hcp", str(others)), ["T2w", "FLAIR"])


def test_scores_that_a_method_has():
    scores = Localisation().scores
    assert scores("vae", ["all"])[:3] == ("kl_gradient", "combi", "rec_error")
    assert scores("synthetic_lesions", ["all"]) == ("synthetic_lesions_map", "raw_signed")
    assert scores("synthetic_lesions", ["kl_gradient"]) == ()
    assert scores("fcdd", ["all"])[0] == "fcdd_map"
    with pytest.raises(UnknownPluginError, match=r"did you mean 'kl_gradient'"):
        scores("vae", ["kl_gradeint"])


def test_numbers_and_notes_of_the_paper():
    plan, _ = plan_named("brats")
    rows = {(row.method, row.metric): row for row in plan.published}
    assert rows["vae", "dice_fifth"].values == {"all": 0.36}
    assert set(plan.methods) == set(plan.beside)
    for name in ("lgg", "open-ms"):
        plan, _ = plan_named(name)
        assert plan.published == ()
        assert plan.note.startswith("The paper has no number on this set")
