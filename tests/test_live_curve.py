"""The curve of a training in dots of braille: by hand, and what every curve has."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.curve import EpochRow, TrainingRecord
from mednovelty.live_curve import BLANK, LABEL, curve_lines, dots, ends_of


def record(held_out, trained=None, judged=True):
    trained = [None, *held_out[1:]] if trained is None else trained
    rows = zip(trained, held_out, strict=True)
    return TrainingRecord(
        tuple(EpochRow(n, t, 1e-3, 1.0, 10.0, {"loss": v}, judged) for n, (t, v) in enumerate(rows))
    )


def words(line):
    return "".join(part.text for part in line)


def grid(characters):
    """Characters as single dots, four rows and two columns each: the Unicode standard's numbering."""
    numbers = [[0, 3], [1, 4], [2, 5], [6, 7]]
    height, width = characters.shape
    found = np.zeros((4 * height, 2 * width), bool)
    for (row, column), code in np.ndenumerate(characters):
        for i in range(4):
            for j in range(2):
                found[4 * row + i, 2 * column + j] = code >> numbers[i][j] & 1
    return found


def test_a_falling_line_by_hand():
    # Two columns of four dots: loss 3 at the top of the left one, loss 0 at the bottom of the right one. The
    # right column is filled from below where the left one ended: dot 1 on the left; 5, 6 and 8 on the right.
    found = dots([(0, 3.0), (1, 0.0)], (1, 1), (0.0, 3.0), 1)
    assert found.tolist() == [[0x01 + 0x10 + 0x20 + 0x80]]


def test_a_level_line_by_hand():
    # Half way up 8 rows of dots: row 3.5, rounded to the even 4, the top of the lower character.
    found = dots([(0, 0.5), (1, 0.5)], (2, 3), (0.0, 1.0), 1)
    assert found.tolist() == [[0, 0, 0], [0x09, 0x09, 0x09]]


def test_a_line_that_starts_late_leaves_its_beginning_empty():
    # Training losses begin with epoch 1: of columns 0 to 7 that is 7 / 2, rounded to 4.
    found = grid(dots([(1, 1.0), (2, 0.0)], (2, 4), (0.0, 1.0), 2))
    assert not found[:, :4].any()
    # That column is at epoch 8 / 7, a seventh of the way down from row 0 to 7.
    assert np.flatnonzero(found[:, 4]).tolist() == [1]
    assert found[-1, 7]


LOSSES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)


@given(LOSSES, st.integers(1, 6), st.integers(2, 30))
def test_every_line_runs_from_its_first_to_its_last_epoch_without_a_gap(losses, height, width):
    ends = ends_of(losses)
    found = grid(dots(list(enumerate(losses)), (height, width), ends, len(losses) - 1))
    assert found.any(0).all()
    rows = [np.flatnonzero(column) for column in found.T]
    for one, other in pairwise(rows):
        assert other.min() <= one.max() + 1
        assert one.min() <= other.max() + 1
    for column in rows:
        assert (np.diff(column) == 1).all()


@given(LOSSES)
def test_the_lowest_loss_is_always_seen_and_lower_is_lower(losses):
    low, high = ends_of(losses)
    assert low <= min(losses)
    assert high > low
    assert high <= max(max(losses), low + 1)


def test_lines_fit_into_their_width_and_say_which_epoch_is_kept():
    lines = curve_lines(record([9.0, 4.0, 2.5, 3.0]), 60, 5)
    assert len(lines) == 7
    assert all(len(words(line)) == 60 for line in lines[:5])
    assert words(lines[0]).startswith("       9 │")
    assert words(lines[4]).startswith("     2.5 │")
    assert words(lines[5]).rstrip() == " " * (LABEL - 1) + "0" + "3".rjust(50) + " epochs"
    assert words(lines[6]).strip() == "⠒⠒ training   ⠒⠒ held out   kept so far epoch 2, held-out loss 2.5"


def test_where_nothing_can_judge_the_last_epoch_is_told_to_be_kept():
    lines = curve_lines(record([9.0, 4.0, 5.0], judged=False), 60, 3)
    assert words(lines[-1]).endswith("kept: the last, epoch 2")


def test_a_start_far_off_does_not_flatten_the_rest():
    lines = curve_lines(record([1e9, 5.0, 4.0, 3.0, 2.0, 1.0]), 60, 5)
    assert words(lines[0]).startswith("       5 │")


def test_dots_of_both_have_the_colour_of_what_decides():
    lines = curve_lines(record([2.0, 1.0], [None, 1.0]), 30, 4)
    kinds = {part.kind for line in lines[:4] for part in line if part.text.strip(chr(BLANK))}
    assert "held-out" in kinds
    assert all(len(part.text) for line in lines for part in line)


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_first_epochs_are_drawn_too(epochs):
    assert len(curve_lines(record([3.0, 2.0][:epochs]), 40, 4)) == 6
