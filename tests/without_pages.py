"""Commands as tests type them that do not look at pages: drawing these takes longer than what is tested."""

from contextlib import contextmanager

import pytest

LEAVE_PAGES = ("score", "evaluate", "threshold", "combine")


def typed(words):
    """Return the words of a command as texts, with ``--no-report`` where it would leave pages."""
    texts = [str(word) for word in words]
    return [*texts, "--no-report"] if texts[0] in LEAVE_PAGES else texts


@contextmanager
def no_pictures():
    """Leave out the pictures of evaluations: they take longer than all else that ``evaluate`` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mednovelty.report.figures.draw_evaluation", lambda evaluation, folder: [])
        yield
