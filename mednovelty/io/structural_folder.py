"""Structural scans of a folder, an image or a data manifest: one file a contrast, one scan a subject.

BIDS trees (``anat`` or ``ct``), a folder a subject, or flat: ``contrasts.py`` has the rules of the names.
Masks, diffusion images and what was derived from the scans are none themselves.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from mednovelty.errors import SettingsError
from mednovelty.io.beside import Folder, gradients_of, sidecar_of
from mednovelty.io.brain_masks import with_brain_masks
from mednovelty.io.contrasts import (
    MODALITY_FOLDERS,
    UNNAMED,
    Named,
    by_subject,
    is_known,
    name_images,
)
from mednovelty.io.guard import shown
from mednovelty.io.manifest import Manifest
from mednovelty.io.names import (
    clean_id,
    entities,
    is_image,
    looks_like_mask,
    names_lesions,
    stem,
)
from mednovelty.io.scan_files import ScanFiles, ScanList
from mednovelty.io.walk import Skipped, relative_to, walk

_DERIVED = ("derivatives", "sourcedata")
_OF_A_SCAN = ("sub", "ses", "run")
"""Entities that an id may have: {id}_T1w must not make a scan sub-01_ce-GD of sub-01_ce-GD_T1w."""


def find_structural(path: Path, contrasts: Sequence[str] | None = None) -> ScanList:
    """Return the structural scans of a folder or of one image; none where there are none.

    Args:
        path: Folder or image. Of an image, the subject's other contrasts are looked for beside it.
        contrasts: Channels, in order; None for the only one that there is.

    Raises:
        SettingsError: ``contrasts`` is None and several are there; or one is asked for twice.
        ScanError: The folder cannot be read.
    """
    asked = checked(contrasts)
    if not os.path.isdir(path) or is_image(path):
        return _of_image(path, asked)
    skipped: list[Skipped] = []
    images = [found for found in walk(path, skipped) if is_image(found)]
    candidates = [found for found in images if not _is_mask(found, path, asked)]
    masks = [found for found in images if found not in set(candidates)]
    named = name_images(_scans_only(candidates, path, skipped), path, asked or ())
    scans = with_brain_masks(choose(named, asked, shown(path), skipped), masks, path)
    used = {files.mask for files in scans}
    skipped += [
        Skipped(relative_to(mask, path), "mask", "a mask, not a scan") for mask in masks if mask not in used
    ]
    return ScanList(tuple(scans), tuple(skipped), path)


def structural_scans(
    manifest: Manifest, contrasts: Sequence[str] | None, skipped: list[Skipped]
) -> tuple[list[ScanFiles], list[ScanFiles]]:
    """Return the scans of a manifest that have the contrasts asked for; and all of its subjects'.

    Args:
        manifest: One that has contrasts.
        contrasts: Of them, in the order of the channels; None for all.
        skipped: What is left out is added to it.

    Raises:
        SettingsError: The manifest has no such contrast, or no file of it is there.
    """
    asked = checked(contrasts) or tuple(manifest.contrasts)
    for contrast in asked:
        if contrast not in manifest.contrasts:
            what = f"has no contrast {contrast!r}; it has {', '.join(manifest.contrasts)}"
            raise SettingsError(f"{shown(manifest.path)}: {what}")
    named = [
        image
        for contrast in manifest.contrasts
        for image in _named_by(manifest, contrast, required=contrast in asked)
    ]
    everyone = [_files_of(images, (images[0].contrast,)) for images in by_subject(named).values()]
    scans = [
        replace(
            files,
            contrast_sha256=tuple(
                manifest.checksums.get(relative_to(path, manifest.root), "") for _, path in files.contrasts
            ),
        )
        for files in choose(named, asked, shown(manifest.path), skipped)
    ]
    return scans, everyone


def _named_by(manifest: Manifest, contrast: str, *, required: bool) -> list[Named]:
    """Return the images of one contrast; where a pattern has no ``{id}``, their names tell whose they are."""
    found: dict[Path, Named] = {}
    for pattern in manifest.contrasts[contrast]:
        for path, scan in manifest.matches(pattern, required=required).items():
            if not scan:
                (found[path],) = name_images([path], manifest.root, (contrast,))
            elif all(key in _OF_A_SCAN for key, _ in entities(scan)):
                found[path] = _named_as(scan, contrast, path, manifest.root)
    # *_T1w fits sub-01_ce-GD_T1w too: what a subject has under the very name of the contrast is meant.
    exact = {image.subject for image in found.values() if image.contrast == contrast}
    return [
        replace(image, contrast=contrast)
        for image in found.values()
        if image.contrast == contrast or image.subject not in exact
    ]


def _named_as(scan: str, contrast: str, path: Path, root: Path) -> Named:
    who = tuple((key, value) for key, value in entities(scan) if key in ("sub", "ses"))
    found = clean_id(scan, os.fsencode(scan))
    return Named(path, relative_to(path, root), (scan,), found, contrast, who)


def choose(
    named: Sequence[Named], asked: Sequence[str] | None, source: str, skipped: list[Skipped]
) -> list[ScanFiles]:
    """Return a scan of each subject that has the contrasts asked for; tell of the others.

    Args:
        named: Images.
        asked: Contrasts; None for the only one that there is.
        source: What messages call the folder.
        skipped: What is left out is added to it.

    Raises:
        SettingsError: There is no telling which contrast is meant.
    """
    groups = by_subject(named)
    asked = asked or _only_contrast(list(groups.values()), source)
    others = Counter(image.contrast for image in named if image.contrast not in asked)
    for contrast, count in sorted(others.items()):
        why = f"not asked for; {count} subjects have it"
        skipped.append(Skipped(contrast, "contrast.other", why))
    scans = []
    for images in groups.values():
        reason = _unusable(images, asked)
        if reason is None:
            scans.append(_files_of(images, asked))
        elif {image.contrast for image in images} != {UNNAMED}:
            skipped.append(Skipped(images[0].id, *reason))
    return scans


def checked(contrasts: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the contrasts asked for, each once.

    Raises:
        SettingsError: None, an empty name, or one twice.
    """
    if contrasts is None:
        return None
    asked = (contrasts,) if isinstance(contrasts, str) else tuple(contrasts)
    twice = [contrast for contrast, count in Counter(asked).items() if count > 1]
    if twice:
        raise SettingsError(f"contrast {twice[0]!r} is asked for twice")
    if not asked or not all(asked):
        raise SettingsError(f"contrasts must be names, such as FLAIR,T1w; got {list(asked)}")
    return asked


