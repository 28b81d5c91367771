"""The ``explain`` command: why scores of scans, or of single voxels, are what they are."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mednovelty import console
from mednovelty.errors import SettingsError
from mednovelty.text import printable

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.scan import Scan

log = logging.getLogger("mednovelty")


@dataclass(frozen=True)
class ExplainRequest:
    """What ``explain`` was asked for."""

    model: Path
    folder: Path
    output: Path | None
    only_of_maps: bool = False
    """Whether options were given that are for maps."""
    score: str | None = None
    method: str = "auto"
    masks: Path | None = None
    fold: int | None = None
    brain_masks: Path | None = None
    mask_maker: str | None = None
    overwrite: bool = False
    device: str = "auto"
    threads: int | None = None
    as_json: bool = False


@dataclass(frozen=True)
class VoxelRequest:
    """What ``explain`` was asked of maps."""

    maps: Path
    at: tuple[str, ...] = ()
    score: str | None = None
    detector: Path | None = None
    scans: Path | None = None
    nearest: int = 5
    peaks: int = 5
    device: str = "auto"
    threads: int | None = None
    as_json: bool = False


def explain_voxels(request: VoxelRequest, output: Path | None = None) -> int:
    """Write why voxels of scored scans score as they do, beside their maps; return the exit code.

    Raises:
        SettingsError: The folder is a detector's; or places are asked for in several scans at once.
    """
    from mednovelty.detector import Detector
    from mednovelty.explain_maps import detector_folder, maps_to_explain, of_detector
    from mednovelty.explain_voxels import VoxelRun, explain_scan_voxels, scored_scans
    from mednovelty.fit_command import names_of
    from mednovelty.report_command import refresh
    from mednovelty.store import RECORD

    if (request.maps / RECORD).exists():
        raise SettingsError(
            f"{request.maps}: is a detector; give a folder of scans and -o OUT after it for relevance, or "
            "the folder of a scored scan alone, such as OUT/sub-01, for why a voxel scores as it does"
        )
    if output is not None:
        raise SettingsError("-o: what is told of voxels is written beside their maps; leave -o out")
    places = tuple(place_in_mm(text) for text in request.at)
    found = scored_scans(request.maps)
    if places and len(found) > 1:
        raise SettingsError(
            f"{request.maps}: holds maps of {len(found)} scans, and --at is a place in one; give that one's "
            f"folder, such as {request.maps / next(iter(found)).partition('_')[0]}"
        )
    console.set_threads(request.threads)
    asked = () if request.score is None else tuple(names_of(request.score, "--score"))
    run = VoxelRun(places, request.nearest, request.peaks)
    known: dict[Path, Detector] = {}

    def detector_in(folder: Path) -> Detector:
        folder = folder.resolve()
        known[folder] = known.get(folder) or Detector.load(folder).to(request.device)
        return known[folder]

    told = []
    for scored in found.values():
        parts = maps_to_explain(scored, asked)
        if request.detector is not None:
            parts = of_detector(parts, detector_in(request.detector).sha256)
        for part in parts:
            detector = detector_in(request.detector or detector_folder(part))
            scan = _scan_in(request.scans, detector, scored.id, part.scored.brain)
            for one in explain_scan_voxels(detector, part, run, scan):
                told.append(json.loads(one.picture.with_suffix(".json").read_text(encoding="utf-8")))
                if not request.as_json:
                    print(printable("\n".join(told[-1]["Text"]) + "\n", keep="\n"))
    refresh(request.maps, list(found))
    if request.as_json:
        console.print_json(told)
    return 0


def place_in_mm(text: str) -> tuple[float, float, float]:
    """Return the place that ``--at`` names.

    Raises:
        SettingsError: It is not three finite numbers.

    Examples:
        >>> place_in_mm("10,-32, 24.5")
        (10.0, -32.0, 24.5)
    """
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(f"--at {text}: must be X,Y,Z in mm, such as 10,-32,24.5") from error
    if not all(math.isfinite(value) for value in (x, y, z)):
        raise SettingsError(f"--at {text}: must be three finite numbers")
    return x, y, z


def _scan_in(folder: Path | None, detector: Detector, id: str, brain: Path) -> Scan | None:
    """Return the scan of an id in a folder, its mask the one that was used; None where no folder is given."""
    from mednovelty.fit_command import find_scans_of
    from mednovelty.io.read_scan import read_scan

    if folder is None:
        return None
    kind: Any = "structural" if detector.contrasts else "dwi"
    found = {files.id: files for files in find_scans_of(kind, folder, detector.contrasts, None)}
    if id not in found:
        raise SettingsError(f"{folder}: has no scan {id}; there are {', '.join(list(found)[:10])}")
    return read_scan(replace(found[id], mask=brain), options=detector.reading)


def explain(request: ExplainRequest) -> int:
    """Write the relevance of scans; return the exit code.

    Raises:
        SettingsError: There is no folder to write to, or options are given that are for maps.
    """
    from mednovelty.cohort import CohortSettings, check_run
    from mednovelty.commands import scans_to_score
    from mednovelty.detector import Detector
    from mednovelty.explain_cohort import RECORD, ExplainRun, explain_cohort, scores_to_explain
    from mednovelty.fit_command import names_of
    from mednovelty.words_commands import SCORED, is_detector_of_reports

    if request.output is None:
        raise SettingsError("explain MODEL SCANS needs -o OUT, where relevance goes")
    if request.only_of_maps:
        raise SettingsError(
            "--at, --detector and --scans are for explain with a folder of maps alone, such as OUT/sub-01"
        )
    if is_detector_of_reports(request.model):
        raise SettingsError(
            f"{request.model}: is a detector of reports, which attention explains: `mednovelty score` writes "
            f"each word's to {SCORED}"
        )
    detector = Detector.load(request.model).to(request.device)
    method = cast(Any, request.method.replace("-", "_").lower())
    asked = None if request.score is None else names_of(request.score, "--score")
    scores = scores_to_explain(detector, asked, method)
    scans, options = scans_to_score(detector, request)
    check_run(detector, scans, request.output, CohortSettings(scores))
    regions = (
        None if request.masks is None else _regions(request.masks, [s.id for s in scans], request.output)
    )
    console.set_threads(request.threads)
    console.log_to_folder(request.output)
    log.info("explaining %s", ", ".join(scores))
    run = ExplainRun(scores, method, regions, request.overwrite)
    result = explain_cohort(detector, scans, request.output, run, options)
    if request.as_json:
        console.print_json(json.loads((request.output / f"{RECORD}.json").read_text()))
    done = [outcome.status for outcome in result.outcomes]
    log.info("%d explained, %d up to date, %d failed; relevance in %s", done.count("done"),
             done.count("up to date"), done.count("failed"), request.output)  # fmt: skip
    for failure in result.failures:
        log.error("failed: %s: %s", failure.id, failure.message)
    return result.exit_code


def _regions(masks: Path, ids: list[str], besides: Path) -> dict[str, Path]:
    """Return masks by scan id; scans without one are told of in all their voxels."""
    from mednovelty.lesion_masks import masks_by_id

    found = masks_by_id(masks, ids, besides)
    without = [id for id in ids if id not in found]
    if without:
        log.info("%d of %d scans have no mask in %s; their tables tell of all voxels: %s", len(without),
                 len(ids), masks, ", ".join(without[:10]))  # fmt: skip
    return found


__all__ = ["ExplainRequest", "VoxelRequest", "explain", "explain_voxels", "place_in_mm"]
