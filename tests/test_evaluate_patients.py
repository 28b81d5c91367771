"""Thresholds come from other patients than those reported; lesions, baselines and words in an evaluation."""

import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest
from lesion_study import AFFINE, add_scan, read, write
from scipy import ndimage

from mednovelty.evaluation import EvaluateSettings, Evaluation, evaluate, lesion_sizes
from mednovelty.evaluation.listing import lesions_tsv
from mednovelty.evaluation.result import Rated
from mednovelty.metrics import (
    Ranking,
    best_dice,
    dice_at,
    draw_fifths,
    fifth_threshold,
    healthy_threshold,
    summary,
)

SHAPE = (7, 6, 8)
FAST = EvaluateSettings(seed=5, resamples=40)
SCORES = ("kl", "raw_FLAIR")


def lesion_of(number: int) -> np.ndarray:
    """Two lesions of unequal size, one across two slices, elsewhere in each scan."""
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[1 + number % 3, 2, 1:3] = 1
    lesion[3:6, 4, 5 + number % 2] = 1
    return lesion


def make(root, ids, healthy=()):
    for number, id in enumerate(ids):
        lesion = lesion_of(number) * (id not in healthy)
        brain = np.ones(SHAPE, np.uint8)
        brain[:, 0] = 0
        # Each scan on a scale of its own: whose voxels a threshold comes from shows in the number.
        rng = np.random.default_rng(number)
        maps = {s: rng.normal(size=SHAPE) * (1 + number / 9) + (2.5 - k) * lesion + number / 10
                for k, s in enumerate(SCORES)}  # fmt: skip
        add_scan(root / "out", id, maps, brain)
        write(root / "masks" / f"{id}_mask.nii.gz", lesion)
    return root / "out", root / "masks"


def folder_of(out, id):
    return out.joinpath(*id.split("_")) / "dwi"


def volumes(out, masks, id, score="kl"):
    stem = folder_of(out, id) / f"{id}_desc-"
    brain = read(stem.with_name(stem.name + "brain_mask.nii.gz")) > 0
    values = read(stem.with_name(f"{stem.name}{score.replace('_', '')}_novelty.nii.gz"))
    return values, brain, read(masks / f"{id}_mask.nii.gz") > 0


def ranking(out, masks, id, score="kl"):
    values, brain, lesion = volumes(out, masks, id, score)
    return Ranking.of(values[brain], lesion[brain])


SESSIONS = [f"sub-{n:02d}_ses-{s}" for n in range(1, 7) for s in (1, 2)]


def test_both_sessions_of_a_patient_are_in_one_fifth(tmp_path):
    out, masks = make(tmp_path, SESSIONS)
    found = evaluate(out, masks, settings=FAST)
    fifths = dict(zip([f"sub-{n:02d}" for n in range(1, 7)], draw_fifths(6, 5).tolist(), strict=True))
    (patient,) = [who for who, number in fifths.items() if number == 0]
    assert found.fifth["patients"] == [patient]
    assert found.fifth["scans"] == [f"{patient}_ses-1", f"{patient}_ses-2"]
    assert found.fifth["rotations"] == [
        [who for who, number in fifths.items() if number == fifth] for fifth in range(5)
    ]
    threshold = fifth_threshold([ranking(out, masks, id) for id in found.fifth["scans"]])
    for id in SESSIONS:
        row = found.scans[id]["kl"]
        assert ("dice_fifth" in row) == (not id.startswith(patient))
        if "dice_fifth" in row:
            assert row["dice_fifth_threshold"] == threshold
            assert row["dice_fifth"] == dice_at(ranking(out, masks, id), threshold)
    reported = Ranking.pooled([ranking(out, masks, id) for id in SESSIONS if not id.startswith(patient)])
    assert found.pooled["kl"]["dice_fifth"] == pytest.approx(dice_at(reported, threshold))


def test_each_fifth_has_its_turn(tmp_path):
    out, masks = make(tmp_path, SESSIONS)
    found = evaluate(out, masks, settings=FAST)
    groups = [[id for id in SESSIONS if id[:6] in fifth] for fifth in found.fifth["rotations"]]
    limits = [fifth_threshold([ranking(out, masks, id) for id in group]) for group in groups]
    assert len(set(limits)) == 5
    for id in SESSIONS:
        own = [dice_at(ranking(out, masks, id), limit)
               for limit, group in zip(limits, groups, strict=True) if id not in group]  # fmt: skip
        assert len(own) == 4
        assert found.scans[id]["kl"]["dice_rotated"] == pytest.approx(np.mean(own))
    pooled = [
        dice_at(Ranking.pooled([ranking(out, masks, id) for id in SESSIONS if id not in group]), limit)
        for limit, group in zip(limits, groups, strict=True)
    ]
    assert found.pooled["kl"]["dice_rotated"] == pytest.approx(np.mean(pooled))
    low, high = found.pooled["kl"]["dice_rotated_interval"]
    assert low < found.pooled["kl"]["dice_rotated"] < high


