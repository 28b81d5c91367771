"""Voxels that no sample covered: counted where sidecars tell of them, silent where they do not."""

import json
import math

import numpy as np
import pytest
from lesion_study import add_scan, write

from mednovelty.evaluation import EvaluateSettings, evaluate

SHAPE = (7, 6, 8)
FAST = EvaluateSettings(resamples=20)
# Of 7 * 5 * 8 voxels in the brain, its rows J = 0 being outside.
BRAIN = 280


def study(root, told, axis="K", blank=(6, 7), zeros=()):
    """Write two scans whose map ``kl`` has blank slices along an axis and single zeros; sidecars as told."""
    brain = np.ones(SHAPE, np.uint8)
    brain[:, 0] = 0
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[2, 3, 5:7] = 1
    lesion[4, 4, 1] = 1
    for number, id in enumerate(("sub-1", "sub-2")):
        rng = np.random.default_rng(number)
        maps = {name: rng.normal(size=SHAPE) + lesion for name in ("kl", "raw_T1w")}
        # 9 outside the brain: what lies there is no score.
        maps["kl"][:, 0] = 9
        np.moveaxis(maps["kl"], "IJK".index(axis), 0)[list(blank), ...] = 0
        for voxel in zeros:
            maps["kl"][voxel] = 0
        add_scan(root / "out", id, maps, brain)
        write(root / "masks" / f"{id}_mask.nii.gz", lesion)
        sidecar = next((root / "out").rglob(f"{id}_desc-kl_novelty.json"))
        content = json.loads(sidecar.read_text()) | {"SliceAxis": axis}
        if told is not None:
            content["UnscoredVoxels"] = told
        sidecar.write_text(json.dumps(content))
    return evaluate(root / "out", root / "masks", settings=FAST)


def said(found):
    return [warning for warning in found.warnings if "no sample" in warning]


def test_voxels_in_slices_left_out_and_lesion_voxels_among_them_are_counted(tmp_path):
    # Two slices of 35 voxels; the lesion has one voxel in K = 6. A zero elsewhere is a score like any other.
    found = study(tmp_path, 70, zeros=[(1, 1, 1), (2, 3, 5)])
    for id in ("sub-1", "sub-2"):
        row = found.scans[id]["kl"]
        assert (row["unscored_voxels"], row["unscored_lesion_voxels"]) == (70, 1)
        assert "unscored_voxels" not in found.scans[id]["raw_T1w"]
    assert said(found) == [
        f"kl: 140 of {2 * BRAIN} voxels in the brain masks (25.00%), in 2 of 2 scans, lie in no sample that "
        "the detector scored, 2 of 6 lesion voxels among them; their score counts as 0"
    ]
    header, first, second = (line.split(",") for line in found.to_csv().splitlines()[:3])
    assert first[header.index("unscored_lesion_voxels")] == "1"
    assert second[header.index("unscored_lesion_voxels")] == ""


def test_slices_are_those_along_the_axis_that_the_sidecar_names(tmp_path):
    # Five rows of voxels along J are in the brain: I = 2 holds 40 voxels and two of the lesion.
    found = study(tmp_path, 40, axis="I", blank=(2,))
    assert found.scans["sub-2"]["kl"]["unscored_lesion_voxels"] == 2


def test_without_slices_it_is_the_voxels_that_are_zero(tmp_path):
    found = study(tmp_path, 3, blank=(), zeros=[(2, 3, 5), (2, 3, 6), (0, 1, 0)])
    assert found.scans["sub-1"]["kl"]["unscored_lesion_voxels"] == 2


def test_where_the_map_does_not_show_which_voxels_they_are_that_is_said(tmp_path):
    found = study(tmp_path, 71)
    row = found.scans["sub-1"]["kl"]
    assert row["unscored_voxels"] == 71
    assert math.isnan(row["unscored_lesion_voxels"])
    assert "scored, unknown which; their" in said(found)[0]
    assert json.loads(found.to_json())["scans"]["sub-1"]["kl"]["unscored_lesion_voxels"] is None


@pytest.mark.parametrize("told", [None, -1, "70", True, 70.0])
def test_what_no_sidecar_tells_is_not_said(tmp_path, told):
    found = study(tmp_path, told)
    assert said(found) == []
    assert "unscored_voxels" not in found.scans["sub-1"]["kl"]


def test_where_everything_was_scored_there_is_nothing_to_warn_of(tmp_path):
    found = study(tmp_path, 0, blank=())
    assert said(found) == []
    assert found.scans["sub-1"]["kl"]["unscored_lesion_voxels"] == 0
