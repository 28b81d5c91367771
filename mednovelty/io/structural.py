"""A structural scan from its files: one image a contrast, all on the voxels of the first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.guard import sha256_of_file, shown
from mednovelty.io.mask import read_mask
from mednovelty.io.read_scan import DEFAULTS, ReadOptions, sidecar_facts
from mednovelty.io.readers import open_image
from mednovelty.io.scan_files import ScanFiles
from mednovelty.io.tally import Tally
from mednovelty.preprocess.structural_mask import structural_brain_mask
from mednovelty.scan import Scan
from mednovelty.views.axes import to_ras

if TYPE_CHECKING:
    from mednovelty.protocols import VolumeSource


def read_structural(files: ScanFiles, options: ReadOptions = DEFAULTS) -> Scan:
    """Read the images of one subject; only the voxels of its brain mask are kept, scaled, as float32.

    Voxels that are not finite in one contrast are taken out of the mask; values may be negative, as in CT.
    Axes stay as they are stored. Where no brain mask is given, one is made from the first contrast.

    Args:
        files: From ``scan_folder``, with contrasts.
        options: Limits on what is read.

    Returns:
        ``(C, n)`` channels in the order of ``files.contrasts``, scale 1 and offset 0, without gradients;
        ``sha256`` as ``input_sha256`` has it.

    Raises:
        GeometryError: An image lies on other voxels than the first.
        ScanError: Says which file cannot be used and why.
    """
    sources = open_contrasts(files, options)
    names = tuple(name for name, _ in files.contrasts)
    first = sources[0]
    tallies = [Tally(s.name, s.slope, s.inter, np.zeros(1, bool), signed=True) for s in sources]
    background, warnings = _read(first, tallies[0])
    mask, mask_source, more = _mask(files, first, background, options)
    index = np.flatnonzero(mask.ravel(order="F"))
    stored = np.empty((len(sources), index.size), np.float32)
    stored[0] = background.ravel(order="F")[index]
    warnings += more
    for channel in range(1, len(sources)):
        volume, more = _read(sources[channel], tallies[channel])
        stored[channel] = volume.ravel(order="F")[index]
        warnings += more
    mask, stored = _without_unusable(mask, stored, index, tallies, first.name)
    warnings += _look_inside(stored, sources)
    hashes = _checked_sha256(files, sources)
    sidecar, more = sidecar_facts(files)
    return Scan(
        id=files.id,
        stored=stored,
        scale=np.ones(len(sources)),
        offset=np.zeros(len(sources)),
        mask=mask,
        grid=first.grid,
        background=background,
        whole_mean=float(np.mean([tally.whole_mean() for tally in tallies])),
        source=files.image,
        mask_source=mask_source,
        sha256=_combined(names, hashes),
        warnings=tuple(header_warnings(sources) + warnings + more),
        entities=files.entities,
        facts=_facts(names, sources) | sidecar,
        contrasts=names,
    )


def open_contrasts(files: ScanFiles, options: ReadOptions = DEFAULTS) -> list[VolumeSource]:
    """Return the images of one subject, headers read and held against each other.

    Raises:
        GeometryError: An image lies on other voxels than the first.
        ScanError: One cannot be opened, holds several volumes, or is less than a slice.
    """
    sources: list[VolumeSource] = []
    for _, path in files.contrasts:
        source = open_image(path, options.nifti)
        if source.n_channels != 1:
            what = f"3-D is needed, found 4-D with {source.n_channels} volumes; give one volume a contrast"
            raise ScanError(f"{source.name}: {what}", code="header.dims")
        if sum(n > 1 for n in source.grid.shape) < 2:
            what = f"{source.grid.shape} voxels are less than one slice"
            raise ScanError(f"{source.name}: {what}", code="voxels.too_few")
        if sources:
            source.grid.check_same(sources[0].grid, source.name, sources[0].name)
        sources.append(source)
    return sources


def header_warnings(sources: Sequence[VolumeSource]) -> list[str]:
    """Return what readers had to say of the images of one subject."""
    # That units are missing says nothing more where the voxels were found to be those of the first.
    others = [w for source in sources[1:] for w in source.warnings if "taken as mm" not in w]
    return [*sources[0].warnings, *others]


def input_sha256(files: ScanFiles) -> str:
    """Return the hash that ``Scan.sha256`` is: what tells whether a scan's images have changed.

    Of one image the sha256 of its bytes, as of diffusion scans; of several contrasts the sha256 of a text
    with a line ``name sha256`` for each, in their order: other images, another order, another hash.

    Raises:
        ScanError: A file is absent or cannot be read.
    """
    names = [name for name, _ in files.contrasts]
    paths = [path for _, path in files.contrasts] or [files.image]
    return _combined(names, [sha256_of_file(path) for path in paths])


def _combined(names: Sequence[str], hashes: Sequence[str]) -> str:
    if len(hashes) == 1:
        return hashes[0]
    lines = [f"{name} {digest}\n" for name, digest in zip(names, hashes, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read(source: VolumeSource, tally: Tally) -> tuple[np.ndarray, list[str]]:
    """Return one image to its verified end, ``(I, J, K)`` float32 with unusable voxels 0, and warnings."""
    (stored,) = source.volumes()
    tally.add(stored, 0)
    warnings = tally.finish()
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.asfortranarray(stored, np.float32)
        if (source.slope, source.inter) != (1, 0):
            # In place: a second copy of a large CT would cost as much as all the rest.
            volume *= np.float32(source.slope)
            volume += np.float32(source.inter)
    if tally.usable is not None:
        volume[~tally.usable.reshape(volume.shape, order="F")] = 0
    return volume, warnings


def _mask(
    files: ScanFiles, first: VolumeSource, background: np.ndarray, options: ReadOptions
) -> tuple[np.ndarray, str, list[str]]:
    if files.mask is not None:
        mask, warnings = read_mask(files.mask, first.grid, first.name, options.nifti)
        return mask, shown(files.mask), warnings
    # Made along anatomical axes: the same mask however the scan is stored.
    turn = to_ras(first.grid.affine)
    spacing_mm = first.grid.spacing_mm[list(turn.order)]
    turned, words, told = structural_brain_mask(
        turn(background), spacing_mm, first.name, options.structural_mask
    )
    mask = np.zeros(background.shape, bool, order="F")
    turn(mask)[...] = turned
    if not mask.any():
        what = f"no brain is found in its {first.grid.shape} voxels; give a brain mask"
        raise ScanError(f"{first.name}: {what}", code="mask.none_found")
    return np.asfortranarray(mask), words, list(told)


def _without_unusable(
    mask: np.ndarray, stored: np.ndarray, index: np.ndarray, tallies: Sequence[Tally], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Take the voxels that one contrast cannot be used in out of the mask, and so of all contrasts."""
    unusable = [tally.usable for tally in tallies if tally.usable is not None]
    if not unusable:
        return mask, stored
    usable = np.logical_and.reduce(unusable)
    keep = usable[index]
    if not keep.any():
        raise ScanError(f"{name}: no voxel of the mask is finite in every contrast", code="voxels.not_finite")
    return usable.reshape(mask.shape, order="F") & mask, np.ascontiguousarray(stored[:, keep])