def test_thresholds_hang_on_the_fifth_alone(tmp_path):
    out, masks = make(tmp_path, SESSIONS)
    before = evaluate(out, masks, settings=FAST)
    drawn = before.fifth["scans"]
    pooled = Ranking.pooled([ranking(out, masks, id) for id in drawn])
    assert before.rated["kl"].thresholds == {
        "dice": best_dice(pooled)[1],
        "fpr_1_in_100": healthy_threshold(pooled, 0.01),
        "fpr_1_in_1000": healthy_threshold(pooled, 0.001),
    }
    other = next(id for id in SESSIONS if id not in drawn)
    path = folder_of(out, other) / f"{other}_desc-kl_novelty.nii.gz"
    write(path, read(path) * 3)
    after = evaluate(out, masks, settings=FAST)
    assert after.rated["kl"].thresholds == before.rated["kl"].thresholds
    assert after.scans[other]["kl"] != before.scans[other]["kl"]
    path = folder_of(out, drawn[0]) / f"{drawn[0]}_desc-kl_novelty.nii.gz"
    write(path, read(path) * 3)
    assert evaluate(out, masks, settings=FAST).rated["kl"].thresholds != before.rated["kl"].thresholds


def test_lesions_and_false_positives_of_the_other_patients(tmp_path):
    out, masks = make(tmp_path, SESSIONS)
    found = evaluate(out, masks, settings=FAST)
    reported = [id for id in SESSIONS if id not in found.fifth["scans"]]
    assert set(found.rated["kl"].detections) == set(reported)
    corners = np.ones((3, 3, 3))
    for point, threshold in found.rated["kl"].thresholds.items():
        hits, false = [], []
        for id in reported:
            values, brain, lesion = volumes(out, masks, id)
            flagged = (values >= threshold) & brain
            labels, n = ndimage.label(lesion & brain, corners)
            assert n == 2
            hits.append([flagged[labels == one].any() for one in (1, 2)])
            labels, n = ndimage.label(flagged, corners)
            false.append(n - len(set(labels[lesion & flagged])))
            row = found.scans[id]["kl"]
            assert row[f"lesion_recall_at_{point}"] == np.mean(hits[-1])
            assert row[f"false_positives_at_{point}"] == false[-1]
        assert found.pooled["kl"][f"lesion_recall_at_{point}"] == pytest.approx(np.mean(hits))
        assert found.pooled["kl"][f"false_positives_at_{point}"] == pytest.approx(np.mean(false))
        assert found.mean["kl"][f"false_positives_at_{point}"] == pytest.approx(np.mean(false))
    assert all("lesion_recall_at_dice" not in found.scans[id]["kl"] for id in found.fifth["scans"])


def test_lesions_are_listed_with_size_and_place(tmp_path):
    out, masks = make(tmp_path, SESSIONS)
    found = evaluate(out, masks, settings=FAST)
    rows = list(csv.DictReader(lesions_tsv(found).splitlines(), delimiter="\t"))
    reported = [id for id in SESSIONS if id not in found.fifth["scans"]]
    assert {row["scan"] for row in rows} == set(reported)
    assert len(rows) == len(SCORES) * len(reported) * 3 * 2
    id = reported[-1]
    values, _, _ = volumes(out, masks, id)
    (row,) = [r for r in rows if (r["scan"], r["score"], r["threshold_from"], r["lesion"])
              == (id, "kl", "fpr_1_in_100", "1")]  # fmt: skip
    k = 5 + SESSIONS.index(id) % 2
    centre = nib.affines.apply_affine(AFFINE, [4, 4, k])
    assert [float(row[name]) for name in ("x_mm", "y_mm", "z_mm")] == pytest.approx(centre)
    assert row["voxels"] == "3"
    assert float(row["volume_mm3"]) == pytest.approx(3 * abs(np.linalg.det(AFFINE[:3, :3])))
    flagged = values[3:6, 4, k] >= found.rated["kl"].thresholds["fpr_1_in_100"]
    assert float(row["share_flagged"]) == pytest.approx(flagged.mean(), abs=1e-6)
    assert row["found"] == str(int(flagged.any()))


