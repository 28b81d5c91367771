"""What ``fit`` and ``score`` do with reports: text files in place of scans."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty import console
from mednovelty.errors import MedNoveltyError, OutputError, ScanError, SettingsError, StoppedError

if TYPE_CHECKING:
    from mednovelty.commands import ScoreRequest
    from mednovelty.fit_command import FitRequest
    from mednovelty.words.detector import ReportSettings
    from mednovelty.words.reading import Report

log = logging.getLogger("mednovelty")

SCORED = "reports.json"
FEW_KNOWN = 0.5
"""Share of a report's words with a vector, below which what was judged is hardly the report."""
OF_SCANS_FIT = ("masks", "labels", "outliers", "fold", "recipe", "contrasts", "brain_masks", "resume",
                "init")  # fmt: skip
OF_SCANS_SCORE = (
    "scores", "draws", "assignments", "fold", "brain_masks", "mask_maker", "dry_run", "plot_sphere",
    "combine",
)  # fmt: skip
"""Options that mean nothing of reports, by the names that requests have for them."""
FLAGS = {"assignments": "set"}


def reports_among(paths: Sequence[Path]) -> list[Path]:
    """Return the reports where that is what paths are; none where they are scans.

    Raises:
        SettingsError: There are several paths, and they are no reports.
    """
    from mednovelty.words.reading import report_files

    found = report_files(paths)
    if not found and len(paths) > 1:
        raise SettingsError(
            f"{len(paths)} paths, of which not all are reports (*.txt); of scans give one folder, image or "
            "manifest"
        )
    return found


def is_detector_of_reports(folder: Path) -> bool:
    """Return whether a folder holds a detector of reports."""
    from mednovelty.store import RECORD as SCANS
    from mednovelty.words.detector import RECORD

    return (folder / RECORD).is_file() and not (folder / SCANS).exists()


def fit_reports(request: FitRequest) -> int:
    """Train a detector on reports and write its folder; return the exit code.

    Raises:
        SettingsError: The method is not ``cvdd``, a setting is wrong, or an option is for scans.
        ScanError: No report can be used.
        OutputError: A detector is there already, or the folder cannot be written.
    """
    from mednovelty.words.detector import ReportDetector

    _refuse_options_of_scans(request, OF_SCANS_FIT)
    settings = _settings(request)
    _refuse_what_is_there(request.output, request.overwrite)
    console.set_threads(request.threads)
    reports, failures = _read(request.reports)
    reports, twice = _each_once(reports)
    failures += twice
    if not reports:
        raise ScanError(f"no report can be used: {failures[0]['message']}", code="cohort.empty")
    detector = ReportDetector.fit(
        reports,
        embeddings=request.embeddings,
        settings=settings,
        seed=request.seed,
        say=lambda words: log.info("%s", words),
    )
    detector = detector.save(request.output)
    console.tell_alike(detector.notes)
    log.info("%s", detector.verdict())
    log.info("wrote %s", request.output)
    if request.as_json:
        facts = {"folder": str(request.output), "sha256": detector.sha256, "verdict": detector.verdict()}
        console.print_json(facts | {"top_words": detector.top_words, "failures": failures})
    return 6 if failures else 0


