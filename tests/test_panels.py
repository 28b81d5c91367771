"""Panels: the lesion's outline lies where the lesion is, on the side where it is said to be."""

import dataclasses

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from lesion_study import add_scan, write
from sklearn.metrics import average_precision_score

from mednovelty.errors import ScanError, SettingsError
from mednovelty.evaluation import EvaluateSettings, evaluate
from mednovelty.evaluation.files import find_maps
from mednovelty.report.figures import draw_evaluation
from mednovelty.report.panels import draw_panels, panel_choice, panels_figure, read_row
from mednovelty.report.planes import OUTLINE

SHAPE = (9, 11, 7)
RAS = np.array([[2.0, 0, 0, -8], [0, 3.0, 0, -15], [0, 0, 4.0, -12], [0, 0, 0, 1]])
SCORES = ("kl", "raw_T1w")
FAST = EvaluateSettings(resamples=20)


def phantom(number: int, lesion: bool = True) -> dict[str, np.ndarray]:
    """A brain two voxels from the borders; a lesion right, in front, most of it in slice 4."""
    rng = np.random.default_rng(number)
    brain, where = np.zeros((2, *SHAPE), np.uint8)
    brain[1:-1, 1:-1] = 1
    if lesion:
        where[6:8, 7:9, 4] = 1
        where[6, 8, 2] = 1
    images = {"brain": brain, "lesion": where, "background": rng.uniform(1, 2, SHAPE) + 5 * where}
    for score, strength in zip(SCORES, (3.0, 1.0), strict=True):
        images[score] = (rng.normal(size=SHAPE) + strength * where) * brain
    return {name: image.astype(np.float32) for name, image in images.items()}


def turned(image: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    start, end = (nib.orientations.axcodes2ornt(name) for name in ("RAS", codes))
    found = nib.Nifti1Image(image, RAS).as_reoriented(nib.orientations.ornt_transform(start, end))
    return np.asarray(found.dataobj), found.affine


def make(root, ids, codes="RAS", healthy=()):
    for number, id in enumerate(ids):
        images = {name: turned(image, codes) for name, image in phantom(number, id not in healthy).items()}
        folder = root / "out" / "/".join(id.split("_")) / "dwi"
        add_scan(root / "out", id, {score: images[score][0] for score in SCORES})
        for name, as_called in (("brain", "brain_mask"), ("background", "background")):
            write(folder / f"{id}_desc-{as_called}.nii.gz", *images[name])
        for score in SCORES:
            write(folder / f"{id}_desc-{score.replace('_', '')}_novelty.nii.gz", *images[score])
        write(root / "masks" / f"{id}_mask.nii.gz", *images["lesion"])
    return root / "out", root / "masks"


def rows_of(out, masks):
    return [read_row(files, masks / f"{id}_mask.nii.gz", SCORES) for id, files in find_maps(out)[0].items()]


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "SAL", "RPI"])
def test_the_outline_lies_around_the_lesion_on_the_side_that_is_said(tmp_path, codes):
    rows = rows_of(*make(tmp_path, ["sub-1"], codes))
    figure = panels_figure(rows, SCORES)
    background, kl, raw = figure.axes
    for axes in (background, kl, raw):
        (shown,) = axes.images
        height, width = shown.get_array().shape
        (contour,) = axes.collections
        corners = np.concatenate([path.vertices for path in contour.get_paths()])
        # RAS voxels 6..7 and 7..8 of 9 and 11, seen from below and from the front down.
        assert (height, width) == (11, 9)
        assert np.ptp(corners, axis=0) == pytest.approx([2, 2], abs=0.3)
        assert corners.min(axis=0) == pytest.approx([0.5, 1.5], abs=0.2)
    # The lesion is bright in the background: inside the outline, nowhere else.
    bright = np.argwhere(np.asarray(background.images[0].get_array()) > 4)
    assert bright.tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    expected = phantom(0)["kl"][6:8, 7:9, 4].T[::-1, ::-1]
    np.testing.assert_array_equal(np.asarray(kl.images[0].get_array())[2:4, 1:3], expected)
    assert background.get_title() == "sub-1, z +4 mm"
    assert [text.get_text() for text in background.texts] == ["R"]
    assert "the patient's right (R) is on the left" in figure.texts[0].get_text()


