"""Slice by slice: which slices count, along which axis, and what they score."""

import csv
import json

import numpy as np
import pytest
from lesion_study import add_scan, write
from sklearn.metrics import average_precision_score, roc_auc_score

from mednovelty.evaluation import EvaluateSettings, evaluate
from mednovelty.evaluation.scored import axis_number
from mednovelty.evaluation.slices import SliceCounts, SliceScores

SHAPE = (6, 7, 9)
FAST = EvaluateSettings(resamples=20)


def test_means_and_highest_scores_are_of_the_brain_voxels_of_a_slice():
    brain = np.zeros((2, 3, 4), bool)
    brain[0, 0, 1] = brain[1, 2, 1] = brain[1, 1, 3] = True  # slices 0 and 2 along K have none
    scores = np.array([-5.0, -1.0, -2.0], np.float32)  # in row-major order of the brain's voxels
    lesion = np.zeros_like(brain)
    lesion[1, 1, 3] = lesion[0, 0, 3] = True
    counts = SliceCounts.along(2, brain, lesion)
    found = SliceScores.of(2, scores, brain, counts)
    # Row-major order: (0, 0, 1), (1, 1, 3), (1, 2, 1).
    assert found.index.tolist() == [1, 3]
    assert found.brain.tolist() == [2, 1]
    assert found.annotated.tolist() == [0, 2]
    assert found.mean.tolist() == [(-5 - 2) / 2, -1]
    assert found.max.tolist() == [-2, -1]
    first = SliceScores.of(0, scores, brain, SliceCounts.along(0, brain, lesion))
    assert first.index.tolist() == [0, 1]
    assert first.mean.tolist() == [-5, -1.5]
    whole = SliceScores.of(2, scores.astype(np.int16), brain, counts)
    assert (whole.mean.tolist(), whole.max.tolist()) == (found.mean.tolist(), found.max.tolist())
    middle = SliceScores.of(1, scores, brain, SliceCounts.along(1, brain, lesion))
    assert middle.index.tolist() == [0, 1, 2]
    assert middle.max.tolist() == [-5, -1, -2]


def test_a_slice_is_healthy_without_a_lesion_voxel_and_diseased_from_twenty():
    annotated = np.array([0, 1, 19, 20, 300])
    many = np.full(5, 400)
    values = np.array([5.0, 9.0, 8.0, 7.0, 6.0])
    found = SliceScores(2, np.arange(5), many, annotated, values, values + 1)
    assert found.classes(20) == ["healthy", "dropped", "dropped", "diseased", "diseased"]
    ranking = found.ranking("mean", 20)
    assert (ranking.lesion.tolist(), ranking.healthy.tolist()) == ([6, 7], [5])
    assert found.ranking("max", 19).lesion.tolist() == [7, 8, 9]


def test_axes_have_letters_or_numbers():
    assert [axis_number(told) for told in ("I", "j", "K", 0, 2)] == [0, 1, 2, 0, 2]
    assert [axis_number(told) for told in ("", "IJ", 3, -1, 1.0, None, ["K"])] == [None] * 7


