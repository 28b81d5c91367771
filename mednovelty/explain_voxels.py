"""Voxels of scored scans, explained: pictures, numbers and a few lines of text beside the maps.

``OUT/<subject>/[<session>/]dwi/<id>_desc-R10P32S24_explained.png`` for the voxel 10 mm to the right, 32 mm
back (posterior) and 24 mm up (superior), and ``.json`` and ``.txt`` beside it; of a combination of several
detectors' scores a page each, ``_desc-R10P32S24Detector1_explained.png``. Which voxels: those asked for, else
the peaks of the largest clusters where ``_clusters.tsv`` tells of some, else the highest of the map.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.calibrate.calibration import Calibration
from mednovelty.calibrate.files import load_calibration
from mednovelty.errors import ScanError
from mednovelty.evaluation.files import find_maps
from mednovelty.explain_maps import MapsToExplain, of_detector
from mednovelty.explaining.null_curve import NullCurve
from mednovelty.explaining.places import Index, mm_of, peaks, short, voxel_at
from mednovelty.explaining.told import lines_of
from mednovelty.explaining.told_json import told_of
from mednovelty.explaining.voxel import NEAREST, explain_voxel
from mednovelty.explaining.voxel_parts import Scored, VoxelWhy
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.guard import read_text, shown
from mednovelty.io.mask import read_mask
from mednovelty.io.nifti import read_volume
from mednovelty.outputs import told
from mednovelty.report.voxel import Slices, draw_voxel
from mednovelty.scan import Scan, Volume
from mednovelty.segment_files import SegmentNames
from mednovelty.store import json_types
from mednovelty.told_sources import sources_of

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.evaluation.scored import ScoredScan

log = logging.getLogger("mednovelty")

PEAKS = 5
PEAK_COLUMNS = ("peak_x_mm", "peak_y_mm", "peak_z_mm")
VOLUME_COLUMN = "volume_mm3"


@dataclass(frozen=True)
class VoxelRun:
    """Which voxels are explained, and how.

    Attributes:
        at: Places in RAS+ millimetres; none: peaks.
        nearest: How many of the nearest normals are shown.
        peaks: How many clusters' peaks, the largest clusters', or peaks of a map, of each score.
    """

    at: tuple[tuple[float, float, float], ...] = ()
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


def explain_scan_voxels(
    detector: Detector, maps: MapsToExplain, run: VoxelRun, scan: Scan | None = None
) -> list[Explained]:
    """Explain voxels of one scored scan, and write what was found beside its maps.

    Args:
        detector: That scored it.
        maps: What is explained of it, from ``maps_to_explain``.
        run: Which voxels, and how.
        scan: Where its files are not where they were when it was scored; None: they are.

    Raises:
        DetectorError: The maps are of another detector.
        ScanError: The scan, or a map, cannot be read, or is not the one that was scored.
        SettingsError: Less than one peak is asked for.
        OutputError: Something cannot be written.
    """
    of_detector([maps], detector.sha256)
    paths = _ordered(maps, detector)
    volumes = {name: read_volume(path) for name, path in paths.items()}
    first = next(iter(volumes.values()))
    scan = _read(detector, maps) if scan is None else scan
    _check_scan(scan, maps)
    for volume in volumes.values():
        volume.grid.check_same(scan.grid, volume.name, scan.id)
    mask = scan.mask
    if maps.brain is not None and maps.brain != maps.scored.brain:
        mask = mask & read_mask(maps.brain, first.grid, first.name)[0]
    scored = _scored(volumes, paths, maps, mask, detector)
    wanted = _voxels(paths, maps.first, run, scored, scan)
    result = []
    for number, (voxel, name) in enumerate(wanted, 1):
        why = explain_voxel(detector, scan, voxel, scored.with_first(name), run.nearest)
        slices = Slices(scan.background, scored.maps[name], mask, scan.grid.affine, name)
        result.append(_write(why, slices, maps, paths[name]))
        log.info("%s: page %d of %d: %s", scan.id, number, len(wanted), result[-1].picture)
    return result


def _scored(
    volumes: Mapping[str, Volume],
    paths: Mapping[str, Path],
    maps: MapsToExplain,
    mask: np.ndarray,
    detector: Detector,
) -> Scored:
    arrays = {name: volume.data[0] for name, volume in volumes.items()}
    p_values = {name: p for name, path in paths.items() if (p := _p_values(path)) is not None}
    calibration = None if detector.folder is None else load_calibration(detector.folder)
    nulls = {}
    for name, p in p_values.items():
        own = calibration if name in maps.scored.maps else None
        nulls[name] = _nulls(name, told(SegmentNames.beside(paths[name]).novelty_sidecar) or {}, own,
                             arrays[name][mask], p[mask])  # fmt: skip
    others = dict.fromkeys(maps.others, "is of another detector, whose page tells what drives it")
    abouts = {}
    for name, path in maps.combinations.items():
        others[name] = "is a combination, which its scores drive"
        score = (told(SegmentNames.beside(path).novelty_sidecar) or {}).get("Score") or {}
        abouts[name] = str(score.get("description", ""))
    return Scored(arrays, p_values, nulls, others, abouts, maps.members, mask)


def _nulls(
    score: str, facts: Mapping[str, Any], calibration: Calibration | None, scores: np.ndarray, p: np.ndarray
) -> tuple[NullCurve, ...]:
    """Return what a map's p-values were read from: of a calibration that stands, else as the map shows it."""
    found = facts.get("Calibration")
    found = found if isinstance(found, dict) else {}
    if calibration is not None and calibration.sha256 == found.get("Sha256") and score in calibration.nulls:
        return tuple(NullCurve.of(null) for null in calibration.nulls[score].values())
    if found.get("Regions") == "one" and isinstance(found.get("Voxels"), int):
        return (NullCurve.read_off(scores, p, found["Voxels"]),)
    return ()


