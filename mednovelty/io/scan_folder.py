"""A folder, a file or a data manifest becomes an ordered list of scans, and a list of what was left out.

One walk finds the images; the rest is names. Where any file is called ``sub-*_dwi`` the folder is BIDS
and only such files are scans; elsewhere every 4-D image with gradients beside it is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.beside import Folder, brain_mask_of, gradients_of, mask_by_id, sidecar_of
from mednovelty.io.guard import shown
from mednovelty.io.manifest import Manifest, read_manifest
from mednovelty.io.names import Entities, entities, is_image, looks_like_mask, scan_id, stem
from mednovelty.io.nifti_source import NiftiSettings
from mednovelty.io.readers import open_image
from mednovelty.io.walk import Skipped, relative_to, walk


@dataclass(frozen=True, slots=True)
class ScanFiles:
    """The files of one scan; nothing of them is read yet.

    Attributes:
        id: Unique in its list, safe as a file name.
        image: The 4-D image.
        bval: FSL b-values.
        bvec: FSL directions.
        grad_b: MRtrix table, instead of the two.
        mask: Brain mask; None asks for one to be made.
        sidecar: JSON beside the image.
        entities: Of a BIDS name, in order.
        role: ``normal``, ``validation`` or ``test`` where a manifest says so.
        relative: The image's path below the folder that was asked for, with ``/``.
        sha256: What the image file's hash must be, where a manifest says so.
    """

    id: str
    image: Path
    bval: Path | None = None
    bvec: Path | None = None
    grad_b: Path | None = None
    mask: Path | None = None
    sidecar: Path | None = None
    entities: Entities = ()
    role: str | None = None
    relative: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ScanList(Sequence[ScanFiles]):
    """Scans in the order of their paths.

    Attributes:
        scans: The files of each.
        skipped: What else was found.
        root: The folder that paths are relative to.
        manifest: The data manifest that was followed.
    """

    scans: tuple[ScanFiles, ...]
    skipped: tuple[Skipped, ...] = ()
    root: Path = field(default_factory=Path)
    manifest: Manifest | None = None

    @overload
    def __getitem__(self, index: int) -> ScanFiles: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ScanFiles, ...]: ...
    def __getitem__(self, index: int | slice) -> ScanFiles | tuple[ScanFiles, ...]:
        return self.scans[index]

    def __len__(self) -> int:
        return len(self.scans)

    def __iter__(self) -> Iterator[ScanFiles]:
        return iter(self.scans)

    def with_roles(self, *roles: str) -> ScanList:
        """Return the scans with one of some roles; all of them where no manifest gives roles."""
        if not any(scan.role for scan in self.scans):
            return self
        return replace(self, scans=tuple(scan for scan in self.scans if scan.role in roles))


def scan_folder(
    path: str | Path, *, brain_masks: str | Path | None = None, role: str | None = None
) -> ScanList:
    """Find the scans in a BIDS tree, a plain folder, one image file, or a data manifest.

    Args:
        path: Folder, image, or ``*.toml`` manifest.
        brain_masks: Folder of brain masks named by scan id, instead of those beside the scans.
        role: Only scans to which the manifest gives this role.

    Returns:
        At least one scan.

    Raises:
        ScanError: No scan is there, the folder cannot be read, or two scans would get one id.
        SettingsError: A manifest that is wrong, or a role without a manifest.
    """
    found = find_scans(path, brain_masks=brain_masks, role=role)
    for collision in id_collisions(found):
        raise collision
    if found.scans:
        return found
    what = "images with gradients beside them (*.nii, *.nii.gz; .bval and .bvec, or .b)"
    reasons = "; ".join(f"{s.path}: {s.why}" for s in found.skipped[:3])
    raise ScanError(
        f"{shown(path)}: no scan found; looked for {what}" + (f"; left out: {reasons}" if reasons else ""),
        code="folder.no_scan",
    )


def find_scans(
    path: str | Path, *, brain_masks: str | Path | None = None, role: str | None = None
) -> ScanList:
    """Do what ``scan_folder`` does, but return what is there: no scan at all, or two with one id."""
    path = Path(path)
    if path.suffix == ".toml" and not os.path.isdir(path):
        found = _from_manifest(read_manifest(path), role)
    elif role is not None:
        raise SettingsError(
            f"{shown(path)}: role {role!r} needs a data manifest (*.toml), which gives scans roles"
        )
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


def _from_manifest(manifest: Manifest, role: str | None) -> ScanList:
    root, skipped = manifest.root, []
    scans = []
    for path in manifest.images():
        files = _files_of(path, root, Folder.of(path.parent))
        own_role = manifest.role_of(files.id)
        if own_role is None:
            skipped.append(Skipped(files.relative, "role", "the manifest gives it no role"))
        elif role in (None, own_role):
            mask = manifest.brain_mask_of(files.id) or files.mask
            scans.append(
                replace(files, role=own_role, mask=mask, sha256=manifest.checksums.get(files.relative, ""))
            )
    if role is not None and role not in manifest.roles:
        raise SettingsError(
            f"{manifest.name}: gives no scan the role {role!r}; it has {', '.join(manifest.roles)}"
        )
    return ScanList(tuple(scans), tuple(skipped), root, manifest)


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


def id_collisions(found: ScanList) -> list[ScanError]:
    """Return an error for each scan whose id one file system or another would take for an earlier one's."""
    taken: dict[str, ScanFiles] = {}
    collisions = []
    for files in found:
        other = taken.setdefault(files.id.casefold(), files)
        if other is not files:
            what = f"{other.relative} and {files.relative} would both be {files.id!r}; rename one, or give"
            collisions.append(
                ScanError(f"{shown(found.root)}: {what} their folders one after another", code="ids.collide")
            )
    return collisions
