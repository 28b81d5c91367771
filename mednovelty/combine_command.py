"""``combine``, and ``score --combine``: several calibrated scores become one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mednovelty import console
from mednovelty.errors import DetectorError, OutputError, ScanError, SettingsError
from mednovelty.report_command import report_scored
from mednovelty.slicer_command import show_scored
from mednovelty.threshold_command import segment_scored

if TYPE_CHECKING:
    from mednovelty.calibrate.calibration import Calibration
    from mednovelty.combine_folder import CombinedScan, CombineSettings, Source

log = logging.getLogger("mednovelty")

DEFAULT = "fisher"


@dataclass(frozen=True)
class CombineRequest:
    """What ``combine`` was asked for."""

    folders: Sequence[Path]
    output: Path | None = None
    by: str = DEFAULT
    scores: str | None = None
    detectors: Sequence[Path] = ()
    other_images: bool = False
    z: bool = False
    segmented: bool = True
    reported: bool = True
    overwrite: bool = False
    as_json: bool = False


def combine(request: CombineRequest) -> int:
    """Combine the maps of one folder or of several; return the exit code."""
    from mednovelty.combine_folder import check_place, combine_folders
    from mednovelty.output_folder import sole_writer, write_folder_facts

    settings = settings_of(request.by, request.overwrite, z=request.z, other_images=request.other_images)
    output = _output_of(request)
    sources = [_source(out, request) for out in request.folders]
    check_place(sources, output)  # Before the folder is made.
    with sole_writer(output):
        write_folder_facts(output)
        found = combine_folders(sources, output, settings)
    code = say(found, output)
    segmented = segment_scored(output) if request.segmented else 0
    shown = show_scored(output)
    reported = report_scored(output) if request.reported else 0
    code = code or segmented or shown or reported
    if request.as_json:
        console.print_json({"exit_code": code, "scans": [vars(one) for one in found]})
    return code


def combine_scored(
    output: Path, calibration: Calibration, scores: Sequence[str], settings: CombineSettings
) -> int:
    """Combine what ``score`` has written; return the exit code. A folder without maps is left as it is."""
    from mednovelty.combine_folder import Source, combine_folders
    from mednovelty.output_folder import sole_writer

    try:
        with sole_writer(output):
            found = combine_folders([Source(output, calibration, tuple(scores))], output, settings)
    except ScanError as error:
        if error.code == "maps.none":
            return 0
        raise
    return say(found, output)


def settings_of(
    names: str, overwrite: bool, *, z: bool, other_images: bool = False, option: str = "--by"
) -> CombineSettings:
    """Return the settings of combinations that are named with commas.

    Raises:
        SettingsError: An unknown one, or none.
    """
    from mednovelty.combine_folder import CombineSettings
    from mednovelty.fit_command import names_of

    return CombineSettings(tuple(dict.fromkeys(names_of(names, option))), overwrite, other_images, z)


def say(found: Sequence[CombinedScan], output: Path) -> int:
    """Tell what became of the scans, what failed last; return 0, 3 where all failed, 6 where some did."""
    done = [one.status for one in found]
    log.info("%d scans combined, %d up to date, %d failed; maps in %s", done.count("done"),
             done.count("up to date"), done.count("failed"), output)  # fmt: skip
    for one in found:
        if one.status == "failed":
            log.error("failed: %s", one.message)
    failed = done.count("failed")
    return 0 if not failed else ScanError.exit_code if failed == len(found) else 6


def _output_of(request: CombineRequest) -> Path:
    if request.output is not None:
        return request.output
    if len(request.folders) > 1:
        raise SettingsError("maps of several detectors go to a folder of their own: -o OUT")
    return request.folders[0]


def _source(out: Path, request: CombineRequest) -> Source:
    """Return a folder of maps with its detector's calibration.

    Raises:
        DetectorError: The detector is not where it was, or was calibrated again.
        OutputError: The maps have no calibration.
        ScanError: There are no maps.
        SettingsError: There is no score to combine, or no map of one that is asked for.
    """
    from mednovelty.combine_folder import Source
    from mednovelty.evaluation.files import find_maps
    from mednovelty.fit_command import names_of
    from mednovelty.outputs import told
    from mednovelty.segment_files import SegmentNames
    from mednovelty.told_calibrations import calibration_named

    if not out.is_dir():
        raise ScanError(f"{out}: no such folder; give one that score wrote", code="maps.none")
    maps = [item for scan in find_maps(out)[0].values() for item in scan.maps.items()]
    files = [(score, SegmentNames.beside(path)) for score, path in maps]
    named = [calibration_named(told(names.novelty_sidecar) or {}) for _, names in files]
    calibration = _calibration_of(out, [sha256 for sha256 in named if sha256], request.detectors)
    there = {
        score
        for (score, names), sha256 in zip(files, named, strict=True)
        if sha256 == calibration.sha256 and names.pvalue.is_file()
    }
    known = [score for score in calibration.scores if score in there]
    asked = known if request.scores is None else [s for s in names_of(request.scores) if s in known]
    if not asked:
        raise SettingsError(
            f"{out}: no calibrated map of {request.scores or 'any score'} is there; "
            f"there are {', '.join(known) or 'none'}"
        )
    return Source(out, calibration, tuple(asked))


def _calibration_of(out: Path, named: Sequence[str], detectors: Sequence[Path]) -> Calibration:
    """Return the calibration that maps of a folder were made with: of one given, or where it was.

    ``named`` holds the sha256 of the calibrations that the maps name.
    """
    from mednovelty.calibrate.files import load_calibration
    from mednovelty.outputs import told

    if not named:
        raise OutputError(f"{out}: these maps have no calibration; calibrate the detector, and score")
    place = (told(out / "run.json") or {}).get("DetectorFolder")
    if not isinstance(place, str) and not detectors:
        raise SettingsError(
            f"{out}: does not say which detector made its maps; give it: --detector MODEL. Where they are "
            "combinations, combine the folders that they are of"
        )
    places = list(detectors) or [out / str(place)]
    found = [load_calibration(model) for model in places]
    for calibration in found:
        if calibration is not None and calibration.sha256 in named:
            return calibration
    raise DetectorError(
        f"{out}: its maps were made with a calibration ({named[0][:12]}) that is not the one in "
        f"{', '.join(map(str, places))}; give the detector, --detector MODEL, or score again with --overwrite"
    )


__all__ = ["CombineRequest", "combine", "combine_scored", "settings_of"]
