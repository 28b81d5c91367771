"""Pictures of things without and with defects, in folders as MVTec AD has them.

``CLASS/train/good/*``, ``CLASS/test/good/*``, ``CLASS/test/DEFECT/*`` and, above 0 where the defect is,
``CLASS/ground_truth/DEFECT/NAME_mask.*``. Pictures are square or made so, and of one size for the networks;
defects stay at the pixels that they were marked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mednovelty.benchmarks.image_sets import image_manifest
from mednovelty.benchmarks.set_manifests import files_sha256, manifest_path, missing_set
from mednovelty.errors import ScanError
from mednovelty.io.guard import shown
from mednovelty.io.pictures import picture_files, read_colours
from mednovelty.settings import read_toml

GOOD = "good"


@dataclass(frozen=True, eq=False)
class DefectClass:
    """The pictures of one class.

    Attributes:
        training: ``(n, 3, side, side)`` uint8, without defects.
        test: ``(m, 3, side, side)`` uint8.
        truth: ``m`` times ``(H, W)`` bool, each of its picture's own size: where the defect is.
    """

    training: np.ndarray
    test: np.ndarray
    truth: tuple[np.ndarray, ...]


def is_defect_set(name: str) -> bool:
    """Return whether there is a manifest of pictures with defects of that name."""
    path = manifest_path(name)
    return path.is_file() and read_toml(path).get("files", {}).get("format") == "defects"


def found_defects(name: str, data: Path | None) -> Path:
    """Return where a set of pictures with defects is.

    Args:
        name: Of the set.
        data: A folder that holds it, or a folder of that name which does; None: where the manifest says.

    Raises:
        ScanError: It is not there: what to fetch, and where to put it; code ``images.missing``.
    """
    manifest = image_manifest(name)
    told = Path(os.path.expandvars(manifest.root))
    own = [] if "$" in str(told) else [told]
    places = own if data is None else [data / name, data]
    for place in places:
        if next(place.glob(f"*/train/{GOOD}/*"), None) is not None:
            return place
    raise missing_set(f"{name}: no folder with CLASS/train/{GOOD}", places, fetch=manifest.fetch,
                      licence=manifest.licence, source=manifest.source, code="images.missing")  # fmt: skip


def classes_there(root: Path) -> list[str]:
    """Return the classes of a set that are at hand, those with faultless pictures to train on."""
    return sorted({path.parents[2].name for path in root.glob(f"*/train/{GOOD}/*")})


@lru_cache(maxsize=2)
def defects_sha256(root: Path) -> str:
    """Return a hash of the paths and contents of all pictures."""
    return files_sha256(root, picture_files(root))


@lru_cache(maxsize=1)
def defect_class(root: Path, name: str, side: int, most: int = 0) -> DefectClass:
    """Return the pictures of a class; the last one is kept, since one cell after the other asks for it.

    Args:
        root: Of the set.
        name: Of the class.
        side: Of pictures as networks see them, in pixels.
        most: Pictures used to train on, and of each kind to test on, the first by name; 0: all.

    Raises:
        ScanError: The class, a mask or a picture is not there or damaged; codes ``images.missing``,
            ``masks.missing``, ``masks.size``.
    """
    kinds = sorted(path.name for path in (root / name / "test").glob("*") if path.is_dir())
    if GOOD not in kinds or len(kinds) < 2:
        raise ScanError(
            f"{root / name}: test has {', '.join(kinds) or 'nothing'}; needed are {GOOD} and at "
            "least one kind of defect",
            code="images.missing",
        )
    training = _pictures(root / name / "train" / GOOD)[: most or None]
    tested = [
        (kind, path) for kind in kinds for path in _pictures(root / name / "test" / kind)[: most or None]
    ]
    test, truth = [], []
    for kind, path in tested:
        colours = _colours(path)
        test.append(resized(colours, side))
        truth.append(_truth(root / name / "ground_truth" / kind, path, colours.shape[:2], kind))
    return DefectClass(
        np.stack([resized(_colours(path), side) for path in training]), np.stack(test), tuple(truth)
    )


def resized(colours: np.ndarray, side: int) -> np.ndarray:
    """Return ``(3, side, side)`` uint8 of ``(H, W, 3)``; where it is made smaller, pixels are averaged."""
    from PIL import Image

    made = Image.fromarray(colours).resize((side, side), Image.Resampling.BILINEAR)
    return np.moveaxis(np.asarray(made), -1, 0)


def _colours(path: Path) -> np.ndarray:
    """Return the first picture of a file, ``(H, W, 3)`` uint8."""
    return np.ascontiguousarray(np.moveaxis(read_colours(path)[0], 0, -1))


def _pictures(folder: Path) -> list[Path]:
    found = picture_files(folder)
    if not found:
        raise ScanError(f"{folder}: holds no pictures, or is not there", code="images.missing")
    return found


def _truth(masks: Path, picture: Path, size: tuple[int, ...], kind: str) -> np.ndarray:
    if kind == GOOD:
        return np.zeros(size, bool)
    path = next(_named(masks, picture.stem), None)
    if path is None:
        raise ScanError(
            f"{shown(picture)}: no {picture.stem}_mask in {masks}; a defect that nobody has marked would "
            "count as none",
            code="masks.missing",
        )
    marked = _colours(path).max(-1) > 0
    if marked.shape != size:
        raise ScanError(f"{shown(path)}: {marked.shape} pixels, its picture has {size}", code="masks.size")
    return marked


def _named(folder: Path, stem: str) -> Iterator[Path]:
    return (path for path in picture_files(folder) if path.stem in (f"{stem}_mask", stem))


__all__ = [
    "DefectClass",
    "classes_there",
    "defect_class",
    "defects_sha256",
    "found_defects",
    "is_defect_set",
    "resized",
]
