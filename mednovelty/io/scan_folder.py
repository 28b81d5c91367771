"""A folder, a file or a data manifest becomes an ordered list of scans, and a list of what was left out.

One walk finds the images; the rest is names. Where any file is called ``sub-*_dwi`` the folder is BIDS
and only such files are scans; elsewhere every 4-D image with gradients beside it is one. Structural scans,
one image a contrast, are found where they are asked for: ``structural_folder.py``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.beside import Folder, brain_mask_of, gradients_of, mask_by_id, sidecar_of
from mednovelty.io.folds import fold_of, role_in
from mednovelty.io.guard import shown
from mednovelty.io.manifest import ROLES, Manifest, manifest_or_folder
from mednovelty.io.names import entities, is_image, looks_like_mask, scan_id, stem
from mednovelty.io.nifti_source import NiftiSettings
from mednovelty.io.readers import open_image
from mednovelty.io.scan_files import ScanFiles, ScanList, id_collisions
from mednovelty.io.structural_folder import find_structural, structural_scans
from mednovelty.io.walk import Skipped, relative_to, walk

Kind = Literal["dwi", "structural"]


def scan_folder(
    path: str | Path | Manifest,
    *,
    brain_masks: str | Path | None = None,
    role: str | None = None,
    kind: Kind | None = None,
    contrasts: Sequence[str] | None = None,
) -> ScanList:
    """Find the scans in a BIDS tree, a plain folder, one image file, or a data manifest.

    Args:
        path: Folder, image, or ``*.toml`` manifest; or one that was read.
        brain_masks: Folder of brain masks named by scan id, instead of those beside the scans.
        role: Only scans to which the manifest gives this role.
        kind: What is looked for. By default structural scans where ``contrasts`` are given or the manifest
            has them, else diffusion scans.
        contrasts: Channels of structural scans, in order: ``("FLAIR", "T1w")``; None for all that a manifest
            has, or for the only one in a folder. Subjects that lack one are left out, and told.

    Returns:
        At least one scan.

    Raises:
        ScanError: No scan is there, the folder cannot be read, or two scans would get one id.
        SettingsError: A manifest that is wrong, a role without a manifest, or a choice of contrasts that has
            to be made and was not.
    """
    found = find_scans(path, brain_masks=brain_masks, role=role, kind=kind, contrasts=contrasts)
    for collision in id_collisions(found):
        raise collision
    if found.scans:
        return found
    what = "images with gradients beside them (*.nii, *.nii.gz; .bval and .bvec, or .b)"
    if _is_structural(kind, contrasts, found.manifest):
        what = f"images (*.nii, *.nii.gz) of {' and '.join(contrasts or ()) or 'any contrast'}"
    reasons = "; ".join(f"{s.path}: {s.why}" for s in found.skipped[:3])
    where = path.path if isinstance(path, Manifest) else path
    raise ScanError(
        f"{shown(where)}: no scan found; looked for {what}" + (f"; left out: {reasons}" if reasons else ""),
        code="folder.no_scan",
    )


def find_scans(
    path: str | Path | Manifest,
    *,
    brain_masks: str | Path | None = None,
    role: str | None = None,
    kind: Kind | None = None,
    contrasts: Sequence[str] | None = None,
) -> ScanList:
    """Do what ``scan_folder`` does, but return what is there: no scan at all, or two with one id."""
    path = manifest_or_folder(path)
    if isinstance(path, Manifest):
        found = _from_manifest(path, role, kind, contrasts)
    elif role is not None:
        raise SettingsError(
            f"{shown(path)}: role {role!r} needs a data manifest (*.toml), which gives scans roles"
        )
    elif _is_structural(kind, contrasts):
        found = find_structural(path, contrasts)
    elif os.path.isdir(path) and not is_image(path):
        found = _from_folder(path)
    else:
        found = ScanList((_files_of(path, path.parent, Folder.of(path.parent)),), (), path.parent)
    if brain_masks is not None:
        masks = Path(brain_masks)
        if not os.path.isdir(masks):
            raise SettingsError(f"{shown(masks)}: the folder of brain masks does not exist")
        found = replace(found, scans=tuple(replace(s, mask=mask_by_id(masks, s.id)) for s in found))
    return found


def kind_of(path: str | Path) -> Kind:
    """Return which kind of scans a folder, image or data manifest has, where nobody says.

    ``structural`` where a manifest has contrasts, or where there are 3-D images and no trace of diffusion:
    no gradients beside an image, no image called ``*_dwi``, no 4-D image that might lack them.

    Raises:
        ScanError: The folder cannot be read.
        SettingsError: A manifest that is wrong.
    """
    found = find_scans(path)
    if found.manifest is not None:
        return "structural" if found.manifest.contrasts else "dwi"
    left_out = {skipped.code for skipped in found.skipped}
    traces = any(
        files.bval or files.bvec or files.grad_b or _is_bids_dwi(files.image) or _ndim(files.image) == 4
        for files in found
    )
    if traces or "image.no_gradients" in left_out:
        return "dwi"
    # A single image is listed whatever it is; in a folder 3-D ones are left out.
    return "structural" if "image.3d" in left_out or any(_ndim(f.image) == 3 for f in found) else "dwi"


def _ndim(image: Path) -> int | None:
    """Return how many axes an image has; None where it cannot be opened."""
    try:
        return open_image(image, NiftiSettings(allow_unknown_orientation=True)).ndim
    except ScanError:
        return None


def _is_structural(
    kind: Kind | None, contrasts: Sequence[str] | None, manifest: Manifest | None = None
) -> bool:
    """Return what is looked for; a manifest that has something else is an error."""
    if kind == "dwi" and contrasts is not None:
        raise SettingsError("contrasts are those of structural scans; diffusion scans have none")
    asked = kind == "structural" or contrasts is not None
    if manifest is None:
        return asked
    if (asked and not manifest.contrasts) or (kind == "dwi" and manifest.contrasts):
        has, lacks = ("contrasts", "dwi") if manifest.contrasts else ("dwi", "contrasts")
        raise SettingsError(f"{shown(manifest.path)}: has files.{has}, but no files.{lacks}")
    return bool(manifest.contrasts)


def _from_folder(root: Path) -> ScanList:
    skipped: list[Skipped] = []
    images = [path for path in walk(root, skipped) if is_image(path)]
    candidates = [path for path in images if not looks_like_mask(stem(path))]
    if any(_is_bids_dwi(path) for path in candidates):
        candidates = _bids(candidates, root, skipped)
    folders: dict[Path, Folder] = {}
    scans = []
    for path in candidates:
        folder = folders.setdefault(path.parent, Folder.of(path.parent))
        files = _files_of(path, root, folder)
        reason = _no_scan(files)
        if reason is None:
            scans.append(files)
        else:
            skipped.append(Skipped(relative_to(path, root), *reason))
    used = {files.mask for files in scans}
    for path in images:
        if looks_like_mask(stem(path)) and path not in used:
            skipped.append(Skipped(relative_to(path, root), "mask", "a mask, not a scan"))
    return ScanList(tuple(scans), tuple(skipped), root)


def _from_manifest(
    manifest: Manifest, role: str | None, kind: Kind | None, contrasts: Sequence[str] | None
) -> ScanList:
    skipped: list[Skipped] = []
    if _is_structural(kind, contrasts, manifest):
        scans, everyone = structural_scans(manifest, contrasts, skipped)
    else:
        images = manifest.images()
        folders = {folder: Folder.of(folder) for folder in {path.parent for path in images}}
        scans = everyone = [_files_of(path, manifest.root, folders[path.parent]) for path in images]
    kept = []
    for files in _with_roles(manifest, scans, everyone):
        if files.role is None:
            what = "puts it into no fold" if manifest.folds else "gives it no role"
            skipped.append(Skipped(files.relative, "role", f"the manifest {what}"))
        elif role in (None, files.role):
            mask = manifest.brain_mask_of(files.id) or files.mask
            kept.append(replace(files, mask=mask, sha256=manifest.checksums.get(files.relative, "")))
    known = ROLES if manifest.folds else tuple(manifest.roles)
    if role is not None and role not in known:
        raise SettingsError(f"{manifest.name}: gives no scan the role {role!r}; it has {', '.join(known)}")
    return ScanList(tuple(kept), tuple(skipped), manifest.root, manifest)


def _with_roles(manifest: Manifest, scans: list[ScanFiles], everyone: list[ScanFiles]) -> list[ScanFiles]:
    """Return the scans with their roles, and of folds those when the first is tested."""
    if manifest.folds is None:
        return [replace(files, role=manifest.role_of(files.id)) for files in scans]
    try:
        # Of everyone: who has which contrasts must not decide who is tested when.
        dealt = fold_of(everyone, manifest.folds)
    except SettingsError as error:
        raise SettingsError(f"{shown(manifest.path)}: {error}") from error
    return [
        replace(files, fold=dealt[files.id], role=role_in(dealt[files.id], 0, manifest.folds.count))
        if files.id in dealt
        else files
        for files in scans
    ]


def _files_of(image: Path, root: Path, folder: Folder) -> ScanFiles:
    relative = relative_to(image, root)
    gradients = gradients_of(image, folder, root)
    derivatives = root / "derivatives"
    return ScanFiles(
        id=scan_id(relative),
        image=image,
        bval=gradients.bval,
        bvec=gradients.bvec,
        grad_b=gradients.grad_b,
        mask=brain_mask_of(image, folder, derivatives if os.path.isdir(derivatives) else None),
        sidecar=sidecar_of(image, folder),
        entities=entities(stem(image)),
        relative=relative,
    )


def _bids(candidates: list[Path], root: Path, skipped: list[Skipped]) -> list[Path]:
    """Keep the diffusion images of a BIDS tree; a raw data set's derivatives are not scanned twice."""
    kept = [path for path in candidates if _is_bids_dwi(path)]
    raw = [path for path in kept if path.relative_to(root).parts[0] not in ("derivatives", "sourcedata")]
    for path in candidates:
        if path not in kept:
            skipped.append(Skipped(relative_to(path, root), "image.not_dwi", "not named *_dwi"))
        elif raw and path not in raw:
            skipped.append(
                Skipped(relative_to(path, root), "derivatives", "made from the raw scans above it")
            )
    return raw or kept


def _is_bids_dwi(path: Path) -> bool:
    # SUB-01_dwi is no BIDS name, but it means one, and it must not be lost beside sub-01_dwi.
    name = stem(path).lower()
    return name.startswith("sub-") and name.endswith("_dwi")


def _no_scan(files: ScanFiles) -> tuple[str, str] | None:
    """Return code and reason when an image is no diffusion scan; damaged ones count as scans, and fail."""
    if not os.path.isfile(files.image):
        return None
    try:
        source = open_image(files.image, NiftiSettings(allow_unknown_orientation=True))
    except ScanError:
        return None
    if source.ndim == 3:
        return "image.3d", "a 3-D image; diffusion scans are 4-D"
    if not (files.bval or files.bvec or files.grad_b) and not _is_bids_dwi(files.image):
        return "image.no_gradients", "no .bval and .bvec, or .b, beside it"
    return None


__all__ = ["Kind", "ScanFiles", "ScanList", "find_scans", "id_collisions", "kind_of", "scan_folder"]
