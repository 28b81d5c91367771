"""What is on disk of a scan that becomes a scene: its files, and what their sidecars tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.io.nifti import read_volume
from mednovelty.outputs import told
from mednovelty.segment_files import SegmentNames


@dataclass(frozen=True)
class ScanToShow:
    """One scan's maps that lie in one folder.

    Attributes:
        folder: Where they lie.
        stem: How the names of its files begin.
        maps: Score to raw map, in the order of the scene.
        trivial: Those that are no method's, such as the intensity itself.
        without_background: Whether the mask lies below though there is a background, as one is damaged.
    """

    folder: Path
    stem: str
    maps: Mapping[str, Path]
    trivial: frozenset[str] = frozenset()
    without_background: bool = False

    def file(self, ending: str) -> Path:
        """Return a file of the scan, such as ``_scene.mrml``."""
        return self.folder / f"{self.stem}{ending}"

    @property
    def scene(self) -> Path:
        """What 3D Slicer opens."""
        return self.file("_scene.mrml")

    @property
    def colours(self) -> Path:
        """The colour table."""
        return self.file("_novelty.ctbl")

    @property
    def mask_file(self) -> Path:
        """The brain mask."""
        return self.file("_desc-brain_mask.nii.gz")

    @property
    def background_file(self) -> Path:
        """The image below; the mask where there is none, as of maps combined from folders without it."""
        found = self.file("_desc-background.nii.gz")
        return found if found.is_file() and not self.without_background else self.mask_file

    @cached_property
    def mask(self) -> np.ndarray:
        """``(I, J, K)`` bool, where it was scored."""
        return read_volume(self.mask_file).data[0] > 0


@dataclass(frozen=True)
class ScoredMap:
    """What is known of one score's map.

    Attributes:
        score: Its name.
        names: Of its files.
        sidecar: What the map's sidecar tells.
        segmentation: What that of its segmentation tells; None where there is none.
    """

    score: str
    names: SegmentNames
    sidecar: Mapping[str, Any]
    segmentation: Mapping[str, Any] | None

    @classmethod
    def read(cls, score: str, path: Path) -> ScoredMap:
        """Return what the sidecars tell."""
        names = SegmentNames.beside(path)
        return cls(score, names, told(names.novelty_sidecar) or {}, told(names.sidecar) or None)

    @property
    def smallest_p(self) -> float | None:
        """That its calibration can give; None where there are no p-values."""
        told = self.sidecar.get("Calibration")
        p = told.get("SmallestP") if isinstance(told, dict) else None
        return p if isinstance(p, float) and p > 0 and self.names.pvalue.is_file() else None

    @property
    def threshold(self) -> Mapping[str, Any] | None:
        """How it was segmented; None where it was not."""
        found = (self.segmentation or {}).get("Threshold")
        return found if isinstance(found, dict) else None

    @property
    def clusters(self) -> int:
        """How many were segmented."""
        numbers = (self.segmentation or {}).get("Numbers")
        n = numbers.get("clusters") if isinstance(numbers, dict) else None
        return n if isinstance(n, int) and self.names.labels.is_file() else 0

    @property
    def unit(self) -> str:
        """Of the score."""
        told = self.sidecar.get("Score")
        return str(told.get("unit") or "") if isinstance(told, dict) else ""


__all__ = ["ScanToShow", "ScoredMap"]
