"""The brain below the skull: a simple mask, by a watershed between what lies deep in the head and its rim.

After Hahn and Peitgen 2000 (MICCAI, LNCS 1935, 134-143), who flood the inverted image: bone is dark between
scalp and brain on FLAIR and T1, so that the floods from both sides meet in it. The seed is what lies deep in
the head's convex outline, slice by slice, with about the brain's signal or more; what is darker than tissue
goes; an opening cuts bridges, a closing takes sulci and the dark rims of lesions back in.

It is simple. Around the cerebrum it follows the skull to a few millimetres; at the skull's base and below it
keeps parts of face and neck, and in topmost slices, which cut the skull flat, some skull. Where outlines
matter, give masks made by a tool for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.preprocess.brain_mask import block_means, enlarge

WORDS = "brain below the skull by a watershed from deep in the head; simple: face and neck stay in low slices"

_BLOCK_MM = 2.0
_HEAD_MM = 70.0
"""Radius of the head that the lengths below are of: they grow with it, since spacings may be nominal."""
_SMOOTH_MM, _SCALP_MM, _SEED_MM, _DEEP_MM = 1.5, 4.0, 16.0, 30.0
_OPEN_MM, _CLOSE_MM = 5.0, 10.0
_SEED_SIGNAL = (0.7, 2.5)
"""Of the brain's median; up to bright lesions, without most fat."""
_LOWEST_SIGNAL = 0.4
_FEWEST_DEEP = 50


def strip_skull(
    volume: np.ndarray, head: np.ndarray, spacing_mm: Sequence[float] | np.ndarray, name: str = "image"
) -> np.ndarray:
    """Return the brain of a head.

    Args:
        volume: ``(I, J, K)`` finite; FLAIR, T1 or another contrast with dark bone.
        head: ``(I, J, K)`` bool, scalp and all.
        spacing_mm: ``(3,)`` distance of voxels.
        name: What messages call the image.

    Returns:
        ``(I, J, K)`` bool, one island without holes.

    Raises:
        ScanError: Nothing in the head is deep enough to be a brain.
    """
    spacing = np.asarray(spacing_mm, float)
    # Slices lie across the longest spacing; of equal ones, across K.
    axis = 2 - int(np.argmax(spacing[::-1]))
    step = [max(1, round(_BLOCK_MM / s)) for s in spacing]
    blocks = np.moveaxis(block_means(np.asarray(volume, np.float32), step), axis, 2)
    outline = np.moveaxis(block_means(head.astype(np.float32), step) > 0.5, axis, 2)
    across = np.delete(spacing * step, axis)
    mask = _Head(blocks, outline, across, name).brain()
    return enlarge(np.moveaxis(mask, 2, axis), step, volume.shape)


