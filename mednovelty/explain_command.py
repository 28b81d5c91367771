"""The ``explain`` command: why scores of scans are what they are."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mednovelty import console
from mednovelty.errors import SettingsError

log = logging.getLogger("mednovelty")


@dataclass(frozen=True)
class ExplainRequest:
    """What ``explain`` was asked for."""

    model: Path
    folder: Path
    output: Path
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


def explain(request: ExplainRequest) -> int:
    """Write the relevance of scans; return the exit code."""
    from mednovelty.cohort import CohortSettings, check_run
    from mednovelty.commands import scans_to_score
    from mednovelty.detector import Detector
    from mednovelty.explain_cohort import RECORD, ExplainRun, explain_cohort, scores_to_explain
    from mednovelty.fit_command import names_of
    from mednovelty.words_commands import SCORED, is_detector_of_reports

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
    from mednovelty.fit_command import masks_by_id

    found = masks_by_id(masks, ids, besides)
    without = [id for id in ids if id not in found]
    if without:
        log.info("%d of %d scans have no mask in %s; their tables tell of all voxels: %s", len(without),
                 len(ids), masks, ", ".join(without[:10]))  # fmt: skip
    return found


__all__ = ["ExplainRequest", "explain"]
