"""What each command does, once its words are understood."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mednovelty import console
from mednovelty.errors import DetectorError, OutputError, SettingsError
from mednovelty.settings import parse_assignments, read_toml
from mednovelty.text import printable

log = logging.getLogger("mednovelty")
WIDTH = 150


@dataclass(frozen=True)
class FitRequest:
    """What ``fit`` was asked for."""

    folder: Path
    output: Path
    recipe: str = "qspace"
    seed: int = 0
    settings: Path | None = None
    overrides: dict[str, Any] | None = None
    brain_masks: Path | None = None
    resume: bool = False
    overwrite: bool = False
    threads: int | None = None
    as_json: bool = False


@dataclass(frozen=True)
class ScoreRequest:
    """What ``score`` was asked for."""

    model: Path
    folder: Path
    output: Path
    scores: str | None = None
    brain_masks: Path | None = None
    overwrite: bool = False
    dry_run: bool = False
    threads: int | None = None
    as_json: bool = False


def overrides(latent: int | None, scores: str | None, assignments: list[str] | None) -> dict[str, Any]:
    """Return the settings that flags ask for; flags win over ``--set``."""
    tree = parse_assignments(assignments or [])
    if latent is not None:
        from mednovelty.methods.vae import NETS

        if latent not in NETS:
            raise typer_error(f"--latent must be one of {', '.join(map(str, NETS))}, got {latent}")
        tree.setdefault("method_settings", {}).update(hidden=list(NETS[latent]), latent=latent)
    if scores is not None:
        tree["scores"] = names_of(scores)
    return tree


def typer_error(message: str) -> Exception:
    """Return the error that typer shows as a wrong use of the command line."""
    import typer

    return typer.BadParameter(message)


def names_of(scores: str | None) -> list[str]:
    """Return the names in ``"a,b"``."""
    return [name.strip() for name in (scores or "").split(",") if name.strip()]


def check(folder: Path, deep: bool, brain_masks: Path | None, as_json: bool) -> int:
    """Print what is wrong with a cohort."""
    from mednovelty.io.check import check_folder

    report = check_folder(folder, brain_masks=brain_masks, deep=deep)
    if as_json:
        console.print_json({"folder": str(folder), "exit_code": report.exit_code, "findings": report.rows()})
        return report.exit_code
    for row in report.rows():
        print(printable(f"{row['severity']:7}  {row['code']:28}  {row['message']}"))
    print(printable(report.summary(), keep="\n"))
    return report.exit_code


def fit(request: FitRequest) -> int:
    """Train a detector and write its folder."""
    from mednovelty.detector import Detector
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import scan_folder
    from mednovelty.model_folder import fit_settings
    from mednovelty.train import CHECKPOINT_NAME

    _refuse_existing_detector(request)
    scans = scan_folder(request.folder, brain_masks=request.brain_masks)
    scans = scans.with_roles("normal", "validation")
    _say_skipped(scans)
    layers = [read_toml(request.settings)] if request.settings else []
    settings = fit_settings(*layers, request.overrides or {}, str(request.settings or "--set"))
    _set_threads(request.threads)
    failures: list[dict[str, str]] = []

    def on_scan(scan_id: str, message: str) -> None:
        if message:
            failures.append({"id": scan_id, "message": message})
            log.warning("%s", message)
        else:
            log.info("read %s", scan_id)

    console.log_to_folder(request.output)
    with console.training_progress(settings.train.max_epochs) as on_epoch:
        detector = Detector.fit(
            scans,
            recipe=request.recipe,
            seed=request.seed,
            settings=settings,
            options=ReadOptions(),
            folder=request.output,
            resume=request.resume,
            on_epoch=on_epoch,
            on_scan=on_scan,
        )
    detector = detector.save(request.output)
    (request.output / CHECKPOINT_NAME).unlink(missing_ok=True)
    for note in detector.notes:
        log.info("%s", note)
    say = log.warning if detector.fitted.summary["collapsed"] else log.info
    say("%s", detector.fitted.summary["verdict"])
    log.info("wrote %s", request.output)
    if request.as_json:
        told = {"folder": str(request.output), "sha256": detector.sha256, "summary": detector.fitted.summary}
        console.print_json(told | {"notes": detector.notes, "failures": failures})
    return 6 if failures else 0


def score(request: ScoreRequest) -> int:
    """Score a folder of scans."""
    from mednovelty.cohort import CohortSettings, score_cohort
    from mednovelty.detector import Detector
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import scan_folder

    detector = Detector.load(request.model)
    scans = scan_folder(request.folder, brain_masks=request.brain_masks)
    scans = scans.with_roles("test") if any(scan.role for scan in scans) else scans
    _say_skipped(scans)
    settings = CohortSettings(tuple(names_of(request.scores)), request.overwrite)
    if request.dry_run:
        return _dry_run(detector, scans, request)
    if not len(scans):
        log.error("%s: no scan was found to score", request.folder)
        return 3
    _set_threads(request.threads)
    console.log_to_folder(request.output)
    with console.scoring_progress(len(scans)) as advance:
        result = score_cohort(detector, scans, request.output, settings, ReadOptions(), advance)
    if request.as_json:
        console.print_json(json.loads((request.output / "run.json").read_text()))
    done = [outcome.status for outcome in result.outcomes]
    log.info("%d scored, %d up to date, %d failed; maps in %s", done.count("done"), done.count("up to date"),
             done.count("failed"), request.output)  # fmt: skip
    for failure in result.failures:
        log.error("failed: %s: %s", failure.id, failure.message)
    return result.exit_code


def _dry_run(detector: Any, scans: Any, request: ScoreRequest) -> int:
    size = [files.image.stat().st_size for files in scans]
    scores = names_of(request.scores) or list(detector.settings.scores)
    if request.as_json:
        rows = [
            {"id": files.id, "file": str(files.image), "bytes": n}
            for files, n in zip(scans, size, strict=True)
        ]
        console.print_json({"scans": rows, "scores": scores, "output": str(request.output)})
        return 0 if size else 3
    for files, n in zip(scans, size, strict=True):
        print(printable(f"{files.id}  {n / 2**20:.1f} MiB  {files.image}"))
    print(f"{len(size)} scans, {sum(size) / 2**20:.1f} MiB, {len(scores)} scores each: {', '.join(scores)}")
    return 0 if size else 3


def evaluate(output: Path, masks: Path, seed: int, as_json: bool) -> int:
    """Evaluate maps against lesion masks."""
    from mednovelty.evaluation import EvaluateSettings
    from mednovelty.evaluation import evaluate as run
    from mednovelty.report.figures import draw_evaluation

    evaluation = run(output, masks, settings=EvaluateSettings(seed=seed))
    written = [
        *evaluation.write(output / "evaluation"),
        *draw_evaluation(evaluation, output / "evaluation"),
    ]
    if as_json:
        print(evaluation.to_json())
        return 0
    from rich.console import Console

    for warning in evaluation.warnings:
        log.warning("%s", warning)
    # Wide enough for the whole table where nobody looks on: a file, a pipe.
    screen = Console()
    (screen if screen.is_terminal else Console(width=WIDTH)).print(evaluation.table())
    log.info("wrote %d files to %s", len(written), output / "evaluation")
    return 0


def list_plugins(group: str, as_json: bool) -> int:
    """Print the plug-ins of a group."""
    from mednovelty.discovery import listing

    rows = listing(group)
    if as_json:
        console.print_json(rows)
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:{width}}  {row['address']}  ({row['distribution']})")
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


def _refuse_existing_detector(request: FitRequest) -> None:
    record = request.output / "detector.json"
    if record.exists() and not request.overwrite:
        raise OutputError(f"{record}: a detector is there already; choose another folder or pass --overwrite")
    if request.resume and not request.output.is_dir():
        raise DetectorError(f"{request.output}: nothing to resume; run fit without --resume first")
    if request.recipe != "qspace":
        raise SettingsError(f"no recipe is called {request.recipe!r}; known: qspace")


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _say_skipped(scans: Any) -> None:
    for skipped in scans.skipped:
        log.info("skipped %s: %s", skipped.path, skipped.why)
