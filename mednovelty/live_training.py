"""A training as it is seen while it runs: its curve on a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mednovelty.console import epoch_line, on_terminal
from mednovelty.live_curve import curve_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from mednovelty.curve import TrainingRecord

log = logging.getLogger("mednovelty")

HEIGHT, WIDEST = 8, 100
"""Of the plot, in lines; of the whole, in characters."""
STYLES = {"plain": "", "training": "cyan", "held-out": "bold yellow"}
A_SECOND = 2.0
"""How often the clock is drawn again."""


class LogLines:
    """What training says, as a log: a line an epoch, a line a tenth of a reference that is being chosen."""

    def __init__(self, max_epochs: int, samples: str) -> None:
        self.max_epochs, self.samples = max_epochs, samples
        self._tenth = 0

    def epoch(self, record: TrainingRecord) -> None:
        """Tell the last epoch of a record."""
        log.info("%s", epoch_line(record, self.max_epochs, self.samples))

    def reference(self, done: int, total: int) -> None:
        """Tell how many normals of a coreset are chosen, and of how many."""
        tenth = 10 * done // max(total, 1)
        if tenth > self._tenth:
            self._tenth = tenth
            log.info("%s", _choosing(done, total))


class CurveOnScreen:
    """The same on a terminal: drawn over itself, with what is logged meanwhile above it."""

    def __init__(self, console: Console, max_epochs: int, samples: str) -> None:
        self.console, self.max_epochs, self.samples = console, max_epochs, samples
        self._live: Live | None = None
        self._record: TrainingRecord | None = None
        self._chosen: tuple[int, int] | None = None
        self._started = time.monotonic()
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []

    def epoch(self, record: TrainingRecord) -> None:
        """Draw the curve with another epoch."""
        self._record = record
        self._refresh()

    def reference(self, done: int, total: int) -> None:
        """Draw how many normals of a coreset are chosen, and of how many."""
        self._chosen = (done, total)
        self._refresh()

    def drawn(self) -> Text:
        """Return what is on the screen now."""
        from rich.text import Text

        text = Text()
        width = min(self.console.width, WIDEST)
        if self._record is not None:
            for line in curve_lines(self._record, width - 12, HEIGHT):
                for part in line:
                    text.append(part.text, STYLES[part.kind])
                text.append("\n")
            text.append(epoch_line(self._record, self.max_epochs, self.samples), "bold")
        gone = int(time.monotonic() - self._started)
        text.append(f"{'  ' if text else ''}{gone // 60}:{gone % 60:02d} gone")
        if self._chosen is not None:
            text.append(f"\n{_choosing(*self._chosen)}")
        return text

    def stop(self) -> None:
        """Leave the last picture on the screen, and the log where it was."""
        if self._live is not None:
            self._live.stop()
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._live, self._streams = None, []

    def _refresh(self) -> None:
        # Begun with the first epoch: what is read before scrolls by as ever.
        if self._live is None:
            self._begin()
        assert self._live is not None
        self._live.refresh()

    def _begin(self) -> None:
        from rich.live import Live

        ours = (sys.stderr, self.console.file)
        self._live = Live(console=self.console, get_renderable=self.drawn, refresh_per_second=A_SECOND,
                          redirect_stdout=False)  # fmt: skip
        self._live.start()
        # Handlers keep the stream they were made with, and would write into the middle of the picture.
        for handler in log.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in ours:
                self._streams.append((handler, handler.stream))
                handler.setStream(sys.stderr)


@contextmanager
def training_shown(
    max_epochs: int, samples: str = "voxels", console: Console | None = None
) -> Iterator[LogLines | CurveOnScreen]:
    """Yield what is told of each epoch and of the reference, and shows it on stderr.

    Args:
        max_epochs: That may be trained.
        samples: As the view calls them.
        console: Where a curve is drawn; None: on stderr, if that is a terminal and not to be quiet.
    """
    if console is None and not on_terminal():
        yield LogLines(max_epochs, samples)
        return
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    screen = CurveOnScreen(console, max_epochs, samples)
    try:
        yield screen
    finally:
        screen.stop()


def both(*told: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a callback that tells several, one after the other."""

    def tell(record: Any) -> None:
        for one in told:
            one(record)

    return tell


def _choosing(done: int, total: int) -> str:
    return f"choosing the reference: {done:,} of {total:,}"


__all__ = ["CurveOnScreen", "LogLines", "both", "training_shown"]