def _write(why: VoxelWhy, slices: Slices, maps: MapsToExplain, beside: Path) -> Explained:
    start = beside.name.rpartition("_desc-")[0]
    which = f"Detector{maps.number}" if maps.number else ""
    path = beside.with_name(f"{start}_desc-{short(why.mm)}{which}_explained.png")
    draw_voxel(why, slices, path)
    about = {"Detector": maps.facts.get("Detector"), "InputSha256": maps.facts.get("InputSha256")}
    text = json.dumps(json_types({**told_of(why), **about}), indent=2)
    write_text_atomic(path.with_suffix(".txt"), "\n".join(lines_of(why)) + "\n")
    write_text_atomic(path.with_suffix(".json"), text + "\n")
    return Explained(why, path)


def _ordered(maps: MapsToExplain, detector: Detector) -> dict[str, Path]:
    """Return the maps of the scores, the one to look at first, baselines last."""
    own = maps.scored.maps
    fitted = [name for name in detector.settings.scores if name in own]
    names = [*fitted, *(name for name in own if name not in fitted)]
    names.sort(key=lambda name: not SegmentNames.beside(own[name]).pvalue.is_file())
    names.sort(key=lambda name: name in detector.baselines)
    names.sort(key=lambda name: not SegmentNames.beside(own[name]).clusters.is_file())
    every = {**maps.combinations, **{name: own[name] for name in names}, **maps.others}
    return {name: every[name] for name in (*maps.first, *every)}


def _voxels(
    paths: Mapping[str, Path], asked: Sequence[str], run: VoxelRun, scored: Scored, scan: Scan
) -> list[tuple[Index, str]]:
    """Return each voxel once, and the score whose place it is."""
    mask = scan.mask if scored.mask is None else scored.mask
    leading = next(iter(paths))
    if run.at:
        return [(voxel_at(scan.grid, mask, mm, scan.id), leading) for mm in run.at]
    found: dict[Index, str] = {}
    for name in asked or (leading,):
        for voxel in _peaks(paths[name], name, run, scored.maps[name], mask, scan):
            found.setdefault(voxel, name)
    return list(found.items())


def _peaks(
    path: Path, score: str, run: VoxelRun, volume: np.ndarray, mask: np.ndarray, scan: Scan
) -> list[Index]:
    table = SegmentNames.beside(path).clusters
    places = _cluster_peaks(table) if table.is_file() else []
    if places:
        kept = places[: run.peaks]
        left = f"; {len(places) - len(kept)} smaller ones are left out, --peaks {len(places)} explains all"
        log.info("%s: peaks of %d of %d clusters in %s%s", scan.id, len(kept), len(places), table.name,
                 left if len(kept) < len(places) else "")  # fmt: skip
        return [voxel_at(scan.grid, mask, mm, scan.id) for mm in kept]
    found = peaks(volume, mask, scan.grid, run.peaks)
    where = "; ".join(", ".join(f"{v:.0f}" for v in mm_of(scan.grid, voxel)) for voxel in found)
    why = f"no cluster in {table.name}" if table.is_file() else "no table of clusters"
    log.info("%s: %s; the highest peaks of %s, at %s mm", scan.id, why, score, where)
    return found


def _cluster_peaks(path: Path) -> list[tuple[float, float, float]]:
    """Return the peaks of a table of clusters, the largest first; where it tells no volumes in its order."""
    rows = list(csv.DictReader(io.StringIO(read_text(path)), delimiter="\t"))
    try:
        rows.sort(key=lambda row: -float(row.get(VOLUME_COLUMN) or math.nan) if VOLUME_COLUMN in row else 0.0)
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


def _check_scan(scan: Scan, maps: MapsToExplain) -> None:
    own = maps.facts.get("InputSha256")
    if own != scan.sha256:
        raise ScanError(
            f"{scan.id}: is not the image that was scored: its sha256 is {scan.sha256[:12]}, "
            f"{maps.sidecar.name} says {str(own)[:12]}; score it again",
            code="file.checksum",
        )


def _read(detector: Detector, maps: MapsToExplain) -> Scan:
    """Read the scan that was scored, its mask the one that was used, from where its sidecar says it lies."""
    from mednovelty.io.read_scan import read_scan, scan_files
    from mednovelty.io.scan_folder import ScanFiles

    sidecar, facts, scored = maps.sidecar, maps.facts, maps.scored
    paths = sources_of(sidecar.parent, facts, scored.id)
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
    mask: Any = facts.get("Mask")
    source = mask.get("Source") if isinstance(mask, dict) else None
    return replace(scan, mask_source=source if isinstance(source, str) else scan.mask_source)


__all__ = ["PEAKS", "Explained", "VoxelRun", "explain_scan_voxels", "scored_scans"]
