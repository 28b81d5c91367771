"""Glob patterns with ``{id}`` in them: which file belongs to which scan."""

from __future__ import annotations

import glob
import re

ID = "{id}"
_PIECES = re.compile(r"(\*\*/|\*|\?|\[!?[^\]]+\]|\{id\})")
_WILD = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}


def as_glob(pattern: str, *, literal: bool = False) -> str:
    """Return the pattern with anything where the id is; literal: nothing else in it is wild.

    Examples:
        >>> as_glob("{id}[1].nii", literal=True)
        '*[[]1].nii'
    """
    return "*".join(glob.escape(piece) if literal else piece for piece in pattern.split(ID))


def id_in(pattern: str, relative: str) -> str | None:
    """Return what ``{id}`` is where a path fits a pattern; the same everywhere, and within one folder's name.

    Args:
        pattern: Of ``*``, ``?``, ``[ab]``, ``**/`` and ``{id}``.
        relative: Path with ``/``.

    Examples:
        >>> id_in("{id}/anat/{id}_T1w.nii", "sub-01/anat/sub-01_T1w.nii")
        'sub-01'
        >>> id_in("{id}/anat/{id}_T1w.nii", "sub-01/anat/sub-01_ce-GD_T1w.nii") is None
        True
    """
    found = re.fullmatch(_regex(pattern), relative)
    return found["id"] if found else None


def _regex(pattern: str) -> str:
    found, seen = "", False
    for piece in _PIECES.split(pattern):
        if piece == ID:
            found += "(?P=id)" if seen else "(?P<id>[^/]+)"
            seen = True
        elif piece.startswith("[") and piece.endswith("]"):
            negated, listed = piece[1] == "!", piece[1:-1].removeprefix("!")
            found += "[" + "^" * negated + listed.replace("\\", "\\\\").replace("^", "\\^") + "]"
        else:
            found += _WILD.get(piece) or re.escape(piece)
    return found
