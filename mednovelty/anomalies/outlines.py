"""Outlines of real lesions, from a folder of masks: single lesions, to be turned, scaled and warped.

Only the shape is taken, from whomever it may be of: no intensity, no place. A lesion is what hangs together
in a mask; those smaller than eight voxels, whose outline is mostly that of the voxels, are left out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects, label
from torch import Generator, Tensor

from mednovelty.anomalies.geometry import (
    columns,
    offsets_mm,
    rotations,
    sampled,
    smooth_fields,
    turned,
)
from mednovelty.errors import ScanError, SettingsError

if TYPE_CHECKING:
    from mednovelty.anomalies.host import Host

MARGIN_MM = 6.0
"""Around a lesion in which the distance to it is known; further out it is this."""
FEWEST_VOXELS = 8
MOST_VALUES = 64
"""That a mask holds: 0 and 1, or numbered lesions; images that show anatomy hold more."""
LARGEST_SHARE = 1 / 3
"""Of its image, that a lesion fills; what is larger is a head or a brain."""
MOST_OUTLINES = 2000
SCALES = 0.5, 2.0
"""Lesions are scaled to the size that is asked for, by no more than this."""
NEAR = 0.1
"""Of all lesions, the share nearest to that size, of which one is taken."""
WARP = 0.1
"""Standard deviation of random displacements, as a share of the diameter; smooth over half of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One lesion.

    Attributes:
        distance_mm: ``(I, J, K)`` float32 to its outline, above 0 inside; with a margin.
        spacing_mm: ``(3,)``.
        inside: ``(m, 3)`` indices of its voxels.
        diameter_mm: Of the ball of its volume.
    """

    distance_mm: Tensor
    spacing_mm: tuple[float, float, float]
    inside: Tensor
    diameter_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Lesions to choose from.

    Attributes:
        each: At least one.
        sha256: Of all of their distances: says whose lesions a detector has seen the shape of.
        masks: The hashes of the files that they are from, by which they are known again; empty: of no files.
    """

    each: tuple[Outline, ...]
    sha256: str
    masks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.each:
            raise SettingsError("there is no outline of a lesion to choose from", code="anomalies.outlines")

    @property
    def diameter_mm(self) -> tuple[float, float]:
        """Of the smallest and of the largest, of the ball of its volume."""
        sizes = [outline.diameter_mm for outline in self.each]
        return min(sizes), max(sizes)

    def attainable_mm(self, asked_mm: tuple[float, float]) -> tuple[float, float]:
        """Return the diameters, of those asked for, that scaled lesions can have.

        Args:
            asked_mm: Smallest and largest.

        Raises:
            SettingsError: None (``anomalies.outline_sizes``).
        """
        smallest, largest = self.diameter_mm
        low, high = max(asked_mm[0], smallest * SCALES[0]), min(asked_mm[1], largest * SCALES[1])
        if low > high:
            raise SettingsError(
                f"shapes: diameter_mm asks for {asked_mm[0]:g} to {asked_mm[1]:g} mm, and {self.describe()} "
                f"have {smallest * SCALES[0]:.1f} to {largest * SCALES[1]:.1f} mm; ask for such diameters, "
                "or give lesions of other sizes as --lesion-shapes", code="anomalies.outline_sizes",
            )  # fmt: skip
        return low, high

    def describe(self) -> str:
        """Return in words how many there are and how large."""
        low, high = self.diameter_mm
        return (
            f"{len(self.each)} outlines of {low:.0f} to {high:.0f} mm, turned, warped and scaled by "
            f"{SCALES[0]:g} to {SCALES[1]:g}"
        )

    def ranges(self) -> dict[str, Any]:
        """Return the same as JSON types, and by which hash the lesions are known again."""
        low, high = self.diameter_mm
        return {
            "count": len(self.each),
            "diameter_mm": [round(low, 1), round(high, 1)],
            "scales": list(SCALES),
            "sha256": self.sha256,
            "masks": list(self.masks),
        }


def outlines_of(masks: Iterable[tuple[np.ndarray, Sequence[float] | np.ndarray]]) -> Outlines:
    """Return the single lesions of some masks.

    Args:
        masks: ``(I, J, K)`` bool and the spacing of its voxels in mm, each.

    Raises:
        SettingsError: No lesion has eight voxels.
    """
    found: list[Outline] = []
    digest = hashlib.sha256()
    for mask, spacing_mm in masks:
        numbered, _ = label(mask)
        for number, box in enumerate(find_objects(numbered), start=1):
            lesion = numbered[box] == number
            if np.count_nonzero(lesion) >= FEWEST_VOXELS and len(found) < MOST_OUTLINES:
                i, j, k = (float(step) for step in spacing_mm)
                outline = _outline(lesion, (i, j, k))
                digest.update(outline.distance_mm.numpy().tobytes())
                found.append(outline)
    return Outlines(tuple(found), digest.hexdigest())


