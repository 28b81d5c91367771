"""Many scans, one after another: what is done stays done, and one bad scan stops nobody.

``OUT/<subject>/[<session>/]dwi/<id>_desc-<score>_novelty.nii.gz`` with a ``.json`` beside it is written
last for each map, so that the sidecar's presence, with hashes that match, means done.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import (
    DetectorError,
    OutputError,
    ScanError,
    StoppedError,
)
from mednovelty.io.atomic import write_text_atomic
from mednovelty.output_folder import refuse_traps, sole_writer, write_folder_facts
from mednovelty.outputs import (
    OutputNames,
    WantedMaps,
    key_of,
    peak_mib,
    settings_of,
    settings_sha256,
    sha256_of_file,
    sidecar_of,
    state_of,
)
from mednovelty.quality import write_quality
from mednovelty.run_record import EXISTS, CohortResult, Outcome, failure_of, write_record
from mednovelty.scan import Volume
from mednovelty.scan_table import write_scan_scores
from mednovelty.segment_files import SegmentNames
from mednovelty.segment_files import remove as remove_segmentation
from mednovelty.store import json_types
from mednovelty.told_calibrations import tell_calibration

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import ScanFiles, ScanList
    from mednovelty.pvalue_maps import PValueMaps

log = logging.getLogger("mednovelty")


@dataclass(frozen=True)
class CohortSettings:
    """How a cohort is scored.

    Attributes:
        scores: Which scores, names or groups; none: those that the detector was fitted for. A text is the one
            of that name. The trivial baselines are added where the scan has gradients.
        overwrite: Whether maps that another detector or other settings made are replaced.
        baselines: Whether the ``raw_*`` baselines are written too.
    """

    scores: tuple[str, ...] = ()
    overwrite: bool = False
    baselines: bool = True

    def __post_init__(self) -> None:
        names = (self.scores,) if isinstance(self.scores, str) else tuple(self.scores)
        object.__setattr__(self, "scores", names)


@dataclass(frozen=True)
class _Run:
    """What is the same for every scan of a run."""

    detector: Detector
    out: Path
    names: tuple[str, ...]
    settings: CohortSettings
    options: ReadOptions
    advance: Callable[[str, int, int], Any]
    pvalues: PValueMaps | None = None

    def calibrated(self, files: ScanFiles) -> WantedMaps:
        """Return which maps of p-values a scan gets."""
        return WantedMaps() if self.pvalues is None else self.pvalues.wanted(files)

    def wanted(self, files: ScanFiles) -> list[str]:
        """Return the scores of a scan."""
        baselines = self.detector.baselines if self.settings.baselines else ()
        return list(dict.fromkeys([*self.names, *self.detector.scan_scores, *baselines]))

    def facts(self) -> dict[str, Any]:
        """Return what the run's record tells besides outcomes."""
        return {
            "Scores": self.names,
            "Settings": settings_of(self.detector, self.options),
            "SettingsSha256": settings_sha256(self.detector, self.options),
            "CalibrationSha256": None if self.pvalues is None else self.pvalues.calibration.sha256,
            "DetectorFolder": None if self.pvalues is None else self._folder(self.pvalues),
        }

    def _folder(self, pvalues: PValueMaps) -> str:
        """Return where the detector lies, as seen from the maps."""
        return Path(os.path.relpath(pvalues.calibration.folder.parent, self.out)).as_posix()


