"""Sets of scans as benchmarks use them: data manifests, whether the data are here, and a hash of them.

``manifests/<name>.toml`` is a data manifest as ``fit`` and ``evaluate`` take it
(``mednovelty.io.manifest``). Where no folder is given its ``files.root`` tells where the data are; nothing
is downloaded, and what is not there is told with what to fetch. A manifest without checksums cannot tell
whether files are those that were published: results say so. The hash is of what all its files are now, so
that cells of other files are other cells.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from mednovelty.benchmarks.set_manifests import files_sha256, manifest_path, missing_set
from mednovelty.io.manifest import Manifest, read_manifest
from mednovelty.settings import read_toml


def is_scan_set(name: str) -> bool:
    """Return whether there is a data manifest of scans of that name."""
    path = manifest_path(name)
    return path.is_file() and bool({"dwi", "contrasts"} & set(read_toml(path).get("files", {})))


def scan_manifest(name: str, root: Path) -> Manifest:
    """Return the manifest of a set whose data are in a folder."""
    return read_manifest(manifest_path(name), root)


def found_root(name: str, data: Path | None) -> Path:
    """Return where a set of scans is.

    Args:
        name: Of the set.
        data: A folder that holds it, or a folder of that name which does; None: where the manifest says.

    Raises:
        ScanError: It is not there: what to fetch, and where to put it; code ``scans.missing``.
    """
    tree = read_toml(manifest_path(name))
    told, place = tree["dataset"], Path(os.path.expandvars(tree["files"]["root"]))
    own = [] if "$" in str(place) else [place]
    names = dict.fromkeys((name, name.replace("_", "-"), place.name))
    places = own if data is None else [*(data / each for each in names), data]
    for root in places:
        if root.is_dir() and next(_files(scan_manifest(name, root)), None) is not None:
            return root
    what = f"{name}: no scan fits {next(iter(_patterns(tree['files'])))}"
    raise missing_set(what, places, fetch=told.get("fetch", ""), licence=told["licence"],
                      source=told["source"], code="scans.missing")  # fmt: skip


@lru_cache(maxsize=8)
def content_sha256(name: str, root: Path) -> str:
    """Return a hash of the paths and contents of all files of a set.

    Raises:
        ScanError: One cannot be read.
    """
    manifest = scan_manifest(name, root)
    return files_sha256(root, sorted({*_files(manifest), *manifest.lesion_masks()}))


def unchecked(name: str) -> str:
    """Return in words that nobody can tell whether files are as published; empty where one can."""
    if read_toml(manifest_path(name)).get("checksums"):
        return ""
    return f"There are no checksums of {name}: that its files are those that were published was not checked."


def _files(manifest: Manifest) -> Iterator[Path]:
    patterns = [*manifest.dwi, *sum(manifest.contrasts.values(), ())]
    return (path for pattern in patterns for path in manifest.matches(pattern, required=False))


def _patterns(files: dict[str, object]) -> Iterable[object]:
    contrasts = files.get("contrasts", {})
    return contrasts.values() if isinstance(contrasts, dict) and contrasts else [files["dwi"]]


__all__ = ["content_sha256", "found_root", "is_scan_set", "scan_manifest", "unchecked"]
