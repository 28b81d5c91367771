"""A brain mask where none is given: dipy's ``median_otsu`` on the mean b=0.

dipy's own defaults (radius 4, 4 passes) take minutes on a 1 mm scan and cut 20 % of the brain away at
2.5 mm. So the filter works on blocks of about 2.5 mm with radius 1, one dilation gives the rim back,
and only the largest island is kept, its holes filled. Against the masks that came with the two real
scans at hand the Dice is 0.98 and 0.96.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from mednovelty.errors import ScanError

_FEWEST_BLOCKS = 16


@dataclass(frozen=True, slots=True)
class MedianOtsuSettings:
    """How ``median_otsu_mask`` works.

    Attributes:
        median_radius: Of the median filter, in blocks.
        passes: How often it runs; less often on volumes of few blocks.
        dilate_mm: By about how much the mask is grown after the threshold, in whole blocks: by none where
            blocks are much larger, since a whole one would take in the skull.
        block_mm: Voxels are averaged into blocks of about this size first.
    """

    median_radius: int = 1
    passes: int = 4
    dilate_mm: float = 2.5
    block_mm: float = 2.5

    def words(self) -> str:
        """Return the settings as ``Scan.mask_source`` and sidecars tell them."""
        return (
            f"dipy median_otsu on the mean b=0 (median_radius={self.median_radius}, numpass={self.passes}, "
            f"dilated by {self.dilate_mm:g} mm, blocks of {self.block_mm:g} mm, largest island, holes filled)"
        )


def median_otsu_mask(
    b0: np.ndarray,
    spacing_mm: np.ndarray,
    name: str,
    settings: MedianOtsuSettings = MedianOtsuSettings(),
) -> np.ndarray:
    """Return the brain in a mean b=0 volume.

    Args:
        b0: ``(I, J, K)`` in any unit: its scale does not matter; what is not finite counts as 0.
        spacing_mm: ``(3,)`` voxel sizes.
        name: What messages call the scan.
        settings: See ``MedianOtsuSettings``.

    Returns:
        ``(I, J, K)`` bool.

    Raises:
        ScanError: The mask would be empty.
    """
    from dipy.segment.mask import median_otsu

    b0 = _to_unit_peak(b0)
    # Sixteen blocks an axis at least, or the voxels themselves: a scan of two slices keeps both.
    step = [
        max(1, min(round(settings.block_mm / s), n // _FEWEST_BLOCKS))
        for s, n in zip(spacing_mm, b0.shape, strict=True)
    ]
    blocks = block_means(b0, step)
    # Each pass rounds corners off, and a phantom a dozen voxels wide is little but corners.
    passes = min(settings.passes, sorted(blocks.shape)[1] // 8)
    if blocks.min() < blocks.max():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, mask = median_otsu(
                blocks,
                median_radius=settings.median_radius,
                numpass=passes,
                dilate=_dilation(settings, step, spacing_mm) or None,
            )
        mask = enlarge(_largest_island(mask.astype(bool)), step, b0.shape)
        if mask.any():
            return mask
    raise ScanError(
        f"{name}: median_otsu finds no brain in the mean b=0 of {b0.shape} voxels; give a brain mask",
        code="mask.none_found",
    )


def _to_unit_peak(b0: np.ndarray) -> np.ndarray:
    """Return the volume as float32, its largest magnitude 1, so that no unit over- or underflows."""
    finite = np.where(np.isfinite(b0), b0, 0)
    peak = max(float(finite.max(initial=0)), -float(finite.min(initial=0)))
    # In float64: as float32 a tiny peak's reciprocal would overflow.
    return (finite.astype(np.float64) / peak if peak else finite).astype(np.float32)


def _dilation(settings: MedianOtsuSettings, step: list[int], spacing_mm: np.ndarray) -> int:
    """Return by how many blocks to grow: the nearest whole number, the lower one for large blocks."""
    return int(settings.dilate_mm / float(np.max(step * np.asarray(spacing_mm))) + 0.25)


def block_means(volume: np.ndarray, step: list[int]) -> np.ndarray:
    """Average blocks of ``step`` voxels; the last block of an axis repeats the edge where it is cut."""
    if step == [1, 1, 1]:
        return volume
    padded = np.pad(volume, [(0, -n % s) for n, s in zip(volume.shape, step, strict=True)], mode="edge")
    i, j, k = (n // s for n, s in zip(padded.shape, step, strict=True))
    return padded.reshape(i, step[0], j, step[1], k, step[2]).mean((1, 3, 5))


def enlarge(mask: np.ndarray, step: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask on the voxels, its outline interpolated between the blocks' centres."""
    from scipy.ndimage import affine_transform

    if step == [1, 1, 1]:
        return mask
    scale = 1 / np.array(step)
    # The centre of voxel v lies at (v + 1/2) / step - 1/2 in blocks.
    return (
        affine_transform(
            mask.astype(np.float32), scale, (scale - 1) / 2, output_shape=shape, order=1, mode="nearest"
        )
        > 0.5
    )


def _largest_island(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes, label

    islands, count = label(mask)
    if count > 1:
        mask = islands == 1 + np.argmax(np.bincount(islands.ravel())[1:])
    filled = binary_fill_holes(mask)
    # Slice by slice too: a hole that runs through the outermost slice is open to the outside in 3-D.
    return np.stack([binary_fill_holes(filled[..., k]) for k in range(mask.shape[2])], axis=-1)
