"""One sample a slice: images of one size, whatever grid the scan has, and maps back on its own voxels.

Each slice is put in the middle of an image of square pixels and interpolated along its two axes; scores of
pixels come back by the same rule the other way round. Zimmerer et al. 2019 (Sec. 4.2) work on axial slices
of 64 x 64 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.interpolation import interpolation
from mednovelty.scan import Scan, Volume
from mednovelty.views.axes import Turn, to_ras

_VOXEL_AXES = {"I": Turn((0, 1, 2)), "J": Turn((1, 0, 2)), "K": Turn((2, 0, 1))}
_WORLD_AXES = {"sagittal": (0, 1, 2), "coronal": (1, 0, 2), "axial": (2, 0, 1)}


@dataclass(frozen=True, slots=True)
class SliceSettings:
    """How a scan is cut into slices.

    Attributes:
        axis: ``I``, ``J`` or ``K``: along that voxel axis, slices as they are stored; ``axial``,
            ``coronal`` or ``sagittal``: as nearly as the voxels allow, and each image turned so that its axes
            run to the right, the front or up, whichever way the scan is stored.
        size: Pixels of each image.
        spacing_mm: Distance of two pixels; what does not fit into ``size`` is cut off and gets no score.
            None: so that the whole slice just fits.
        min_brain: Slices of which the mask fills less than this share are left out; their scores are 0.
        background: What pixels outside the mask show.
    """

    axis: Literal["I", "J", "K", "axial", "coronal", "sagittal"] = "axial"
    size: tuple[int, int] = (64, 64)
    spacing_mm: float | None = None
    min_brain: float = 0.01
    background: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        if self.axis not in (*_VOXEL_AXES, *_WORLD_AXES):
            known = ", ".join((*_VOXEL_AXES, *_WORLD_AXES))
            raise SettingsError(f"slice: axis must be one of {known}, got {self.axis!r}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise SettingsError(f"slice: size must be two numbers of pixels, got {self.size}")
        if self.spacing_mm is not None and not self.spacing_mm > 0:
            raise SettingsError(f"slice: spacing_mm must be above 0, got {self.spacing_mm}")
        if not 0 <= self.min_brain < 1:
            raise SettingsError(f"slice: min_brain must lie in 0 to 1, got {self.min_brain}")


class SliceView:
    """Cuts a scan into images of its slices, and puts scores back where they came from.

    Args:
        settings: See ``SliceSettings``.
    """

    Settings: ClassVar[type] = SliceSettings

    def __init__(self, settings: SliceSettings | None = None) -> None:
        self.settings = settings or SliceSettings()

    def shape(self, channels: int) -> tuple[int, ...]:
        """Return ``(C, H, W)``."""
        return channels, *self.settings.size

    def count(self, scan: Scan) -> int:
        """Return how many slices have enough brain."""
        return len(self._slices(scan))

    def spacing_mm(self, scan: Scan) -> tuple[float, float]:
        """Return the distance of two pixels along H and along W."""
        return self._pixel_mm(scan), self._pixel_mm(scan)

    def slice_axis(self, scan: Scan) -> str:
        """Return along which axis of the stored voxels slices follow one another: I, J or K."""
        return "IJK"[self._turn(scan).order[0]]

    def cut(self, scan: Scan, start: int, stop: int) -> np.ndarray:
        """Return images ``start`` to ``stop``, ``(stop - start, C, H, W)`` float32.

        They come in the order of the axis: from left, back or below where it is an anatomical one.
        """
        kept = self._slices(scan)[start:stop]
        if not len(kept):
            return np.empty((0, *self.shape(scan.n_channels)), np.float32)
        turn, fill = self._turn(scan), self.settings.background
        _, height, width = turn.shape(scan.grid.shape)
        where = [(int(kept[0]), int(kept[-1]) + 1), (0, height), (0, width)]
        slices = turn(scan.box(turn.box(where, scan.grid.shape), fill))[:, kept - kept[0]]
        rows, columns = self._matrices(scan)
        # A product a slice: the same bits whichever slices are asked for together.
        images = rows @ np.ascontiguousarray(slices - np.float32(fill)) @ columns.T
        return np.ascontiguousarray(images.swapaxes(0, 1)) + np.float32(fill)

    def centres(self, scan: Scan, start: int, stop: int) -> np.ndarray:
        """Return ``(stop - start, 3)``: the middles of images, in voxels along I, J and K."""
        turn, kept = self._turn(scan), self._slices(scan)[start:stop]
        _, height, width = turn.shape(scan.grid.shape)
        middle = [(n - 1) / 2 * np.ones(len(kept)) for n in (height, width)]
        return turn.points(np.stack([kept, *middle], axis=1), scan.grid.shape)

    def assemble(self, scan: Scan, scores: np.ndarray, name: str) -> Volume:
        """Return the map ``(1, I, J, K)``, 0 outside the mask and in slices that were left out.

        Args:
            scan: The scan that was cut.
            scores: ``(n,)``, one a slice, or ``(n, H, W)``, one a pixel, of all n slices.
            name: What messages call the map.
        """
        kept = self._slices(scan)
        if scores.shape not in ((len(kept),), (len(kept), *self.settings.size)):
            raise GeometryError(
                f"{name}: scores of {scan.id} must be ({len(kept)},) or "
                f"{(len(kept), *self.settings.size)}, got {scores.shape}",
                code="geometry.shape",
            )
        data = np.zeros(scan.mask.shape, np.float32, order="F")
        slices = self._turn(scan)(data)
        if scores.ndim == 1:
            slices[kept] = scores[:, None, None]
        else:
            rows, columns = self._matrices(scan, back=True)
            slices[kept] = rows @ scores.astype(np.float32, copy=False) @ columns.T
        data[~scan.mask] = 0
        return Volume(data[None], scan.grid.affine, name)

    def covered(self, scan: Scan) -> np.ndarray:
        """Return ``(I, J, K)`` bool: voxels of the mask that an image shows; none of slices left out."""
        rows, columns = (matrix.any(1) for matrix in self._matrices(scan, back=True))
        shown = np.zeros(scan.mask.shape, bool, order="F")
        self._turn(scan)(shown)[self._slices(scan)] = np.logical_and.outer(rows, columns)
        return shown & scan.mask

    def touches(self, scan: Scan, lesion: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return ``(stop - start,)`` bool: whether slices have a voxel of a lesion ``(I, J, K)``."""
        kept = self._slices(scan)[start:stop]
        return self._turn(scan)(lesion)[kept].any((1, 2))

    def _turn(self, scan: Scan) -> Turn:
        """Return how a volume becomes slices: ``(I, J, K)`` to (slice, H, W)."""
        axis = self.settings.axis
        if axis in _VOXEL_AXES:
            return _VOXEL_AXES[axis]
        ras = to_ras(scan.grid.affine)
        first, second, third = _WORLD_AXES[axis]
        return Turn(
            (ras.order[first], ras.order[second], ras.order[third]),
            (ras.flips[first], ras.flips[second], ras.flips[third]),
        )

    def _slices(self, scan: Scan) -> np.ndarray:
        """Return which slices are kept, counted along the turned axis."""
        turn = self._turn(scan)
        voxels = np.array([np.count_nonzero(plane) for plane in turn(scan.mask)])
        pixel_mm, spacing_mm = self._pixel_mm(scan), scan.grid.spacing_mm[list(turn.order)]
        share = voxels * spacing_mm[1] * spacing_mm[2] / (pixel_mm**2 * np.prod(self.settings.size))
        return np.flatnonzero((voxels > 0) & (share >= self.settings.min_brain))

    def _pixel_mm(self, scan: Scan) -> float:
        if self.settings.spacing_mm is not None:
            return self.settings.spacing_mm
        turn = self._turn(scan)
        extent_mm = (np.array(scan.grid.shape) * scan.grid.spacing_mm)[list(turn.order[1:])]
        return float((extent_mm / self.settings.size).max())

    def _matrices(self, scan: Scan, *, back: bool = False) -> list[np.ndarray]:
        """Return the matrices along H and W, from voxels to pixels or back."""
        found, pixel_mm = [], self._pixel_mm(scan)
        for axis, pixels in zip(self._turn(scan).order[1:], self.settings.size, strict=True):
            voxels, step = scan.grid.shape[axis], float(pixel_mm / scan.grid.spacing_mm[axis])
            found.append(
                interpolation(pixels, voxels, 1 / step, clamp=True)
                if back
                else interpolation(voxels, pixels, step)
            )
        return found
