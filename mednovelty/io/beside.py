"""Which gradients, brain mask and sidecar belong to an image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mednovelty.io.names import entities, is_image, looks_like_lesions, looks_like_mask, stem

_GENERIC_MASKS = (
    "mask",
    "brain_mask",
    "brainmask",
    "nodif_brain_mask",
    "nodif_mask",
    "b0_brain_mask",
    "dwi_mask",
)
_FREE_ENTITIES = ("desc", "label")
_BVAL, _BVEC = (".bval", ".bvals"), (".bvec", ".bvecs")


@dataclass(frozen=True, slots=True)
class Gradients:
    """Where an image's gradients are; all None when it has none."""

    bval: Path | None = None
    bvec: Path | None = None
    grad_b: Path | None = None

    def __bool__(self) -> bool:
        return any((self.bval, self.bvec, self.grad_b))


@dataclass(frozen=True)
class Folder:
    """A folder and the names of what lies in it, listed once."""

    path: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, path: Path) -> Folder:
        """List a folder; one that cannot be listed counts as empty."""
        try:
            return cls(path, tuple(sorted(os.listdir(path))))
        except OSError:
            return cls(path, ())

    @cached_property
    def has_one_scan(self) -> bool:
        """Whether files with names of their own can belong to nothing but its only image."""
        return sum(is_image(n) and not looks_like_mask(stem(n)) for n in self.names) == 1

    @cached_property
    def masks(self) -> tuple[Path, ...]:
        """Images named as masks, none of them of lesions."""
        found = (self.path / n for n in self.names if is_image(n) and looks_like_mask(stem(n)))
        return tuple(path for path in found if not looks_like_lesions(path))

    def first(self, name_stem: str, suffixes: tuple[str, ...]) -> Path | None:
        """Return the file with that stem and the first of the suffixes that is there."""
        return next((self.path / (name_stem + s) for s in suffixes if name_stem + s in self.names), None)

    def only(self, suffixes: tuple[str, ...], bare: str) -> Path | None:
        """Return the only file with one of the suffixes, or the one that is called ``bare``."""
        found = [n for n in self.names if n.endswith(suffixes) or n == bare]
        return self.path / found[0] if len(found) == 1 else None


def gradients_of(image: Path, folder: Folder, root: Path) -> Gradients:
    """Return the gradient files of an image.

    Beside it under its own stem; or the only ones of a folder with one scan; or, by BIDS inheritance, in
    a folder above, up to ``root``, under a name whose entities are all the image's.
    """
    own = stem(image)
    found = Gradients(folder.first(own, _BVAL), folder.first(own, _BVEC), folder.first(own, (".b",)))
    if found.bval or found.bvec:
        return Gradients(found.bval, found.bvec)
    if not found and folder.has_one_scan:
        found = Gradients(
            folder.only(_BVAL, "bvals"), folder.only(_BVEC, "bvecs"), folder.only((".b",), ".b")
        )
        found = (
            Gradients(found.bval, found.bvec) if found.bval and found.bvec else Gradients(grad_b=found.grad_b)
        )
    if found or not entities(own):
        return found
    return Gradients(_inherited(image, _BVAL, root), _inherited(image, _BVEC, root))


def sidecar_of(image: Path, folder: Folder) -> Path | None:
    """Return the JSON file beside an image."""
    return folder.first(stem(image), (".json",))


def brain_mask_of(image: Path, folder: Folder, derivatives: Path | None = None) -> Path | None:
    """Return the brain mask of an image: beside it, or in the same subject's ``dwi`` of a derivative.

    Args:
        image: The image.
        folder: Its folder.
        derivatives: Folder of BIDS derivatives to look through when none is beside the image.
    """
    best = _best(image, folder)
    if best or derivatives is None:
        return best
    own = dict(entities(stem(image)))
    below = [f"sub-{own.get('sub', '')}"] + ([f"ses-{own['ses']}"] if "ses" in own else []) + ["dwi"]
    for pipeline in Folder.of(derivatives).names:
        best = _best(image, Folder.of(derivatives.joinpath(pipeline, *below)))
        if best:
            return best
    return None


def mask_by_id(folder: Path, scan_id: str) -> Path:
    """Return the brain mask of a scan in a folder of masks named by scan.

    When it holds none the most likely name is returned: reading the scan then fails and says so, which
    is right where masks were asked for.
    """
    names = [f"{scan_id}{end}" for end in ("_mask", "_desc-brain_mask", "_brain_mask", "_dwi_mask", "")]
    for found in sorted(folder.rglob("*")):
        if is_image(found) and stem(found) in names and not looks_like_lesions(found.relative_to(folder)):
            return found
    return folder / f"{scan_id}_mask.nii.gz"


def _best(image: Path, folder: Folder) -> Path | None:
    ranked = [(rank, mask) for mask in folder.masks if (rank := _rank(mask, image, folder.has_one_scan))]
    return max(ranked, key=lambda item: item[0])[1] if ranked else None


def _rank(mask: Path, image: Path, alone: bool) -> int:
    """Return how surely a mask belongs to an image; 0 when it does not."""
    own, theirs = stem(image), stem(mask)
    of_image, of_mask = dict(entities(own)), dict(entities(theirs))
    if of_image and of_mask:
        return entity_rank(of_image, of_mask)
    if theirs in _GENERIC_MASKS:
        return 1 if alone else 0
    base = own.removesuffix("_dwi")
    return 2 if theirs.removesuffix("_mask").removesuffix("_brain").removesuffix("_dwi") == base else 0


def entity_rank(of_image: dict[str, str], of_mask: dict[str, str]) -> int:
    """Return how surely a BIDS mask belongs to a BIDS image by their entities; 0 when it does not."""
    label = of_mask.get("label", "brain")
    desc = of_mask.get("desc", "brain")
    if label != "brain" or desc not in ("brain", of_image.get("desc")):
        return 0
    agree = {key for key, value in of_mask.items() if key in _FREE_ENTITIES or of_image.get(key) == value}
    # A mask may leave out what several images share, but not whose, when, or in which space it is.
    needed = {key for key in ("sub", "ses", "space", "res") if key in of_image}
    if agree != set(of_mask) or not needed <= set(of_mask):
        return 0
    return 2 + 2 * len(agree - set(_FREE_ENTITIES)) + (of_mask.get("desc") == "brain")


def _inherited(image: Path, suffixes: tuple[str, ...], root: Path) -> Path | None:
    own = set(entities(stem(image)))
    folder = image.parent
    while folder != folder.parent:
        fitting = []
        for name in Folder.of(folder).names:
            words = name.split(".")[0].split("_")
            theirs = {tuple(word.split("-", 1)) for word in words[:-1]}
            if name.endswith(suffixes) and words[-1] == "dwi" and theirs <= own:
                fitting.append((len(theirs), folder / name))
        if fitting:
            return max(fitting)[1]
        if folder == root or not str(folder).startswith(str(root)):
            return None
        folder = folder.parent
    return None
