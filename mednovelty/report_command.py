"""``report``, and what ``score`` and others leave of it: pages to look at in a browser."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mednovelty import console
from mednovelty.errors import ScanError, SettingsError

if TYPE_CHECKING:
    from mednovelty.io.scan_files import ScanFiles
    from mednovelty.io.scan_folder import Kind
    from mednovelty.report.folder import MadePage

log = logging.getLogger("mednovelty")


@dataclass(frozen=True)
class ReportRequest:
    """What ``report`` was asked for."""

    output: Path
    scans: Path | None = None
    as_json: bool = False


def report(request: ReportRequest) -> int:
    """Make all pages of a folder of maps again, or that of a detector; return the exit code.

    Scenes that are missing or outdated are made too, as each other command that writes maps does: a folder
    that an earlier release has scored gets all that one scored today has.

    Raises:
        DetectorError: It is a detector's folder, and damaged.
        OutputError: A page cannot be written.
        ScanError: There are no maps, or no scan is in the folder of scans.
    """
    from mednovelty.evaluation.files import find_maps
    from mednovelty.output_folder import sole_writer, write_folder_facts
    from mednovelty.report.folder import report_folder
    from mednovelty.slicer_command import show_scored

    out = request.output
    if not out.is_dir():
        raise ScanError(f"{out}: no such folder; give the one that score wrote", code="maps.none")
    if (out / "detector.json").is_file():
        return _detector(request)
    find_maps(out)  # Before anything is written into a folder that is none of ours.
    given = None if request.scans is None else _scans_in(request.scans)
    with sole_writer(out):
        write_folder_facts(out)
    shown = show_scored(out)
    with sole_writer(out):
        made = report_folder(out, again=True, scans=given, look_up=True)
    code = exit_code_of(made) or shown
    if request.as_json:
        pages = [{**vars(page), "path": str(page.path)} for page in made]
        console.print_json({"exit_code": code, "pages": pages})
    say(made, out)
    return code


def _detector(request: ReportRequest) -> int:
    """Make the page of a detector again."""
    from mednovelty.report.detector_page import write_detector_page

    page = write_detector_page(request.output)
    if request.as_json:
        console.print_json({"exit_code": 0, "pages": [{"path": str(page)}]})
    log.info("wrote %s", page)
    return 0


def report_scored(out: Path, only: Sequence[str] | None = None) -> int:
    """Make the pages of a folder that are not current, after something was written there.

    Returns:
        The exit code; 0 where there are no maps to tell of.

    Raises:
        OutputError: Another run is writing there, or nothing can be written.
    """
    from mednovelty.output_folder import sole_writer
    from mednovelty.report.folder import report_folder

    try:
        with sole_writer(out):
            made = report_folder(out, only=only)
    except ScanError as error:
        if error.code == "maps.none":
            return 0
        log.error("no report: %s", error)
        return error.exit_code
    say(made, out)
    return exit_code_of(made)


def refresh(maps: Path, ids: Sequence[str]) -> None:
    """Make the pages of some scans anew where there are any, as after a voxel of theirs was explained.

    Args:
        maps: A folder of maps, or one in such.
        ids: Of the scans.
    """
    from mednovelty.report.cohort_page import INDEX
    from mednovelty.report.page import is_ours

    folder = maps.resolve()
    # OUT/sub-01/ses-1/dwi at most.
    for out in (folder, *list(folder.parents)[:3]):
        if is_ours(out / INDEX):
            report_scored(out, ids)
            return


def say(made: Sequence[MadePage], out: Path) -> None:
    """Tell how many pages there are, and which could not be made."""
    done, index = [page.status for page in made], made[-1]
    there = "there is no page of the cohort" if index.status == "failed" else f"open {index.path}"
    log.info("%d pages made, %d up to date, %d failed; %s", done.count("done"),
             done.count("up to date"), done.count("failed"), there)  # fmt: skip
    for page in made:
        if page.status == "failed":
            log.error("no page of %s: %s", page.id or "the cohort", page.message)
        elif page.message:
            log.error("page of %s: %s", page.id, page.message)


def exit_code_of(made: Sequence[MadePage]) -> int:
    """Return 0 where every page was made, 3 where none was, 6 where some were not, or not whole."""
    failed = sum(page.status == "failed" for page in made)
    if not failed:
        return 6 if any(page.message for page in made) else 0
    return ScanError.exit_code if failed == len(made) else 6


def _scans_in(folder: Path) -> dict[str, ScanFiles]:
    """Return the scans of a folder by id, diffusion and structural ones.

    Raises:
        ScanError: There are none.
    """
    from mednovelty.fit_command import find_scans_of

    found: dict[str, ScanFiles] = {}
    reasons = []
    kinds: tuple[Kind, ...] = ("structural", "dwi")
    for kind in kinds:
        try:
            found |= {files.id: files for files in find_scans_of(kind, folder, None, None)}
        except (ScanError, SettingsError) as error:
            reasons.append(str(error))
    if not found:
        raise ScanError(f"{folder}: no scan was found there: {'; '.join(reasons)}", code="folder.no_scan")
    return found


__all__ = ["ReportRequest", "refresh", "report", "report_scored"]
