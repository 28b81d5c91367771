"""Where the images lie that maps were made of, as sidecars and the record of the run tell.

A sidecar tells it from its own place, which holds where scans and maps are moved together; ``run.json`` in
the folder of the maps tells the place itself, which holds where the maps alone are moved. Whether an image is
still the one that was scored, its hash tells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mednovelty.outputs import told

RUN = "run.json"
DEEPEST = 3
"""Folders between a run's record and the maps of a scan: ``OUT/sub-01/ses-1/dwi``."""


def sources_of(folder: Path, sidecar: Mapping[str, Any], id: str) -> list[Path]:
    """Return the images that a scan was read from; where they are in neither place, where its sidecar says.

    Args:
        folder: Of the sidecar.
        sidecar: Of a map.
        id: Of the scan.
    """
    listed = sidecar.get("Sources")
    names = [str(path) for path in listed] if isinstance(listed, list) else []
    paths = [Path(os.path.normpath(folder / name)) for name in names]
    if not paths or all(path.is_file() for path in paths):
        return paths
    first = _of_run(folder, id)
    if first is None:
        return paths
    # Of several images the record tells the first; the others lie as they did beside it.
    beside = [os.path.relpath(path, paths[0].parent) for path in paths[1:]]
    found = [first, *(Path(os.path.normpath(first.parent / name)) for name in beside)]
    return found if first.name == paths[0].name and all(path.is_file() for path in found) else paths


def _of_run(folder: Path, id: str) -> Path | None:
    """Return the first image of a scan as the nearest record of a run tells; None where none does."""
    folder = folder.absolute()
    for out in (folder, *list(folder.parents)[:DEEPEST]):
        scans = (told(out / RUN) or {}).get("Scans")
        for one in scans if isinstance(scans, list) else ():
            if isinstance(one, dict) and one.get("id") == id and isinstance(one.get("source"), str):
                path = Path(one["source"])
                return path if path.is_absolute() else None
    return None


__all__ = ["sources_of"]
