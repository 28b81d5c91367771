"""Novelty maps: scores in their voxels, and what a reader must know about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.scan import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mednovelty.notebook import Background


@dataclass(frozen=True, eq=False)
class NoveltyMap:
    """One score of one scan on the scan's own voxels; higher is more novel, 0 outside the mask.

    Attributes:
        score: Name of the scorer.
        volume: ``(1, I, J, K)`` float32.
        mask: ``(I, J, K)`` bool, where it was scored.
        about: What sidecars tell of the score: equation, paper, unit.
        images: Further volumes on the same voxels that say why, by name, such as attention.
        fallbacks: In words what was done otherwise than asked, as when a device's memory ran out.
    """

    score: str
    volume: Volume
    mask: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    images: dict[str, Volume] = field(default_factory=dict)

    @property
    def data(self) -> np.ndarray:
        """``(I, J, K)`` float32 scores."""
        return self.volume.data[0]

    @property
    def affine(self) -> np.ndarray:
        """``(4, 4)`` voxel indices to RAS+ millimetres."""
        return self.volume.affine

    @property
    def values(self) -> np.ndarray:
        """``(n,)`` scores inside the mask."""
        return self.data[self.mask]

    def display_range(self) -> tuple[float, float]:
        """Return where viewers should begin and end their colours: 50th and 99.9th percentile."""
        if not self.mask.any():
            return 0.0, 1.0
        low, high = np.percentile(self.values, [50, 99.9])
        return float(low), float(high if high > low else low + 1)

    def save(self, path: str | Path) -> None:
        """Write the map as float32 NIfTI with a fresh header and equal sform and qform.

        Raises:
            OutputError: It cannot be written.
        """
        from mednovelty.io.nifti import write_map

        low, high = self.display_range()
        write_map(Path(path), self.volume, cal_min=low, cal_max=high, description=f"mednovelty {self.score}")

    def plot(
        self, background: Background = None, *, threshold: float | None = None, title: str = ""
    ) -> Figure:
        """Return axial slices of the map as a figure, right where it says right is; a notebook shows it.

        Args:
            background: What to draw it on, on the map's voxels: a ``Scan``, a ``Volume`` of one channel, an
                ``(I, J, K)`` array, or a NIfTI file; None: the mask.
            threshold: Scores below it are transparent; None: those below the 90th percentile.
            title: Above the picture; empty: the score's name.

        Raises:
            GeometryError: The background is not on the map's voxels, or the mask is empty.
            ScanError: Its file cannot be read.
        """
        from mednovelty.notebook import map_figure

        return map_figure(self, background, threshold, title)

    def view(self, background: Background = None, *, threshold: float | None = None) -> Any:
        """Return a viewer of the map for notebooks: ipyniivue's widget, or nilearn's where that is absent.

        Args:
            background: As of ``plot``; a volume or a file may have voxels of its own.
            threshold: Scores up to it are transparent; None: the 90th percentile of the map.

        Raises:
            GeometryError: The background has several channels, or is an array of another shape.
            ScanError: Its file cannot be read.
            SettingsError: The threshold is not finite.
        """
        from mednovelty.notebook import map_view

        return map_view(self, background, threshold)

    def _repr_html_(self) -> str:
        from mednovelty.notebook import map_html

        return map_html(self)

    def __repr__(self) -> str:
        low, high = self.display_range()
        return (
            f"NoveltyMap({self.score!r}, shape={self.data.shape}, {int(self.mask.sum())} voxels scored, "
            f"median {low:.4g}, 99.9th percentile {high:.4g})"
        )