def test_lesions_are_counted_by_their_volume(tmp_path, monkeypatch):
    out, masks = make(tmp_path, SESSIONS)
    voxel_mm3 = abs(np.linalg.det(AFFINE[:3, :3]))
    # Lesions have two voxels and three: the first stay below the second edge, the others reach the third.
    monkeypatch.setattr(lesion_sizes, "EDGES_MM3", (voxel_mm3, 2.5 * voxel_mm3, 3 * voxel_mm3))
    found = evaluate(out, masks, settings=FAST)
    names = lesion_sizes.class_names()
    assert len(names) == 4
    rows = list(csv.DictReader(lesions_tsv(found).splitlines(), delimiter="\t"))
    for score in SCORES:
        own = [row for row in rows if (row["score"], row["threshold_from"]) == (score, "fpr_1_in_100")]
        hits = {n: [int(row["found"]) for row in own if row["voxels"] == n] for n in ("2", "3")}
        expected = {
            names[1]: {"found": sum(hits["2"]), "lesions": len(hits["2"])},
            names[3]: {"found": sum(hits["3"]), "lesions": len(hits["3"])},
        }
        assert found.to_dict()["lesions_by_size"][score] == expected
        assert 0 < sum(hits["2"]) + sum(hits["3"]) <= len(own)
    told = found.to_markdown().split("Lesions found by their volume")[1].splitlines()
    assert told[2] == f"| score | {names[1]} | {names[3]} |"
    share = np.mean([int(r["found"]) for r in rows if (r["score"], r["threshold_from"], r["voxels"])
                     == ("kl", "fpr_1_in_100", "3")])  # fmt: skip
    assert f"{share:.0%} (of {len(rows) // 12})" in next(line for line in told if "`kl`" in line)


def test_a_share_of_each_lesion_can_be_asked_for(tmp_path):
    out, masks = make(tmp_path, SESSIONS)
    one = evaluate(out, masks, settings=FAST).pooled["kl"]
    whole = evaluate(out, masks, settings=EvaluateSettings(seed=5, resamples=40, found_share=1)).pooled["kl"]
    assert whole["lesion_recall_at_dice"] < one["lesion_recall_at_dice"]
    assert whole["false_positives_at_dice"] == one["false_positives_at_dice"]


def test_healthy_scans_have_false_positives_and_are_never_in_the_fifth(tmp_path):
    ids = [f"sub-{n}" for n in range(1, 8)]
    out, masks = make(tmp_path, ids, healthy=("sub-3", "sub-7"))
    found = evaluate(out, masks, settings=FAST)
    assert sorted(who for fifth in found.fifth["rotations"] for who in fifth) == [
        "sub-1", "sub-2", "sub-4", "sub-5", "sub-6",
    ]  # fmt: skip
    values, brain, _ = volumes(out, masks, "sub-7")
    limit = found.rated["kl"].thresholds["dice"]
    row = found.scans["sub-7"]["kl"]
    assert row["false_positives_at_dice"] == ndimage.label((values >= limit) & brain, np.ones((3, 3, 3)))[1]
    assert row["false_positives_at_dice"] > 0
    assert math.isnan(row["lesion_recall_at_dice"])
    assert "dice_fifth" not in row
    everyone = Ranking.pooled([ranking(out, masks, id) for id in ids])
    assert found.pooled["kl"]["ap"] == summary(everyone)["ap"]
    reported = Ranking.pooled([ranking(out, masks, id) for id in ids if id not in found.fifth["scans"]])
    assert found.pooled["kl"]["dice_fifth"] == pytest.approx(dice_at(reported, limit))


def test_fewer_than_five_patients_have_thresholds_of_their_own_voxels_and_are_told(tmp_path):
    out, masks = make(tmp_path, SESSIONS[:8])  # four patients, eight scans
    found = evaluate(out, masks, settings=FAST)
    assert found.fifth["drawn_from"] == "voxels"
    (told,) = [warning for warning in found.warnings if "optimistic" in warning]
    assert told.startswith(
        "4 patients with a lesion, fewer than 5: thresholds come from a fifth of the voxels"
    )
    assert set(found.rated["kl"].detections) == set(SESSIONS[:8])
    assert all(0 <= found.scans[id]["kl"]["dice_rotated"] <= 1 for id in SESSIONS[:8])
    whole = evaluate(*make(tmp_path / "more", SESSIONS[:10]), settings=FAST)
    assert whole.fifth["drawn_from"] == "patients"
    assert not any("optimistic" in warning for warning in whole.warnings)


def test_intervals_are_over_patients_not_scans(tmp_path):
    out, masks = make(tmp_path, SESSIONS[:4])
    found = evaluate(out, masks, settings=FAST)
    of = [found.scans[id]["kl"]["auroc"] for id in SESSIONS[:4]]
    assert found.mean["kl"]["auroc_interval"] == pytest.approx(sorted([np.mean(of[:2]), np.mean(of[2:])]))


