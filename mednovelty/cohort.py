"""Many scans, one after another: what is done stays done, and one bad scan stops nobody.

``OUT/<subject>/[<session>/]dwi/<id>_desc-<score>_novelty.nii.gz`` with a ``.json`` beside it is written
last for each map, so that the sidecar's presence, with hashes that match, means done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import DetectorError, MedNoveltyError, OutputError, ScanError, StoppedError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.outputs import (
    OutputNames,
    command_line,
    environment,
    key_of,
    peak_mib,
    sha256_of_file,
    sidecar_of,
    state_of,
    write_folder_facts,
)
from mednovelty.scan import Volume
from mednovelty.store import json_types
from mednovelty.text import cell

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import ScanFiles, ScanList

log = logging.getLogger("mednovelty")


@dataclass(frozen=True)
class CohortSettings:
    """How a cohort is scored.

    Attributes:
        scores: Which scores; the trivial baselines are added where the scan has gradients.
        overwrite: Whether maps that another detector or other settings made are replaced.
        baselines: Whether the ``raw_*`` baselines are written too.
    """

    scores: tuple[str, ...] = ()
    overwrite: bool = False
    baselines: bool = True


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
    """What became of every scan, and what the folder held besides."""

    outcomes: tuple[Outcome, ...]
    skipped: tuple[tuple[str, str], ...] = field(default=())

    @property
    def failures(self) -> list[Outcome]:
        """The scans that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def exit_code(self) -> int:
        """0 all done or up to date, 3 nothing scored, 6 some scans failed."""
        if not self.failures:
            return 0 if self.outcomes else 3
        return 3 if len(self.failures) == len(self.outcomes) else 6


def score_cohort(
    detector: Detector,
    scans: ScanList,
    out: Path,
    settings: CohortSettings,
    options: ReadOptions,
    advance: Callable[[str, int, int], Any] = lambda scan_id, done, total: None,
) -> CohortResult:
    """Score every scan of a list into a folder.

    Args:
        detector: What scores; it must have been read from disk or saved, so that it has a hash.
        scans: From ``scan_folder``.
        out: The folder to write; made if absent.
        settings: Which scores, and whether to overwrite.
        options: How scans are read.
        advance: Told ``(scan id, voxels done, voxels in all)`` after each batch.

    Raises:
        DetectorError: It was never saved.
        OutputError: The folder cannot be written, is in use by another run, or is an input folder.
        SettingsError: An unknown score.
    """
    if not detector.sha256:
        raise DetectorError("the detector has no hash to tell its maps by; save it, or load it, first")
    names = list(settings.scores or detector.settings.scores)
    detector.scoring().scorers([name for name in names if not name.startswith("raw_")])
    _refuse_input_as_output(scans, out)
    with _writer(out):
        write_folder_facts(out)
        outcomes = []
        for files in scans:
            outcomes.append(_score_one(detector, files, out, (names, settings, options), advance))
            log.info("%s: %s %s", outcomes[-1].id, outcomes[-1].status, outcomes[-1].message)
        result = CohortResult(tuple(outcomes), tuple((str(s.path), s.why) for s in scans.skipped))
        _write_run(out, detector, result, names)
    return result


def _score_one(
    detector: Detector,
    files: ScanFiles,
    out: Path,
    how: tuple[list[str], CohortSettings, ReadOptions],
    advance: Callable[[str, int, int], Any],
) -> Outcome:
    """Score one scan; what goes wrong with it is its outcome, what goes wrong with the disk is raised."""
    names, settings, options = how
    start = time.monotonic()
    try:
        place = OutputNames.of(files, out)
        wanted = _names_for(files, names, settings)
        state = _state(detector, files, place, wanted)
        if state == "done":
            return Outcome(files.id, "up to date", source=str(files.image))
        if state == "other" and not settings.overwrite:
            raise OutputError(
                f"{place.folder}: holds maps of {files.id} by another detector, with other settings or "
                "from another file; choose another folder or pass --overwrite"
            )
        n_voxels = _score_and_write(detector, files, place, (wanted, options, advance))
    except (OutputError, StoppedError):
        raise
    except Exception as error:  # Whatever is wrong with one scan must not stop the others.
        return _failure(files, error, time.monotonic() - start)
    return Outcome(
        files.id, "done", source=str(files.image), n_voxels=n_voxels, seconds=time.monotonic() - start
    )


