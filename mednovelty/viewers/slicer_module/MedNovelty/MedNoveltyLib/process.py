"""Commands in processes of their own, one after another: nothing of 3D Slicer waits for them.

A timer asks ``poll`` for what was said since. A thread reads the pipe: a full one would stop the program.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

GRACE_S = 10.0
"""How long a program may take to stop when asked to, before it is ended."""
_STRANGE = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Of 3D Slicer's own Python and libraries, with which another Python does not start."""


def environment(startup: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the program: that in which 3D Slicer was started, without what is its own."""
    found = dict(os.environ if startup is None else startup)
    if startup is None:
        for name in _STRANGE:
            found.pop(name, None)
    return {**found, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


class Run:
    """Commands that run one after another; the first that fails is the last.

    Args:
        commands: Programs with their arguments.
        environment: Theirs.
    """

    def __init__(self, commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
        self._left = [list(command) for command in commands]
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader: threading.Thread | None = None
        self._cancelled_at: float | None = None
        self._code: int | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancelled_at is not None

    def start(self) -> None:
        """Start the next command; an ``OSError`` of one that cannot be started goes through."""
        # Of Windows alone: no window of a console opens.
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        self._process = subprocess.Popen(
            self._left.pop(0),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._environment,
            encoding="utf-8",
            errors="replace",
            creationflags=flags,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def poll(self) -> tuple[list[str], int | None]:
        """Return the lines said since, and the exit code once all has ended."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            self._insist()
            return self._said(), self._code
        # All that was said before it ended.
        assert self._reader is not None
        self._reader.join(timeout=5)
        said = self._said()
        self._process = None
        if code == 0 and self._left and not self.cancelled:
            self.start()
            return said, None
        self._code = code
        return said, code

    def cancel(self) -> None:
        """Ask the program to stop, as Ctrl-C would: what is done is kept."""
        self._left.clear()
        if self._cancelled_at is None:
            self._cancelled_at = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _insist(self) -> None:
        late = self._cancelled_at is not None and time.monotonic() - self._cancelled_at > GRACE_S
        if late and self._process is not None:
            self._process.kill()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                self._lines.put(line.rstrip("\r\n"))

    def _said(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self._lines.get_nowait())
            except queue.Empty:
                return found
