"""Where the data sets of a run are, and whether they are what was published."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mednovelty.benchmarks.benchmark import Cell
from mednovelty.benchmarks.defect_sets import classes_there, defects_sha256, found_defects, is_defect_set
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
        self._left_out: set[tuple[str, str]] = set()
        self.notes: list[str] = []

    def of(self, name: str) -> Path:
        """Return the folder of a data set."""
        return self._found(name)[0]

    def beside_of(self, plan: Plan, cell: Cell, settings: Mapping[str, Any]) -> str | None:
        """Return the other data set that a cell gets, the first at hand; None: it needs none.

        Raises:
            ScanError: It needs one, and none is at hand; code ``images.missing``.
        """
        needed = plan.beside_for(cell.method, cell.label, settings)
        if not needed:
            return None
        missing = []
        for name in needed:
            if name == cell.dataset:
                missing.append(f"{name}: is what is trained on")
                continue
            try:
                self.of(name)
            except ScanError as error:
                if error.code != "images.missing":
                    raise
                missing.append(str(error))
                continue
            if not (plan.outside or is_scan_set(name)):  # Scans are trained on, and no outliers.
                self._tell(plan, cell, name)
            return name
        raise ScanError("; ".join(missing), code="images.missing")

    def possible(self, plan: Plan, cell: Cell, settings: Mapping[str, Any], *, asked: bool) -> bool:
        """Return whether the other data set that a cell needs is there, if it needs one.

        Args:
            plan: Of the protocol.
            cell: Which.
            settings: Its settings.
            asked: Whether it was asked for by name; then it must be there.

        Raises:
            ScanError: It is not, and was asked for.
        """
        try:
            self.beside_of(plan, cell, settings)
        except ScanError as error:
            # Where all methods need it, nothing would be left.
            if asked or error.code != "images.missing" or set(plan.methods) <= set(plan.beside):
                raise
            # Once a set, not once a class.
            what = cell.label if plan.outside else cell.method
            if (cell.dataset, what) not in self._left_out:
                self._left_out.add((cell.dataset, what))
                log.warning("%s on %s is left out: %s", what, cell.dataset, error)
            return False
        return True

    def classes_of(self, name: str, classes: Sequence[str], *, asked: bool) -> list[str]:
        """Return those classes of a data set that are at hand, where each is a folder of its own.

        Args:
            name: Of the set.
            classes: Of the protocol.
            asked: Whether they were asked for by name; then all must be there.

        Raises:
            ScanError: The set is not there, or a class that was asked for, or none is; code
                ``images.missing``.
        """
        if not is_defect_set(name):
            return list(classes)
        root = self.of(name)
        there = classes_there(root)
        missing = [label for label in classes if label not in there]
        words = f"{len(missing)} of {len(classes)} classes are not at hand: {', '.join(missing)}"
        if missing and (asked or len(missing) == len(classes)):
            raise ScanError(
                f"{name}: {words}; {root} has {', '.join(there)}: add them, or name those with --classes",
                code="images.missing",
            )
        if missing:
            log.warning("%s: %s; left out", name, words)
            self.notes.append(f"Of {name}, {words}.")
        return [label for label in classes if label in there]

    def hashes_of(self, name: str, other: str | None) -> dict[str, str]:
        """Return hashes by file, of a data set and of that beside it."""
        hashes = dict(self._found(name)[1])
        if other:
            hashes |= {f"{other}/{file}": sha256 for file, sha256 in self._found(other)[1].items()}
        return hashes

    def beside(self, name: str | None) -> tuple[str, ...]:
        """Return name and folder of a data set beside another; nothing where there is none."""
        return (name, str(self.of(name))) if name else ()

    def _tell(self, plan: Plan, cell: Cell, name: str) -> None:
        papers = plan.in_the_paper.get(cell.dataset)
        note = f"`{cell.method}` on {cell.dataset}: outliers are images of {name}" + (
            f"; the paper's are of {papers}." if papers else "."
        )
        if note not in self.notes:
            self.notes.append(note)

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