def _state(detector: Detector, files: ScanFiles, place: OutputNames, wanted: list[str]) -> str:
    """Return whether the maps are there; the image is only read for that where there are any."""
    if not any(place.sidecar(name).is_file() for name in wanted):
        return "absent"
    return state_of(place, wanted, key_of(detector, files, sha256_of_file(files.image)))


def _failure(files: ScanFiles, error: Exception, seconds: float) -> Outcome:
    if isinstance(error, MedNoveltyError | OSError):
        message = str(error)
    elif isinstance(error, MemoryError):
        message = f"{files.image}: not enough memory; free some, or fit with a smaller batch_voxels"
    else:
        message = f"{files.image}: unexpected {type(error).__name__}: {error}; the log has the details"
        log.debug("%s", files.id, exc_info=error)
    code = error.code if isinstance(error, ScanError) else type(error).__name__
    return Outcome(files.id, "failed", message, code, str(files.image), seconds=seconds)


def _score_and_write(detector: Detector, files: ScanFiles, place: OutputNames, how: tuple[Any, ...]) -> int:
    from mednovelty.io.nifti import write_map
    from mednovelty.io.read_scan import read_scan

    wanted, options, advance = how
    start = time.monotonic()
    scan = read_scan(files, options=options)
    key = key_of(detector, files, scan.sha256)
    maps = detector.score(scan, wanted, advance=lambda done: advance(files.id, done, scan.n_voxels))
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            place.sidecar(name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{place.folder}: cannot be written: {error.strerror}") from error
    affine = scan.grid.affine
    write_map(place.background, Volume(scan.background[None], affine, f"background of {scan.id}"))
    write_map(
        place.mask, Volume(scan.mask[None].astype(np.uint8), affine, f"mask of {scan.id}"), dtype=np.uint8
    )
    seconds = time.monotonic() - start
    for name, novelty in maps.items():
        novelty.save(place.map(name))
        facts = {**key, "Runtime": {"Seconds": round(seconds, 3), "PeakMiB": peak_mib()}}
        facts["MapSha256"] = sha256_of_file(place.map(name))
        sidecar = sidecar_of(detector, scan, novelty, place, facts)
        write_text_atomic(place.sidecar(name), json.dumps(json_types(sidecar), indent=2) + "\n")
    return scan.n_voxels


def _names_for(files: ScanFiles, names: list[str], settings: CohortSettings) -> list[str]:
    baselines = ["raw_b0", "raw_dwi", "raw_attenuation"]
    has_gradients = files.bval is not None or files.grad_b is not None
    return list(dict.fromkeys([*names, *(baselines if settings.baselines and has_gradients else [])]))


def _refuse_input_as_output(scans: ScanList, out: Path) -> None:
    inputs = {files.image.resolve().parent for files in scans} | {scans.root.resolve()}
    if out.resolve() in inputs:
        raise OutputError(f"{out}: is a folder that scans are read from; choose another for the maps")


@contextlib.contextmanager
def _writer(out: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it for as long as this one lasts."""
    lock = out / ".mednovelty.lock"
    try:
        (out / "logs").mkdir(parents=True, exist_ok=True)
        handle = lock.open("a")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"{out}: another run is writing here; wait for it to end") from error
        yield


def _write_run(out: Path, detector: Detector, result: CohortResult, names: list[str]) -> None:
    run = {
        "Command": command_line(),
        "Finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "ExitCode": result.exit_code,
        "Scores": names,
        "DetectorSha256": detector.sha256,
        "Environment": environment(detector),
        "PeakMiB": peak_mib(),
        "Scans": [vars(outcome) for outcome in result.outcomes],
        "Skipped": [{"path": path, "why": why} for path, why in result.skipped],
    }
    write_text_atomic(out / "run.json", json.dumps(json_types(run), indent=2) + "\n")
    rows = [[o.id, o.code, o.message, o.source] for o in result.failures]
    table = [["scan", "code", "message", "file"], *rows]
    write_text_atomic(out / "failures.tsv", "".join("\t".join(map(cell, row)) + "\n" for row in table))


__all__ = ["CohortResult", "CohortSettings", "Outcome", "score_cohort"]