@pytest.fixture
def cohort(tmp_path):
    """Write three scans whose lesions lie in few slices, so that an axis or an end mistaken shows."""

    def make(**facts):
        rng = np.random.default_rng(3)
        for number in range(1, 4):
            brain = np.zeros(SHAPE, np.uint8)
            brain[1:, 1:, 2:] = 1  # slices 0 and 1 along K have no brain
            lesion = np.zeros(SHAPE, np.uint8)
            lesion[1:5, 1:6, 6:8] = 1  # 20 voxels in slices 6 and 7
            lesion[2, 2:4, 5] = 1  # 2 voxels in slice 5: dropped
            if number == 3:
                lesion[0, 0, 8] = 1  # outside the brain: slice 8 is not healthy all the same
            score = rng.normal(size=SHAPE) + 0.9 * lesion
            score[brain == 0] = 50  # nothing outside the brain may count
            id = f"sub-{number:02d}"
            add_scan(tmp_path / "out", id, {"kl": score, "raw_x": rng.normal(size=SHAPE)}, brain)
            write(tmp_path / "masks" / f"{id}_mask.nii.gz", lesion)
        for path in (tmp_path / "out").rglob("*desc-kl_novelty.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | facts))
        return tmp_path / "out", tmp_path / "masks"

    return make  # fmt: skip


def rows_of(found, score):
    from mednovelty.evaluation.listing import slices_tsv

    return [r for r in csv.DictReader(slices_tsv(found).splitlines(), delimiter="\t") if r["score"] == score]


@pytest.mark.parametrize(("told", "axis"), [({}, 2), ({"SliceAxis": "I"}, 0), ({"SliceAxis": 1}, 1)])
def test_slices_are_cut_along_the_axis_the_sidecar_tells(cohort, told, axis):
    out, masks = cohort(**told)
    settings = EvaluateSettings(resamples=20, diseased_voxels=8)
    found = evaluate(out, masks, settings=settings)
    import nibabel as nib

    labels, means, highest = [], [], []
    for id in ("sub-01", "sub-02", "sub-03"):
        folder = out / id / "dwi"
        brain = np.asarray(nib.load(folder / f"{id}_desc-brain_mask.nii.gz").dataobj) > 0
        lesion = np.asarray(nib.load(masks / f"{id}_mask.nii.gz").dataobj) > 0
        score = np.asarray(nib.load(folder / f"{id}_desc-kl_novelty.nii.gz").dataobj)
        for at in range(SHAPE[axis]):
            inside, n = brain.take(at, axis), lesion.take(at, axis).sum()
            if inside.any() and (n == 0 or n >= 8):
                labels.append(n > 0)
                means.append(score.take(at, axis)[inside].mean())
                highest.append(score.take(at, axis)[inside].max())
    pooled = found.pooled["kl"]
    assert pooled["slice_mean_auroc"] == pytest.approx(roc_auc_score(labels, means))
    assert pooled["slice_mean_ap"] == pytest.approx(average_precision_score(labels, means))
    assert pooled["slice_max_auroc"] == pytest.approx(roc_auc_score(labels, highest))
    assert pooled["slice_max_ap"] == pytest.approx(average_precision_score(labels, highest))
    assert pooled["slices_diseased"] == sum(labels)
    assert pooled["slices_healthy"] == len(labels) - sum(labels)
    assert {row["axis"] for row in rows_of(found, "kl")} == {"IJK"[axis]}
    assert {row["axis"] for row in rows_of(found, "raw_x")} == {"K"}


def test_the_slices_are_listed_one_a_row(cohort):
    found = evaluate(*cohort(), settings=FAST)
    rows = rows_of(found, "kl")
    assert len(rows) == 3 * 7
    classes = {(row["scan"], row["slice"]): row["class"] for row in rows}
    assert [classes["sub-01", str(k)] for k in range(2, 9)] == [
        "healthy", "healthy", "healthy", "dropped", "diseased", "diseased", "healthy",
    ]  # fmt: skip
    assert classes["sub-03", "8"] == "dropped"
    (row,) = [row for row in rows if (row["scan"], row["slice"]) == ("sub-02", "5")]
    assert (row["brain_voxels"], row["lesion_voxels"]) == ("30", "2")
    assert found.pooled["kl"]["slices_dropped"] == 4
    assert found.pooled["kl"]["slice_mean_auroc"] == 1.0


def test_the_axis_of_the_settings_counts_where_the_sidecar_says_nothing(cohort):
    found = evaluate(*cohort(SliceAxis="sideways"), settings=EvaluateSettings(resamples=20, slice_axis="j"))
    assert {row["axis"] for row in rows_of(found, "kl")} == {"J"}
