"""What a scan's files become in a scene: windows, thresholds, names, where it is cut.

<id>_desc-background.nii.gz, _desc-brain_mask.nii.gz      below, in grey
<id>_desc-<score>_pvalue.nii.gz, else _novelty.nii.gz     one foreground a score
<id>_desc-<score>_dseg.nii.gz, _clusters.tsv              segments
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.guard import read_text
from mednovelty.io.nifti import read_volume
from mednovelty.outputs import told
from mednovelty.scan import Volume
from mednovelty.segment_files import SegmentNames
from mednovelty.viewers.levels import Level, level_of
from mednovelty.viewers.scene import Foreground, Point, Scene, Shown, Views
from mednovelty.viewers.seg_nrrd import Segment

GREY_PERCENTILES = (1.0, 99.5)
"""Of the background inside the mask: black and white."""
_GREY_OF_MASK = (0.0, 3.0)
"""Its 1 is then a dark grey."""
_HIGHEST_PERCENTILE = 99.9
"""Of a raw map: its last colour."""
_LARGEST_TABLE_BYTES = 64 << 20
MOST_SEGMENTS = 100
"""More would make 3D Slicer slow; the rest, the smallest, becomes one segment."""


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


def scene_of(scan: ScanToShow) -> Scene:
    """Return the scene of a scan.

    Raises:
        GeometryError: A map lies on other voxels than the mask.
        ScanError: A file cannot be read.
    """
    known = [ScoredMap.read(score, path) for score, path in scan.maps.items()]
    active = _first_to_show(scan, known)
    background = read_volume(scan.background_file)
    shown = [_foreground(scan, one, background) for one in known]
    cut = _cut_mm(scan, known[active], background)
    return Scene(scan.colours.name, _background(scan, background), shown, _views(background, cut), active)


@dataclass(frozen=True)
class _Row:
    """What a scene needs of a line of ``clusters.tsv``."""

    segment: Segment
    peak_mm: Point


def segments_of(one: ScoredMap) -> list[Segment]:
    """Return the segments of a score's clusters, named by number, volume and region of ``clusters.tsv``.

    Raises:
        ScanError: The table cannot be read, or is none.
    """
    return [row.segment for row in _rows(one)]


def _rows(one: ScoredMap) -> list[_Row]:
    path = one.names.clusters
    rows = list(
        csv.DictReader(
            read_text(path, _LARGEST_TABLE_BYTES).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE
        )
    )
    try:
        return [_row(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ScanError(
            f"{path.name}: no table of clusters ({error!r}); run mednovelty threshold again",
            code="clusters.damaged",
        ) from error


def _row(row: Mapping[str, str]) -> _Row:
    number, region = int(row["cluster"]), row.get("region")
    name = f"cluster {number}: {float(row['volume_mm3']) / 1000:.3g} ml"
    if region and region != "n/a":
        name += f", {region}"
    x, y, z = (float(row[f"peak_{axis}_mm"]) for axis in "xyz")
    return _Row(Segment(number, name), (x, y, z))


def merged(labels: np.ndarray, segments: Sequence[Segment]) -> tuple[np.ndarray, list[Segment]]:
    """Return labels and segments, at most ``MOST_SEGMENTS``; the last are merged where there are more."""
    if len(segments) <= MOST_SEGMENTS:
        return labels, list(segments)
    kept, rest = segments[: MOST_SEGMENTS - 1], segments[MOST_SEGMENTS - 1 :]
    # Clusters are numbered by falling size, so the last are the smallest.
    together = Segment(rest[0].label, f"clusters {rest[0].label} to {rest[-1].label}, together")
    labels = np.where(np.isin(labels, [one.label for one in rest]), rest[0].label, labels)
    return labels, [*kept, together]


def _first_to_show(scan: ScanToShow, known: Sequence[ScoredMap]) -> int:
    """Return which map is shown first: with clusters, else calibrated, else of a method, else any."""
    wishes = (
        lambda one: one.clusters > 0 and one.score not in scan.trivial,
        lambda one: one.smallest_p is not None and one.score not in scan.trivial,
        lambda one: one.score not in scan.trivial,
    )
    for wish in wishes:
        for n, one in enumerate(known):
            if wish(one):
                return n
    return 0


def _background(scan: ScanToShow, background: Volume) -> Shown:
    file, name = scan.background_file, f"{scan.stem} background"
    if file == scan.mask_file:
        return Shown(file.name, name, *_GREY_OF_MASK)
    values = background.data[0][scan.mask]
    values = values[np.isfinite(values)]
    low, high = (float(end) for end in np.percentile(values, GREY_PERCENTILES)) if values.size else (0.0, 1.0)
    return Shown(file.name, name, low, high if high > low else low + 1.0)


def _foreground(scan: ScanToShow, one: ScoredMap, background: Volume) -> Foreground:
    @cache
    def values_of(path: Path) -> np.ndarray:
        volume = read_volume(path)
        volume.grid.check_same(background.grid, volume.name, background.name)
        values: np.ndarray = volume.data[0][scan.mask]
        return values[np.isfinite(values)]

    level = level_of(one.threshold, one.smallest_p, lambda: values_of(one.names.novelty))
    path = one.names.pvalue if level.map == "pvalue" else one.names.novelty
    values = values_of(path)
    high = _last_colour(level, values, one.smallest_p)
    what = "-log10 p" if level.map == "pvalue" else one.unit or "score"
    return Foreground(
        file=path.name,
        name=f"{one.score}: {what}, {level.short}",
        low=level.lower,
        high=high,
        score=one.score,
        lower=level.lower,
        upper=float(values.max(initial=high)),
        # Short, since it lies over the picture; the name stands in each view's corner.
        title=what,
        words=level.words,
        segments=one.names.segments.name if one.clusters else None,
        digits=_digits(high - level.lower),
    )


def _last_colour(level: Level, values: np.ndarray, smallest_p: float | None) -> float:
    """Return the value of the last colour, above the first one's."""
    if level.map == "pvalue" and smallest_p is not None:
        return max(-float(np.log10(smallest_p)), level.lower + 1.0)
    ends = (np.percentile(values, _HIGHEST_PERCENTILE), values.max()) if values.size else ()
    above = [float(end) for end in ends if end > level.lower]
    return above[0] if above else level.lower + max(abs(level.lower), 1.0)


