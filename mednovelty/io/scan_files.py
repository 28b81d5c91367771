"""The files of one scan, and lists of scans; nothing of them is read yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from mednovelty.errors import ScanError
from mednovelty.io.guard import shown
from mednovelty.io.manifest import Manifest
from mednovelty.io.names import Entities
from mednovelty.io.walk import Skipped


@dataclass(frozen=True, slots=True)
class ScanFiles:
    """The files of one scan; nothing of them is read yet.

    Attributes:
        id: Unique in its list, safe as a file name.
        image: The 4-D image.
        bval: FSL b-values.
        bvec: FSL directions.
        grad_b: MRtrix table, instead of the two.
        mask: Brain mask; None asks for one to be made.
        sidecar: JSON beside the image.
        entities: Of a BIDS name, in order.
        role: ``normal``, ``validation`` or ``test`` where a manifest says so.
        relative: The image's path below the folder that was asked for, with ``/``.
        sha256: What the image file's hash must be, where a manifest says so.
        contrasts: Of a structural scan the name and image of each channel; ``image`` is the first one's.
        contrast_sha256: What the hash of each of these must be; empty where a manifest says nothing.
        fold: Of cross-validation, where a manifest has folds.
    """

    id: str
    image: Path
    bval: Path | None = None
    bvec: Path | None = None
    grad_b: Path | None = None
    mask: Path | None = None
    sidecar: Path | None = None
    entities: Entities = ()
    role: str | None = None
    relative: str = ""
    sha256: str = ""
    contrasts: tuple[tuple[str, Path], ...] = ()
    contrast_sha256: tuple[str, ...] = ()
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class ScanList(Sequence[ScanFiles]):
    """Scans in the order of their paths.

    Attributes:
        scans: The files of each.
        skipped: What else was found.
        root: The folder that paths are relative to.
        manifest: The data manifest that was followed.
    """

    scans: tuple[ScanFiles, ...]
    skipped: tuple[Skipped, ...] = ()
    root: Path = field(default_factory=Path)
    manifest: Manifest | None = None

    @overload
    def __getitem__(self, index: int) -> ScanFiles: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ScanFiles, ...]: ...
    def __getitem__(self, index: int | slice) -> ScanFiles | tuple[ScanFiles, ...]:
        return self.scans[index]

    def __len__(self) -> int:
        return len(self.scans)

    def __iter__(self) -> Iterator[ScanFiles]:
        return iter(self.scans)

    def with_roles(self, *roles: str) -> ScanList:
        """Return the scans with one of some roles; all of them where no manifest gives roles."""
        if not any(scan.role for scan in self.scans):
            return self
        return replace(self, scans=tuple(scan for scan in self.scans if scan.role in roles))


def id_collisions(found: ScanList) -> list[ScanError]:
    """Return an error for each scan whose id one file system or another would take for an earlier one's."""
    taken: dict[str, ScanFiles] = {}
    collisions = []
    for files in found:
        other = taken.setdefault(files.id.casefold(), files)
        if other is not files:
            what = f"{other.relative} and {files.relative} would both be {files.id!r}; rename one, or give"
            collisions.append(
                ScanError(f"{shown(found.root)}: {what} their folders one after another", code="ids.collide")
            )
    return collisions