def test_pixels_of_the_file_show_the_lesion_right_and_in_front(tmp_path):
    out, masks = make(tmp_path, ["sub-1"], "LPS")
    path = draw_panels(out, masks, ["sub-1"], ["kl"], tmp_path / "new" / "panels.png")
    pixels = matplotlib.image.imread(path)[:, :, :3]
    outline = (np.abs(pixels - np.array(OUTLINE) / 255) < 0.1).all(axis=-1)
    first = outline[:, : pixels.shape[1] // 2]
    rows, columns = np.nonzero(first)
    assert rows.size > 50
    assert columns.max() < 0.5 * first.shape[1]
    assert rows.max() < 0.6 * first.shape[0]


def test_one_axes_for_each_background_and_score_and_ten_rows_at_most(tmp_path):
    ids = [f"sub-{number:02d}" for number in range(12)]
    out, masks = make(tmp_path, ids)
    rows = rows_of(out, masks)
    figure = panels_figure(rows[:3], SCORES)
    assert len(figure.axes) == 3 * 3
    for row, axes in zip(rows, (figure.axes[0:3], figure.axes[3:6], figure.axes[6:9]), strict=False):
        images = phantom(ids.index(row.id))
        inside = images["brain"] > 0
        for score, place in zip(SCORES, axes[1:], strict=True):
            values = images[score][inside]
            ap = average_precision_score(images["lesion"][inside] > 0, values)
            assert place.get_title() == f"{score}, AP {ap:.3f}"
            assert place.images[0].get_clim() == pytest.approx(np.percentile(values, [0.5, 99.5]))
            assert place.images[0].get_cmap().name == "viridis"
            shown = place.images[0].get_array()
            assert shown.mask[0].all()  # outside the brain
            assert not shown.mask[2:-2, 2:-2].any()
    ten = draw_panels(out, masks, ids[:10], SCORES, tmp_path / "ten.png")
    twelve = draw_panels(out, masks, ids, SCORES, tmp_path / "twelve.png")
    assert ten.read_bytes() == twelve.read_bytes()
    assert matplotlib.image.imread(ten)[:, :, :3].std() > 0.05


def test_a_score_without_a_map_has_an_empty_place(tmp_path):
    out, masks = make(tmp_path, ["sub-1"])
    (row,) = rows_of(out, masks)
    axes = panels_figure([row], [*SCORES, "other$"]).axes
    assert len(axes) == 4
    assert axes[3].get_title() == r"other\$: no map"
    assert not axes[3].images


def test_what_cannot_be_drawn_is_refused_by_name(tmp_path):
    out, masks = make(tmp_path, ["sub-1", "sub-2"], healthy=["sub-2"])
    with pytest.raises(SettingsError, match="panels: scan sub-9 has no maps; there are sub-1, sub-2"):
        draw_panels(out, masks, ["sub-9"], SCORES, tmp_path / "p.png")
    with pytest.raises(ScanError, match="sub-2: no lesion voxel in the brain mask"):
        draw_panels(out, masks, ["sub-2"], SCORES, tmp_path / "p.png")
    (masks / "sub-2_mask.nii.gz").unlink()
    with pytest.raises(SettingsError, match="scan sub-2 has no lesion mask"):
        draw_panels(out, masks, ["sub-2"], SCORES, tmp_path / "p.png")
    with pytest.raises(SettingsError, match="panels need a scan and a score, got 0 and 2"):
        draw_panels(out, masks, [], SCORES, tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()


def test_the_best_baseline_comes_first_then_the_best_scores_by_ap():
    ap = {"a": 0.1, "b": 0.4, "c": np.nan, "d": 0.3, "e": 0.2, "f": 0.15, "raw_x": 0.2, "raw_y": 0.5}
    means = {name: {"ap": number} for name, number in ap.items()}
    assert panel_choice(means, list("abcdef"), ["raw_x", "raw_y"]) == ["raw_y", "b", "d", "e", "f"]
    assert panel_choice(means, ["c", "a"], []) == ["a", "c"]


def test_an_evaluation_draws_the_first_scan_of_each_patient_with_a_lesion(tmp_path, monkeypatch):
    ids = ["sub-1_ses-1", "sub-1_ses-2", "sub-2", "sub-3"]
    out, masks = make(tmp_path, ids, healthy=["sub-2"])
    found = evaluate(out, masks, settings=FAST)
    drawn = []
    monkeypatch.setattr(
        "mednovelty.report.figures.panels_figure",
        lambda rows, scores: drawn.append(([row.id for row in rows], scores)) or panels_figure(rows, scores),
    )
    paths = draw_evaluation(found, tmp_path / "evaluation")
    assert paths[-1] == tmp_path / "evaluation" / "panels.png"
    assert paths[-1].is_file()
    assert drawn == [(["sub-1_ses-1", "sub-3"], ["raw_T1w", "kl"])]
    # An evaluation that draws none leaves none behind.
    draw_evaluation(dataclasses.replace(found, sources={}), tmp_path / "evaluation")
    assert not paths[-1].exists()


def test_a_map_that_could_not_be_evaluated_is_not_drawn(tmp_path):
    out, masks = make(tmp_path, ["sub-1", "sub-2"])
    damaged = next(out.rglob("sub-1_desc-kl_novelty.nii.gz"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    found = evaluate(out, masks, settings=FAST)
    assert "kl" not in found.scans["sub-1"]
    assert draw_evaluation(found, tmp_path / "evaluation")[-1].name == "panels.png"
