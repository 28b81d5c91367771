"""All pages of a folder of maps: one a scan beside its maps, and ``OUT/index.html``.

A page says of what it was made, by a hash; one that would come out the same is left alone, so that scoring a
cohort again costs nothing here. A page that cannot be made stops no other.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from mednovelty.errors import (
    GeometryError,
    MedNoveltyError,
    OutputError,
    ScanError,
    StoppedError,
    failure_message,
)
from mednovelty.evaluation.files import find_maps
from mednovelty.io.scan_files import ScanFiles
from mednovelty.report.cohort_page import INDEX, cohort_page
from mednovelty.report.page import is_ours, write_page
from mednovelty.report.scan_facts import ScanFacts, page_of
from mednovelty.report.scan_images import read_scan_images
from mednovelty.report.scan_page import scan_page
from mednovelty.report.sources import look_up_quality

log = logging.getLogger("mednovelty")

_MADE_OF = re.compile(r'<meta name="made-of" content="([0-9a-f]{64})">')
NOT_WHOLE = "0" * 64
_HEAD_BYTES = 64 << 10
MAP_ENDINGS = ("_novelty.nii.gz", "_novelty.json")


@dataclass(frozen=True)
class MadePage:
    """What became of one page.

    Attributes:
        id: Of the scan; empty for the cohort's.
        path: Where it lies.
        status: ``done``, ``up to date`` or ``failed``.
        message: Why it failed; of one that is done, what is left out there, and why.
    """

    id: str
    path: Path
    status: str
    message: str = ""


def report_folder(
    out: Path,
    *,
    again: bool = False,
    only: Sequence[str] | None = None,
    look_up: bool = False,
    scans: Mapping[str, ScanFiles] | None = None,
    advance: Callable[[str], None] = lambda id: None,
) -> list[MadePage]:
    """Make the pages of a folder of maps; the cohort's comes last.

    The caller keeps other runs out of the folder, see ``output_folder.sole_writer``.

    Args:
        out: The folder.
        again: Whether pages that are current are made again.
        only: Ids of the scans whose pages are made; None: all.
        look_up: Whether scans whose quality is not known are read again, where they still are.
        scans: Where they are by id, if not where they were.
        advance: Told each scan's id before its page is made.

    Raises:
        ScanError: There are no maps, or none can be used.
    """
    unusable: dict[Path, ScanError] = {}
    found, warnings = find_maps(out, unusable)
    for warning in warnings:
        log.warning("%s", warning)
    # By the name of the sidecar: the scan may have other maps, and a page.
    made = [MadePage(path.name, path, "failed", str(error)) for path, error in unusable.items()]
    facts: list[ScanFacts] = []
    unknown: list[str] = []
    for id, scored in found.items():
        try:
            scan = ScanFacts.of(scored)
        except MedNoveltyError as error:
            made.append(_failed(id, page_of(scored), error))
            continue
        facts.append(scan)
        if scored.copied_to:
            made.append(MadePage(id, scan.page, "failed", _two_folders(scan)))
        elif only is None or id in only:
            advance(id)
            if look_up and scan.quality is None:
                facts[-1] = scan = _looked_up(scan, scans, unknown)
            made.append(_one(scan, out, again))
    if unknown:
        log.warning("the quality of %d scan%s is not known: %s", len(unknown), "s" * (len(unknown) != 1),
                    unknown[0])  # fmt: skip
    _remove_pages_without_maps(out, {scan.page for scan in facts})
    failures = {page.id: page.message for page in made if page.status == "failed"}
    left_out = [f"{page.id}: {page.message}" for page in made if page.status == "done" and page.message]
    made.append(_index(out, facts, failures, left_out))
    return made


def _two_folders(scan: ScanFacts) -> str:
    """Say that it cannot be told which folder is meant; pages that lie in either are left as they are."""
    folders = ", ".join(str(folder) for folder in (scan.page.parent, *scan.scored.copied_to))
    return f"the same maps of {scan.id} lie in several folders: {folders}; keep one below this folder"


def _looked_up(scan: ScanFacts, scans: Mapping[str, ScanFiles] | None, unknown: list[str]) -> ScanFacts:
    try:
        return look_up_quality(scan, scans)
    except (ScanError, GeometryError) as error:
        log.debug("the quality of %s is not known: %s", scan.id, error)
        unknown.append(
            str(error)
        )  # One line of the first: of a folder that was moved it is the same for all.
        return scan


def _one(scan: ScanFacts, out: Path, again: bool) -> MadePage:
    try:
        made_of = scan.made_of()
        if not again and _made_of(scan.page) == made_of:
            return MadePage(scan.id, scan.page, "up to date")
        read = read_scan_images(scan)
        # What is not whole is never up to date, so that each run tells of it.
        write_page(scan.page, scan_page(read, out, NOT_WHOLE if read.left_out else made_of))
    except StoppedError:
        raise
    except Exception as error:  # Whatever is wrong with one page must not stop the others.
        return _failed(scan.id, scan.page, error)
    return MadePage(scan.id, scan.page, "done", "; ".join(read.left_out))


def _index(
    out: Path, facts: Sequence[ScanFacts], failures: Mapping[str, str], left_out: Sequence[str]
) -> MadePage:
    path = out / INDEX
    try:
        write_page(path, cohort_page(out, facts, failures, left_out))
    except StoppedError:
        raise
    except Exception as error:
        return _failed("", path, error)
    return MadePage("", path, "done")


def _failed(id: str, path: Path, error: Exception) -> MadePage:
    """Return what is told of a page that could not be made; what stands of it from before is removed."""
    if not isinstance(error, MedNoveltyError):
        log.debug("page of %s", id or "the cohort", exc_info=error)
    message = failure_message(error, id or path.name)
    try:
        _remove_outdated(path)
    except OutputError as left:
        message += f"; {left}"
    return MadePage(id, path, "failed", message)


def _remove_pages_without_maps(out: Path, current: Set[Path]) -> None:
    """Remove pages of scans that have no maps any more; what was not written here is left alone.

    So are copies under other names or in other folders: only where other files of the scan lie beside a page
    is it known that its maps were there.
    """
    for path in sorted(out.rglob("*.html")):
        if path in current or _made_of(path) is None or not _has_lost_its_maps(path):
            continue
        try:
            _remove_outdated(path)
            log.info("removed %s: there are no maps any more that it tells of", path)
        except OutputError as error:
            log.warning("%s", error)


def _has_lost_its_maps(page: Path) -> bool:
    """Whether a page lies among files of its scan, and no map is left of them, not even a damaged one."""
    names = [path.name for path in page.parent.iterdir() if path.name.startswith(f"{page.stem}_desc-")]
    return bool(names) and not any(name.endswith(MAP_ENDINGS) for name in names)


def _remove_outdated(path: Path) -> None:
    """Remove a page of ours that could not be made anew: it would tell of maps that are no more."""
    if is_ours(path):
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"{path}: an outdated page, cannot be removed: {error.strerror}") from error


def _made_of(path: Path) -> str | None:
    if not is_ours(path):
        return None
    try:
        with path.open("rb") as file:
            found = _MADE_OF.search(file.read(_HEAD_BYTES).decode("utf-8", "replace"))
    except OSError:
        return None
    return found[1] if found else None


__all__ = ["MadePage", "report_folder"]
