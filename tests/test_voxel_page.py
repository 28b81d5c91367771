"""The page of a voxel: every picture marks the voxel where it is, however the file is stored."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import tiny_cohort, tiny_detector
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from small_images import detector_of, scan_of

from mednovelty.calibrate.null import Null
from mednovelty.explaining.null_curve import NullCurve
from mednovelty.explaining.places import Standing
from mednovelty.explaining.told import lines_of
from mednovelty.explaining.voxel import explain_voxel
from mednovelty.explaining.voxel_parts import Driver, Group, Scored, ScoreWhy
from mednovelty.io.read_scan import read_scan
from mednovelty.report.cuts import Slices, cuts_through, draw_cut
from mednovelty.report.relevance import on_disc
from mednovelty.report.voxel import draw_voxel, shares_of, voxel_figure
from mednovelty.report.voxel_samples import place_in, plane
from mednovelty.report.voxel_signal import falls_of, order_of
from mednovelty.report.voxel_standing import draw_standing, edges_of

AFFINES = {
    "LAS": np.diag([-2.0, 1.5, 3, 1]),
    "RPI": np.array([[2.0, 0, 0, -9], [0, -1.5, 0, 20], [0, 0, -3, 7], [0, 0, 0, 1]]),
    "turned": np.array([[0, 0, -3.0, 9], [2, 0, 0, -4], [0, 1.5, 0, 2], [0, 0, 0, 1]]),
}
SHAPE = (8, 11, 6)


def slices_of(affine, at=None):
    """Greys grow to the right by 1, to the front by 100 and up by 10,000 a millimetre."""
    places = np.indices(SHAPE).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    background = (places @ [1.0, 100, 10_000]).reshape(SHAPE)
    score = np.zeros(SHAPE)
    if at is not None:
        score[at] = 5
    return Slices(background, score, np.ones(SHAPE, bool), affine, "s")


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_three_slices_cross_in_the_voxel(affine):
    at = (2, 7, 1)
    slices = slices_of(affine, at)
    mm = tuple((affine @ [*at, 1])[:3])
    cuts = cuts_through(slices, mm)
    assert [cut.plane for cut in cuts] == ["axial", "coronal", "sagittal"]
    for cut in cuts:
        assert np.argwhere(cut.score == 5).tolist() == [list(cut.cross)]
        assert cut.background[cut.cross] == pytest.approx(slices.background[at])
    assert [cut.at_mm for cut in cuts] == pytest.approx([mm[2], mm[1], mm[0]])


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_right_is_on_the_left_and_the_front_or_the_top_above(affine):
    axial, coronal, sagittal = cuts_through(slices_of(affine), tuple((affine @ [2, 7, 1, 1])[:3]))
    # From left to right greys fall as x does, in a sagittal slice as y does; downwards as y or z does.
    for cut, across, down in ((axial, 1, 100), (coronal, 1, 10_000), (sagittal, 100, 10_000)):
        steps = np.diff(cut.background, axis=1) / across, np.diff(cut.background, axis=0) / down
        widths = [float(-np.unique(step.round(6))[0]) for step in steps]
        assert all(np.ptp(step) < 1e-6 for step in steps)
        assert all(width in (2.0, 1.5, 3.0) for width in widths)
        assert cut.aspect == pytest.approx(widths[1] / widths[0])


def test_the_colours_of_a_slice_are_told_apart_in_any_kind_of_sight():
    at = (4, 5, 3)
    cut = cuts_through(slices_of(AFFINES["LAS"], at), tuple((AFFINES["LAS"] @ [*at, 1])[:3]))[0]
    axes = Figure().subplots()
    shown = draw_cut(axes, cut, (0, 1), (0, 5))
    # The higher, the lighter, throughout: so it is told without any hue.
    luminance = shown.cmap(np.linspace(0, 1, 100))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()
    assert luminance[-1] > 0.9 > 3 * luminance[0]
    assert len(axes.lines) == 4
    for line in axes.lines:
        assert to_rgb(line.get_color()) == (1, 1, 1)
        edge = line.get_path_effects()[0]._gc
        assert to_rgb(edge["foreground"]) == (0, 0, 0)
        assert edge["linewidth"] > line.get_linewidth()


@pytest.mark.parametrize("space", [(5, 7), (5, 7, 4)])
def test_the_square_is_on_the_pixel(space):
    pixel = (1, 4, 2)[: len(space)]
    values = np.zeros(space)
    values[pixel] = 1
    shown = plane(values, pixel)
    column, row = place_in(space, pixel)
    assert np.argwhere(shown).tolist() == [[row, column]]
    # The first axis runs to the right, which is shown on the left; the second to the front, shown above.
    assert (row, column) == (7 - 1 - 4, 5 - 1 - 1)


@pytest.fixture(scope="module")
def voxel():
    detector, _ = tiny_detector()
    scan = read_scan(tiny_cohort().patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz")
    maps = {name: found.data for name, found in detector.score(scan).items()}
    why = explain_voxel(detector, scan, (6, 12, 5), Scored(maps))
    return why, Slices(scan.background, maps["nearest_normal"], scan.mask, scan.grid.affine, "nearest_normal")


def texts(figure):
    import matplotlib.table
    import matplotlib.text

    cells = [cell.get_text() for cell in figure.findobj(matplotlib.table.Cell)]
    return "\n".join(text.get_text() for text in [*figure.findobj(matplotlib.text.Text), *cells])


def test_a_page_of_a_diffusion_voxel(voxel, tmp_path):
    why, slices = voxel
    figure = voxel_figure(why, slices)
    shown = texts(figure)
    for normal in why.nearest.normals:
        assert normal.scan in shown
        assert ", ".join(f"{value:.0f}" for value in normal.mm) in shown
    for words in ("b=1200", "this voxel", "nearest normals", "what the model reconstructs", "all together"):
        assert words in shown
    assert f"z {why.mm[2]:+.0f} mm" in shown
    path = draw_voxel(why, slices, tmp_path / "page.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_directions_are_ordered_by_the_normals(voxel):
    why, _ = voxel
    order = order_of(why, why.groups[1])
    assert sorted(order) == sorted(why.groups[1].channels)
    assert (np.diff(why.normals.mean(0)[order]) >= 0).all()
    alone = order_of(replace(why, normals=why.normals[:0]), why.groups[1])
    assert (np.diff(why.signal[alone]) >= 0).all()


def test_discs_have_the_right_on_the_left_as_slices_do(voxel):
    why, slices = voxel
    figure = voxel_figure(why, slices)
    disc = next(
        axes for axes in figure.findobj() if getattr(axes, "get_title", str)() == "b=1200\nthis voxel"
    )
    channels = list(why.groups[1].channels)
    dots = disc.collections[0]
    np.testing.assert_allclose(dots.get_offsets(), on_disc(why.diffusion.directions[channels]))
    np.testing.assert_allclose(dots.get_array(), why.signal[channels])
    left = {text.get_text(): disc.transData.transform(text.get_position())[0] for text in disc.texts}
    assert left["R"] < left["A"] < left["L"]
    right = int(np.argmax(dots.get_offsets()[:, 0]))
    assert disc.transData.transform(dots.get_offsets()[right])[0] < left["A"]


def test_a_page_of_an_image(tmp_path):
    detector, scan = detector_of("patches"), scan_of(7)
    maps = {name: found.data for name, found in detector.score(scan, ["rec_error"]).items()}
    why = explain_voxel(detector, scan, (8, 12, 6), Scored(maps))
    slices = Slices(scan.background, maps["rec_error"], scan.mask, scan.grid.affine, "rec_error")
    shown = texts(voxel_figure(why, slices))
    for words in (
        "FLAIR, as the detector sees it",
        "T1w, as",
        "what the model makes of it",
        "gradient of rec_error",
    ):
        assert words in shown
    # Nothing is said of normals twice, and no panel is empty.
    assert "nearest normals" not in shown
    assert "nearly flat" not in " ".join(lines_of(replace(why, reconstruction=0.5 * why.signal)))
    flat = replace(why, reconstruction=0.1 * why.signal)
    assert "(nearly flat)" in texts(voxel_figure(flat, slices))
    assert "The model draws FLAIR nearly flat (it varies 10 % as much" in " ".join(lines_of(flat))


def test_the_null_is_drawn_beside_the_scan(voxel):
    from matplotlib.figure import Figure

    why, slices = voxel
    null = NullCurve.of(Null.of(np.linspace(0, 3 * slices.score.max(), 5000)))
    score = replace(why.scores[0], value=float(slices.score.max()), p_value=0.67, null=null)
    axes = Figure().subplots()
    draw_standing(axes, score, slices)
    whole, part = (patch for patch in axes.patches if isinstance(patch, StepPatch))
    edges = edges_of(slices.score[slices.mask], score)
    # As many as the scan has voxels, of those that the axis shows: it ends at twice the scan's range.
    shown = float(null.share(edges[0]) - null.share(edges[-1]))
    assert whole.get_data().values.sum() == pytest.approx(shown * slices.mask.sum())
    assert part.get_data().edges[0] <= score.value <= part.get_data().edges[1]
    assert "5,000 voxels" in axes.get_legend().get_texts()[1].get_text()


def test_measurements_that_drive_a_score_are_bars_and_large_dots(voxel):
    why, slices = voxel
    name, falls = falls_of(why)
    assert name == why.scores[0].score
    figure = voxel_figure(why, slices)
    assert f"what drives {name}: its fall when only this measurement" in texts(figure)
    title = f"b=1200\ndifference; large: drives {name}"
    disc = next(axes for axes in figure.findobj() if getattr(axes, "get_title", str)() == title)
    own = falls[list(why.groups[1].channels)]
    sizes = disc.collections[0].get_sizes()
    assert sizes[own.argmax()] == sizes.max() > sizes[own.argmin()]


def test_shares_of_scores_by_hand():
    drivers = (Driver("b=0", 3.0), Driver("b=1000", 5.0), Driver("b=2000", 0.0))
    told = ScoreWhy("s", 4.0, Standing(1, 9, "voxels"), own=4.0, as_normal=-4.0, drivers=drivers)
    assert shares_of(told) == [0.125, -0.125, 0.5]
    assert np.isnan(shares_of(replace(told, as_normal=4.5))).all()


def test_names_from_outside_are_shown_word_for_word(voxel):
    why, slices = voxel
    near = replace(why.nearest, normals=tuple(replace(n, scan="sub-$x$") for n in why.nearest.normals))
    named = replace(why, nearest=near, groups=(Group("b=$0$", (0,)), *why.groups[1:]))
    figure = voxel_figure(named, slices)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    assert r"sub-\$x\$" in texts(figure)
