"""Mosaics of pages: what is right, in front and above in the body is so in pictures of any scan."""

import io

import numpy as np
import pytest
from PIL import Image
from scored_folders import AFFINES, SHAPE, ball

from mednovelty.report.planes import COLUMNS, STRIP_PIXELS, TILE_PIXELS, Canvas, Overlay, Sheet, Upright

PEAK = (4, 15, 9)


def shown_peak(affine, outlined=False):
    """Return of one slice a plane through ``PEAK``: where it is drawn, as shares of width and height."""
    peak = np.zeros(SHAPE, bool)
    peak[PEAK] = True
    turned = Upright.of(affine, np.full(SHAPE, 100.0), ball(), peak)
    background, mask, found = turned.volumes
    mm = (affine @ [*PEAK, 1.0])[:3]
    i, j, k = turned.index_of(mm)
    assert found[i, j, k]
    sheet = Sheet(((k,), (j,), (i,)), tuple((0, size) for size in mask.shape))
    canvas = Canvas(background, turned.affine, sheet, (0.0, 200.0))
    overlay = None if outlined else Overlay(np.ones(mask.shape), found, (0.0, 1.0))
    picture = np.array(
        Image.open(io.BytesIO(canvas.png(overlay, found if outlined else None))).convert("RGB")
    )
    spacing, size = turned.spacing_mm, np.array(mask.shape)
    width = canvas.tile
    pixel_mm = size[0] * spacing[0] / width
    places, top = [], 0
    for across, up in ((0, 1), (0, 2), (1, 2)):
        high, wide = (round(size[axis] * spacing[axis] / pixel_mm) for axis in (up, across))
        tile = picture[top : top + high, :wide].astype(int)
        rows, columns = np.nonzero(tile.max(-1) - tile.min(-1) > 60)
        places.append(((columns.mean() + 0.5) / wide, (rows.mean() + 0.5) / high))
        top += high + STRIP_PIXELS
    assert top == len(picture)
    shares = (np.array([i, j, k]) + 0.5) / size
    return places, shares


@pytest.mark.parametrize("outlined", [False, True])
@pytest.mark.parametrize("name", AFFINES)
def test_right_is_left_and_front_and_top_are_where_they_are_said_to_be(name, outlined):
    places, (right, front, top) = shown_peak(AFFINES[name], outlined)
    expected = [(1 - right, 1 - front), (1 - right, 1 - top), (1 - front, 1 - top)]
    np.testing.assert_allclose(places, expected, atol=0.012)


def test_what_is_said_of_slices_lies_below_them_on_black():
    tissue = np.full(SHAPE, 200.0)
    turned = Upright.of(AFFINES["LAS"], tissue, ball())
    sheet = Sheet.of(turned.volumes[1])
    png = Canvas(turned.volumes[0], turned.affine, sheet, (0.0, 200.0)).png()
    picture = np.array(Image.open(io.BytesIO(png)).convert("L"))
    spacing = turned.spacing_mm
    pixel_mm = np.diff(sheet.box[0])[0] * spacing[0] / TILE_PIXELS
    top = 0
    for up, width in (
        (1, TILE_PIXELS),
        (2, TILE_PIXELS),
        (2, np.diff(sheet.box[1])[0] * spacing[1] / pixel_mm),
    ):
        high = round(np.diff(sheet.box[up])[0] * spacing[up] / pixel_mm)
        width = round(width)
        for n in range(COLUMNS):
            tile = picture[top : top + high, n * width : (n + 1) * width]
            strip = picture[top + high : top + high + STRIP_PIXELS, n * width : (n + 1) * width]
            assert tile.min() > 245  # the tissue alone, all over
            letters = np.flatnonzero((strip > 200).any(0))
            assert strip[0].max() == strip[-1].max() == 0
            # The letter of the edge on the left, the place in the middle, and room between.
            assert letters.min() < 8
            assert abs((letters[letters > 20].min() + letters.max()) / 2 - width / 2) <= 3
        top += high + STRIP_PIXELS
    assert top == len(picture)


def test_upright_turns_a_scan_towards_right_front_and_top():
    affine = np.array([[0, 0, -3.0, 40], [2.0, 0, 0, -20], [0, -2.5, 0, 30], [0, 0, 0, 1]])
    volume = np.arange(4 * 5 * 6, dtype=float).reshape(4, 5, 6)
    turned = Upright.of(affine, volume)
    assert (np.diag(turned.affine)[:3] > 0).all()
    for at in np.ndindex(4, 5, 6):
        assert turned.volumes[0][tuple(turned.index_of((affine @ [*at, 1])[:3]))] == volume[at]


def test_slices_are_chosen_within_the_mask_and_through_what_is_asked_for():
    mask = np.zeros((20, 30, 40), bool)
    mask[5:15, 5:25, 5:35] = True
    sheet = Sheet.of(mask, [np.array([6, 8, 33])], columns=5)
    axial, coronal, sagittal = sheet.chosen
    assert 33 in axial
    assert 8 in coronal
    assert 6 in sagittal
    assert all(len(chosen) == 5 for chosen in sheet.chosen)
    assert 5 <= min(axial) <= max(axial) < 35
    assert sheet.box == ((3, 17), (3, 27), (3, 37))
