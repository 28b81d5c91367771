"""Maps of p-values on disk, of one detector or of several, become maps of their combinations.

They lie beside the maps of the one detector, or, of several, in a folder of their own with the scan's
background and the mask of what all have scored. ``OUT/calibration.json`` gets what the calibration scans show
of each combination, so that it is segmented as any score.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mednovelty.calibrate.calibration import Calibration
from mednovelty.combine.calibrated import Combined, Member, calibrated_again, in_order, key_of
from mednovelty.combine.statistics import combination
from mednovelty.combine_files import ScanToCombine
from mednovelty.errors import OutputError, ScanError, SettingsError, StoppedError, failure_message
from mednovelty.evaluation.files import find_maps
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.nifti import write_map
from mednovelty.io.scan_folder import ScanList
from mednovelty.maps import NoveltyMap
from mednovelty.output_folder import refuse_traps
from mednovelty.outputs import OutputNames, told
from mednovelty.pvalue_maps import PValueMaps
from mednovelty.scan import Volume
from mednovelty.segment_files import SegmentNames
from mednovelty.segment_files import remove as remove_segmentation
from mednovelty.store import json_types
from mednovelty.told_calibrations import ToldCalibrations, tell_calibration

log = logging.getLogger("mednovelty")


@dataclass(frozen=True, eq=False)
class Source:
    """A folder of scored and calibrated maps.

    Attributes:
        out: The folder.
        calibration: Of its detector.
        scores: Which of its scores are combined.
    """

    out: Path
    calibration: Calibration
    scores: tuple[str, ...]

    @property
    def members(self) -> list[Member]:
        """Its scores, to be combined."""
        return [Member(score, self.calibration, str(self.out)) for score in self.scores]


@dataclass(frozen=True)
class CombineSettings:
    """How maps are combined.

    Attributes:
        names: Of combinations.
        overwrite: Whether maps of the same name, but of other scores, are replaced.
        other_images: Whether maps of one scan may be of different images, as of another contrast.
        with_z: Whether maps of z are written too.
    """

    names: tuple[str, ...]
    overwrite: bool = False
    other_images: bool = False
    with_z: bool = False

    def __post_init__(self) -> None:
        for name in self.names:
            combination(name)
        if not self.names:
            raise SettingsError("no combination is named")


@dataclass(frozen=True)
class CombinedScan:
    """What became of one scan.

    Attributes:
        id: Of the scan.
        status: ``done``, ``up to date`` or ``failed``.
        message: Why it failed.
    """

    id: str
    status: str
    message: str = ""


@dataclass(frozen=True, eq=False)
class _Run:
    """What is the same for every scan; ``combined`` from the first one on that needs it."""

    out: Path
    settings: CombineSettings
    members: tuple[Member, ...]
    in_place: bool
    combined: Combined | None = None

    def calibrated(self) -> _Run:
        """Return the run with its combinations calibrated, which takes a while."""
        if self.combined is not None:
            return self
        made = calibrated_again(self.members, self.settings.names, other_images=self.settings.other_images)
        for note in (*made.notes, *made.calibration.warnings(made.names[0])):
            log.warning("%s", note)
        return replace(self, combined=made)


def combine_folders(sources: Sequence[Source], out: Path, settings: CombineSettings) -> list[CombinedScan]:
    """Combine the maps of every scan; a scan that cannot be is a failure, and stops no other.

    The caller keeps other runs out of the folder, see ``output_folder.sole_writer``.

    Args:
        sources: One folder or several, each of them once.
        out: Where the maps go: the one source, or a folder of its own.
        settings: Which combinations.

    Raises:
        DetectorError: The maps of a calibration scan are missing or damaged.
        GeometryError, ScanError, SettingsError: The calibrations do not fit, see ``calibrated_again``; or
            there are no maps.
        OutputError: Something cannot be written, or the folder is one of something else.
    """
    in_place = check_place(sources, out)
    run = _Run(out, settings, in_order([one for source in sources for one in source.members]), in_place)
    each: dict[str, Mapping[str, ScoredScan]] = {}
    for source in sources:
        each[str(source.out)], warnings = find_maps(source.out)
        for warning in warnings:
            log.warning("%s", warning)
    results = []
    for id in sorted({id for scans in each.values() for id in scans}):
        result, run = _one(run, id, {where: scans.get(id) for where, scans in each.items()})
        log.info("%s: combined: %s %s", result.id, result.status, result.message)
        results.append(result)
    if run.combined is not None:
        _tell(run, run.combined)
    return results


def check_place(sources: Sequence[Source], out: Path) -> bool:
    """Return whether maps go beside those that they are made of.

    Raises:
        OutputError: They would lie among those of a detector that is not the only one, or of other files.
    """
    if any(out.exists() and source.out.samefile(out) for source in sources):
        if len(sources) > 1:
            raise OutputError(
                f"{out}: holds the maps of one of the detectors; choose another folder for those of several"
            )
        return True
    refuse_traps(out, ScanList(()))
    for path in sorted(out.rglob("*_novelty.json")) if out.is_dir() else ():
        if "Combination" not in (told(path) or {"Combination": None}):
            raise OutputError(f"{out}: holds the maps of another detector; choose another folder")
    return False


def _one(run: _Run, id: str, scans: Mapping[str, ScoredScan | None]) -> tuple[CombinedScan, _Run]:
    """Return what becomes of a scan, and the run."""
    try:
        scan = ScanToCombine.of(id, scans, run.members, run.out, other_images=run.settings.other_images)
        needed = _needed(run, scan)
    except (OutputError, StoppedError):
        raise
    except Exception as error:
        return CombinedScan(id, "failed", failure_message(error, id)), run
    if not needed and _is_told(run):
        return CombinedScan(id, "up to date"), run
    run = run.calibrated()  # What does not fit there fits no scan.
    assert run.combined is not None
    if not needed:
        return CombinedScan(id, "up to date"), run
    try:
        _write(run, run.combined, scan, needed)
    except (OutputError, StoppedError):
        raise
    except Exception as error:  # Whatever is wrong with one scan must not stop the others.
        return CombinedScan(id, "failed", failure_message(error, id)), run
    return CombinedScan(id, "done"), run


def _needed(run: _Run, scan: ScanToCombine) -> list[str]:
    """Return the combinations that are not there.

    Raises:
        ScanError: Another map is there under the name of one, and is not to be replaced.
    """
    states = {name: scan.state(name, with_z=run.settings.with_z) for name in run.settings.names}
    others = [name for name, state in states.items() if state == "other"]
    if others and not run.settings.overwrite:
        raise ScanError(
            f"{scan.place.folder}: holds {', '.join(others)} of {scan.id} of other scores or p-values; "
            "choose another folder, or pass --overwrite",
            code="output.exists",
        )
    return [name for name, state in states.items() if state != "done"]


def _write(run: _Run, combined: Combined, scan: ScanToCombine, names: Sequence[str]) -> None:
    """Write the maps of a scan's combinations, each with its sidecar last."""
    p, inside, affine = scan.read()
    place = scan.place
    _make_room(place, names)
    if not run.in_place:
        _write_frame(scan, inside, affine)
    pvalues = PValueMaps(combined.calibration, with_z=run.settings.with_z)
    for name in names:
        data = np.zeros((1, *inside.shape), np.float32)
        data[0, inside] = combined.statistic(name, p)
        novelty = NoveltyMap(name, Volume(data, affine, f"{name} of {scan.id}"), inside)
        novelty.save(place.map(name))
        # Of one detector it has the key of its maps, so that score takes it for one of them.
        key = (scan.calibration_key() if run.in_place else None) or combined.calibration.sha256
        calibrated = pvalues.write(place, novelty, inside, None, key)
        sidecar = scan.sidecar(name, calibrated, int(np.count_nonzero(inside)), combined.notes)
        write_text_atomic(place.sidecar(name), json.dumps(json_types(sidecar), indent=2) + "\n")


