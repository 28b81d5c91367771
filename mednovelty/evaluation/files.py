"""Which maps a score run left behind, and which lesion mask belongs to which scan."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mednovelty.errors import ScanError, SettingsError
from mednovelty.evaluation.scored import Made, ScoredScan
from mednovelty.io.guard import shown
from mednovelty.io.manifest import Manifest
from mednovelty.io.names import entities, is_image, stem

LARGEST_SIDECAR_BYTES = 16 << 20
_MASK_ENDING = re.compile(
    r"(?:(?:label|desc|space|res)-[A-Za-z0-9+]+_)*(?:mask|roi|lesions?|lesions?_(?:mask|roi))"
)
_BRAIN = re.compile(r"[-_]brain[^_]*_mask$", re.IGNORECASE)


def patient_of(scan_id: str) -> str:
    """Return whose scan it is: the BIDS subject, or, where the id names none, the id itself.

    Examples:
        >>> patient_of("sub-07_ses-2_run-1"), patient_of("follow-up")
        ('sub-07', 'follow-up')
    """
    named = dict(entities(scan_id))
    return f"sub-{named['sub']}" if "sub" in named else scan_id


def find_maps(
    out: Path, unusable: dict[Path, ScanError] | None = None
) -> tuple[dict[str, ScoredScan], list[str]]:
    """Find the finished maps of a score run: those with a sidecar, which is written last.

    Args:
        out: The folder that ``score`` wrote to.
        unusable: Filled with why a map cannot be used, by its sidecar, so that one stops no other; None: the
            first is raised.

    Returns:
        Scan id to its files, sorted by id; and warnings about unfinished maps.

    Raises:
        ScanError: No map at all, a sidecar that cannot be used, a map or a brain mask that is gone, or
            two maps of one scan and score that are not the same (both are named).
    """
    scans: dict[str, ScoredScan] = {}
    for sidecar in sorted(out.rglob("*_novelty.json")):
        try:
            _add(scans, sidecar)
        except ScanError as error:
            if unusable is None:
                raise
            unusable[sidecar] = error
    if not scans and unusable:
        raise next(iter(unusable.values()))
    if not scans:
        raise ScanError(f"{out}: no finished novelty map; run `mednovelty score` first", code="maps.none")
    warnings = [
        f"{shown(path)}: no sidecar beside it, so its scoring did not finish; left out"
        for path in sorted(out.rglob("*_novelty.nii.gz"))
        if not _sidecar_of(path).is_file()
    ]
    return dict(sorted(scans.items())), warnings


def find_masks(folder: Path, ids: Iterable[str], besides: Path) -> tuple[dict[str, Path], list[Path]]:
    """Find lesion masks by scan id, anywhere below a folder.

    A mask is called ``<id>_mask``, ``<id>_roi``, ``<id>_lesion`` (``<id>_lesion_mask``) or ``<id>`` itself,
    with BIDS entities ``label``, ``desc``, ``space`` or ``res`` before the ending if need be; brain masks
    are passed over.

    Args:
        folder: Of images that a reader opens, flat or in BIDS subfolders.
        ids: Of the scans that masks are wanted for.
        besides: A folder whose files are no lesion masks even if it lies inside: the score run's own.

    Returns:
        Scan id to mask; and the masks that belong to none of the scans.

    Raises:
        ScanError: No such folder, or two masks for one scan (both are named).
    """
    if not folder.is_dir():
        raise ScanError(f"{folder}: not a folder; give the folder of the lesion masks", code="masks.folder")
    # The longest id first: sub-01_run-1 must not lose its mask to sub-01.
    wanted = sorted(ids, key=len, reverse=True)
    found: dict[str, Path] = {}
    strangers: list[Path] = []
    for path in _images(folder, besides):
        owner = next((id for id in wanted if _belongs(stem(path), id)), None)
        if owner is None:
            strangers.append(path)
        elif owner in found:
            raise ScanError(
                f"{shown(path)}: {owner} has two lesion masks, {found[owner]} and {path}; keep one",
                code="masks.ambiguous",
            )
        else:
            found[owner] = path
    return found, strangers


def manifest_masks(manifest: Manifest, ids: Iterable[str]) -> tuple[dict[str, Path], list[Path]]:
    """Find lesion masks where a data manifest says they are.

    Args:
        manifest: Its ``files.masks`` is the pattern.
        ids: Of the scans that masks are wanted for.

    Returns:
        Scan id to mask; and the files that fit the pattern but none of the scans.

    Raises:
        SettingsError: It names no lesion masks.
    """
    if not manifest.masks:
        raise SettingsError(
            f"{shown(manifest.path)}: names no lesion masks; add files.masks, for example "
            'masks = "lesions/{id}_mask.nii.gz", or give the folder of the masks'
        )
    found = {id: path for id in ids if (path := manifest.lesion_mask_of(id)) is not None}
    return found, sorted(manifest.lesion_masks() - set(found.values()))


def _add(scans: dict[str, ScoredScan], sidecar: Path) -> None:
    content = read_sidecar(sidecar)
    id, score = content["ScanId"], content["Score"]["name"]
    image = sidecar.with_suffix(".nii.gz")
    brain = sidecar.with_name(sidecar.name.rpartition("_desc-")[0] + "_desc-brain_mask.nii.gz")
    for path in (image, brain):
        if not path.is_file():
            raise ScanError(
                f"{shown(path)}: gone from {path.parent}, though {shown(sidecar)} speaks of it; "
                f"score {id} again",
                code="maps.gone",
            )
    files, made = scans.setdefault(id, ScoredScan(id, brain)), Made.of(content)
    if score in files.maps and made.sha256 is not None and made.sha256 == files.made[score].sha256:
        files.copies.append(image)  # As of a baseline that stands beside the maps of two detectors.
        return
    if score in files.maps:
        raise ScanError(
            f"{shown(image)}: {id} has two maps of {score}, {files.maps[score]} and {image}; keep one",
            code="maps.ambiguous",
        )
    files.maps[score] = image
    files.made[score] = made


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return a map's sidecar, its ``ScanId`` and ``Score.name`` checked.

    Raises:
        ScanError: Not JSON, too large, or one of the two is missing.
    """
    if path.stat().st_size > LARGEST_SIDECAR_BYTES:
        raise ScanError(
            f"{shown(path)}: {path.stat().st_size} bytes, too large for a sidecar; score the scan again",
            code="sidecar.damaged",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = content["ScanId"], content["Score"]["name"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ScanError(
            f"{shown(path)}: no usable sidecar ({type(error).__name__}: {error}); score the scan again",
            code="sidecar.damaged",
        ) from error
    if not all(isinstance(name, str) and name for name in names):
        raise ScanError(
            f"{shown(path)}: ScanId and Score.name must be texts, got {names}", code="sidecar.damaged"
        )
    return content


def _sidecar_of(image: Path) -> Path:
    return image.with_name(image.name.removesuffix(".nii.gz") + ".json")


def _images(folder: Path, besides: Path) -> list[Path]:
    # os.path, since Path.resolve raises where links lead in a circle.
    own = Path(os.path.realpath(besides))
    return sorted(
        path
        for path in folder.rglob("*")
        if is_image(path)
        and not path.name.startswith(".")
        and not _BRAIN.search(stem(path))
        and not Path(os.path.realpath(path)).is_relative_to(own)
        and path.is_file()
    )


def _belongs(name: str, id: str) -> bool:
    rest = name.removeprefix(id + "_")
    return name == id or (rest != name and _MASK_ENDING.fullmatch(rest) is not None)
