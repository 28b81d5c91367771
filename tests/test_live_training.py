"""What is seen of a training: its curve on a terminal, lines elsewhere, nothing on stdout."""

import io
import json
import logging

import pytest
from rich.console import Console
from test_live_curve import record

from mednovelty import console
from mednovelty.live_training import CurveOnScreen, LogLines, both, training_shown


@pytest.fixture
def log(monkeypatch):
    """Return the log's stream, as ``start_logging`` sets it up."""
    handlers, level, propagate = console.log.handlers[:], console.log.level, console.log.propagate
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    console.start_logging(quiet=False, verbose=False)
    yield stream
    console.log.handlers[:], console.log.propagate = handlers, propagate
    console.log.setLevel(level)


def screen(stream):
    return Console(file=stream, force_terminal=True, width=100, height=40, color_system=None)


def test_a_terminal_shows_the_curve_and_its_words(log):
    with training_shown(60, "voxels", screen(log)) as shown:
        assert isinstance(shown, CurveOnScreen)
        shown.epoch(record([9.0, 4.0]))
        shown.epoch(record([9.0, 4.0, 2.5]))
        shown.reference(1500, 40_000)
    text = log.getvalue()
    assert "kept so far epoch 2, held-out loss 2.5" in text
    assert "epoch 2/60  loss 2.5  10 voxels/s  at most 0:58 left" in text
    assert "choosing the reference: 1,500 of 40,000" in text
    assert "⣀" in text or "⠒" in text


def test_what_is_logged_meanwhile_stands_above_the_curve_and_the_log_is_given_back(log):
    with training_shown(60, "voxels", screen(log)) as shown:
        handler = console.log.handlers[0]
        shown.epoch(record([9.0, 4.0]))
        console.log.info("a word [bold]in between[/bold]")
        assert handler.stream is not log
    assert "a word [bold]in between[/bold]" in log.getvalue()
    assert console.log.handlers[0].stream is log
    console.log.info("afterwards")
    assert log.getvalue().endswith("afterwards\n")


def test_an_error_gives_the_screen_back_too(log):
    def train():
        with training_shown(60, "voxels", screen(log)) as shown:
            shown.epoch(record([9.0, 4.0]))
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        train()
    assert console.log.handlers[0].stream is log
    # The cursor is there again.
    assert log.getvalue().rstrip().endswith("\x1b[?25h")


def test_nothing_is_drawn_before_the_first_epoch(log):
    with training_shown(60, "voxels", screen(log)):
        console.log.info("read sub-01")
    assert log.getvalue() == "read sub-01\n"


def test_elsewhere_it_is_a_line_an_epoch_and_a_line_a_tenth(log):
    with training_shown(60, "slices") as shown:
        assert isinstance(shown, LogLines)
        shown.epoch(record([9.0, 4.0]))
        for done in range(0, 101):
            shown.reference(done, 100)
    lines = log.getvalue().splitlines()
    assert lines[0] == "epoch 1/60  loss 4  10 slices/s  at most 0:59 left"
    assert len(lines) == 11
    assert lines[-1] == "choosing the reference: 100 of 100"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("quiet", "plain", "drawn"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_quiet_and_no_color_are_heeded(monkeypatch, log, quiet, plain, drawn):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    console.start_logging(quiet=quiet, verbose=False)
    assert console.on_terminal() is drawn


def test_the_log_of_a_folder_does_not_count_as_loud(monkeypatch, log, tmp_path):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    console.start_logging(quiet=True, verbose=False)
    console.log_to_folder(tmp_path)
    assert not console.on_terminal()
    console.log.handlers[-1].close()


def test_both_are_told():
    told = []
    both(told.append, lambda one: told.append(-one))(3)
    assert told == [3, -3]


def test_json_is_alone_on_stdout_and_the_log_is_complete(tmp_path):
    import subprocess
    import sys

    from cohorts import FAST_TOML, tiny_cohort

    cohort, settings = tiny_cohort(), tmp_path / "fast.toml"
    settings.write_text(FAST_TOML)
    command = [sys.executable, "-m", "mednovelty", "fit", cohort.controls, "-o", tmp_path / "model",
               "--brain-masks", cohort.brains, "--settings", settings, "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "model")
    assert sum(line.startswith("epoch ") for line in done.stderr.splitlines()) == 4
    assert logging.getLogger("mednovelty") is console.log
