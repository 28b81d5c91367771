"""Pictures: the data that is drawn, on the side where it is said to be."""

import dataclasses
import subprocess
import sys
import warnings

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mednovelty.errors import GeometryError, OutputError, SettingsError
from mednovelty.evaluation import Curve, EvaluateSettings, Evaluation
from mednovelty.metrics import Ranking, auroc, roc_points
from mednovelty.report import figures
from mednovelty.report.figures import (
    RocLine,
    draw_evaluation,
    histogram_figure,
    mean_roc,
    plot_histograms,
    plot_map_mosaic,
    plot_roc,
)
from mednovelty.report.mosaic import MapLayers, MosaicSettings, build_mosaic, mosaic_figure

SHAPE = (9, 11, 7)


def turned(degrees: float, spacing=(2.0, 3.0, 4.0)) -> np.ndarray:
    """Return an affine of RAS axes turned about all three world axes, its origin in the middle."""
    rotation = np.eye(3)
    for axis in range(3):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(3)
        a, b = [other for other in range(3) if other != axis]
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


def in_order(codes: str, affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Return shape and affine of the same box of voxels stored in other axis order and handedness."""
    ornt = nib.orientations.axcodes2ornt(codes)
    image = nib.Nifti1Image(np.zeros(SHAPE, np.float32), affine).as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), ornt)
    )
    return image.shape, image.affine


def planted(shape, affine: np.ndarray, world_mm) -> MapLayers:
    """Return layers with one bright voxel, the one nearest to a world position."""
    voxel = tuple(np.rint(np.linalg.inv(affine) @ [*world_mm, 1])[:3].astype(int))
    score = np.zeros(shape, np.float32)
    score[voxel] = 9
    background = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    return MapLayers(background, score, np.ones(shape, bool), affine, score > 0)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "SAL", "RPI"])
@pytest.mark.parametrize("degrees", [0, 12])
@pytest.mark.parametrize("convention", ["radiological", "neurological"])
def test_a_planted_voxel_is_drawn_on_its_side(codes, degrees, convention):
    shape, affine = in_order(codes, turned(degrees))
    # In the patient's right, front, upper half, well away from every middle plane.
    layers = planted(shape, affine, turned(degrees)[:3, :3] @ [3, 4, 2])
    settings = MosaicSettings(n_slices=7, columns=3, convention=convention)
    figure = mosaic_figure(layers, settings)
    _, drawn = figure.axes[0].images
    sheet = np.asarray(drawn.get_array())
    assert sheet.shape == (3 * 11, 3 * 9)
    ((row, column),) = np.argwhere(sheet == 9)
    assert divmod(row // 11 * 3 + column // 9, 1)[0] == 5  # slice 3 is the middle one of 0..6
    assert row % 11 == 1  # anterior is up: 5 rows down to the middle, less 4
    assert column % 9 == (1 if convention == "radiological" else 7)
    told = figure.axes[0].get_title(loc="left")
    side = "right" if convention == "radiological" else "left"
    assert f"{convention}: the patient's {side} is on the left" in told
    assert ("tilted" in told) == (degrees > 0)
    letters = [text.get_text() for text in figure.axes[0].texts]
    assert letters[1] == ("R" if convention == "radiological" else "L")


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR"])
def test_the_pixels_of_the_file_show_the_voxel_on_its_side(codes, tmp_path):
    shape, affine = in_order(codes, turned(0))
    layers = planted(shape, affine, turned(0)[:3, :3] @ [3, 4, 0])
    flat = MapLayers(np.full(shape, 1.0), layers.score, layers.mask, affine)
    path = plot_map_mosaic(flat, tmp_path / "m.png", MosaicSettings(n_slices=1, columns=1))
    pixels = matplotlib.image.imread(path)[:, :, :3]
    # The hottest colour of the map, left of the colour bar and below the title.
    bright = to_rgb("#fcffa4")
    area = pixels[pixels.shape[0] // 10 :, : int(pixels.shape[1] * 0.85)]
    rows, columns = np.nonzero(np.abs(area - bright).max(axis=2) < 0.02)
    assert rows.size > 100
    assert columns.mean() < 0.35 * area.shape[1]  # the patient's right, radiological
    assert rows.mean() < 0.35 * area.shape[0]  # the front


def test_layers_of_the_mosaic_lie_on_each_other():
    shape, affine = in_order("PIR", turned(0))
    layers = planted(shape, affine, turned(0)[:3, :3] @ [-2, -3, 1])
    layers = MapLayers(layers.score * 2, layers.score, layers.score < 5, affine, layers.lesion)
    mosaic = build_mosaic(layers, MosaicSettings(n_slices=7, columns=4))
    at = mosaic.score == 9
    assert at.sum() == 1
    assert mosaic.background[at] == 18
    assert mosaic.lesion[at].all()
    assert not mosaic.mask[at]
    assert mosaic.spacing_mm == pytest.approx((3.0, 2.0))
    assert mosaic.heights_mm == pytest.approx([-12, -8, -4, 0, 4, 8, 12])
    # The eighth place of two rows of four is empty.
    assert np.isnan(mosaic.score[11:, 27:]).all()
    assert not mosaic.mask[11:, 27:].any()


def test_slices_spread_over_the_mask_and_include_the_one_with_most_lesion():
    mask = np.zeros((9, 11, 40), bool)
    mask[2:7, 3:8, 10:30] = True
    lesion = np.zeros_like(mask)
    lesion[3, 4, 12] = True
    lesion[3, 4:6, 13] = True
    score = np.zeros(mask.shape, np.float32)
    plain = build_mosaic(MapLayers(score, score, mask, np.eye(4)), MosaicSettings(n_slices=4))
    assert plain.heights_mm == (12, 17, 22, 27)
    with_lesion = build_mosaic(MapLayers(score, score, mask, np.eye(4), lesion), MosaicSettings(n_slices=4))
    assert with_lesion.heights_mm == (13, 17, 22, 27)
    # Cut to the mask with a margin of two voxels.
    assert plain.tile == (9, 9)


def test_low_scores_and_voxels_outside_the_mask_are_transparent():
    rng = np.random.default_rng(1)
    score = rng.uniform(0, 1, SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, bool)
    mask[2:, 2:-2] = True
    layers = MapLayers(score, score, mask, np.eye(4))
    figure = mosaic_figure(layers, MosaicSettings(n_slices=7, percentile=75))
    drawn = figure.axes[0].images[1]
    alpha, values = np.asarray(drawn.get_alpha()), np.asarray(drawn.get_array())
    limit = np.quantile(score[mask], 0.75)
    assert drawn.norm.vmin == pytest.approx(limit)
    inside = build_mosaic(layers, MosaicSettings(n_slices=7)).mask
    # The limit itself may fall on either side of a rounding.
    assert (alpha[inside & (values > limit + 1e-6)] >= 0.45).all()
    assert (alpha[~inside | ~(values > limit - 1e-6)] == 0).all()
    assert (alpha > 0).sum() == pytest.approx(0.25 * mask.sum(), abs=2)


def test_a_flat_map_and_infinite_scores_can_be_drawn(tmp_path):
    score = np.zeros(SHAPE, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_map_mosaic(MapLayers(score, score, np.ones(SHAPE, bool), np.eye(4)), tmp_path / "flat.png")
        score[1, 2, 3] = np.inf
        plot_map_mosaic(
            MapLayers(np.ones(SHAPE), score, np.ones(SHAPE, bool), np.eye(4)), tmp_path / "inf.png"
        )
    assert matplotlib.image.imread(tmp_path / "flat.png").std() > 0


def test_mosaic_inputs_are_checked():
    score = np.zeros(SHAPE, np.float32)
    with pytest.raises(
        GeometryError, match=r"mosaic: score \(9, 11, 6\) does not fit the background, \(9, 11, 7\)"
    ):
        MapLayers(score, score[:, :, 1:], np.ones(SHAPE, bool), np.eye(4))
    with pytest.raises(GeometryError, match=r"a mask that is not empty, got \(9, 11, 7\) and 0 voxels"):
        MapLayers(score, score, np.zeros(SHAPE, bool), np.eye(4))
    with pytest.raises(
        SettingsError, match="n_slices >= 1, columns >= 1 and 0 <= percentile < 100, got 0, 6"
    ):
        MosaicSettings(n_slices=0)
    with pytest.raises(SettingsError, match="radiological or neurological, got 'left'"):
        MosaicSettings(convention="left")


def curve_of(seed: int, shift: float, n: int = 4000) -> tuple[Curve, float]:
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.1
    ranking = Ranking.of(rng.normal(size=n) + shift * labels, labels)
    return Curve(*roc_points(ranking), ranking.lesion, ranking.healthy), auroc(ranking)


def test_the_area_under_the_mean_curve_is_the_mean_of_the_areas():
    (first, a), (second, b) = curve_of(1, 0.4), curve_of(2, 2.0)
    empty = (np.empty(0), np.empty(0))
    fpr, tpr = mean_roc([(first.fpr, first.tpr), empty, (second.fpr, second.tpr)])
    assert np.trapezoid(tpr, fpr) == pytest.approx((a + b) / 2, abs=2e-3)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert mean_roc([empty])[0].size == 0


def test_a_mean_curve_rises_straight_up_where_its_curves_do():
    perfect = (np.array([0, 0, 0, 1.0]), np.array([0, 0.5, 1, 1.0]))
    diagonal = (np.array([0, 1.0]), np.array([0, 1.0]))
    fpr, tpr = mean_roc([perfect, diagonal])
    np.testing.assert_allclose(tpr[1:], (1 + fpr[1:]) / 2)


def evaluation(names: dict[str, float], scans=("sub-1", "sub-2")) -> Evaluation:
    rows: dict = {id: {} for id in scans}
    curves: dict = {name: {} for name in names}
    for name, shift in names.items():
        for number, id in enumerate(scans):
            curve, area = curve_of(number + 10, shift)
            rows[id][name] = {"auroc": area, "ap": 0.5, "lesion_voxels": 400, "dice_fifth_threshold": 1.5}
            curves[name][id] = curve
    return Evaluation(rows, curves, EvaluateSettings(), {})


def test_an_evaluation_draws_one_picture_of_all_and_two_a_score(tmp_path):
    found = evaluation({"nln/../x$": 1.0, "raw_b0": 0.3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = draw_evaluation(found, tmp_path / "evaluation")
    assert [path.name for path in paths] == [
        "roc.png",
        "roc_nln----x-.png",
        "histogram_nln----x-.png",
        "roc_raw_b0.png",
        "histogram_raw_b0.png",
    ]
    assert all(path.parent == tmp_path / "evaluation" for path in paths)
    for path in paths:
        assert matplotlib.image.imread(path)[:, :, :3].std() > 0.05


def test_scores_without_curves_are_left_out(tmp_path):
    found = evaluation({"a": 1.0})
    nothing = Curve(np.empty(0), np.empty(0), np.empty(0), np.arange(3.0))
    rows = {"s": {"a": {"auroc": np.nan, "ap": np.nan, "lesion_voxels": 0}}}
    blank = Evaluation(rows, {"a": {"s": nothing}}, EvaluateSettings(), {})
    assert draw_evaluation(blank, tmp_path) == []
    found.curves["a"]["sub-2"] = nothing
    assert len(draw_evaluation(found, tmp_path)) == 3
    with pytest.raises(SettingsError, match="t: no scan has both lesion and other voxels"):
        plot_histograms({"s": nothing}, tmp_path / "h.png", "t")


def test_pictures_of_an_earlier_evaluation_are_removed_and_nothing_else(tmp_path):
    draw_evaluation(evaluation({"old": 1.0, "kept": 0.5}), tmp_path)
    others = ["roc.pdf", "my_roc.png", "roc_a b.png", "histogram.png", "evaluation.csv", "sub-01_old.png"]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / "roc_folder.png").mkdir()
    drawn = draw_evaluation(evaluation({"kept": 1.0}), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "roc_folder.png"} | {p.name for p in drawn}
    assert [path.name for path in drawn] == ["roc.png", "roc_kept.png", "histogram_kept.png"]
    blank = Evaluation({}, {}, EvaluateSettings(), {})
    assert draw_evaluation(blank, tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {*others, "roc_folder.png"}


@pytest.mark.parametrize("tail", [1, 3])
def test_histograms_draw_both_classes_in_their_colours(tmp_path, tail):
    rng = np.random.default_rng(2)
    healthy, lesion = (
        np.sort(np.exp(tail * rng.normal(size=3000))),
        np.sort(np.exp(tail * rng.normal(2, 1, 500))),
    )
    curve = Curve(np.empty(0), np.empty(0), lesion, healthy)
    pixels = matplotlib.image.imread(plot_histograms({"s": curve}, tmp_path / "h.png", "t", 3.0))[:, :, :3]
    where = {}
    for name, colour in {"lesion": "#d1495b", "healthy": "#30638e"}.items():
        # Above the legend, whose lines have the same colours.
        hits = np.nonzero(np.abs(pixels[: pixels.shape[0] * 3 // 4] - to_rgb(colour)).max(axis=2) < 0.03)
        assert hits[0].size > 200
        where[name] = np.median(hits[1])
    assert where["lesion"] > where["healthy"]


@pytest.mark.parametrize("long_tail", [False, True])
def test_each_class_has_area_one_and_each_scan_the_same_say(long_tail):
    rng = np.random.default_rng(7)
    few = np.sort(np.exp(3 * rng.normal(size=300)) if long_tail else rng.uniform(0, 3, 300))
    many = np.linspace(0.9, 1.1, 2000)
    curves = {"a": Curve(few, few, few, few), "b": Curve(few, few, many, many)}
    axes = histogram_figure(curves, "t", 0.9).axes[0]
    assert ("stretched" in axes.get_xlabel()) == long_tail
    line = axes.lines[0].get_xdata()[0]
    assert (line == pytest.approx(0.9)) != long_tail
    for number in (0, 2):  # the filled stairs of the healthy, then of the lesion
        values, edges, _ = axes.patches[number].get_data()
        mass = values * np.diff(edges)
        assert mass.sum() == pytest.approx(1, abs=0.01)
        assert mass[edges[1:] <= line].sum() == pytest.approx(np.mean(few < 0.9) / 2, abs=0.03)


def test_a_picture_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("here")
    line = RocLine("a", np.array([0, 1.0]), np.array([0, 1.0]))
    with pytest.raises(OutputError, match="cannot be made"):
        plot_roc([line], tmp_path / "file" / "roc.png", "t")
    assert plot_roc([line], tmp_path / "roc.png", "t").stat().st_size > 1000


def test_drawing_leaves_pyplot_alone_and_importing_needs_no_matplotlib(tmp_path):
    script = (
        "import sys, pathlib, numpy as np, mednovelty.report.figures as f\n"
        "assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules\n"
        "f.plot_roc([f.RocLine('a', np.array([0, 1.]), np.array([0, 1.]))], pathlib.Path(sys.argv[1]), 't')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "roc.png")], check=True)
    assert (tmp_path / "roc.png").exists()


def test_legends_name_auroc_and_ap_and_draw_what_sidecars_call_trivial_as_a_baseline(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "plot_roc", lambda lines, path, title: drawn.setdefault(path.name, lines))
    monkeypatch.setattr(figures, "plot_histograms", lambda *args: tmp_path)
    found = dataclasses.replace(evaluation({"bright": 1.0, "kl": 0.3}), trivial=frozenset({"bright"}))
    for row in found.scans.values():
        row["bright"]["ap"] = 0.75
    found = dataclasses.replace(found)
    draw_evaluation(found, tmp_path)
    areas = {score: found.mean[score]["auroc"] for score in ("bright", "kl")}
    told = {(line.label, line.kind) for line in drawn["roc.png"]}
    assert told == {
        (f"bright ({areas['bright']:.3f}, 0.750)", "baseline"), (f"kl ({areas['kl']:.3f}, 0.500)", "score"),
    }  # fmt: skip
    labels = [line.label for line in drawn["roc_bright.png"]]
    assert labels[0] == f"mean ({areas['bright']:.3f}, 0.750)"
    assert all(label.endswith(", 0.750)") for label in labels)
