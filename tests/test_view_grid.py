"""The viewer shows each place where it is: peaks, sides and voxels, whatever the scan's axes."""

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scored_folders import AFFINES, SHAPE, ball

from mednovelty.errors import MedNoveltyError
from mednovelty.report import viewer as viewing
from mednovelty.report.view_grid import ViewGrid
from mednovelty.report.viewer import ViewedScore, build_viewer, sprite

PEAK = (11, 6, 8)


def png(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))))


def slices_of(facts, mm):
    """Return the viewer's slices at a place, as its script finds them."""
    at = np.rint((np.array(mm) - facts["origin_mm"]) / facts["size_mm"]).astype(int)
    return np.array([facts["shape"][0] - 1 - at[0], at[1], at[2]])


def level_at(sheet, facts, slices):
    """Return what stands at a voxel of a sprite, by the layout that brainsprite reads."""
    _, ny, nz = facts["shape"]
    columns = sheet.shape[1] // ny
    row, column = divmod(int(slices[0]), columns)
    return sheet[row * nz + nz - 1 - slices[2], column * ny + slices[1]]


def made(affine, most=None):
    mask = ball()
    values = np.random.default_rng(1).uniform(0, 1, SHAPE).astype(np.float32)
    values[PEAK] = 7.0
    background = np.random.default_rng(2).uniform(100, 110, SHAPE).astype(np.float32)
    mm = (affine @ [*PEAK, 1.0])[:3]
    with pytest.MonkeyPatch.context() as patch:
        if most:
            patch.setattr(viewing, "MOST_VOXELS", most)
        return (
            build_viewer(background, mask, affine, [ViewedScore("a", "a", "u", values, 0.9)], mm),
            mm,
            values,
        )


@pytest.mark.parametrize("name", AFFINES)
def test_the_place_of_a_peak_shows_the_peak(name):
    viewer, mm, _ = made(AFFINES[name])
    sheet = png(viewer.facts["scores"][0]["levels"])
    assert level_at(sheet, viewer.facts, slices_of(viewer.facts, mm)) == 255
    assert np.count_nonzero(sheet == 255) >= 1
    assert sheet.max() == 255


@pytest.mark.parametrize("name", AFFINES)
def test_a_coarse_grid_keeps_the_peak(name):
    viewer, mm, _ = made(AFFINES[name], most=900)
    assert np.prod(viewer.grid.shape) <= 900
    sheet = png(viewer.facts["scores"][0]["levels"])
    assert level_at(sheet, viewer.facts, slices_of(viewer.facts, mm)) == 255


@pytest.mark.parametrize("name", ["RAS", "LAS"])
def test_along_the_axes_each_voxel_is_shown_as_it_is(name):
    affine, mask = AFFINES[name], ball()
    viewer, _, values = made(affine)
    facts = viewer.facts["scores"][0]
    sheet = png(facts["levels"])
    for voxel in np.argwhere(mask)[::37]:
        level = int(level_at(sheet, viewer.facts, slices_of(viewer.facts, (affine @ [*voxel, 1.0])[:3])))
        value = values[tuple(voxel)]
        step = (facts["high"] - facts["low"]) / 254
        assert level == 0 if value < facts["low"] else abs(facts["low"] + (level - 1) * step - value) <= step


@pytest.mark.parametrize("name", AFFINES)
def test_background_and_overlay_lie_on_each_other(name):
    # nilearn lays the background out; a bright voxel must be where our overlay has the peak.
    affine, mask = AFFINES[name], ball()
    background = np.full(SHAPE, 100, np.float32)
    around = tuple(slice(n - 1, n + 2) for n in PEAK)
    background[around] = 500.0
    values = np.zeros(SHAPE, np.float32)
    values[PEAK] = 1.0
    mm = (affine @ [*PEAK, 1.0])[:3]
    viewer = build_viewer(background, mask, affine, [ViewedScore("a", "a", "u", values, 0.5)], mm)
    found = re.search(r'id="spriteImg[^"]*"[^>]*src="(data:[^"]+)"', str(viewer.html))
    sheet = png(found[1])
    sheet = sheet if sheet.ndim == 2 else sheet[..., 0]
    ours = png(viewer.facts["scores"][0]["levels"])
    assert sheet.shape == ours.shape
    slices = slices_of(viewer.facts, mm)
    assert level_at(sheet, viewer.facts, slices) == sheet.max()
    assert (sheet == sheet.max()).mean() < 0.05


def test_right_is_on_the_left():
    # The first sagittal slice of the sprite is the one furthest to the right.
    volume = np.zeros((3, 4, 5), np.uint8)
    volume[2, 1, 4] = 9
    sheet = sprite(volume)
    assert sheet.shape == (10, 8)
    assert sheet[0, 1] == 9  # row 0 of a slice is its top, z = 4


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 7))
def test_a_sprite_holds_every_voxel_once(x, y, z):
    volume = np.arange(1, x * y * z + 1).reshape(x, y, z)
    found = np.sort(sprite(volume).ravel())
    assert found[found > 0].tolist() == list(range(1, x * y * z + 1))


def test_the_grid_of_an_oblique_scan_reaches_all_of_its_mask():
    grid = ViewGrid.over(ball(), AFFINES["oblique"])
    assert grid.inside.min() >= 0
    assert grid.inside.max() < np.prod(grid.shape)
    shown = grid.scores(np.ones(SHAPE, np.float32))
    # One cube for a voxel at least: the scan's spacing is 1.8 x 2.2 x 3 mm, the grid's 1.8.
    assert np.isfinite(shown).sum() > ball().sum()


def test_nothing_of_nilearns_page_leads_elsewhere():
    viewer, _, _ = made(AFFINES["RAS"])
    assert "://" not in re.sub(r"<script.*?</script>", "", str(viewer.html), flags=re.DOTALL)
    assert "favicon" not in str(viewer.html)
    assert "jQuery" not in str(viewer.html)
    assert str(viewer.html) == str(made(AFFINES["RAS"])[0].html)  # nothing drawn at random is left


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<p>another viewer</p>", "builds its viewer in a way that is not known here"),
        (
            '<script>brain = brainsprite({})</script><img src="https://x.org/a.png">',
            "refers to another place",
        ),
        ("<script>brain = brainsprite({})</script><link href=//x.org/i>", "refers to another place"),
    ],
)
def test_a_viewer_that_is_built_otherwise_is_refused(body, said):
    with pytest.raises(MedNoveltyError, match=said):
        viewing._without_the_rest(f"<html><body>{body}</body></html>")


def test_a_large_scan_fits_a_page(monkeypatch):
    monkeypatch.setattr(viewing, "LARGEST_BYTES", 60_000)
    scores = [
        ViewedScore(str(n), str(n), "", np.random.default_rng(n).random((40, 44, 36)), 0.9) for n in range(4)
    ]
    viewer = build_viewer(np.ones((40, 44, 36)), ball((40, 44, 36)), AFFINES["RAS"], scores, (0, 0, 0))
    assert viewer.size_mm > 2.0
    assert sum(len(score["levels"]) for score in viewer.facts["scores"]) < 60_000
