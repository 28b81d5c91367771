"""What is told of a score run: each scan's outcome, and how the run ended.

``OUT/run.json``       all of it
``OUT/failures.tsv``   the scans that failed, one a line
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty.abnormality import is_semi_supervised
from mednovelty.errors import MedNoveltyError, OutputError, ScanError, StoppedError, failure_message
from mednovelty.io.atomic import write_text_atomic
from mednovelty.outputs import command_line, environment, peak_mib
from mednovelty.store import json_types
from mednovelty.text import cell

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.io.scan_folder import ScanFiles

log = logging.getLogger("mednovelty")

EXISTS = "output.exists"
"""Code of a scan whose maps stand already: by another detector, with other settings or of another file."""


@dataclass(frozen=True)
class Outcome:
    """What became of one scan."""

    id: str
    status: str
    """``done``, ``up to date`` or ``failed``."""
    message: str = ""
    code: str = ""
    source: str = ""
    n_voxels: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class CohortResult:
    """What became of every scan.

    Attributes:
        outcomes: In the order of the scans.
        skipped: ``(path, why)`` of what the folder held besides.
        unreached: Ids of the scans whose turn never came, or was cut short.
        ended_by: What ended the run before its end: a signal, a full disk; None: nothing did.
    """

    outcomes: tuple[Outcome, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    unreached: tuple[str, ...] = ()
    ended_by: BaseException | None = None

    @property
    def failures(self) -> list[Outcome]:
        """The scans that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def exit_code(self) -> int:
        """0 all done or up to date, 3 nothing scored, 5 every scan has other maps already, 6 some failed."""
        if self.ended_by is not None:
            return _exit_code_of(self.ended_by)
        if not self.failures:
            return 0 if self.outcomes else ScanError.exit_code
        if len(self.failures) < len(self.outcomes):
            return 6
        all_exist = all(failure.code == EXISTS for failure in self.failures)
        return OutputError.exit_code if all_exist else ScanError.exit_code


def failure_of(files: ScanFiles, error: Exception, seconds: float) -> Outcome:
    """Return what an error has made of a scan; the log has the details of what nobody expected."""
    message = failure_message(error, str(files.image))
    if not isinstance(error, MedNoveltyError | OSError | MemoryError):
        message += "; the log has the details"
        log.debug("%s", files.id, exc_info=error)
    code = error.code if isinstance(error, ScanError) else type(error).__name__
    return Outcome(files.id, "failed", message, code, str(files.image), seconds=seconds)


def write_record(
    out: Path, detector: Detector, result: CohortResult, facts: dict[str, Any], name: str = "run"
) -> None:
    """Write ``failures.tsv`` and ``run.json``, or, by another name, ``<name>-failures.tsv`` and its JSON.

    Args:
        out: The folder of the maps.
        detector: What scored.
        result: What became of the scans.
        facts: What else ``run.json`` tells.
        name: Of what was done.

    Raises:
        OutputError: One of them cannot be written.
    """
    ended = result.ended_by
    run = {
        "Command": command_line(),
        "Finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "ExitCode": result.exit_code,
        "EndedBy": None if ended is None else {"Kind": type(ended).__name__, "Message": str(ended)},
        "DetectorSha256": detector.sha256,
        "StartedFrom": None if detector.origin is None else detector.origin.sha256,
        "AnnotatedInTraining": {scan.id: scan.annotation for scan in detector.seen if scan.annotation},
        "SemiSupervised": is_semi_supervised(detector),
        **facts,
        "Environment": environment(detector),
        "PeakMiB": peak_mib(),
        "Scans": [vars(outcome) for outcome in result.outcomes],
        "NotReached": result.unreached,
        "Skipped": [{"path": path, "why": why} for path, why in result.skipped],
    }
    rows = [[o.id, o.code, o.message, o.source] for o in result.failures]
    table = [["scan", "code", "message", "file"], *rows]
    failures = "failures.tsv" if name == "run" else f"{name}-failures.tsv"
    write_text_atomic(out / failures, "".join("\t".join(map(cell, row)) + "\n" for row in table))
    write_text_atomic(out / f"{name}.json", json.dumps(json_types(run), indent=2) + "\n")


def _exit_code_of(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return StoppedError.exit_code
    return error.exit_code if isinstance(error, MedNoveltyError) else MedNoveltyError.exit_code


__all__ = ["EXISTS", "CohortResult", "Outcome", "failure_of", "write_record"]
