"""Voxels of scored scans, explained: pictures, numbers and a few lines of text beside the maps.

``OUT/<subject>/[<session>/]dwi/<id>_desc-R10P32S24_explained.png`` for the voxel 10 mm to the right, 32 mm
back (posterior) and 24 mm up (superior), and ``.json`` and ``.txt`` beside it. Which voxels: those asked for,
else the peaks of clusters where ``_clusters.tsv`` tells of some, else the highest of the map.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import DetectorError, ScanError, SettingsError
from mednovelty.evaluation.files import find_maps
from mednovelty.explaining.places import Index, mm_of, peaks, short, voxel_at
from mednovelty.explaining.told import lines_of, told_of
from mednovelty.explaining.voxel import NEAREST, explain_voxel
from mednovelty.explaining.voxel_parts import Scored, VoxelWhy
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.guard import read_text, shown
from mednovelty.io.nifti import read_volume
from mednovelty.outputs import told
from mednovelty.report.voxel import Slices, draw_voxel
from mednovelty.scan import Scan
from mednovelty.segment_files import SegmentNames
from mednovelty.store import RECORD, json_types

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.evaluation.scored import ScoredScan

log = logging.getLogger("mednovelty")

PEAKS = 3
PEAK_COLUMNS = ("peak_x_mm", "peak_y_mm", "peak_z_mm")


@dataclass(frozen=True)
class VoxelRun:
    """Which voxels are explained, and how.

    Attributes:
        at: Places in RAS+ millimetres; none: peaks.
        score: Whose peaks, and which is told of first; None: the first calibrated one, else the first.
        nearest: How many of the nearest normals are shown.
        peaks: How many peaks of a map.
    """

    at: tuple[tuple[float, float, float], ...] = ()
    score: str | None = None
    nearest: int = NEAREST
    peaks: int = PEAKS


@dataclass(frozen=True)
class Explained:
    """One voxel.

    Attributes:
        why: What was found.
        picture: Its PNG; the same name with ``.json`` and ``.txt`` lies beside it.
    """

    why: VoxelWhy
    picture: Path


def scored_scans(folder: Path) -> dict[str, ScoredScan]:
    """Return the scans in a folder of maps, by id.

    Raises:
        ScanError: It holds no finished map.
    """
    found, warnings = find_maps(folder)
    for warning in warnings:
        log.warning("%s", warning)
    return found


def detector_folder(scored: ScoredScan) -> Path:
    """Return where the detector of a scan's maps lies, as their sidecars tell.

    Raises:
        DetectorError: They do not, or it is there no more.
    """
    sidecar = _sidecar(scored)
    facts = told(sidecar) or {}
    detector = facts.get("Detector")
    relative = detector.get("Folder") if isinstance(detector, dict) else None
    if not isinstance(relative, str):
        raise DetectorError(
            f"{shown(sidecar)}: does not tell where its detector lies; pass --detector FOLDER"
        )
    folder = Path(os.path.normpath(sidecar.parent / relative))
    if not (folder / RECORD).is_file():
        raise DetectorError(
            f"{folder}: no detector is there any more, as {sidecar.name} tells; pass --detector FOLDER"
        )
    return folder


def explain_scan_voxels(
    detector: Detector, scored: ScoredScan, run: VoxelRun, scan: Scan | None = None
) -> list[Explained]:
    """Explain voxels of one scored scan, and write what was found beside its maps.

    Args:
        detector: That scored it.
        scored: Its maps.
        run: Which voxels, and how.
        scan: Where its files are not where they were when it was scored; None: they are.

    Raises:
        DetectorError: The maps are of another detector.
        ScanError: The scan, or a map, cannot be read, or is not the one that was scored.
        SettingsError: There is no map of the score that is asked for.
        OutputError: Something cannot be written.
    """
    own = _without_combinations(scored)
    if run.score in scored.maps and run.score not in own.maps:
        raise SettingsError(
            f"{scored.id}: {run.score} is a combination; explain one of its scores: {', '.join(own.maps)}"
        )
    scored = own
    _check_detector(detector, scored)
    names = _ordered(scored, run.score, detector)
    maps = {name: read_volume(scored.maps[name]) for name in names}
    grid = maps[names[0]].grid
    scan = _read(detector, scored) if scan is None else scan
    _check_scan(scan, scored, names[0])
    grid.check_same(scan.grid, maps[names[0]].name, scan.id)
    arrays = {name: volume.data[0] for name, volume in maps.items()}
    p_values = {name: p for name in names if (p := _p_values(scored.maps[name])) is not None}
    result = []
    for voxel in _voxels(scored, names[0], run, arrays[names[0]], scan):
        why = explain_voxel(detector, scan, voxel, Scored(arrays, p_values), run.nearest)
        slices = Slices(scan.background, arrays[names[0]], scan.mask, scan.grid.affine, names[0])
        result.append(_write(why, slices, scored, names[0]))
    return result


def _write(why: VoxelWhy, slices: Slices, scored: ScoredScan, score: str) -> Explained:
    start = scored.maps[score].name.rpartition("_desc-")[0]
    path = scored.maps[score].with_name(f"{start}_desc-{short(why.mm)}_explained.png")
    draw_voxel(why, slices, path)
    facts = told(_sidecar(scored)) or {}
    about = {"Detector": facts.get("Detector"), "InputSha256": facts.get("InputSha256")}
    text = json.dumps(json_types({**told_of(why), **about}), indent=2)
    write_text_atomic(path.with_suffix(".txt"), "\n".join(lines_of(why)) + "\n")
    write_text_atomic(path.with_suffix(".json"), text + "\n")
    return Explained(why, path)


def _ordered(scored: ScoredScan, asked: str | None, detector: Detector) -> list[str]:
    """Return the scores that have maps, the one to look at first, baselines last."""
    known = list(scored.maps)
    if asked is not None and asked not in known:
        raise SettingsError(f"{scored.id}: has no map of {asked!r}; it has {', '.join(known)}")
    fitted = [name for name in detector.settings.scores if name in known]
    rest = [name for name in known if name not in fitted]
    names = [*fitted, *rest]
    names.sort(key=lambda name: SegmentNames.beside(scored.maps[name]).pvalue.is_file(), reverse=True)
    names.sort(key=lambda name: name in detector.baselines)
    names.sort(key=lambda name: not SegmentNames.beside(scored.maps[name]).clusters.is_file())
    return names if asked is None else [asked, *(name for name in names if name != asked)]


def _voxels(scored: ScoredScan, score: str, run: VoxelRun, volume: np.ndarray, scan: Scan) -> Sequence[Index]:
    if run.at:
        return [voxel_at(scan.grid, scan.mask, mm, scan.id) for mm in run.at]
    table = SegmentNames.beside(scored.maps[score]).clusters
    if table.is_file():
        places = _cluster_peaks(table)
        log.info("%s: %d clusters in %s", scan.id, len(places), table.name)
        return [voxel_at(scan.grid, scan.mask, mm, scan.id) for mm in places]
    found = peaks(volume, scan.mask, scan.grid, run.peaks)
    where = "; ".join(", ".join(f"{v:.0f}" for v in mm_of(scan.grid, voxel)) for voxel in found)
    log.info("%s: no table of clusters; the highest peaks of %s, at %s mm", scan.id, score, where)
    return found


def _cluster_peaks(path: Path) -> list[tuple[float, float, float]]:
    """Return the peaks of a table of clusters, in its order."""
    rows = list(csv.DictReader(io.StringIO(read_text(path)), delimiter="\t"))
    try:
        return [tuple(float(row[column]) for column in PEAK_COLUMNS) for row in rows]  # type: ignore[misc]
    except (KeyError, TypeError, ValueError) as error:
        raise ScanError(
            f"{shown(path)}: is no table of clusters with numbers in {', '.join(PEAK_COLUMNS)}",
            code="clusters.columns",
        ) from error


def _p_values(path: Path) -> np.ndarray | None:
    """Return the p-values beside a map, which are stored as -log10 p; None where there are none."""
    beside = SegmentNames.beside(path).pvalue
    if not beside.is_file():
        return None
    return np.power(10.0, -read_volume(beside).data[0].astype(np.float64))


def _sidecar(scored: ScoredScan) -> Path:
    own = _without_combinations(scored).maps or scored.maps
    return SegmentNames.beside(next(iter(own.values()))).novelty_sidecar


def _without_combinations(scored: ScoredScan) -> ScoredScan:
    """Return the scan with the maps of a detector's own scores: nothing of a voxel drives a combination."""
    maps = {
        name: path
        for name, path in scored.maps.items()
        if "Combination" not in (told(SegmentNames.beside(path).novelty_sidecar) or {})
    }
    return replace(scored, maps=maps)


