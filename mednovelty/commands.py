"""What each command does, once its words are understood."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty import console
from mednovelty.errors import DetectorError, ScanError, SettingsError
from mednovelty.settings import parse_assignments
from mednovelty.text import printable

if TYPE_CHECKING:
    from mednovelty.combine_folder import CombineSettings
    from mednovelty.detector import Detector
    from mednovelty.explain_command import ExplainRequest
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import Kind, ScanFiles, ScanList
    from mednovelty.pvalue_maps import PValueMaps
    from mednovelty.run_record import CohortResult

log = logging.getLogger("mednovelty")
WIDTH = 150


@dataclass(frozen=True)
class CheckRequest:
    """What ``check`` was asked for."""

    folder: Path
    deep: bool = False
    brain_masks: Path | None = None
    recipe: str | None = None
    contrasts: str | None = None
    mask_maker: str | None = None
    as_json: bool = False


@dataclass(frozen=True)
class ScoreRequest:
    """What ``score`` was asked for."""

    model: Path
    folder: Path
    output: Path
    scores: str | None = None
    draws: int | None = None
    assignments: Sequence[str] = ()
    fold: int | None = None
    brain_masks: Path | None = None
    mask_maker: str | None = None
    overwrite: bool = False
    dry_run: bool = False
    device: str = "auto"
    threads: int | None = None
    as_json: bool = False
    plot_sphere: bool = False
    calibrated: bool = True
    """Whether p-values are written where the detector has a calibration."""
    z: bool = False
    regions: Path | None = None
    segmented: bool = True
    """Whether calibrated maps are segmented too."""
    combine: str | None = None
    """Names of combinations of the calibrated scores."""
    reported: bool = True
    """Whether pages to look at are made."""
    reports: tuple[Path, ...] = ()
    """Text files in place of scans; see ``words_commands``."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What ``evaluate`` was asked for.

    Attributes:
        output: The folder of the maps.
        masks: Of lesions.
        seed: Of the bootstrap and of the threshold's fifth.
        as_json: Whether the evaluation is printed as JSON.
        relevance: Where ``explain`` wrote; None: whether scores look at lesions is not asked.
        together: Each names two scores, ``A,B``, whose maps are also rated as one.
        reported: Whether the folder's pages are made.
    """

    output: Path
    masks: Path
    seed: int = 0
    as_json: bool = False
    relevance: Path | None = None
    together: Sequence[str] = ()
    reported: bool = True


def check(request: CheckRequest) -> int:
    """Print what is wrong with a cohort."""
    from mednovelty.fit_command import contrasts_in
    from mednovelty.io.check import check_folder
    from mednovelty.io.read_scan import DEFAULTS, with_mask_maker

    contrasts, kind = contrasts_in(request.contrasts), _kind_to_check(request)
    report = check_folder(
        request.folder,
        brain_masks=request.brain_masks,
        deep=request.deep,
        options=DEFAULTS if request.mask_maker is None else with_mask_maker(DEFAULTS, request.mask_maker),
        kind=kind,
        contrasts=contrasts,
    )
    if request.as_json:
        told = {"folder": str(request.folder), "kind": kind, "exit_code": report.exit_code}
        console.print_json(told | {"findings": report.rows()})
        return report.exit_code
    for row in report.rows():
        print(printable(f"{row['severity']:7}  {row['code']:28}  {row['message']}"))
    print(printable(report.summary(), keep="\n"))
    return report.exit_code


def _kind_to_check(request: CheckRequest) -> Kind:
    """Return which kind of scans is meant: the recipe's, that which has contrasts, or what is there."""
    from mednovelty.io.scan_folder import kind_of
    from mednovelty.recipes import recipe_of

    if request.recipe is not None:
        kind = recipe_of(request.recipe).scans
        if kind == "dwi" and request.contrasts:
            raise SettingsError("--contrasts is for structural scans; diffusion scans have gradients")
        return kind
    if request.contrasts:
        return "structural"
    try:
        kind = kind_of(request.folder)
    except ScanError:  # What is wrong with the folder is a finding.
        return "dwi"
    if kind == "structural":
        log.info("%s: no diffusion scan is there; checked as structural scans", request.folder)
    return kind


