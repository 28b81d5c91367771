"""The lesion mask of each scan of a list: from a folder of masks, or where a data manifest says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mednovelty.errors import ScanError
from mednovelty.evaluation.files import find_masks, manifest_masks
from mednovelty.io.manifest import Manifest, manifest_or_folder
from mednovelty.io.mask import read_lesion
from mednovelty.scan import Scan

log = logging.getLogger("mednovelty")


def lesions_in(
    masks: Path | Manifest, ids: Sequence[str], besides: Path, *, each: bool = True
) -> Callable[[Scan], Any]:
    """Return what gives a scan's lesion, ``(I, J, K)`` bool, from a folder of masks or a data manifest.

    Args:
        masks: Where the lesion masks are.
        ids: Of all scans.
        besides: A folder whose files are no lesion masks, even if it lies in that of the masks.
        each: Whether every scan must have a mask, lest a lesion be taken to be healthy unawares. Where
            lesions are labelled, scans without a mask have no label.

    Raises:
        ScanError: There is no such folder, a scan has two masks, or none has one.
    """
    found = masks_by_id(masks, ids, besides, logging.WARNING)

    def lesion_of(scan: Scan) -> Any:
        if scan.id not in found and not each:
            return None
        if scan.id not in found:
            where = masks.path if isinstance(masks, Manifest) else masks
            raise ScanError(f"{scan.id}: no lesion mask in {where}; give a healthy scan one of zeros",
                            code="masks.missing")  # fmt: skip
        lesion, warnings = read_lesion(found[scan.id], scan.grid, scan.id)
        for warning in warnings:
            log.warning("%s: %s", scan.id, warning)
        return lesion

    return lesion_of


def masks_by_id(
    masks: Path | Manifest, ids: Sequence[str], besides: Path, level: int = logging.INFO
) -> dict[str, Path]:
    """Return lesion masks by scan id, from a folder of masks or a data manifest; tell of those of no scan.

    Raises:
        ScanError: There is no such folder, a scan has two masks, or no mask is a scan's (``masks.none``).
    """
    given = manifest_or_folder(masks)
    if isinstance(given, Manifest):
        found, strangers = manifest_masks(given, ids)
        where, names = given.path, str(given.root / given.masks)
    else:
        found, strangers = find_masks(given, ids, besides)
        where, names = given, "<scan>_mask.nii.gz"
    few = ", ".join(path.name for path in strangers[:3]) + (", ..." if len(strangers) > 3 else "")
    if not found:
        raise ScanError(
            f"{where}: no lesion mask fits a scan: scans {', '.join(ids[:3])}; masks {few or 'none'}; call "
            f"them {names}",
            code="masks.none",
        )
    if strangers:
        log.log(level, "%s: %d masks fit no scan and are not used: %s; call them %s", where, len(strangers),
                few, names)  # fmt: skip
    return found


__all__ = ["lesions_in", "masks_by_id"]