def _check_detector(detector: Detector, scored: ScoredScan) -> None:
    facts = told(_sidecar(scored)) or {}
    own = facts.get("DetectorSha256")
    if own != detector.sha256:
        raise DetectorError(
            f"{scored.id}: its maps were made by another detector ({str(own)[:12]}, not "
            f"{detector.sha256[:12]}); pass that one with --detector"
        )


def _check_scan(scan: Scan, scored: ScoredScan, score: str) -> None:
    sidecar = _sidecar(scored)
    own = (told(sidecar) or {}).get("InputSha256")
    if own != scan.sha256:
        raise ScanError(
            f"{scan.id}: is not the image that was scored: its sha256 is {scan.sha256[:12]}, {sidecar.name} "
            f"says {str(own)[:12]}; score it again",
            code="file.checksum",
        )


def _read(detector: Detector, scored: ScoredScan) -> Scan:
    """Read the scan that was scored, its mask the one that was used, from where its sidecar says it lies."""
    from mednovelty.io.read_scan import read_scan, scan_files
    from mednovelty.io.scan_folder import ScanFiles

    sidecar = _sidecar(scored)
    sources = (told(sidecar) or {}).get("Sources")
    paths = [Path(os.path.normpath(sidecar.parent / str(path))) for path in sources or []]
    gone = [path for path in paths if not path.exists()]
    if not paths or gone:
        where = f"{shown(gone[0])}: is there no more" if gone else f"{sidecar.name}: does not tell its scan"
        raise ScanError(f"{where}; pass the folder of the scans with --scans", code="file.absent")
    options = detector.reading
    if detector.contrasts:
        contrasts = tuple(zip(detector.contrasts, paths, strict=True))
        files = ScanFiles(scored.id, paths[0], mask=scored.brain, contrasts=contrasts)
    else:
        files = replace(scan_files(paths[0]), id=scored.id, mask=scored.brain)
    scan = read_scan(files, options=options)
    facts: Any = (told(sidecar) or {}).get("Mask")
    source = facts.get("Source") if isinstance(facts, dict) else None
    return replace(scan, mask_source=source if isinstance(source, str) else scan.mask_source)


__all__ = ["Explained", "VoxelRun", "detector_folder", "explain_scan_voxels", "scored_scans"]
