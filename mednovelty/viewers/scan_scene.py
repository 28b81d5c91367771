"""What a scan's files become in a scene: windows, thresholds, names, where it is cut.

<id>_desc-background.nii.gz, _desc-brain_mask.nii.gz      below, in grey
<id>_desc-<score>_pvalue.nii.gz, else _novelty.nii.gz     one foreground a score
<id>_desc-<score>_dseg.nii.gz, _clusters.tsv              segments
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.guard import read_text
from mednovelty.io.nifti import read_volume
from mednovelty.scan import Volume
from mednovelty.viewers.levels import Level, level_of
from mednovelty.viewers.scan_to_show import ScanToShow, ScoredMap
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


def scene_of(scan: ScanToShow) -> Scene:
    """Return the scene of a scan.

    Raises:
        GeometryError: A map lies on other voxels than the mask.
        ScanError: A file cannot be read.
    """
    known = [ScoredMap.read(score, path) for score, path in scan.maps.items()]
    active = _first_to_show(scan, known)
    background = read_volume(scan.background_file)
    # This reads and checks the maps.
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
    """Return which map is shown first: of a method, with clusters, segmented, calibrated, as on pages.

    Of equals, one that tells voxels of a slice apart.
    """

    def rank(n: int) -> tuple[bool, bool, bool]:
        one = known[n]
        return one.score in scan.trivial, not one.clusters, one.segmentation is None

    best = min(map(rank, range(len(known))))
    equal = [n for n in range(len(known)) if rank(n) == best]
    equal.sort(key=lambda n: known[n].smallest_p is None)
    if len(equal) == 1:
        return equal[0]
    return next((n for n in equal if not _has_one_value_a_slice(scan, known[n])), equal[0])


def _has_one_value_a_slice(scan: ScanToShow, one: ScoredMap) -> bool:
    """Whether a map is the same all over each slice of some axis: the slice was scored, not its voxels."""
    values = read_volume(one.names.novelty).data[0]
    if values.shape != scan.mask.shape:
        return False
    low, high = np.where(scan.mask, values, np.inf), np.where(scan.mask, values, -np.inf)
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        # Slices outside the mask have a highest value below the lowest.
        if (high.max(others) <= low.min(others)).all():
            return True
    return False


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
    """Return the peak of the largest cluster; without any, the highest voxel, of several a middle one."""
    for row in _rows(one) if one.clusters else ():
        if np.isfinite(row.peak_mm).all():
            return row.peak_mm
    values = np.where(scan.mask, read_volume(one.names.novelty).data[0], np.nan)
    if not np.isfinite(values).any():
        return _in_mm((np.array(scan.mask.shape) - 1) / 2, background.affine)
    highest = np.argwhere(values == np.nanmax(values))
    apart = np.linalg.norm(highest - highest.mean(axis=0), axis=1)
    return _in_mm(highest[apart.argmin()], background.affine)


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


__all__ = ["MOST_SEGMENTS", "merged", "scene_of", "segments_of"]
