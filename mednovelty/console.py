"""What a person at a terminal sees: progress, logs, signals, and errors in one line."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mednovelty.errors import MedNoveltyError, ScanError, SettingsError, StoppedError
from mednovelty.text import printable

log = logging.getLogger("mednovelty")

SILENCE_S = 60.0
"""Longer than this nobody waits without a word."""
DETAIL_S = 2.0
"""As long waits who asks for details, as a program that shows how far a run is."""
ALIKE = 3
"""More messages of one kind than these are told as one."""


class Terminated(StoppedError):
    """Ended by SIGTERM, as schedulers do."""

    exit_code = 143


class _Escaping(logging.Formatter):
    """One line a record, whatever names hold; tracebacks keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        trace, record.exc_info, record.exc_text = record.exc_info, None, None
        line = printable(super().format(record))
        return line if not trace else f"{line}\n{printable(self.formatException(trace), keep=chr(10))}"


class _OneLine(_Escaping):
    """Without tracebacks, for those who look on."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).split("\n")[0]


class _LettingGo:
    """A handler that is not in the way of who stops the run while a line is written."""

    def handleError(self, record: logging.LogRecord) -> None:
        # Any other failure to write a line stops nothing; this one came from a signal.
        if isinstance(sys.exc_info()[1], StoppedError):
            raise
        super().handleError(record)  # type: ignore[misc]


class _Screen(_LettingGo, logging.StreamHandler):
    """On stderr."""


class _File(_LettingGo, logging.FileHandler):
    """In a folder."""


def start_logging(quiet: bool, verbose: bool) -> None:
    """Send the log to stderr: warnings only when quiet, details when verbose."""
    handler = _Screen(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    handler.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    for old in log.handlers:
        old.close()
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG)
    log.propagate = False


def log_to_folder(folder: Path) -> None:
    """Send the log to a file in ``folder/logs`` as well; a folder that cannot be written is left alone."""
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        name = time.strftime("%Y%m%dT%H%M%S") + f"-{os.getpid()}.log"
        handler = _File(folder / "logs" / name, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return
    handler.setFormatter(_Escaping("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """Turn SIGTERM into ``Terminated`` and Ctrl-C into ``StoppedError``, so that both clean up."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated("stopped by SIGTERM; what is done is kept, the same command goes on from there")

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as error:
        raise StoppedError("stopped; what is done is kept, the same command goes on from there") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def run(command: Callable[[], int | None], as_json: bool = False) -> int:
    """Run a command and return its exit code; errors on purpose become one line on stderr.

    With ``as_json`` they become a JSON object on stdout, too: who parses stdout always finds one.
    """
    try:
        with signals_as_errors():
            return command() or 0
    except MedNoveltyError as error:
        log.error("mednovelty: %s", error)
        if as_json:
            told = {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
            print_json(told | ({"code": error.code} if isinstance(error, ScanError | SettingsError) else {}))
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; what was to be written is written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def print_json(value: Any) -> None:
    """Write one JSON document to stdout, and nothing else goes there."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def set_threads(threads: int | None) -> None:
    """Let torch use so many threads; None: all cores."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def say_skipped(scans: Any) -> None:
    """Say what a list of scans left out, and why."""
    for skipped in scans.skipped:
        log.info("skipped %s: %s", skipped.path, skipped.why)


def tell_alike(messages: Iterable[str]) -> None:
    """Log messages, and of those that differ only in names and numbers the first few for all.

    What is told for all is in the log's file, and on the screen with details, one by one.

    Args:
        messages: Such as ``"sub-01: sub-01_FLAIR.nii.gz: what is wrong"``.
    """
    kinds: dict[str, list[str]] = {}
    for message in messages:
        kinds.setdefault(_kind_of(message), []).append(message)
    for alike in kinds.values():
        if len(alike) <= ALIKE:
            for message in alike:
                log.info("%s", message)
            continue
        for message in alike:
            log.debug("%s", message)
        log.warning("%d alike, the first: %s", len(alike), alike[0])


def _kind_of(message: str) -> str:
    """Return a message without whose it is and without numbers.

    Examples:
        >>> _kind_of("sub-01: sub-01_T1w.nii.gz: a gap in 62% of directions: a skull")
        'a gap in #% of directions: a skull'
    """
    # Names have no blanks: the first part with one is what is said.
    parts = message.split(": ")
    start = next((i for i, part in enumerate(parts) if " " in part), 0)
    return re.sub(r"\d+(\.\d+)?", "#", ": ".join(parts[start:]))


def on_terminal() -> bool:
    """Return whether progress bars make sense: somebody looks on, and did not ask for quiet or plain text."""
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ and not _quiet()


def _quiet() -> bool:
    return any(
        isinstance(handler, logging.StreamHandler) and handler.level > logging.INFO
        for handler in log.handlers
    )


def epoch_line(record: Any, max_epochs: int, samples: str = "voxels") -> str:
    """Return the last epoch of a training record in one line; samples are called as the view calls them."""
    row = record.rows[-1]
    terms = row.validation
    goal = f"ELBO {-terms['loss']:.3f}" if "elbo" in terms else f"loss {terms['loss']:.4g}"
    parts = [f"epoch {row.epoch}/{max_epochs}", goal]
    parts += [f"{name} {terms[name]:.3f}" for name in ("reconstruction", "kl", "latent") if name in terms]
    if "active_latents" in terms:
        parts.append(f"{terms['active_latents']:.0f} active latents")
    if row.voxels_per_second:
        parts.append(f"{row.voxels_per_second:,.0f} {samples}/s")
        left = row.seconds * (max_epochs - row.epoch)
        parts.append(f"at most {int(left // 60)}:{int(left % 60):02d} left")
    return "  ".join(parts)


@contextmanager
def scoring_progress(
    count: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback ``(scan id, samples just done, samples in all)``.

    It moves a bar on a terminal; elsewhere it logs how far a scan is, but not more often than ``SILENCE_S``,
    and as a detail than ``DETAIL_S``.

    Args:
        count: How many scans there are.
        clock: Gives seconds.
    """
    if not on_terminal():
        yield _Silence(clock).told
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def show(scan_id: str, done: int, total: int) -> None:
            if scan_id not in tasks:
                tasks[scan_id] = progress.add_task(
                    f"{len(tasks) + 1}/{count} {printable(scan_id)}", total=total
                )
            progress.advance(tasks[scan_id], done)

        yield show


class _Silence:
    """Says how far a scan is where it takes long."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last = clock, clock()
        self._last_detail = self._last
        self._done: dict[str, int] = {}

    def told(self, scan_id: str, done: int, total: int) -> None:
        self._done[scan_id] = self._done.get(scan_id, 0) + done
        now = self._clock()
        loud = now - self._last >= SILENCE_S
        if not loud and now - self._last_detail < DETAIL_S:
            return
        self._last, self._last_detail = now if loud else self._last, now
        log.log(logging.INFO if loud else logging.DEBUG, "%s: %s of %s samples scored", scan_id,
                f"{self._done[scan_id]:,}", f"{total:,}")  # fmt: skip
