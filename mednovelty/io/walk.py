"""Every file below a folder, each folder once, and what could not be looked at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath

from mednovelty.io.guard import unreadable
from mednovelty.io.names import is_image


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is no scan, and why.

    Attributes:
        path: Below the folder that was asked for.
        code: Stable: ``mask``, ``image.3d``, ``image.no_gradients``, ``image.not_dwi``, ``derivatives``,
            ``link.loop``, ``folder.permission``, ``role``; of structural scans also ``image.dwi``,
            ``image.not_anat``, ``contrast.other``, ``contrast.missing``, ``contrast.ambiguous``, ``fold``.
        why: In words.
    """

    path: str
    code: str
    why: str


def walk(root: Path, skipped: list[Skipped]) -> list[Path]:
    """Return the files below a folder, sorted; each folder once, links to folders followed last."""
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    folders = [root]
    while folders:
        linked: list[Path] = []
        for folder in folders:
            files += _walk_real(folder, root, seen, linked, skipped)
        folders = linked
    return sorted(files, key=lambda path: path.relative_to(root).parts)


def _walk_real(
    folder: Path, root: Path, seen: set[tuple[int, int]], linked: list[Path], skipped: list[Skipped]
) -> list[Path]:
    files: list[Path] = []
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            status = os.stat(current)
            with os.scandir(current) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if current == root:
                raise unreadable(current, error) from error
            skipped.append(
                Skipped(relative_to(current, root), "folder.permission", str(unreadable(current, error)))
            )
            continue
        if (status.st_dev, status.st_ino) in seen:
            skipped.append(
                Skipped(relative_to(current, root), "link.loop", "a link to a folder that was seen already")
            )
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            path = current / entry.name
            if entry.name.startswith("."):
                continue
            # os.path: a link to itself is then no folder, where the entry's own method raises.
            if not os.path.isdir(path) or is_image(path):
                files.append(path)
            elif not entry.is_symlink():
                pending.append(path)
            elif current.resolve().is_relative_to(path.resolve()):
                skipped.append(Skipped(relative_to(path, root), "link.loop", "a link to a folder it lies in"))
            else:
                linked.append(path)
    return files


def relative_to(path: Path, root: Path) -> str:
    """Return a path below a folder, with ``/`` on every system."""
    return PurePath(os.path.relpath(path, root)).as_posix()
