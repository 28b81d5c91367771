"""File names: BIDS entities, ids that cannot escape a folder, and what a mask is called."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePath

from mednovelty.io.readers import image_suffixes

LONGEST_ID = 120

Entities = tuple[tuple[str, str], ...]

_ENTITY = re.compile(r"^([A-Za-z]+)-([A-Za-z0-9+]+)$")
_LESION_WORDS = (
    "lesion",
    "lesions",
    "tumor",
    "tumour",
    "seg",
    "dseg",
    "probseg",
    "wmh",
    "roi",
    "truth",
    "groundtruth",
)


def stem(path: str | PurePath) -> str:
    """Return the file's name without its image suffix.

    Examples:
        >>> stem("cohort/sub-01_dwi.nii.gz")
        'sub-01_dwi'
    """
    name = PurePath(path).name
    for suffix in (*image_suffixes(), ".hdr", ".img"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return PurePath(name).stem


def entities(name_stem: str) -> Entities:
    """Return the BIDS entities of a stem in order; none when it does not begin with a subject.

    Examples:
        >>> entities("sub-01_ses-2_desc-preproc_dwi")
        (('sub', '01'), ('ses', '2'), ('desc', 'preproc'))
        >>> entities("Diffusion")
        ()
    """
    found = tuple((m[1], m[2]) for m in map(_ENTITY.match, name_stem.split("_")) if m)
    return found if found and found[0][0] == "sub" and name_stem.startswith("sub-") else ()


def scan_id(relative: str | PurePath) -> str:
    """Return the id of an image from its path below the folder that was asked for.

    A BIDS name is its own id, without ``_dwi``; of other files the folders belong to it. Whatever is
    outside ``A-Z a-z 0-9 . _ -``, or too long, is replaced, and a short hash of the whole path keeps
    two such names apart.

    Examples:
        >>> scan_id("sub-01/dwi/sub-01_acq-a_dwi.nii.gz")
        'sub-01_acq-a'
        >>> scan_id("patient 7/Diffusion.nii.gz")
        'patient-7_Diffusion_hash-02eeaa9d'
    """
    relative = PurePath(relative)
    own = re.sub(r"_dwi$", "", stem(relative))
    text = own if entities(stem(relative)) else "_".join([*relative.parts[:-1], own])
    return clean_id(text, os.fsencode(relative))


def clean_id(text: str, whole: bytes) -> str:
    """Return a text as an id that cannot escape a folder; where it was changed, with a hash of ``whole``.

    Examples:
        >>> clean_id("patient07", b"patient07"), clean_id("../7", b"../7")
        ('patient07', '7_hash-beae2509')
    """
    clean = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", text)
    clean = clean[:LONGEST_ID].strip("._-") or "scan"
    if clean == text:
        return clean
    return f"{clean}_hash-{hashlib.sha256(whole).hexdigest()[:8]}"


def looks_like_mask(name_stem: str) -> bool:
    """Whether a file is by its name a mask or a segmentation, of whatever."""
    words = _words(name_stem)
    return "mask" in words or "masks" in words or bool({"seg", "dseg", "probseg"} & words)


def looks_like_lesions(path: str | PurePath) -> bool:
    """Whether a mask is by its name or its folder's one of lesions, and so not of the brain.

    Examples:
        >>> looks_like_lesions("sub-01_label-lesion_mask.nii.gz")
        True
        >>> looks_like_lesions("lesions/sub-01_mask.nii.gz")
        True
        >>> looks_like_lesions("sub-01_desc-brain_mask.nii.gz")
        False
    """
    path = PurePath(path)
    return names_lesions(stem(path)) or names_lesions(path.parent.name)


def names_lesions(name: str) -> bool:
    """Whether the name of a file or folder has a word for lesions in it."""
    return bool(_words(name) & set(_LESION_WORDS))


def is_image(path: str | PurePath) -> bool:
    """Whether a file is named as an image that is read."""
    return PurePath(path).name.lower().endswith(image_suffixes())


def beside(image: Path, suffix: str) -> Path:
    """Return the file of another suffix that belongs to an image: ``.bval``, ``.json``."""
    return image.with_name(stem(image) + suffix)


def _words(text: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", text.lower()))