def _make_room(place: OutputNames, names: Sequence[str]) -> None:
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            place.sidecar(name).unlink(missing_ok=True)
            remove_segmentation(SegmentNames.beside(place.map(name)))
    except OSError as error:
        raise OutputError(f"{place.folder}: cannot be written: {error.strerror}") from error


def _write_frame(scan: ScanToCombine, inside: np.ndarray, affine: np.ndarray) -> None:
    """Write the background and the mask of a scan in a folder of its own."""
    place = scan.place
    volume = Volume(inside[None].astype(np.uint8), affine, f"mask of {scan.id}")
    write_map(place.mask, volume, dtype=np.uint8)
    background = scan.brains[0].with_name(place.background.name)
    try:
        if background.is_file():
            shutil.copyfile(background, place.background)
    except OSError as error:
        raise OutputError(f"{place.background}: cannot be written: {error.strerror}") from error


def _is_told(run: _Run) -> bool:
    """Whether ``OUT/calibration.json`` tells what the calibration scans show of all combinations."""
    try:
        record = ToldCalibrations.read(run.out).records.get(key_of(run.members), {"Scores": {}})
    except ScanError:  # Damaged, which telling mends.
        return False
    return set(run.settings.names) <= set(record["Scores"])


def _tell(run: _Run, combined: Combined) -> None:
    """Add what the calibration scans show of the combinations to ``OUT/calibration.json``."""
    own = combined.calibration.told()
    for name in combined.names:
        own["Scores"][name]["Combination"] = [
            {"Score": one.score, "DetectorSha256": one.calibration.detector_sha256} for one in run.members
        ]
    tell_calibration(run.out, own)


__all__ = ["CombineSettings", "CombinedScan", "Source", "check_place", "combine_folders"]