def score_cohort(  # noqa: PLR0913 - all but the first three are by keyword
    detector: Detector,
    scans: ScanList,
    out: str | Path,
    *,
    settings: CohortSettings | None = None,
    options: ReadOptions | None = None,
    pvalues: PValueMaps | None = None,
    advance: Callable[[str, int, int], Any] = lambda scan_id, done, total: None,
) -> CohortResult:
    """Score every scan of a list into a folder.

    However the run ends, ``run.json`` and ``failures.tsv`` tell what became of the scans until then.

    Args:
        detector: What scores; it must have been read from disk or saved, so that it has a hash.
        scans: From ``scan_folder``.
        out: The folder to write; made if absent.
        settings: Which scores, and whether to overwrite; None: the detector's, and no.
        options: How scans are read; None: as the detector has it, ``detector.reading``.
        pvalues: What makes p-values of raw maps; None: raw maps alone are written.
        advance: Told ``(scan id, voxels done, voxels in all)`` after each batch.

    Raises:
        DetectorError: It was never saved, or knows no scans.
        OutputError: The folder cannot be written, is in use by another run, or is no place for maps.
        ScanError: There is no scan.
        SettingsError: An unknown score.
        StoppedError: Stopped by a signal.
    """
    out, settings = Path(out), settings or CohortSettings()
    names = check_run(detector, scans, out, settings)
    run = _Run(detector, out, names, settings, options or detector.reading, advance, pvalues)
    so_far = CohortResult((), tuple((str(s.path), s.why) for s in scans.skipped), tuple(s.id for s in scans))
    untold = None if pvalues is None else pvalues.calibration
    with sole_writer(out):
        try:
            write_folder_facts(out)
            for files in scans:
                outcome = _score_one(run, files)
                so_far = replace(so_far, outcomes=(*so_far.outcomes, outcome), unreached=so_far.unreached[1:])
                if untold is not None and outcome.status != "failed":
                    # With the first maps, so that those of a run that is cut short can be segmented.
                    tell_calibration(out, untold.told())
                    untold = None
                log.info("%s: %s %s", outcome.id, outcome.status, outcome.message)
            write_scan_scores(out, scans, detector.scan_scores)
            write_record(out, detector, so_far, run.facts())
        except BaseException as error:
            # What ended the run is what is raised, even if the disk refuses the record as well.
            with contextlib.suppress(Exception):
                write_record(out, detector, replace(so_far, ended_by=error), run.facts())
            raise
    return so_far


def check_run(detector: Detector, scans: ScanList, out: Path, settings: CohortSettings) -> tuple[str, ...]:
    """Refuse what cannot become a run, before anything is written; return the scores to compute.

    Raises:
        DetectorError, OutputError, ScanError, SettingsError: As ``score_cohort``.
    """
    if not detector.sha256:
        raise DetectorError("the detector has no hash to tell its maps by; save it, or load it, first")
    if not detector.preprocessing:
        raise DetectorError("the detector was fitted on arrays and knows no scans; use score_voxels")
    names = tuple(detector.names_of(settings.scores))
    no_scorers = (*detector.contrast_baselines, *detector.scan_scores)
    detector.scoring().check([name for name in names if name not in no_scorers])
    if not len(scans):
        raise ScanError(f"{scans.root}: no scan was found to score", code="folder.no_scan")
    refuse_traps(out, scans)
    return names


_MADE_OTHERWISE = {
    "other": "maps of {} by another detector, with other settings or from another file",
    "recalibrated": "p-values of {} by another calibration, by other regions, or that are not asked for now",
}
"""What stands of a scan and is in the way, by its state."""


def _score_one(run: _Run, files: ScanFiles) -> Outcome:
    """Score one scan; what goes wrong with it is its outcome, what goes wrong with the disk is raised."""
    start = time.monotonic()
    try:
        place = OutputNames.of(files, run.out)
        state = _state(run, files, place)
        if state == "done":
            return Outcome(files.id, "up to date", source=str(files.image))
        if state in _MADE_OTHERWISE and not run.settings.overwrite:
            message = (
                f"{place.folder}: holds {_MADE_OTHERWISE[state].format(files.id)}; choose another folder or "
                "pass --overwrite"
            )
            return Outcome(files.id, "failed", message, EXISTS, str(files.image))
        n_voxels = _score_and_write(run, files, place, clear=state in _MADE_OTHERWISE)
    except (OutputError, StoppedError):
        raise
    except Exception as error:  # Whatever is wrong with one scan must not stop the others.
        return failure_of(files, error, time.monotonic() - start)
    return Outcome(
        files.id, "done", source=str(files.image), n_voxels=n_voxels, seconds=time.monotonic() - start
    )


