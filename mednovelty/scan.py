"""A volume knows where it is in the world; a scan keeps only the voxels that matter.

``Grid``    where voxels are                    shape and affine
``Volume``  numbers on a grid                   (C, I, J, K)
``Scan``    one subject's channels in a mask    (C, n), as stored on disk, with their scaling
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import GeometryError, ScanError

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

AFFINE_TOLERANCE_MM = 1e-2


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where the voxels of an image are.

    Attributes:
        shape: ``(I, J, K)``.
        affine: ``(4, 4)`` float64, voxel indices to RAS+ millimetres.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        if self.affine.shape != (4, 4):
            raise GeometryError(f"affine must be (4, 4), got {self.affine.shape}", code="geometry.affine")

    def check_same(self, other: Grid, name: str, other_name: str) -> None:
        """Raise ``GeometryError`` unless every voxel corner lies within 0.01 mm of the other's."""
        if self.shape != other.shape:
            raise GeometryError(
                f"{name}: shape {self.shape} does not fit the voxels of {other_name}, {other.shape}",
                code="geometry.shape",
            )
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in self.shape], [1])).reshape(4, -1)
        distance_mm = np.abs((self.affine - other.affine) @ corners).max()
        if not distance_mm <= AFFINE_TOLERANCE_MM:
            raise GeometryError(
                f"{name}: its voxels lie up to {distance_mm:.3g} mm away from those of {other_name}",
                code="geometry.affine",
            )

    @property
    def spacing_mm(self) -> np.ndarray:
        """``(3,)`` distance between voxel centres along I, J and K."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """An array and where its voxels are.

    Attributes:
        data: ``(C, I, J, K)``.
        affine: ``(4, 4)``, voxel indices to RAS+ millimetres.
        name: What messages call it: usually the file it came from.
    """

    data: np.ndarray
    affine: np.ndarray
    name: str

    def __post_init__(self) -> None:
        if self.data.ndim != 4:
            raise GeometryError(f"{self.name}: data must be (C, I, J, K), got shape {self.data.shape}",
                                code="geometry.shape")  # fmt: skip
        if self.affine.shape != (4, 4):
            raise GeometryError(f"{self.name}: affine must be (4, 4), got {self.affine.shape}",
                                code="geometry.affine")  # fmt: skip

    @property
    def grid(self) -> Grid:
        """Where the voxels are."""
        i, j, k = self.data.shape[1:]
        return Grid((i, j, k), self.affine)

    def with_data(self, data: np.ndarray, name: str) -> Volume:
        """Return other data on the same voxels."""
        if data.shape[1:] != self.data.shape[1:]:
            raise GeometryError(
                f"{name}: shape {data.shape[1:]} does not fit the voxels of {self.name}, "
                f"{self.data.shape[1:]}",
                code="geometry.shape",
            )
        return replace(self, data=data, name=name)


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One subject's channels inside a mask.

    The channels stay as they are stored on disk; ``scale`` and ``offset`` turn them into signal when
    voxels are asked for. A normalisation by a factor is then a new ``scale``, not a new array, and a
    16-bit scan costs 16 bits a voxel.

    Attributes:
        id: Subject and further entities as in its file name, ``sub-01_ses-1``.
        stored: ``(C, n)`` of any real dtype; the n voxels of the mask in the file's order (I fastest).
        scale: ``(C,)`` float64, multiplied onto ``stored``.
        offset: ``(C,)`` float64, added after ``scale``.
        mask: ``(I, J, K)`` bool, n of them true.
        grid: Where the voxels are.
        gradients: dipy's gradient table, directions in **world** (RAS+) axes; None for other contrasts.
        background: ``(I, J, K)`` float32 to draw maps on: mean b=0, or the first channel.
        whole_mean: Mean signal over all channels and all voxels of the file, inside the mask or not.
        source: The file it came from; None when it was made in memory.
        mask_source: Where the mask came from, in words: a file name, or the method and its settings.
        sha256: Of the image file's bytes.
        warnings: What readers had to say about it.
        entities: Entities of a BIDS name, in order: ``(("sub", "01"), ("ses", "1"))``.
        facts: What else readers found and sidecars should tell.
        contrasts: Names of a structural scan's channels, ``("FLAIR", "T1w")``; empty for diffusion scans.
    """

    id: str
    stored: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    mask: np.ndarray
    grid: Grid
    background: np.ndarray
    whole_mean: float
    gradients: GradientTable | None = None
    source: Path | None = None
    mask_source: str = "given"
    sha256: str = ""
    warnings: tuple[str, ...] = ()
    entities: tuple[tuple[str, str], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    contrasts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mask.shape != self.grid.shape:
            raise GeometryError(
                f"mask of {self.id}: shape {self.mask.shape} does not fit its voxels, {self.grid.shape}",
                code="geometry.shape",
            )
        inside = int(np.count_nonzero(self.mask))
        if self.stored.ndim != 2 or self.stored.shape[1] != inside:
            raise GeometryError(
                f"{self.id}: channels must be (C, n) with n = {inside}, the voxels of the mask; "
                f"got {self.stored.shape}",
                code="geometry.shape",
            )
        for name in ("scale", "offset"):
            if getattr(self, name).shape != self.stored.shape[:1]:
                raise GeometryError(
                    f"{self.id}: {name} must be ({self.stored.shape[0]},), one a channel; "
                    f"got {getattr(self, name).shape}",
                    code="geometry.shape",
                )
        if self.contrasts and len(self.contrasts) != self.stored.shape[0]:
            raise GeometryError(
                f"{self.id}: {self.stored.shape[0]} channels cannot be called {', '.join(self.contrasts)}",
                code="geometry.shape",
            )

    @classmethod
    def of(
        cls, volume: Volume, mask: np.ndarray, gradients: GradientTable | None = None, id: str = ""
    ) -> Scan:
        """Return the scan of a volume in memory, for those who have arrays and no files."""
        flat = volume.data.reshape(volume.data.shape[0], -1, order="F")
        n = volume.data.shape[0]
        background = volume.data[0] if gradients is None else volume.data[gradients.b0s_mask].mean(0)
        return cls(
            id=id or volume.name,
            stored=flat[:, np.flatnonzero(mask.ravel(order="F"))],
            scale=np.ones(n),
            offset=np.zeros(n),
            mask=mask.astype(bool),
            grid=volume.grid,
            background=background.astype(np.float32),
            whole_mean=float(volume.data.mean(dtype=np.float64)),
            gradients=gradients,
        )

    @property
    def n_channels(self) -> int:
        """C."""
        return self.stored.shape[0]

    @property
    def n_voxels(self) -> int:
        """n, the voxels of the mask."""
        return self.stored.shape[1]

    def voxels(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return ``(stop - start, C)`` float32 signal, rows in the order of the mask's voxels."""
        block = self.stored[:, start:stop].astype(np.float32)
        block *= self.scale[:, None].astype(np.float32)
        block += self.offset[:, None].astype(np.float32)
        return np.ascontiguousarray(block.T)

    def box(self, where: tuple[slice, slice, slice], fill: float = 0.0) -> np.ndarray:
        """Return the signal of a box of voxels, ``(C, i, j, k)`` float32 C-contiguous.

        Only the box is made, however large the scan is.

        Args:
            where: From which to which voxel along I, J and K, inside the grid; steps of 1.
            fill: What voxels outside the mask get.
        """
        slab = self.mask[:, :, where[2]]
        before = int(np.count_nonzero(self.mask[:, :, : where[2].start]))
        # Place of each voxel of the slab in ``stored``; meaningless outside the mask.
        place = np.cumsum(slab.ravel(order="F"), dtype=np.int32) + (before - 1)
        place = place.reshape(slab.shape, order="F")[where[0], where[1]].ravel()
        inside = np.flatnonzero(slab[where[0], where[1]])
        out = np.full((self.n_channels, place.size), fill, np.float32)
        for channel, row in enumerate(out):
            signal = self.stored[channel, place[inside]].astype(np.float32)
            signal *= np.float32(self.scale[channel])
            row[inside] = signal + np.float32(self.offset[channel])
        return out.reshape(-1, *slab[where[0], where[1]].shape)

    def dense(self, fill: float = 0.0) -> np.ndarray:
        """Return the signal of all voxels, ``(C, I, J, K)`` float32, ``fill`` outside the mask."""
        i, j, k = (slice(0, n) for n in self.mask.shape)
        return self.box((i, j, k), fill)

    def scaled(self, factor: np.ndarray | float) -> Scan:
        """Return the scan with its signal multiplied by one factor, or by one a channel ``(C,)``."""
        return replace(self, scale=self.scale * factor, offset=self.offset * factor)

    def without(self, voxels: np.ndarray) -> Scan:
        """Return the scan with some voxels, ``(I, J, K)`` bool, taken out of its mask.

        Raises:
            ScanError: None would be left.
        """
        kept = ~voxels.ravel(order="F")[np.flatnonzero(self.mask.ravel(order="F"))]
        if not kept.any():
            raise ScanError(f"{self.id}: its lesion fills the whole mask", code="mask.empty")
        return replace(self, stored=self.stored[:, kept], mask=self.mask & ~voxels)

    def take(self, channels: np.ndarray, gradients: GradientTable | None) -> Scan:
        """Return the scan with other channels, ``(C',)`` indices into today's, and their gradients."""
        named = tuple(self.contrasts[c] for c in np.arange(self.n_channels)[channels] if self.contrasts)
        return replace(self, stored=self.stored[channels], scale=self.scale[channels],
                       offset=self.offset[channels], gradients=gradients, contrasts=named)  # fmt: skip

    def assemble(self, scores: np.ndarray, name: str) -> Volume:
        """Return ``(1, I, J, K)`` float32: each score in its voxel, 0 outside the mask.

        Args:
            scores: ``(n,)`` in the order of ``voxels``.
            name: What messages call the map.
        """
        flat = np.zeros(self.mask.size, np.float32)
        flat[np.flatnonzero(self.mask.ravel(order="F"))] = scores
        return Volume(flat.reshape((1, *self.mask.shape), order="F"), self.grid.affine, name)