def _digits(span: float) -> int:
    """Return how many digits a legend needs to tell its five numbers apart.

    Examples:
        >>> _digits(4.0), _digits(0.03), _digits(900.0)
        (1, 3, 0)
    """
    return int(np.clip(np.ceil(1 - np.log10(span)), 0, 9)) if span > 0 else 1


def _cut_mm(scan: ScanToShow, one: ScoredMap, background: Volume) -> Point:
    """Return the peak of the largest cluster; without any, the middle of the mask."""
    for row in _rows(one) if one.clusters else ():
        if np.isfinite(row.peak_mm).all():
            return row.peak_mm
    inside = np.argwhere(scan.mask)
    middle = inside.mean(axis=0) if len(inside) else (np.array(scan.mask.shape) - 1) / 2
    return _in_mm(middle, background.affine)


def _views(background: Volume, cut_mm: Point) -> Views:
    size = np.array(background.data.shape[1:])
    corners = np.array([[i, j, k] for i in (-0.5, 1) for j in (-0.5, 1) for k in (-0.5, 1)])
    corners = np.where(corners < 0, -0.5, size - 0.5)
    placed = corners @ background.affine[:3, :3].T + background.affine[:3, 3]
    extent = float((placed.max(axis=0) - placed.min(axis=0)).max())
    return Views(cut_mm, _in_mm((size - 1) / 2, background.affine), extent)


def _in_mm(index: np.ndarray, affine: np.ndarray) -> Point:
    x, y, z = (float(value) for value in affine[:3, :3] @ index + affine[:3, 3])
    return x, y, z


__all__ = ["MOST_SEGMENTS", "ScanToShow", "ScoredMap", "merged", "scene_of", "segments_of"]