def test_sidecars_tell_which_scores_are_trivial(tmp_path):
    out, masks = make(tmp_path, SESSIONS)
    assert evaluate(out, masks, settings=FAST).ranked() == (["kl"], ["raw_FLAIR"])
    for path in out.rglob("*desc-kl_novelty.json"):
        content = json.loads(path.read_text())
        content["Score"]["trivial"] = True
        path.write_text(json.dumps(content))
    found = evaluate(out, masks, settings=FAST)
    assert found.ranked() == ([], ["kl", "raw_FLAIR"])
    assert found.to_dict()["trivial"] == ["kl", "raw_FLAIR"]
    assert "| `kl` (trivial) |" in found.to_markdown()


def of_numbers(numbers, pooled):
    """Return an evaluation of one scan with AUROC and AP as given, pooled ones apart."""
    scans = {"s": {score: {"auroc": a, "ap": p, "lesion_voxels": 9} for score, (a, p) in numbers.items()}}
    rated = {score: Rated({}, {}, {"scans": 1, "auroc": a, "ap": p}, {}, {}, {})
             for score, (a, p) in pooled.items()}  # fmt: skip
    return Evaluation(scans, {}, EvaluateSettings(), {}, rated)


def test_each_score_is_told_whether_it_beats_the_best_baseline_of_each_kind():
    found = of_numbers(
        {"a": (0.9, 0.3), "raw_T1w": (0.85, 0.1), "raw_FLAIR": (0.7, 0.4)},
        {"a": (0.8, 0.5), "raw_T1w": (0.8, 0.2), "raw_FLAIR": (0.75, 0.3)},
    )
    assert found.comparisons() == {
        "a": "a beats raw_T1w in AUROC by 0.050, loses to raw_FLAIR in AP by 0.100; pooled, it equals "
        "raw_T1w in AUROC, beats raw_FLAIR in AP by 0.200."
    }
    assert found.to_dict()["verdicts_pooled"] == [
        "Pooled AUROC: the best trivial baseline, raw_T1w (0.800), is beaten by no score. a equals it.",
        "Pooled AP: the best trivial baseline, raw_FLAIR (0.300), is beaten by a by 0.200.",
    ]
    assert f"* {found.to_dict()['verdicts_pooled'][1]}\n" in found.to_markdown()
    assert found.to_dict()["against_trivial"] == found.comparisons()
    assert of_numbers({"a": (0.9, 0.3)}, {}).comparisons() == {}


def test_pooled_numbers_of_other_scans_are_not_compared():
    found = of_numbers({"a": (0.9, 0.3), "raw_x": (0.8, 0.1)}, {"a": (0.8, 0.5), "raw_x": (0.8, 0.2)})
    found.rated["a"].pooled["scans"] = 2
    assert found.to_dict()["verdicts_pooled"][0].endswith(
        "is beaten by no score. Not comparable, having other scans: a."
    )
    assert found.to_dict()["gaps_to_trivial"]["pooled"]["ap"]["scores"]["a"]["ahead"] is None
    assert (
        "pooled, it cannot be compared with raw_x in AUROC, which has other scans" in found.comparisons()["a"]
    )


def test_a_gap_and_its_interval_have_one_sign(tmp_path):
    out, masks = make(tmp_path, SESSIONS)
    found = evaluate(out, masks, settings=FAST)
    said = found.comparisons()["kl"]
    gaps = {id: row["kl"]["auroc"] - row["raw_FLAIR"]["auroc"] for id, row in found.scans.items()}
    low, high = found.interval(gaps)
    assert 0 < low < high
    told = f"raw_FLAIR in AUROC by {np.mean(list(gaps.values())):.3f} [{low:.3f}, {high:.3f}]"
    assert f"beats {told}" in said
    for path in out.rglob("*_novelty.nii.gz"):
        write(path, -read(path))
    said = evaluate(out, masks, settings=FAST).comparisons()["kl"]
    assert f"loses to {told}" in said


def test_markdown_has_every_figure_of_both_tables(tmp_path):
    found = evaluate(*make(tmp_path, SESSIONS), settings=FAST)
    text = found.to_markdown()
    rows = [line for line in text.splitlines() if line.startswith("| `kl` |")]
    assert len(rows) == 4
    assert f"{found.mean['kl']['auroc']:.3f} (" in rows[0]
    assert f"{found.pooled['kl']['slice_max_ap']:.3f}" in rows[1] or "| - |" in rows[1]
    assert f"{found.pooled['kl']['lesion_recall_at_dice']:.0%}" in rows[2]
    assert f"come from 1 patients, {found.fifth['patients'][0]}, and are tried on the others" in text
