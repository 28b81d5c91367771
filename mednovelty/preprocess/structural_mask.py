"""A brain mask for structural images where none is given.

A skull-stripped image has an exactly constant background: the mask is the rest. Any other image gets a
mask of the head, by Otsu's threshold. Where a bright rim lies around the brain with a dark gap between them,
a warning says that a skull is still there: scores are then mostly about scalp and skull. Asked for the brain,
``skull_strip.py`` looks for it in the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.preprocess.skull_strip import WORDS, strip_skull

MaskMaker = Literal["head", "brain"]

_NEAR = 0.05
"""Share of the signal's range within which a voxel counts as dark."""
_EXACT = 0.93
"""Share of dark voxels that have one and the same value in a skull-stripped image. Of 240 images of heads at
hand the highest is 0.85, of 8 that are skull-stripped the lowest 0.99."""
_BELOW_OTSU = 0.5
"""Otsu's threshold lies among tissues, since scalp fat is far brighter than any; air ends before half way."""

_MAD_TO_SIGMA, _ABOVE_NOISE = 1.4826, 3.0
_AIR_SHARE, _AIR_RIM = 0.25, 0.8
"""Share of a field of view, and of its outermost voxels, that is air where a constant surrounds it."""
_CT_AIR = (-1100.0, -900.0)
"""Hounsfield units."""

_SECTORS, _RINGS, _RING_MM, _DEEP_MM = 16, 12, 2.0, 20.0
_GAP_WITHIN_MM = 16.0
_GAP = 1.5
"""How much brighter than the gap both the rim and the brain are."""
_SKULL_SHARE = 0.27
"""Share of sectors with a gap from which on there is a skull. At hand it is 0.01 to 0.25 for skull-stripped
images (the most where the brain has shrunk), 0.29 to 0.85 for FLAIR and T1 of whole heads, from 0.19 for T1
with contrast agent: a dividing line, but no wide one. Images that are not stripped get a warning anyway."""
_WHOLE = 0.9
_SLICES = 12


