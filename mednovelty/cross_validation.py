"""Detectors of folds: trained on the lesion-free parts of some subjects, to be tested on others.

What studies of folds have in common: which scans there are, brain masks that are made once for all folds, and
a detector for each, which is only trained where it does not lie on disk already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.candidates import remove_checkpoints
from mednovelty.detector import Detector
from mednovelty.errors import ScanError
from mednovelty.fitting import FitSettings
from mednovelty.io.beside import mask_by_id
from mednovelty.io.nifti import write_map
from mednovelty.io.read_scan import ReadOptions, read_scan
from mednovelty.io.scan_files import ScanFiles, ScanList
from mednovelty.lesion_masks import lesions_in
from mednovelty.scan import Volume


def masked_scans(scans: ScanList, folder: Path, options: ReadOptions) -> ScanList:
    """Return structural scans with brain masks from a folder; those that are missing are made there, once.

    A scan that cannot be read stays as it is: whoever reads it next says what is wrong with it, and the
    others go on.

    Args:
        scans: Those that come with a mask of their own keep it, unless the folder has one for them.
        folder: Made if absent.
        options: How masks are made.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return replace(scans, scans=tuple(_masked(files, folder, options) for files in scans))


def _masked(files: ScanFiles, folder: Path, options: ReadOptions) -> ScanFiles:
    path = mask_by_id(folder, files.id)
    if files.mask is None and not path.exists():
        # Of the first contrast: the others change nothing about the mask, but where they are unusable.
        alone = replace(files, contrasts=files.contrasts[:1], contrast_sha256=())
        try:
            scan = read_scan(alone, options=options)
        except ScanError:
            return files
        write_map(
            path,
            Volume(scan.mask[None].astype(np.uint8), scan.grid.affine, f"mask of {files.id}"),
            dtype=np.uint8,
        )
    return replace(files, mask=path) if path.exists() else files


def fold_detector(  # noqa: PLR0913 - all but the first three are by keyword
    mine: ScanList,
    settings: FitSettings,
    folder: Path,
    *,
    recipe: str,
    seed: int,
    ids: Sequence[str],
    lesions: bool = True,
    device: str = "cpu",
    on_scan: Callable[[str, str], Any] = lambda scan_id, message: None,
) -> Detector:
    """Return the detector of a fold's training scans; one that lies in the folder is loaded.

    Args:
        mine: Scans with the roles that they have in this fold, of a manifest.
        settings: Of the fit.
        folder: Of the detector; a training that was stopped there goes on.
        recipe: As ``Detector.fit`` takes it.
        seed: Of everything random.
        ids: Of all scans of all folds: masks of those that are tested are nobody's unawares.
        lesions: Whether the manifest's lesion masks tell what is left out; else the scans are healthy.
        device: Where to train.
        on_scan: Told ``(scan id, message)`` for each scan.

    Raises:
        ScanError: No scan can be used.
        OutputError: The folder cannot be written.
    """
    if (folder / "detector.json").exists():
        return Detector.load(folder)
    assert mine.manifest is not None
    detector = Detector.fit(
        mine.with_roles("normal", "validation"),
        recipe=recipe,
        lesions=lesions_in(mine.manifest, ids, folder) if lesions else None,
        seed=seed,
        settings=settings,
        folder=folder,
        resume=any(folder.glob("checkpoint*")),
        on_scan=on_scan,
        device=device,
    ).save(folder)
    remove_checkpoints(folder)
    return detector


__all__ = ["fold_detector", "masked_scans"]
