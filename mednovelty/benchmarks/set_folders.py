"""Where the data sets of a run are, and whether they are what was published."""

from __future__ import annotations

import logging
from pathlib import Path

from mednovelty.benchmarks.defect_sets import defects_sha256, found_defects, is_defect_set
from mednovelty.benchmarks.image_sets import as_published, file_hashes, found_folder
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.scan_sets import content_sha256, found_root, is_scan_set, unchecked
from mednovelty.errors import ScanError

log = logging.getLogger("mednovelty")


class SetFolders:
    """Where data sets are, and whether they are what was published; each is looked at once.

    Args:
        data: As given; None: where manifests say.
    """

    def __init__(self, data: Path | None) -> None:
        self._data = data
        self._known: dict[str, tuple[Path, dict[str, str]]] = {}
        self.notes: list[str] = []

    def of(self, name: str) -> Path:
        """Return the folder of a data set."""
        return self._found(name)[0]

    def has_beside(self, plan: Plan, method: str, asked: str) -> bool:
        """Return whether the other data set that a method needs is there, if it needs one.

        Raises:
            ScanError: It is not, and the method was asked for by name.
        """
        if method not in plan.beside:
            return True
        try:
            self.of(plan.beside[method])
        except ScanError as error:
            # Where all methods need it, nothing would be left.
            if asked != "all" or set(plan.methods) <= set(plan.beside):
                raise
            log.warning("%s is left out: %s", method, error)
            return False
        return True

    def hashes_of(self, name: str, other: str | None) -> dict[str, str]:
        """Return hashes by file, of a data set and of that beside it."""
        hashes = dict(self._found(name)[1])
        if other:
            hashes |= {f"{other}/{file}": sha256 for file, sha256 in self._found(other)[1].items()}
        return hashes

    def beside(self, name: str | None) -> tuple[str, ...]:
        """Return name and folder of a data set beside another; nothing where there is none."""
        return (name, str(self.of(name))) if name else ()

    def _found(self, name: str) -> tuple[Path, dict[str, str]]:
        if name not in self._known and is_scan_set(name):
            root = found_root(name, self._data)
            self._known[name] = root, {"content": content_sha256(name, root)}
            self.notes += [unchecked(name)] if unchecked(name) else []
        elif name not in self._known and is_defect_set(name):
            root = found_defects(name, self._data)
            self._known[name] = root, {"content": defects_sha256(root)}
            self.notes += [unchecked(name)] if unchecked(name) else []
        elif name not in self._known:
            folder = found_folder(name, self._data)
            self._known[name] = folder, file_hashes(name, folder)
            if not as_published(name, self._known[name][1]):
                self.notes.append(f"**The images of {name} are not those that were published.**")
        return self._known[name]


__all__ = ["SetFolders"]