def structural_brain_mask(
    volume: np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    name: str = "image",
    maker: MaskMaker = "head",
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Return a mask, how it was made, and warnings.

    Args:
        volume: ``(I, J, K)``; what is not finite counts as background.
        spacing_mm: ``(3,)`` distance of voxels.
        name: What messages call the image.
        maker: ``brain``: where a skull is, the mask is what ``strip_skull`` finds below it.

    Returns:
        ``(I, J, K)`` bool; words for ``Scan.mask_source``; warnings, at most one of them about a skull.

    Raises:
        ScanError: The image is constant, or no brain is found in the head.
    """
    volume = _finite(volume)
    background = _background(volume)
    foreground = volume[volume != background]
    if not foreground.size:
        raise ScanError(
            f"{name}: every voxel is {background:g}; there is no brain in it", code="mask.none_found"
        )
    top = float(np.percentile(foreground, 98))
    dark = np.abs(volume - background) <= _NEAR * abs(top - background)
    warnings: tuple[str, ...] = ()
    stripped = int(np.count_nonzero(volume == background)) >= max(1, _EXACT * np.count_nonzero(dark))
    if stripped and (air := _air_within(volume, background, top)) is not None:
        # The constant is what the scanner put around its field of view; what surrounds the head is air.
        volume, stripped = np.where(volume == background, np.float32(air), volume), False
    if stripped:
        zero, mask = background, volume != background
        words = (
            f"every voxel that is not {background:g}, the constant background; largest island, holes filled"
        )
    else:
        zero, threshold = _levels(volume, top)
        mask = volume > threshold
        words = (
            f"signal above {threshold:.4g}, half way from air to Otsu's threshold; largest island, "
            "holes filled"
        )
    # Dark is what is near air, wherever that lies: at -1000 in CT.
    volume = volume - np.float32(zero)
    above, mask = mask, _filled(_largest_island(mask))
    if mask.mean() > _WHOLE:
        warnings += (
            f"{name}: the mask made of it is {mask.mean():.0%} of the image: nothing was recognised as "
            "outside; give brain masks",
        )
    share = skull_share(volume, mask, spacing_mm)
    if maker == "brain" and _CT_AIR[0] <= zero <= _CT_AIR[1]:
        warnings += (
            f"{name}: air is at {zero:.0f}, as in CT, where bone is bright: the brain is not looked for, the "
            "mask is that of the head, and scores will be about skull too; give --brain-masks",
        )
    elif maker == "brain" and (not stripped or share >= _SKULL_SHARE):
        # Filled first: where bone is as dark as air, the brain may be a larger island than the scalp.
        head = _filled(_largest_island(_filled(above)))
        mask, words = strip_skull(volume, head, spacing_mm, name), WORDS
        share = skull_share(volume, mask, spacing_mm)
        if share >= _SKULL_SHARE:
            warnings += (
                f"{name}: the mask made of it seems to have some skull still (a bright rim with a dark gap "
                f"below it in {share:.0%} of directions); give --brain-masks",
            )
    elif not stripped or share >= _SKULL_SHARE:
        what = "seems to have its skull still" if stripped else "is not skull-stripped"
        warnings += (
            f"{name}: the image {what} (a bright rim with a dark gap below it in {share:.0%} of directions): "
            "the mask made of it is that of the head, and scores will be about scalp and skull too; strip "
            "it, give --brain-masks, or try --mask-maker brain",
        )
    return np.asfortranarray(mask), words, warnings


def _air_within(volume: np.ndarray, background: float, top: float) -> float | None:
    """Return the level of air where a constant surrounds a field of view with air in it; else None."""
    from scipy.ndimage import binary_erosion

    inside = volume != background
    values = volume[inside]
    low = float(np.percentile(values, 1))
    limit = low + _NEAR * (top - low)
    rim = inside & ~binary_erosion(inside, border_value=1)
    if not rim.any() or np.mean(values <= limit) < _AIR_SHARE or np.mean(volume[rim] <= limit) < _AIR_RIM:
        return None
    return float(np.median(values[values <= limit]))


def _levels(volume: np.ndarray, top: float) -> tuple[float, float]:
    """Return the level of air, and the threshold above which there is a head."""
    from skimage.filters import threshold_otsu

    otsu = float(threshold_otsu(np.minimum(volume, top)))
    # Where nothing lies between both classes, Otsu's threshold is the end of the dark one.
    dark = volume[volume <= otsu]
    air = float(np.median(dark))
    noise = _MAD_TO_SIGMA * float(np.median(np.abs(dark - air)))
    return air, air + max(_BELOW_OTSU * (otsu - air), _ABOVE_NOISE * noise)


def skull_share(volume: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float] | np.ndarray) -> float:
    """Return in which share of directions a dark gap divides a bright rim from what lies deeper.

    Up to a dozen slices along K are looked at, each in sixteen sectors around its middle: the mean signal
    in rings of 2 mm below the mask's outline rises, falls to two thirds of that and of the deep signal, or
    lower, within 16 mm.

    Args:
        volume: ``(I, J, K)`` finite.
        mask: ``(I, J, K)`` bool, of the head or the brain.
        spacing_mm: ``(3,)`` distance of voxels.
    """
    area = mask.sum((0, 1))
    slices = np.flatnonzero(area > area.max() / 2)
    slices = slices[:: max(1, len(slices) // _SLICES)]
    gaps = [_gaps(volume[..., k], mask[..., k], spacing_mm) for k in slices]
    found = np.concatenate(gaps) if gaps else np.zeros(0)
    return float((found > _GAP).mean()) if found.size else 0.0


def _gaps(plane: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return, for each sector of a slice with most of its rings, how far the gap is below rim and brain."""
    from scipy.ndimage import distance_transform_edt

    step_i, step_j = float(spacing_mm[0]), float(spacing_mm[1])
    depth_mm = distance_transform_edt(np.pad(mask, 1), sampling=(step_i, step_j))[1:-1, 1:-1]
    deep = mask & (depth_mm > _DEEP_MM)
    if not deep.any():
        return np.zeros(0)
    i, j = np.nonzero(mask & (depth_mm < _RINGS * _RING_MM))
    middle = [c.mean() for c in np.nonzero(mask)]
    angle = np.arctan2((j - middle[1]) * step_j, (i - middle[0]) * step_i) / (2 * np.pi) + 0.5
    ring = (depth_mm[i, j] / _RING_MM).astype(int)
    cell = (angle * _SECTORS).astype(int) % _SECTORS * _RINGS + ring
    count = np.bincount(cell, minlength=_SECTORS * _RINGS)
    mean = np.bincount(cell, plane[i, j], minlength=_SECTORS * _RINGS) / np.maximum(count, 1)
    count, mean = count.reshape(_SECTORS, _RINGS), mean.reshape(_SECTORS, _RINGS)
    # Rings finer than voxels are empty here and there: they are neither rim nor gap.
    usable, present = (count > 0).mean(1) >= 0.5, count > 0
    # The brightest ring above each; never brighter than the brain, lest fat over normal brain count as a gap.
    rim = np.maximum.accumulate(np.where(present, mean, -np.inf), 1)[:, :-1]
    floor = np.maximum(np.where(present, mean, np.inf)[:, 1:], 1e-3 * abs(float(plane.max())) + 1e-30)
    ratio = np.where(np.isfinite(rim), np.minimum(rim, np.median(plane[deep])), 0) / floor
    return ratio[usable, : int(_GAP_WITHIN_MM / _RING_MM)].max(1)


def _finite(volume: np.ndarray) -> np.ndarray:
    volume = np.asarray(volume, np.float32)
    bad = ~np.isfinite(volume)
    if bad.any():
        volume = np.where(bad, _background(np.where(bad, 0, volume)), volume)
    return volume


def _background(volume: np.ndarray) -> float:
    """Return the commonest value at the faces across I and J; those across K may cut through the head."""
    faces = np.concatenate([volume[[0, -1]].ravel(), volume[:, [0, -1]].ravel()])
    values, count = np.unique(faces, return_counts=True)
    return float(values[count.argmax()])


def _largest_island(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import label

    islands, count = label(mask)
    return islands == 1 + np.argmax(np.bincount(islands.ravel())[1:]) if count > 1 else mask


def _filled(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    mask = binary_fill_holes(mask)
    # Slice by slice too: what the outermost slices cut open is no hole in 3-D.
    return np.stack([binary_fill_holes(mask[..., k]) for k in range(mask.shape[2])], axis=-1)
