"""Which maps a score run left behind, and which lesion mask belongs to which scan."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.guard import shown
from mednovelty.io.manifest import Manifest
from mednovelty.io.names import entities, is_image, stem

LARGEST_SIDECAR_BYTES = 16 << 20
_MASK_ENDING = re.compile(
    r"(?:(?:label|desc|space|res)-[A-Za-z0-9+]+_)*(?:mask|roi|lesions?|lesions?_(?:mask|roi))"
)
_BRAIN = re.compile(r"[-_]brain[^_]*_mask$", re.IGNORECASE)


def axis_number(told: Any) -> int | None:
    """Return the array axis 0, 1 or 2 of ``"I"``, ``"J"``, ``"K"`` or of its number; None for all else.

    Examples:
        >>> axis_number("k"), axis_number(0), axis_number("axial"), axis_number(True)
        (2, 0, None, None)
    """
    if isinstance(told, str) and told.upper() in ("I", "J", "K"):
        return "IJK".index(told.upper())
    return told if type(told) is int and 0 <= told <= 2 else None


def patient_of(scan_id: str) -> str:
    """Return whose scan it is: the BIDS subject, or, where the id names none, the id itself.

    Examples:
        >>> patient_of("sub-07_ses-2_run-1"), patient_of("follow-up")
        ('sub-07', 'follow-up')
    """
    named = dict(entities(scan_id))
    return f"sub-{named['sub']}" if "sub" in named else scan_id


@dataclass(frozen=True, slots=True)
class Made:
    """What a sidecar says its map was made of; None where it does not say.

    Attributes:
        detector: The detector's hash.
        image: The scan's hash.
        beside: The hashes of the gradient and mask files.
        voxels: In the mask.
        sha256: The map's own hash.
        trivial: Whether the score is a trivial baseline.
        slice_axis: 0, 1 or 2: along which axis a model of slices saw the scan.
        unscored: Voxels of the mask that no sample covered, as in slices left out; the map is 0 there.
    """

    detector: str | None
    image: str | None
    beside: str | None
    voxels: int | None
    sha256: str | None
    trivial: bool | None = None
    slice_axis: int | None = None
    unscored: int | None = None

    @classmethod
    def of(cls, sidecar: dict[str, Any]) -> Made:
        """Take what a sidecar tells; what is of another type counts as not told."""
        keys = ("DetectorSha256", "InputSha256", "BesideSha256", "MapSha256")
        detector, image, beside, own = (
            value if isinstance(value := sidecar.get(key), str) else None for key in keys
        )
        mask = sidecar.get("Mask")
        voxels = mask.get("Voxels") if isinstance(mask, dict) else None
        unscored = sidecar.get("UnscoredVoxels")
        trivial = sidecar["Score"].get("trivial") if isinstance(sidecar.get("Score"), dict) else None
        return cls(
            detector,
            image,
            beside,
            voxels if isinstance(voxels, int) else None,
            own,
            trivial if isinstance(trivial, bool) else None,
            axis_number(sidecar.get("SliceAxis")),
            unscored if type(unscored) is int and unscored >= 0 else None,
        )


_MADE_OF: tuple[tuple[str, Callable[[Made], Any], Callable[[Any], str]], ...] = (
    ("by different detectors", lambda made: made.detector, lambda value: f" ({value[:8]})"),
    ("from different images", lambda made: made.image, lambda value: f" ({value[:8]})"),
    ("with different gradient or mask files", lambda made: made.beside, lambda value: ""),
    ("in different masks", lambda made: made.voxels, lambda value: f" ({value} voxels)"),
)


@dataclass(frozen=True, slots=True)
class ScoredScan:
    """What a score run wrote for one scan.

    Attributes:
        id: The scan's id, from the sidecars.
        brain: The mask it was scored in.
        maps: Score name to raw map.
        made: Score name to what its sidecar says the map was made of.
    """

    id: str
    brain: Path
    maps: dict[str, Path] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)

    def mixtures(self) -> list[str]:
        """Say where maps that stand side by side were not made from the same; nothing told, nothing said."""
        found = []
        for what, of, shortened in _MADE_OF:
            groups: dict[Any, list[str]] = {}
            for score, made in self.made.items():
                if of(made) is not None:
                    groups.setdefault(of(made), []).append(score)
            if len(groups) > 1:
                parts = [f"{', '.join(scores)}{shortened(value)}" for value, scores in groups.items()]
                found.append(
                    f"{self.id}: its maps were made {what}: {' against '.join(parts)}; do not compare them, "
                    "score it again in one run"
                )
        return found


def find_maps(out: Path) -> tuple[dict[str, ScoredScan], list[str]]:
    """Find the finished maps of a score run: those with a sidecar, which is written last.

    Args:
        out: The folder that ``score`` wrote to.

    Returns:
        Scan id to its files, sorted by id; and warnings about unfinished maps.

    Raises:
        ScanError: No map at all, a sidecar that cannot be used, a map or a brain mask that is gone, or
            two maps of one scan and score (both are named).
    """
    scans: dict[str, ScoredScan] = {}
    for sidecar in sorted(out.rglob("*_novelty.json")):
        _add(scans, sidecar)
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
    pattern = "*".join(glob.escape(part) for part in manifest.masks.split("{id}"))
    others = set(manifest.root.glob(pattern)) - set(found.values())
    return found, sorted(path for path in others if path.is_file())


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
    files = scans.setdefault(id, ScoredScan(id, brain))
    if score in files.maps:
        raise ScanError(
            f"{shown(image)}: {id} has two maps of {score}, {files.maps[score]} and {image}; keep one",
            code="maps.ambiguous",
        )
    files.maps[score] = image
    files.made[score] = Made.of(content)


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
