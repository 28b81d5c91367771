"""Which brain mask belongs to which structural scan, among the masks of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from mednovelty.io.beside import entity_rank
from mednovelty.io.contrasts import name_images
from mednovelty.io.names import entities, looks_like_mask, names_lesions, stem
from mednovelty.io.scan_files import ScanFiles
from mednovelty.io.walk import relative_to

_BRAIN_MASKS = ("desc-brain_mask", "brain_mask", "brain-mask", "brainmask")


def with_brain_masks(scans: Sequence[ScanFiles], masks: Sequence[Path], root: Path) -> list[ScanFiles]:
    """Return scans with their brain masks; only what is called one is, since lesions have masks too.

    Args:
        scans: Of one folder.
        masks: The images in it that are masks by their names.
        root: The folder.
    """
    called = [path for path in masks if _is_brain_mask(path, root)]
    plain = {
        mask.id: mask.path
        for mask in name_images(called, root, _BRAIN_MASKS)
        if mask.contrast in _BRAIN_MASKS and not mask.entities
    }
    return [
        replace(files, mask=_bids_mask(files, called) if files.entities else plain.get(files.id))
        for files in scans
    ]


def _is_brain_mask(path: Path, root: Path) -> bool:
    own = stem(path).lower()
    folder = PurePath(relative_to(path, root)).parent.name
    return "brain" in own and looks_like_mask(own.replace("brainmask", "mask")) and not (
        names_lesions(own) or names_lesions(folder)
    )  # fmt: skip


def _bids_mask(files: ScanFiles, masks: Sequence[Path]) -> Path | None:
    """Return the mask whose entities agree best with those of one of the scan's images."""
    best, found = 0, None
    images = [dict(entities(stem(image))) for _, image in files.contrasts]
    for path in masks:
        theirs = dict(entities(stem(path)))
        rank = max(entity_rank(own, theirs) for own in images) if theirs else 0
        if rank > best:
            best, found = rank, path
    return found
