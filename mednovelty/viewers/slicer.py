"""Files that 3D Slicer opens with a double click, beside the maps of each scan.

``<id>_scene.mrml``                     background, a foreground a score, thresholds, legend, views
``<id>_novelty.ctbl``                   the colours of maps
``<id>_desc-<score>_dseg.seg.nrrd``     clusters as named segments

A scene carries the hash of what it was made from: it is written again when that has changed. One that was
saved by another program carries none any more, and is left alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mednovelty.errors import OutputError, ScanError, StoppedError, failure_message
from mednovelty.evaluation.files import find_maps
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.nifti import read_volume
from mednovelty.outputs import told
from mednovelty.viewers.colours import colour_table
from mednovelty.viewers.scan_scene import merged, scene_of, segments_of
from mednovelty.viewers.scan_to_show import ScanToShow, ScoredMap
from mednovelty.viewers.scene import mrml
from mednovelty.viewers.seg_nrrd import write_seg_nrrd

log = logging.getLogger("mednovelty")

_FORMAT = 2
"""Raised when scenes are made in another way, so that they are written again."""
_MARK = "mednovelty scene of "
_MARKED = re.compile(rf"<!-- {_MARK}([0-9a-f]{{64}}) -->")
_NOT_WHOLE = "0" * 64
_HEAD_CHARACTERS = 400


@dataclass(frozen=True)
class SceneOutcome:
    """What became of one scene.

    Attributes:
        id: Of the scan.
        path: Of the scene.
        status: ``done``, ``up to date``, ``changed`` by another program and left so, or ``failed``.
        message: Why it failed; of one that is done, what is left out there, and why.
    """

    id: str
    path: Path
    status: str
    message: str = ""


def write_scenes(out: Path) -> list[SceneOutcome]:
    """Write the scene of every scan of a folder of maps; one that cannot be is a failure, and stops no other.

    The caller keeps other runs out of the folder, see ``output_folder.sole_writer``.

    Raises:
        OutputError: Something cannot be written.
        ScanError: There are no maps, or none can be used.
    """
    unusable: dict[Path, ScanError] = {}
    scans, _ = find_maps(out, unusable)
    order = (told(out / "run.json") or {}).get("Scores")
    first = [name for name in order if isinstance(name, str)] if isinstance(order, list) else []
    failed = [SceneOutcome(path.name, path, "failed", str(error)) for path, error in unusable.items()]
    return failed + [_write(id, one) for id, scan in scans.items() for one in scans_to_show(scan, first)]


def scans_to_show(scan: ScoredScan, first: list[str]) -> list[ScanToShow]:
    """Return the maps of a scan by folder, those of ``first`` first, then by name, trivial ones last."""
    trivial = frozenset(score for score, made in scan.made.items() if made.trivial)
    rank = {name: n for n, name in enumerate(first)}
    scores = sorted(scan.maps, key=lambda name: (name in trivial, rank.get(name, len(rank)), name))
    places: dict[tuple[Path, str], dict[str, Path]] = {}
    for score in scores:
        path = scan.maps[score]
        stem = path.name.rpartition("_desc-")[0]
        places.setdefault((path.parent, stem), {})[score] = path
    return [ScanToShow(folder, stem, maps, trivial) for (folder, stem), maps in places.items()]


def _write(id: str, scan: ScanToShow) -> SceneOutcome:
    try:
        key = _key_of(scan)
        standing = _key_in(scan.scene)
        if standing == "":
            return SceneOutcome(id, scan.scene, "changed")
        if standing == key and _is_whole(scan):
            return SceneOutcome(id, scan.scene, "up to date")
        left_out = _write_what_can_be(scan, key)
    except (OutputError, StoppedError):
        raise
    except Exception as error:  # Whatever is wrong with one scan must not stop the others.
        return SceneOutcome(id, scan.scene, "failed", failure_message(error, id))
    return SceneOutcome(id, scan.scene, "done", "; ".join(left_out))


def _write_what_can_be(scan: ScanToShow, key: str) -> list[str]:
    """Write a scene, of what can be read; return what is left out, and why."""
    try:
        write_scene(scan, key)
        return []
    except ScanError:
        kept, left_out = _usable(scan)
        if not kept.maps or not left_out:
            raise
    # What is not whole is never up to date, so that each run tells of it.
    write_scene(kept, _NOT_WHOLE)
    return left_out


def _usable(scan: ScanToShow) -> tuple[ScanToShow, list[str]]:
    """Return a scan with what of it can be shown, and why the rest cannot."""
    left_out: list[str] = []
    try:
        if scan.background_file != scan.mask_file:
            background = read_volume(scan.background_file)
            background.grid.check_same(read_volume(scan.mask_file).grid, background.name, scan.mask_file.name)
    except ScanError as error:
        left_out.append(f"the mask stands for the background: {error}")
        scan = replace(scan, without_background=True)
    maps: dict[str, Path] = {}
    for score, path in scan.maps.items():
        one = ScoredMap.read(score, path)
        try:
            scene_of(replace(scan, maps={score: path}))
            if one.clusters:
                read_volume(one.names.labels)
            maps[score] = path
        except ScanError as error:
            left_out.append(f"{score} is left out: {error}")
    return replace(scan, maps=maps), left_out


def write_scene(scan: ScanToShow, key: str) -> None:
    """Write the files of one scene, itself last.

    Args:
        scan: Of which.
        key: What the scene is marked with, of 64 hexadecimal digits.

    Raises:
        GeometryError, ScanError: See ``scene_of``.
        OutputError: Something cannot be written.
    """
    scene = scene_of(scan)
    for score, path in scan.maps.items():
        _write_segments(ScoredMap.read(score, path))
    write_text_atomic(scan.colours, colour_table())
    write_text_atomic(scan.scene, mrml(scene, f"{_MARK}{key}"))


def _write_segments(one: ScoredMap) -> None:
    if not one.clusters:
        one.names.segments.unlink(missing_ok=True)
        return
    image = read_volume(one.names.labels)
    labels, segments = merged(image.data[0], segments_of(one))
    write_seg_nrrd(one.names.segments, labels, image.affine, segments)


def _key_of(scan: ScanToShow) -> str:
    """Return the hash of what a scene is made from, as sidecars tell it."""
    known = [ScoredMap.read(score, path) for score, path in scan.maps.items()]
    known_of = [_made_of(one) for one in known]
    content = [_FORMAT, scan.stem, scan.background_file.name, sorted(scan.trivial), known_of]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _made_of(one: ScoredMap) -> Mapping[str, Any]:
    keys = ("Score", "MapSha256", "InputSha256", "Calibration", "Mask")
    segmentation = one.segmentation or {}
    return {
        "Name": one.score,
        "PValues": one.smallest_p is not None,
        "Map": {key: one.sidecar.get(key) for key in keys},
        "Segmentation": {key: segmentation.get(key) for key in ("Threshold", "Files", "Numbers")},
    }


def _key_in(scene: Path) -> str | None:
    """Return the mark of a scene; None where there is no scene, empty where another program saved it."""
    try:
        with scene.open(encoding="utf-8", errors="replace") as file:
            found = _MARKED.search(file.read(_HEAD_CHARACTERS))
    except FileNotFoundError:
        return None
    return found[1] if found else ""


def _is_whole(scan: ScanToShow) -> bool:
    known = [ScoredMap.read(score, path) for score, path in scan.maps.items()]
    files = [scan.colours, *(one.names.segments for one in known if one.clusters)]
    return all(path.is_file() for path in files)


__all__ = ["SceneOutcome", "scans_to_show", "write_scene", "write_scenes"]