def score(request: ScoreRequest) -> int:
    """Score a folder of scans, or reports."""
    from mednovelty.words_commands import is_detector_of_reports, score_reports

    return score_reports(request) if is_detector_of_reports(request.model) else _score_scans(request)


def _score_scans(request: ScoreRequest) -> int:
    from mednovelty.cohort import CohortSettings, check_run, score_cohort
    from mednovelty.combine_command import combine_scored
    from mednovelty.detector import Detector
    from mednovelty.fit_command import names_of
    from mednovelty.report_command import report_scored
    from mednovelty.slicer_command import show_scored
    from mednovelty.threshold_command import segment_scored

    detector = Detector.load(request.model).to(request.device)
    if request.assignments:
        detector = detector.with_scoring(parse_assignments(request.assignments), where="--set")
    if request.draws is not None:
        detector = detector.with_draws(request.draws)
    scans, options = scans_to_score(detector, request)
    names = () if request.scores is None else tuple(names_of(request.scores))
    settings = CohortSettings(names, request.overwrite)
    # Before the log is kept there, which makes the folder.
    names = check_run(detector, scans, request.output, settings)
    pvalues = _pvalues(detector, options, names, request)
    combining = _combining(pvalues, names, request)
    if request.plot_sphere:
        _refuse_undrawable(detector)
    if request.dry_run:
        return _dry_run(scans, names, request)
    console.set_threads(request.threads)
    console.log_to_folder(request.output)
    with console.scoring_progress(len(scans)) as advance:
        result = score_cohort(
            detector,
            scans,
            request.output,
            settings=settings,
            options=options,
            pvalues=pvalues,
            advance=advance,
        )
    combined = 0
    if combining is not None and pvalues is not None:
        combined = combine_scored(request.output, pvalues.calibration, *combining)
    segmented = segment_scored(request.output) if request.segmented else 0
    shown = show_scored(request.output)
    reported = report_scored(request.output) if request.reported else 0
    if request.plot_sphere:
        _draw_sphere(detector, scans, options, request.output)
    if request.as_json:
        console.print_json(json.loads((request.output / "run.json").read_text()))
    console.tell_alike(_warnings_of(result, scans, request.output))
    done = [outcome.status for outcome in result.outcomes]
    log.info("%d scored, %d up to date, %d failed; maps in %s", done.count("done"), done.count("up to date"),
             done.count("failed"), request.output)  # fmt: skip
    for failure in result.failures:
        log.error("failed: %s: %s", failure.id, failure.message)
    return result.exit_code or combined or segmented or shown or reported


def _combining(
    pvalues: PValueMaps | None, names: Sequence[str], request: ScoreRequest
) -> tuple[list[str], CombineSettings] | None:
    """Return which scores are combined, and how; None where that is not asked for.

    Raises:
        SettingsError: An unknown combination, or fewer than two calibrated scores.
    """
    from mednovelty.combine_command import settings_of

    if request.combine is None:
        return None
    settings = settings_of(request.combine, request.overwrite, z=request.z, option="--combine")
    known = [] if pvalues is None else [name for name in names if name in pvalues.calibration.scores]
    if len(known) < 2:
        raise SettingsError(
            f"--combine: needs two calibrated scores or more, and of {', '.join(names)} there "
            f"{'is' if len(known) == 1 else 'are'} {known[0] if known else 'none'}; see mednovelty calibrate"
        )
    return known, settings