def read_outlines(folder: Path) -> Outlines:
    """Return the lesions of a folder of masks, or of one mask; other images there are no masks by their name.

    Where no name tells of masks or lesions, every image must be one. Inside is what is not 0.

    Raises:
        ScanError: There is no image, or one is no mask: it holds fractions, negative or many values
            (``anomalies.no_mask``), or a region too large for a lesion (``anomalies.no_lesion``); or no
            lesion is large enough.
    """
    from mednovelty.io.guard import sha256_of_file, shown, unreadable
    from mednovelty.io.mask import read_on_grid
    from mednovelty.io.names import is_image, looks_like_lesions, looks_like_mask, stem
    from mednovelty.io.nifti_source import DEFAULTS
    from mednovelty.io.readers import open_image
    from mednovelty.io.walk import walk

    try:
        folder.stat()
    except OSError as error:
        raise unreadable(folder, error) from error
    images = [folder] if folder.is_file() else [path for path in walk(folder, []) if is_image(path)]
    named = [path for path in images if looks_like_lesions(path) or looks_like_mask(stem(path))]
    masks: list[tuple[np.ndarray, np.ndarray]] = []
    hashes: list[str] = []
    for path in named or images:
        grid = open_image(path, DEFAULTS).grid
        values, _ = read_on_grid(path, grid, path.name)
        inside = _inside(values + 0.0, shown(path))
        if inside.any():  # A healthy scan's is empty.
            masks.append((inside, grid.spacing_mm))
            hashes.append(sha256_of_file(path))
    try:
        return replace(outlines_of(masks), masks=tuple(hashes))
    except SettingsError as error:
        raise ScanError(
            f"{folder}: {len(masks)} masks, and no lesion of {FEWEST_VOXELS} voxels or more in them; give a "
            "folder of lesion masks", code="anomalies.outlines",
        ) from error  # fmt: skip


def distances_mm(
    outlines: Outlines, host: Host, middles: Tensor, diameters_mm: Tensor, generator: Generator
) -> Tensor:
    """Return ``(B, *space)`` distances to the outline of one lesion a sample, above 0 inside.

    Slices show a random section through one of its voxels.

    Args:
        outlines: To choose from.
        host: The samples, of two or three axes.
        middles: ``(B, axes)`` where a voxel of the lesion comes to lie, as indices.
        diameters_mm: ``(B,)`` of the ball of the lesion's volume.
        generator: On the device of the samples.
    """
    space, spacing_mm = host.space, host.spacings_mm
    n, axes = len(middles), len(space)
    sizes = torch.tensor([outline.diameter_mm for outline in outlines.each], device=middles.device)
    nearest = (sizes.log() - diameters_mm.log()[:, None]).abs().argsort(dim=1, stable=True)
    among = torch.rand(n, generator=generator, device=generator.device) * math.ceil(NEAR * len(sizes))
    chosen = nearest.gather(1, among.long()[:, None])[:, 0]
    scales = (diameters_mm / sizes[chosen]).clamp(*SCALES)
    lengths, which = sizes[chosen] * scales, chosen.tolist()
    offsets = offsets_mm(space, spacing_mm, middles)
    for axis in range(axes):
        warp = smooth_fields(space, spacing_mm, lengths / 2, generator)
        offsets[:, axis] += columns(WARP * lengths, axes) * warp
    # Of a slice's offsets, which have two axes, the first two columns are a random plane's.
    offsets = turned(offsets / columns(scales, axes + 1), rotations(n, 3, generator)[:, :, :axes])
    shares = torch.rand(n, generator=generator, device=generator.device)
    found = torch.empty(n, *space, device=middles.device)
    for i, (number, share) in enumerate(zip(which, shares.tolist(), strict=True)):
        outline = outlines.each[number]
        distance = outline.distance_mm.to(middles.device)
        centre = outline.inside[min(int(share * len(outline.inside)), len(outline.inside) - 1)]
        steps = torch.tensor(outline.spacing_mm, device=middles.device)
        places = offsets[i] / columns(steps, axes) + columns(centre.to(middles.device), axes)
        if axes == 2:
            places = places[:, None]
        found[i] = sampled(distance[None, None], places[None])[0, 0].reshape(tuple(space))
    return found * columns(scales, axes)


def _inside(values: np.ndarray, name: str) -> np.ndarray:
    """Return what is not 0 in a mask, ``(I, J, K)`` bool; refuse what is none."""
    different = np.unique(values)
    whole = np.isfinite(different).all() and (different == np.rint(different)).all()
    if not whole or different[0] < 0 or len(different) > MOST_VALUES:
        kind = "values" if whole else "values, not all of them whole numbers"
        raise ScanError(
            f"{name}: holds {len(different):,} different {kind}, from {different[0]:g} to {different[-1]:g}: "
            "a lesion mask holds 0, and 1 or numbers of lesions where one is; give masks, not scans, and cut "
            "fractions at 0.5", code="anomalies.no_mask",
        )  # fmt: skip
    inside = values > 0
    numbered, count = label(inside)
    largest = np.bincount(numbered.ravel())[1:].max() if count else 0
    if largest > LARGEST_SHARE * inside.size:
        raise ScanError(
            f"{name}: a region fills {100 * largest / inside.size:.0f} % of the image, more than a lesion "
            f"does ({100 * LARGEST_SHARE:.0f} %); give masks of lesions, not of heads or brains",
            code="anomalies.no_lesion",
        )  # fmt: skip
    return inside


def _outline(lesion: np.ndarray, spacing_mm: tuple[float, float, float]) -> Outline:
    margins = [int(np.ceil(MARGIN_MM / step)) for step in spacing_mm]
    padded = np.pad(lesion, [(margin, margin) for margin in margins])
    inwards = distance_transform_edt(padded, sampling=spacing_mm)
    outwards = distance_transform_edt(~padded, sampling=spacing_mm)
    # Distances are to the nearest voxel of the other side: the outline runs half a voxel before it.
    half = min(spacing_mm) / 2
    distance = np.where(padded, inwards - half, half - outwards)
    volume_mm3 = np.count_nonzero(lesion) * float(np.prod(spacing_mm))
    return Outline(
        torch.from_numpy(distance.astype(np.float32)),
        spacing_mm,
        torch.from_numpy(np.argwhere(padded)),
        float((6 * volume_mm3 / np.pi) ** (1 / 3)),
    )


__all__ = ["Outline", "Outlines", "distances_mm", "outlines_of", "read_outlines"]