def _look_inside(stored: np.ndarray, sources: Sequence[VolumeSource]) -> list[str]:
    """Return warnings of what the channels are inside the mask.

    Raises:
        ScanError: One does not vary there.
    """
    for source, channel in zip(sources, stored, strict=True):
        if channel.size > 1 and channel.min() == channel.max():
            what = f"constant inside the brain mask: every voxel is {channel[0]:g}"
            raise ScanError(f"{source.name}: {what}", code="voxels.constant")
    found = []
    for j, source in enumerate(sources):
        same = next((i for i in range(j) if np.array_equal(stored[i], stored[j])), None)
        if same is not None:
            what = f"the same voxels as {sources[same].name}; one image stands for two contrasts"
            found.append(f"{source.name}: {what}")
    return found


def _checked_sha256(files: ScanFiles, sources: Sequence[VolumeSource]) -> list[str]:
    """Return the hashes of images read to their ends; raise where a manifest tells of others."""
    told = files.contrast_sha256 or ("",) * len(sources)
    for source, expected in zip(sources, told, strict=True):
        if expected and expected != source.sha256:
            what = f"its sha256 is {source.sha256}, the manifest says {expected}"
            raise ScanError(f"{source.name}: {what}", code="file.checksum")
    return [source.sha256 for source in sources]


def _facts(names: Sequence[str], sources: Sequence[VolumeSource]) -> dict[str, Any]:
    return {
        "spacing_mm": [round(float(s), 6) for s in sources[0].grid.spacing_mm],
        "contrasts": {
            name: {
                "dtype": str(source.dtype),
                "slope": source.slope,
                "inter": source.inter,
                "sha256": source.sha256,
            }
            for name, source in zip(names, sources, strict=True)
        },
    }