def _of_image(path: Path, asked: tuple[str, ...] | None) -> ScanList:
    root, skipped = path.parent, list[Skipped]()
    images = [root / name for name in Folder.of(root).names if is_image(name)]
    (own,) = name_images([path], root, asked or ())
    if asked is None or len(asked) == 1:
        # Asked for by its path: it is that contrast, whatever it is called.
        named = [replace(own, contrast=asked[0]) if asked else own]
    else:
        beside = [found for found in images if found == path or not _is_mask(found, root, asked)]
        named = [image for image in name_images(beside, root, asked) if image.subject == own.subject]
    scans = choose(named, asked, shown(path), skipped)
    masks = [found for found in images if _is_mask(found, root, asked)]
    return ScanList(tuple(with_brain_masks(scans, masks, root)), tuple(skipped), root)


def _only_contrast(groups: Sequence[Sequence[Named]], source: str) -> tuple[str, ...]:
    having = Counter(contrast for images in groups for contrast in {image.contrast for image in images})
    names = sorted(having, key=lambda contrast: (-having[contrast], contrast))
    if len(names) < 2:
        return tuple(names)
    listed = ", ".join(f"{contrast} in {having[contrast]}" for contrast in names)
    raise SettingsError(
        f"{source}: several contrasts, of {len(groups)} subjects: {listed}; say which, in the order of the "
        f"channels, as in --contrasts {','.join(names[:2])} (image: each file is a subject of its own)"
    )


def _unusable(images: Sequence[Named], asked: Sequence[str]) -> tuple[str, str] | None:
    """Return code and reason why a subject has not one image of each contrast; None when it has."""
    having = Counter(image.contrast for image in images)
    absent = [contrast for contrast in asked if contrast not in having]
    if absent:
        return "contrast.missing", f"lacks {', '.join(absent)}; has {', '.join(sorted(having))}"
    for contrast in asked:
        if having[contrast] > 1:
            both = " and ".join(image.relative for image in images if image.contrast == contrast)
            return "contrast.ambiguous", f"{having[contrast]} images of {contrast}: {both}; keep one"
    return None


def _files_of(images: Sequence[Named], asked: Sequence[str]) -> ScanFiles:
    by_contrast = {image.contrast: image for image in images}
    first = by_contrast[asked[0]]
    return ScanFiles(
        id=first.id,
        image=first.path,
        sidecar=sidecar_of(first.path, Folder.of(first.path.parent)),
        entities=first.entities,
        relative=first.relative,
        contrasts=tuple((contrast, by_contrast[contrast].path) for contrast in asked),
    )


def _is_mask(path: Path, root: Path, asked: Sequence[str] | None) -> bool:
    """Whether an image is by its name, or its folder's, a mask; patients' scans may lie in ``tumour``."""
    own = stem(path)
    if looks_like_mask(own) or names_lesions(own):
        return True
    folder = PurePath(relative_to(path, root)).parent.name
    if looks_like_mask(folder):
        return True
    if not names_lesions(folder):
        return False
    contrast = name_images([path], root, asked or ())[0].contrast
    return not (contrast in (asked or ()) or is_known(contrast))


def _scans_only(candidates: list[Path], root: Path, skipped: list[Skipped]) -> list[Path]:
    """Leave out what is diffusion, in another folder than BIDS has scans in, or derived from scans."""
    anatomical = [p for p in candidates if entities(stem(p)) and p.parent.name in MODALITY_FOLDERS]
    of_bids = set(anatomical) if anatomical else None
    raw = {p for p in anatomical or candidates if not _is_derived(p, root)}
    folders: dict[Path, Folder] = {}
    kept = []
    for path in candidates:
        folder = folders.setdefault(path.parent, Folder.of(path.parent))
        reason = None
        if of_bids is not None and path not in of_bids:
            reason = ("image.not_anat", "not in an anat folder")
        elif raw and path not in raw:
            reason = ("derivatives", "made from the raw scans above it")
        elif _has_own_gradients(path, folder):
            reason = ("image.dwi", "a diffusion scan, it has gradients")
        if reason is None:
            kept.append(path)
        else:
            skipped.append(Skipped(relative_to(path, root), *reason))
    return kept


def _is_derived(path: Path, root: Path) -> bool:
    return any(part in _DERIVED for part in PurePath(relative_to(path, root)).parts[:-1])


def _has_own_gradients(path: Path, folder: Folder) -> bool:
    # Files with names of their own belong to the diffusion image, wherever else they lie beside.
    alone = Folder(folder.path, tuple(name for name in folder.names if name.startswith(stem(path) + ".")))
    return bool(gradients_of(path, alone, folder.path))
