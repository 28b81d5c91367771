"""A table that says which scans, or all scans of which subjects, are normal, anomalous or of a class.

Tab-separated, with a header. The first column holds names, of scans (``sub-01_ses-1``) or of subjects
(``sub-01``: all of its scans); one column is called ``label``; others are passed over, so a BIDS
``participants.tsv`` with such a column will do. ``n/a`` and an empty field are no label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mednovelty.errors import ScanError
from mednovelty.io.folds import subject_of
from mednovelty.io.guard import GuardedFile, shown
from mednovelty.text import printable

if TYPE_CHECKING:
    from mednovelty.io.scan_files import ScanFiles

COLUMN = "label"
NONE = ("", "n/a")
LONGEST = 16 << 20
"""Bytes; a cohort of a hundred thousand scans has a tenth of it."""


@dataclass(frozen=True)
class Entry:
    """A label, and in which line of the table it stands."""

    label: str
    """As written; empty for none."""
    line: int


@dataclass(frozen=True)
class LabelTable:
    """What a table of labels says.

    Attributes:
        path: Its file.
        entries: By the name of a scan or of a subject.
    """

    path: Path
    entries: Mapping[str, Entry]

    @property
    def name(self) -> str:
        """What messages call it."""
        return shown(self.path)

    def of_scans(self, scans: Iterable[ScanFiles]) -> dict[str, Entry]:
        """Return what is said of each scan, by its id; those of which nothing is said are left out.

        Args:
            scans: All scans of the cohort, also those that are kept out of a training.

        Raises:
            ScanError: A name is that of no scan and no subject (``labels.unknown_scan``), or a scan is
                said to be one thing and its subject another (``labels.contradictory``).
        """
        found: dict[str, Entry] = {}
        used: set[str] = set()
        for files in scans:
            names = [name for name in (files.id, subject_of(files)) if name in self.entries]
            used.update(names)
            if not names:
                continue
            own, other = self.entries[names[0]], self.entries[names[-1]]
            if own.label != other.label:
                raise ScanError(
                    f"{self.name}, line {own.line}: {names[0]} is {own.label or 'without a label'}, but line "
                    f"{other.line} says that {names[-1]} is {other.label or 'without one'}; keep one of them",
                    code="labels.contradictory",
                )
            found[files.id] = own
        strangers = [(entry.line, name) for name, entry in self.entries.items() if name not in used]
        if strangers:
            line, name = min(strangers)
            more = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
            raise ScanError(
                f"{self.name}, line {line}: no scan and no subject is called {name!r}{more}; "
                "`mednovelty check` lists the scans",
                code="labels.unknown_scan",
            )
        return found


def read_labels(path: Path) -> LabelTable:
    """Return what a table of labels says.

    Raises:
        ScanError: Absent, too large, not text, no such columns, or a name that stands in it twice:
            ``labels.columns``, ``labels.duplicate``, ``labels.contradictory``, ``labels.none``.
    """
    name, lines = shown(path), _lines(path)
    numbered = [(n, [field.strip() for field in line.split("\t")]) for n, line in enumerate(lines, 1)]
    numbered = [(n, fields) for n, fields in numbered if any(fields)]
    header = [field.lower() for field in numbered[0][1]] if numbered else []
    if header.count(COLUMN) != 1 or header.index(COLUMN) == 0:
        raise ScanError(
            f"{name}, line {numbered[0][0] if numbered else 1}: needs a header with tabs between columns: "
            f"names of scans or subjects first, and one column called {COLUMN!r}; found "
            f"{', '.join(map(printable, header)) or 'nothing'}",
            code="labels.columns",
        )
    place, entries = header.index(COLUMN), dict[str, Entry]()
    for n, fields in numbered[1:]:
        if len(fields) != len(header) or not fields[0]:
            what = "no name" if not fields[0] else f"{len(fields)} fields, the header has {len(header)}"
            raise ScanError(f"{name}, line {n}: {what}", code="labels.columns")
        label = fields[place].lower() if fields[place].lower() in NONE else printable(fields[place])
        _add(entries, printable(fields[0]), Entry("" if label in NONE else label, n), name)
    if not any(entry.label for entry in entries.values()):
        raise ScanError(f"{name}: there is no label in it", code="labels.none")
    return LabelTable(path, entries)


def _add(entries: dict[str, Entry], scan: str, entry: Entry, name: str) -> None:
    first = entries.setdefault(scan, entry)
    if first is entry:
        return
    if first.label != entry.label:
        raise ScanError(
            f"{name}, line {entry.line}: {scan} is {entry.label or 'without a label'} here and "
            f"{first.label or 'without one'} in line {first.line}; keep one of them",
            code="labels.contradictory",
        )
    raise ScanError(
        f"{name}, line {entry.line}: {scan} stands in line {first.line} already; keep one of them",
        code="labels.duplicate",
    )


def _lines(path: Path) -> list[str]:
    with GuardedFile(path) as file:
        if file.size > LONGEST:
            raise ScanError(f"{file.name}: {file.size} bytes are too many for a table of labels",
                            code="labels.columns")  # fmt: skip
        blocks = iter(lambda: file.read(1 << 20), b"")
        content = b"".join(blocks)
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ScanError(f"{shown(path)}: not UTF-8 text: {error}", code="labels.columns") from error


__all__ = ["Entry", "LabelTable", "read_labels"]
