"""The files of one scan's relevance for one score.

``<stem>_desc-<score>_relevance.nii.gz``            where it lies, in the scan's own voxels
``<stem>_desc-<score>_relevance-gradients.nii.gz``  4-D, of a diffusion scan: a volume for each of the scan's
``<stem>_desc-<score>_relevance-gradients.tsv``     the same in numbers, a row a gradient
``<stem>_desc-<score>_relevance-shells.tsv``        a row a shell
``<stem>_desc-<score>_relevance.json``              what it is, written last
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.explaining.scans import ScanRelevance
from mednovelty.explaining.tables import MOST_NOVEL, table_of
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.nifti import write_map, write_volumes

SHOWN = 99.9
"""Percentile of a map's moduli that viewers show first as its upper end."""


def write_relevance(
    found: ScanRelevance, folder: str | Path, stem: str | None = None, about: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write a map, what is to be known about it, and the volumes and tables there are; return the files.

    Args:
        found: Of one scan.
        folder: It exists.
        stem: How names begin; None: the scan's id.
        about: JSON types that the ``.json`` tells besides, such as of what scan and detector.

    Raises:
        OutputError: Something cannot be written.
    """
    written = [*write_images(found, folder, stem), *write_tables(found, folder, stem)]
    return [*written, write_sidecar(found, folder, stem, about)]


def write_images(found: ScanRelevance, folder: str | Path, stem: str | None = None) -> list[Path]:
    """Write the map, and of a diffusion scan the 4-D image.

    Raises:
        OutputError: Something cannot be written.
    """
    start = start_of(found, folder, stem)
    written, told = [start.with_name(start.name + ".nii.gz")], f"mednovelty {found.score} relevance"
    inside = found.volume.data[found.volume.data != 0]
    high = float(np.percentile(np.abs(inside), SHOWN)) if inside.size else 1.0
    write_map(written[0], found.volume, cal_min=0.0, cal_max=high, description=told)
    if found.by_gradient:
        written.append(start.with_name(start.name + "-gradients.nii.gz"))
        high = max(max(row.mean_relevance_most_novel for row in found.gradients), 0.0)
        write_volumes(
            written[1], found.by_gradient, cal_max=high, description=f"{told}, volumes as in the scan"
        )
    return written


def write_tables(found: ScanRelevance, folder: str | Path, stem: str | None = None) -> list[Path]:
    """Write the tables of gradients and shells, of a diffusion scan.

    Raises:
        OutputError: Something cannot be written.
    """
    start, written = start_of(found, folder, stem), []
    for what, rows in (("gradients", found.gradients), ("shells", found.shells)):
        if rows:
            written.append(start.with_name(f"{start.name}-{what}.tsv"))
            write_text_atomic(written[-1], table_of(rows))
    return written


def write_sidecar(
    found: ScanRelevance, folder: str | Path, stem: str | None = None, about: Mapping[str, Any] | None = None
) -> Path:
    """Write the ``.json``.

    Raises:
        OutputError: It cannot be written.
    """
    start = start_of(found, folder, stem)
    path = start.with_name(start.name + ".json")
    told = {"ScanId": found.scan_id, **(about or {}), "Relevance": told_of(found)}
    write_text_atomic(path, json.dumps(told, indent=2) + "\n")
    return path


def told_of(found: ScanRelevance) -> dict[str, Any]:
    """Return what is to be known of a scan's relevance, as JSON types.

    ``mean_score`` is ``mean_relevance`` + ``constant`` + ``lost``, means over samples in the score's unit.
    """
    sums = found.sums
    return {
        "score": found.score,
        "rule": found.rule,
        "conserves": found.conserves,
        "mean_score": sums.score,
        "mean_relevance": sums.relevance,
        "constant": sums.constant,
        "lost": sums.lost,
        "unassigned": found.unassigned,
        "most_novel": MOST_NOVEL,
        "shells": [asdict(row) for row in found.shells],
    }


def start_of(found: ScanRelevance, folder: str | Path, stem: str | None = None) -> Path:
    """Return how the names of a scan's files begin."""
    return Path(folder) / f"{stem or found.scan_id}_desc-{found.score}_relevance"


__all__ = ["start_of", "told_of", "write_images", "write_relevance", "write_sidecar", "write_tables"]
