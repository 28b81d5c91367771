"""What ``fit`` is told of scans besides their folder: ``--labels`` and ``--outliers``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty.errors import ScanError

if TYPE_CHECKING:
    from mednovelty.annotations import Labels
    from mednovelty.detector import FitSettings
    from mednovelty.io.scan_folder import ScanList
    from mednovelty.recipes import Recipe


def labels_of(path: Path | None, every: ScanList, ids: Sequence[str], settings: FitSettings) -> Labels | None:
    """Return what a table says of scans; None where there is no table.

    Args:
        path: Of the table, tab-separated.
        every: All scans of the folder: the table may name those that are kept out.
        ids: Of those to train on.
        settings: Of the training.

    Raises:
        ScanError: The table cannot be used; the message tells its line.
        SettingsError: The method takes no such labels.
    """
    from mednovelty.annotations import labels_in
    from mednovelty.io.label_table import read_labels

    if path is None:
        return None
    table = read_labels(path)
    return labels_in(table.of_scans(every), ids, settings, table.name)


def outliers_of(
    folder: Path | None,
    recipe: Recipe,
    scans: ScanList,
    settings: FitSettings,
    find_scans: Callable[[Path], Sequence[Any]],
) -> tuple[Any, ...]:
    """Return the outliers of a folder, scans or pictures; none where there is no folder.

    Args:
        folder: Of either.
        recipe: Which scans it may hold.
        scans: Those to train on.
        settings: Of the training.
        find_scans: Lists the scans of a folder.

    Raises:
        ScanError: No folder, nothing in it, or a scan that is trained on (``outliers.overlap``).
        SettingsError: Pictures for samples that are no slices.
    """
    from mednovelty.outlier_sources import find_outliers

    if folder is None:
        return ()
    found = find_outliers(folder, recipe.scans, settings.view, find_scans)
    own = {os.path.realpath(path): files.id for files in scans for path in _images(files)}
    for files in found:
        for path in [files] if isinstance(files, Path) else _images(files):
            if os.path.realpath(path) in own:
                raise ScanError(
                    f"{path}: is an outlier, and trained on as the scan {own[os.path.realpath(path)]}; a "
                    "scan is one of the two",
                    code="outliers.overlap",
                )
    _refuse_copies(found, scans)
    return found


def _refuse_copies(found: Sequence[Any], scans: ScanList) -> None:
    """Refuse outliers whose images are, byte for byte, those of a scan that is trained on."""
    from mednovelty.io.guard import sha256_of_file

    images = [path for files in found if not isinstance(files, Path) for path in _images(files)]
    sizes = {_size(path) for path in images}
    # Only of one size can files be the same; few are hashed.
    own = {path: files.id for files in scans for path in _images(files) if _size(path) in sizes}
    same = {_size(path) for path in own}
    hashes = {sha256_of_file(path): id for path, id in own.items()}
    for path in images:
        id = hashes.get(sha256_of_file(path)) if _size(path) in same else None
        if id is not None:
            raise ScanError(
                f"{path}: is an outlier, and the same file, byte for byte, as one of the scan {id}, which is "
                "trained on; a scan is one of the two",
                code="outliers.overlap",
            )


def _size(path: Path) -> int:
    """Return the size of a file in bytes; -1 where it cannot be read, which is said when it is."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _images(files: Any) -> list[Path]:
    return [files.image, *(path for _, path in files.contrasts)]


__all__ = ["labels_of", "outliers_of"]