def score_reports(request: ScoreRequest) -> int:
    """Score reports: ``cohort.tsv``, a line a report, and ``reports.json``, with attention word by word.

    Raises:
        DetectorError: The detector is damaged.
        OutputError: The folder cannot be written, or holds another detector's scores.
        ScanError: No report can be used.
        SettingsError: An option is for scans.
    """
    from mednovelty.io.atomic import write_text_atomic
    from mednovelty.output_folder import sole_writer
    from mednovelty.outputs import command_line
    from mednovelty.scan_table import TABLE, table
    from mednovelty.words.detector import ReportDetector, refuse_same_ids

    _refuse_options_of_scans(request, OF_SCANS_SCORE)
    detector, out = ReportDetector.load(request.model), request.output
    if not request.reports:
        raise ScanError(f"{request.folder}: no report (*.txt) was found to score", code="folder.no_scan")
    _refuse_scores_of_others(out, detector.sha256, request.overwrite)
    console.set_threads(request.threads)
    reports, failures = _read(request.reports)
    refuse_same_ids(reports)
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        try:
            found[report.id] = {"sha256": report.sha256, **detector.score(report)}
        except ScanError as error:
            failures.append(_failure(report.id, error))
    written = {
        "detector_sha256": detector.sha256,
        "command": command_line(),
        "reports": found,
        "failures": failures,
    }
    with sole_writer(out):
        write_text_atomic(out / TABLE, table([(name, "cvdd", told) for name, told in found.items()]))
        write_text_atomic(out / SCORED, json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    _warn_of_unknown_words(found)
    for failure in failures:
        log.error("failed: %s", failure["message"])
    log.info("%d scored, %d failed; tables in %s", len(found), len(failures), out)
    if request.as_json:
        console.print_json(written)
    return 0 if not failures else 6 if found else ScanError.exit_code


def _settings(request: FitRequest) -> ReportSettings:
    from mednovelty.settings import checked, overlaid, read_toml, tree_of
    from mednovelty.words.detector import ReportSettings

    tree: dict[str, Any] = {"method": "", "method_settings": tree_of(ReportSettings())}
    where = str(request.settings or "--set")
    for layer in (read_toml(request.settings) if request.settings else {}, request.overrides or {}):
        try:
            tree = overlaid(tree, layer, where)
        except SettingsError as error:
            raise SettingsError(
                f"{error}. Reports have other settings than scans: method and seed, and method_settings with "
                f"{', '.join(tree['method_settings'])}"
            ) from error
    if tree["method"] != "cvdd":
        raise SettingsError("reports are for --method cvdd: bags of words")
    return checked(ReportSettings, tree["method_settings"], where)


def _refuse_options_of_scans(request: FitRequest | ScoreRequest, names: Sequence[str]) -> None:
    """Raise where something was asked for that only scans have: it would count for nothing."""
    defaults = {field.name: field.default for field in fields(request)}
    given = [name for name in names if getattr(request, name) != defaults[name]]
    if given:
        options = ", ".join(f"--{FLAGS.get(name, name).replace('_', '-')}" for name in given)
        raise SettingsError(f"{options}: of scans, and these are reports (*.txt); leave it out")


def _each_once(reports: Sequence[Report]) -> tuple[list[Report], list[dict[str, str]]]:
    """Return reports without copies, and what is wrong with those."""
    first: dict[str, Report] = {}
    failures = []
    for report in reports:
        own = first.setdefault(report.sha256, report)
        if own is not report:
            error = ScanError(f"{report.id}.txt: the same file, byte for byte, as {own.id}.txt; it is used "
                              "once", code="cohort.duplicate")  # fmt: skip
            log.warning("%s", error)
            failures.append(_failure(report.id, error))
    return list(first.values()), failures


def _warn_of_unknown_words(found: Mapping[str, Mapping[str, Any]]) -> None:
    for name, told in found.items():
        if told["share_known"] < FEW_KNOWN:
            log.warning("%s: only %.0f %% of its words have a vector; it is judged by those alone, and "
                        "what is new may be in the others", name, 100 * told["share_known"])  # fmt: skip


def _read(paths: Sequence[Path]) -> tuple[list[Report], list[dict[str, str]]]:
    """Return reports, and what is wrong with those that cannot be read."""
    from mednovelty.words.reading import read_report

    reports, failures = [], []
    for path in paths:
        try:
            reports.append(read_report(path))
        except StoppedError:
            raise
        except MedNoveltyError as error:
            log.warning("%s", error)
            failures.append(_failure(path.name.removesuffix(".txt"), error))
    return reports, failures


def _failure(name: str, error: MedNoveltyError) -> dict[str, str]:
    return {"id": name, "code": getattr(error, "code", type(error).__name__), "message": str(error)}


def _refuse_what_is_there(folder: Path, overwrite: bool) -> None:
    from mednovelty.store import RECORD as SCANS
    from mednovelty.words.detector import RECORD

    if (folder / SCANS).exists():
        raise OutputError(f"{folder / SCANS}: a detector of scans is there; choose another folder")
    if (folder / RECORD).exists() and not overwrite:
        raise OutputError(
            f"{folder / RECORD}: a detector is there already; choose another folder or pass --overwrite"
        )


def _refuse_scores_of_others(out: Path, sha256: str, overwrite: bool) -> None:
    """Raise where the folder holds what this detector did not write."""
    from mednovelty.store import RECORD as SCANS

    if (out / SCANS).exists() or (out / "run.json").exists():
        raise OutputError(f"{out}: holds a detector, or maps of scans; choose another folder for the tables")
    path = out / SCORED
    if not path.exists() or overwrite:
        return
    try:
        told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read; choose another folder or pass --overwrite") from error
    if not isinstance(told, dict) or told.get("detector_sha256") != sha256:
        raise OutputError(
            f"{path}: was written by another detector; choose another folder or pass --overwrite"
        )


__all__ = ["fit_reports", "is_detector_of_reports", "reports_among", "score_reports"]