def _state(run: _Run, files: ScanFiles, place: OutputNames) -> str:
    """Return whether the maps are there; the image is only read for that where there are any."""
    from mednovelty.io.structural import input_sha256

    if not place.sidecars():
        return "absent"
    key = key_of(run.detector, files, run.options, input_sha256(files))
    return state_of(place, run.wanted(files), key, run.calibrated(files))


def _score_and_write(run: _Run, files: ScanFiles, place: OutputNames, *, clear: bool) -> int:
    from mednovelty.io.nifti import write_map
    from mednovelty.io.read_scan import read_scan

    start = time.monotonic()
    scan = read_scan(files, options=run.options)
    key = key_of(run.detector, files, run.options, scan.sha256)
    maps = run.detector.score(
        scan, run.wanted(files), advance=lambda done: run.advance(files.id, done, scan.n_voxels)
    )
    covered = scan.mask & run.detector.covered(scan)
    calibrated = run.calibrated(files)
    regions = None if run.pvalues is None else run.pvalues.regions_of(scan, covered)
    _make_room(place, None if clear else list(maps))
    affine = scan.grid.affine
    write_map(place.background, Volume(scan.background[None], affine, f"background of {scan.id}"))
    write_map(
        place.mask, Volume(scan.mask[None].astype(np.uint8), affine, f"mask of {scan.id}"), dtype=np.uint8
    )
    write_quality(scan, run.detector, place)
    unscored = scan.n_voxels - int(np.count_nonzero(covered))
    seconds = time.monotonic() - start
    warnings = [*scan.warnings, *_seen_before(run, scan.sha256)]
    for name, novelty in maps.items():
        novelty.save(place.map(name))
        facts: dict[str, Any] = {**key, "Runtime": {"Seconds": round(seconds, 3), "PeakMiB": peak_mib()}}
        # A contrast's own intensity needs no sample.
        facts["UnscoredVoxels"] = 0 if name in run.detector.contrast_baselines else unscored
        facts["MapSha256"] = sha256_of_file(place.map(name))
        for image, volume in novelty.images.items():
            write_map(place.image(name, image), volume)
        facts["Images"] = {image: sha256_of_file(place.image(name, image)) for image in novelty.images}
        if run.pvalues is not None:
            facts["Calibration"] = run.pvalues.write(place, novelty, covered, regions, calibrated.key)
        facts["Warnings"] = warnings
        sidecar = sidecar_of(run.detector, scan, novelty, place, facts)
        write_text_atomic(place.sidecar(name), json.dumps(json_types(sidecar), indent=2) + "\n")
    return scan.n_voxels


def _seen_before(run: _Run, sha256: str) -> list[str]:
    """Return in words that a scan, by the sha256 of its image, helped to make what it is judged by."""
    seen = {scan.role for scan in run.detector.seen if scan.sha256 == sha256}
    told = []
    if "training" in seen:
        told.append(
            "the detector was trained on this scan: it looks more normal than new scans do, and its p-values "
            "are too large"
        )
    if run.pvalues is not None and sha256 in {scan.sha256 for scan in run.pvalues.calibration.scans}:
        told.append(
            "the detector was calibrated on this scan: its voxels are among those that they get p-values "
            "from, which are too large; as a whole it is held against the other calibration scans"
        )
    return told


def _make_room(place: OutputNames, names: list[str] | None) -> None:
    """Make the scan's folder; take back what says that these maps are done, or, for None, all its maps."""
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        if names is None:
            place.clear()
        for name in names or ():
            place.sidecar(name).unlink(missing_ok=True)
            remove_segmentation(SegmentNames.beside(place.map(name)))
    except OSError as error:
        raise OutputError(f"{place.folder}: cannot be written: {error.strerror}") from error


__all__ = ["CohortResult", "CohortSettings", "Outcome", "check_run", "score_cohort"]