def _pvalues(
    detector: Detector, options: ReadOptions, names: Sequence[str], request: ScoreRequest
) -> PValueMaps | None:
    """Return what makes p-values, and tell how coarse they are, or that there are none.

    Raises:
        DetectorError: The calibration is damaged, or not one of this detector with these settings.
        SettingsError: Something is asked for that needs another calibration, or any.
    """
    from mednovelty.calibrate.samples import scores_of_samples
    from mednovelty.pvalue_maps import PValueMaps, calibration_of

    calibration = calibration_of(detector, request.model, options) if request.calibrated else None
    if calibration is None:
        asked = "--z" if request.z else "--regions" if request.regions else ""
        if asked:
            raise SettingsError(f"{asked}: is for calibrated scores; see mednovelty calibrate")
        if request.calibrated:
            log.info("%s: not calibrated; raw maps only, no p-values: see mednovelty calibrate",
                     request.model)  # fmt: skip
        return None
    bare = [name for name in names if name not in (*calibration.scores, *detector.scan_scores)]
    if bare:
        log.info("not calibrated, raw maps only: %s", ", ".join(bare))
    known = [name for name in names if name in calibration.scores]
    for warning in dict.fromkeys(text for name in known for text in calibration.warnings(name)):
        log.warning("%s", warning)
    early = [name for name in scores_of_samples(detector, known) if name not in calibration.samples]
    if early:
        log.warning("%s: one value for each slice or window, calibrated by an earlier version as if each "
                    "voxel had its own: p-values are too small; calibrate again, with --overwrite",
                    ", ".join(early))  # fmt: skip
    return PValueMaps(calibration, request.regions, request.z)


def scans_to_score(
    detector: Detector, request: ScoreRequest | ExplainRequest
) -> tuple[ScanList, ReadOptions]:
    """Return the scans of a request that are for a detector, those of a fold's test where there are folds.

    Raises:
        DetectorError: It was fitted with one that a fold tests.
        ScanError: No scan is there.
        SettingsError: See ``find_scans_of``.
    """
    from mednovelty.fit_command import find_scans_of
    from mednovelty.io.folds import of_fold
    from mednovelty.io.read_scan import with_mask_maker

    options = detector.reading
    if request.mask_maker is not None:
        options = with_mask_maker(options, request.mask_maker)
    _refuse_absent(request.folder)
    scans = find_scans_of(
        "structural" if detector.contrasts else "dwi",
        request.folder,
        detector.contrasts,
        request.brain_masks,
    )
    scans, fold = of_fold(scans, request.fold)
    scans = scans.with_roles("test") if any(scan.role for scan in scans) else scans
    if fold:
        log.info("%s", fold.words)
        _refuse_trained_on(detector, scans, request.model)
    console.say_skipped(scans)
    return scans, options


def _refuse_undrawable(detector: Detector) -> None:
    """Raise, before hours of scoring, where there will be nothing to draw."""
    from mednovelty.report.sphere import check_drawable

    check_drawable(detector)


def _draw_sphere(detector: Detector, scans: ScanList, options: ReadOptions, output: Path) -> None:
    from mednovelty.report.sphere import clouds, draw_sphere

    for path in draw_sphere(clouds(detector, scans, options), output):
        log.info("drew %s", path)


def _warnings_of(result: CohortResult, scans: ScanList, out: Path) -> list[str]:
    """Return what readers had to say of the scans that were scored, as one sidecar of each tells it."""
    from mednovelty.outputs import OutputNames

    scored = {outcome.id for outcome in result.outcomes if outcome.status == "done"}
    told = []
    for files in scans:
        sidecars = OutputNames.of(files, out).sidecars() if files.id in scored else []
        warnings = json.loads(sidecars[0].read_text(encoding="utf-8"))["Warnings"] if sidecars else []
        told += [f"{files.id}: {warning}" for warning in warnings]
    return told


def _refuse_trained_on(detector: Detector, scans: ScanList, model: Path) -> None:
    """Raise where a scan that a fold tests, the same files, is one that the detector has seen."""
    from mednovelty.io.structural import input_sha256

    seen = {(scan.id, scan.sha256) for scan in detector.seen}
    ids = {id for id, _ in seen}
    for files in scans:
        with suppress(ScanError):  # What cannot be read is told when it is scored.
            if files.id in ids and (files.id, input_sha256(files)) in seen:
                fitted = [f" ({note})" for note in detector.notes if note.startswith("fold ")]
                raise DetectorError(
                    f"{model}: was fitted with {files.id}, which is to be tested{''.join(fitted)}; "
                    "score the fold it was fitted for: --fold"
                )


