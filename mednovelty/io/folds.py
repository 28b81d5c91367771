"""Cross-validation by subject: who is tested when. Never by slice, and never two sessions apart.

A fold holds subjects. When fold k is tested, the next one validates and all others train; of two folds
one is tested and the other trains. Subjects are dealt out in the order of a hash of seed and name, so
that the same names give the same folds on every machine, whatever order they are listed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mednovelty.errors import SettingsError
from mednovelty.io.guard import shown

if TYPE_CHECKING:
    from mednovelty.io.scan_files import ScanFiles, ScanList


@dataclass(frozen=True, slots=True)
class Folds:
    """Into how many parts a cohort is split, and how.

    Attributes:
        count: Number of folds, at least 2.
        seed: Other seeds deal the subjects out otherwise.
        patterns: Instead of dealing: of each fold the patterns of its scan ids, ``*`` and ``?`` allowed.
    """

    count: int = 5
    seed: int = 0
    patterns: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.patterns and len(self.patterns) != self.count:
            raise SettingsError(f"{self.count} folds, but patterns for {len(self.patterns)}")
        if self.count < 2:
            raise SettingsError(f"at least 2 folds are needed, not {self.count}")


def subject_of(files: ScanFiles) -> str:
    """Return whose scan it is: all sessions of a BIDS subject are one's."""
    sub = dict(files.entities).get("sub")
    return files.id if sub is None else f"sub-{sub}"


def fold_of(scans: Iterable[ScanFiles], folds: Folds) -> dict[str, int]:
    """Return the fold of each scan by its id, from 0.

    Give all scans of a data set, not those with some contrast: who is there decides who goes where.

    Args:
        scans: Those to be split; a scan that no pattern claims is not in the result.
        folds: How.

    Raises:
        SettingsError: Fewer subjects than folds, a scan in two folds, or a subject torn apart.
    """
    subjects = {files.id: subject_of(files) for files in scans}
    if folds.patterns:
        return _by_pattern(subjects, folds)
    ranked = sorted(set(subjects.values()), key=lambda name: (_hash(folds.seed, name), name))
    if len(ranked) < folds.count:
        raise SettingsError(f"{len(ranked)} subjects cannot be split into {folds.count} folds")
    dealt = {name: place % folds.count for place, name in enumerate(ranked)}
    return {scan: dealt[name] for scan, name in subjects.items()}


def with_fold(scans: ScanList, k: int, folds: Folds | None = None) -> ScanList:
    """Return the scans with the roles they have when fold k is tested.

    Args:
        scans: From ``scan_folder``.
        k: The fold that is tested, from 0.
        folds: How to split; those of the data manifest where none are given.

    Returns:
        Each scan as ``test``, ``validation`` or ``normal``; those in no fold are left out.

    Raises:
        SettingsError: No such fold, or neither ``folds`` nor a manifest with any.
    """
    if folds is None:
        folds = scans.manifest.folds if scans.manifest else None
        if folds is None:
            raise SettingsError(f"{scans.root}: no folds: give some, or a data manifest that has [folds]")
        own = {files.id: files.fold for files in scans if files.fold is not None}
    else:
        own = fold_of(scans, folds)
    if not 0 <= k < folds.count:
        raise SettingsError(f"there is no fold {k}; the {folds.count} folds are 0 to {folds.count - 1}")
    return replace(
        scans,
        scans=tuple(
            replace(files, fold=own[files.id], role=role_in(own[files.id], k, folds.count))
            for files in scans
            if files.id in own
        ),
    )


@dataclass(frozen=True, slots=True)
class TestedFold:
    """Which fold is tested, from 1, of how many and of what."""

    number: int
    count: int
    manifest: str

    @property
    def words(self) -> str:
        """As notes tell it."""
        return f"fold {self.number} of {self.count} of {self.manifest} is tested"


def of_fold(scans: ScanList, number: int | None) -> tuple[ScanList, TestedFold | None]:
    """Return the scans with their roles when a fold is tested, and which that is; None where there are none.

    Args:
        scans: From ``scan_folder``.
        number: Of the fold, from 1; None: the first, if there are any.

    Raises:
        SettingsError: There are no folds, or there is none of that number.
    """
    folds = scans.manifest.folds if scans.manifest else None
    if scans.manifest is None or folds is None:
        if number is None:
            return scans, None
        raise SettingsError(f"--fold {number}: {scans.root} has no folds; give a data manifest with [folds]")
    tested = TestedFold(1 if number is None else number, folds.count, scans.manifest.name)
    if not 1 <= tested.number <= tested.count:
        raise SettingsError(
            f"--fold {number}: {shown(scans.manifest.path)} has {folds.count} folds, 1 to {folds.count}"
        )
    return with_fold(scans, tested.number - 1), tested


def role_in(fold: int, k: int, count: int) -> str:
    """Return the role of a fold's scans when fold k is tested.

    Examples:
        >>> [role_in(fold, 4, 5) for fold in range(5)]
        ['validation', 'normal', 'normal', 'normal', 'test']
        >>> [role_in(fold, 1, 2) for fold in range(2)]
        ['normal', 'test']
    """
    if fold == k:
        return "test"
    return "validation" if count > 2 and fold == (k + 1) % count else "normal"


def _by_pattern(subjects: dict[str, str], folds: Folds) -> dict[str, int]:
    found: dict[str, int] = {}
    of_subject: dict[str, int] = {}
    for scan, subject in subjects.items():
        own = [k for k, ids in enumerate(folds.patterns) if any(fnmatchcase(scan, p) for p in ids)]
        if len(own) > 1:
            raise SettingsError(f"{scan} is in folds {own[0]} and {own[1]}; a scan is in one fold")
        if not own:
            continue
        if of_subject.setdefault(subject, own[0]) != own[0]:
            what = f"{subject} is in folds {of_subject[subject]} and {own[0]}"
            raise SettingsError(f"{what}; all scans of a subject are in one fold")
        found[scan] = own[0]
    return found


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