class _Head:
    """Signal and depth of each voxel, in units that are the same in every head."""

    def __init__(self, volume: np.ndarray, head: np.ndarray, spacing_mm: np.ndarray, name: str) -> None:
        from scipy.ndimage import gaussian_filter

        self.name, self.spacing_mm = name, spacing_mm
        self.head = _by_slice(_hull, head)
        widest = _by_slice(lambda plane: _depth(plane, spacing_mm), self.head).max((0, 1))
        self.mm = float(np.percentile(widest, 80)) / _HEAD_MM
        # Nobody asks whether anything lies deeper than this.
        self.beyond = int(np.ceil(1.2 * _DEEP_MM * self.mm / spacing_mm.min()))
        self.depth = _by_slice(lambda plane: _depth(plane, spacing_mm, self.beyond), self.head)
        width = _SMOOTH_MM * self.mm / spacing_mm
        self.signal = self._of_brain(gaussian_filter(volume, (*width, 0)))

    def brain(self) -> np.ndarray:
        """Return ``(I, J, K)`` bool."""
        from skimage.segmentation import watershed

        rim = ~self.head | (self.depth < _SCALP_MM * self.mm)
        low, high = _SEED_SIGNAL
        seed = (self.depth > _SEED_MM * self.mm) & (self.signal > low) & (self.signal < high) & ~rim
        seed = _largest(seed & self._dilated(self._core(seed), _OPEN_MM))
        seed = _by_slice(_filled, seed)
        # All that is brighter than this is as high: neither bright lesions nor fat are barriers.
        flood = watershed(-np.minimum(self.signal, low), np.where(seed, 2, rim)) == 2
        inside = (flood & (self.signal > _LOWEST_SIGNAL)) | seed
        mask = self._dilated(self._core(inside), _OPEN_MM + 1) & flood
        return _largest(_by_slice(_filled, self._closed(mask) & ~rim))

    def _of_brain(self, signal: np.ndarray) -> np.ndarray:
        """Return the signal as a share of the brain's, which is that deep in the slices around."""
        from scipy.ndimage import median_filter

        deep = self.depth > _DEEP_MM * self.mm
        usual = float(np.median(signal[deep])) if deep.any() else 0.0
        if not usual > 0:
            what = "no brain is found below the skull; give a brain mask, or take that of the head"
            raise ScanError(f"{self.name}: {what}", code="mask.none_found")
        enough = deep.sum((0, 1)) > _FEWEST_DEEP
        own = [
            np.median(signal[..., k][deep[..., k]]) if enough[k] else usual for k in range(signal.shape[2])
        ]
        return signal / np.clip(median_filter(np.array(own), 5, mode="nearest"), 0.5 * usual, 1.5 * usual)

    def _core(self, mask: np.ndarray) -> np.ndarray:
        """Return the largest island of what is left when bridges are cut."""
        return _largest(_by_slice(lambda plane: _depth(plane, self.spacing_mm) > _OPEN_MM * self.mm, mask))

    def _dilated(self, mask: np.ndarray, by_mm: float) -> np.ndarray:
        return _by_slice(lambda plane: _distance(plane, self.spacing_mm) <= by_mm * self.mm, mask)

    def _closed(self, mask: np.ndarray) -> np.ndarray:
        grown = _by_slice(_filled, self._dilated(mask, _CLOSE_MM))
        inner = _CLOSE_MM * self.mm
        return _by_slice(lambda plane: _depth(plane, self.spacing_mm, self.beyond) > inner, grown)


def _by_slice(step: Callable[[np.ndarray], np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Return what a step makes of each slice; nothing of one that is empty."""
    planes = [step(mask[..., k]) if mask[..., k].any() else None for k in range(mask.shape[2])]
    kind = next((plane.dtype for plane in planes if plane is not None), mask.dtype)
    empty = np.zeros(mask.shape[:2], kind)
    return np.stack([empty if plane is None else plane for plane in planes], axis=-1)


def _depth(plane: np.ndarray, spacing_mm: np.ndarray, beyond: int = 0) -> np.ndarray:
    """Return how far inside each pixel lies, mm; what the image cuts off goes on so many pixels beyond it."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(np.pad(plane, beyond, mode="edge"), 1)
    inner = slice(beyond + 1, -beyond - 1)
    return np.asarray(distance_transform_edt(padded, sampling=spacing_mm)[inner, inner], np.float32)


def _distance(plane: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~plane, sampling=spacing_mm), np.float32)


def _hull(plane: np.ndarray) -> np.ndarray:
    """Return the convex outline: bone that the image's end lays open counts as inside."""
    from skimage.morphology import convex_hull_image

    i, j = np.nonzero(plane)
    # A line has no hull.
    return convex_hull_image(plane) if np.ptp(i) > 1 and np.ptp(j) > 1 else plane


def _filled(plane: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    return np.asarray(binary_fill_holes(plane))


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import label

    islands, count = label(mask)
    return islands == 1 + np.argmax(np.bincount(islands.ravel())[1:]) if count > 1 else mask