def _dry_run(scans: Sequence[ScanFiles], scores: Sequence[str], request: ScoreRequest) -> int:
    rows = [_file_row(files) for files in scans]
    sizes = [row["bytes"] for row in rows if row["bytes"] is not None]
    if request.as_json:
        console.print_json({"scans": rows, "scores": list(scores), "output": str(request.output)})
    else:
        for row in rows:
            size = "cannot be read" if row["bytes"] is None else f"{row['bytes'] / 2**20:.1f} MiB"
            print(printable(f"{row['id']}  {size}  {row['file']}"))
        mib = sum(sizes) / 2**20
        print(f"{len(sizes)} scans, {mib:.1f} MiB, {len(scores)} scores each: {', '.join(scores)}")
    for row in rows:
        if row["bytes"] is None:
            log.error("would fail: %s: %s", row["id"], row["message"])
    return 0 if len(sizes) == len(rows) else 6 if sizes else 3


def _file_row(files: ScanFiles) -> dict[str, Any]:
    """Return a scan's id, file and size; where it cannot be opened, why, and no size."""
    from mednovelty.io.guard import GuardedFile

    row: dict[str, Any] = {"id": files.id, "file": str(files.image)}
    try:
        with GuardedFile(files.image) as file:
            return row | {"bytes": file.size}
    except ScanError as error:
        return row | {"bytes": None, "code": error.code, "message": str(error)}


def _refuse_absent(path: Path) -> None:
    from mednovelty.io.guard import unreadable

    try:
        path.stat()
    except OSError as error:
        raise unreadable(path, error) from error


def evaluate(request: EvaluateRequest) -> int:
    """Evaluate maps against lesion masks; with a folder of relevance, whether scores look at lesions."""
    from mednovelty.evaluation import EvaluateSettings
    from mednovelty.evaluation import evaluate as run
    from mednovelty.report.figures import draw_evaluation
    from mednovelty.report_command import report_scored

    output, settings = request.output, EvaluateSettings(seed=request.seed)
    # Each entry as a pair of its own: two without a comma must not pass for one.
    pairs = [entry.split(",") for entry in request.together]
    evaluation = run(output, request.masks, settings=settings, relevance=request.relevance, together=pairs)
    written = [
        *evaluation.write(output / "evaluation"),
        *draw_evaluation(evaluation, output / "evaluation"),
    ]
    reported = report_scored(output) if request.reported else 0
    if request.as_json:
        print(evaluation.to_json())
        return reported
    from rich.console import Console

    for warning in evaluation.warnings:
        log.warning("%s", warning)
    # Wide enough for the whole table where nobody looks on: a file, a pipe.
    screen = Console()
    (screen if screen.is_terminal else Console(width=WIDTH)).print(evaluation.table())
    log.info("wrote %d files to %s", len(written), output / "evaluation")
    return reported


def list_plugins(group: str, as_json: bool) -> int:
    """Print the plug-ins of a group."""
    from mednovelty.discovery import listing

    rows = listing(group)
    if as_json:
        console.print_json(rows)
        return 0
    name, source = (max((len(row[key]) for row in rows), default=0) for key in ("name", "equation"))
    for row in rows:
        print(f"{row['name']:{name}}  {row['equation']:{source}}  {row['summary']}  ({row['distribution']})")
    return 0


def where(paper: str, label: str, as_json: bool) -> int:
    """Print which code implements an equation."""
    from mednovelty.discovery import location

    found = location(paper, label)
    if as_json:
        console.print_json(found)
    else:
        print(f"{found['module']}:{found['name']}  {found['file']}:{found['line']}\n{found['summary']}")
    return 0


def doctor(as_json: bool) -> int:
    """Print versions, devices and what is missing."""
    from mednovelty.discovery import doctor as examine

    facts = examine()
    if as_json:
        console.print_json(facts)
        return 0
    packages = facts.pop("packages")
    for name, value in facts.items():
        print(f"{name:12}  {value}")
    for name, found in packages.items():
        print(f"  {name:16}  {found or 'MISSING'}")
    return 0
