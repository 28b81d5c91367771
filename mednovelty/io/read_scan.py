"""A scan from its files: gradients, mask, then one pass over the voxels that keeps the masked ones."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from mednovelty.errors import GradientError, ScanError, SettingsError
from mednovelty.io.gradients import read_gradients, shells
from mednovelty.io.guard import read_text, shown
from mednovelty.io.mask import read_mask
from mednovelty.io.names import stem
from mednovelty.io.nifti_source import NiftiSettings
from mednovelty.io.readers import open_image
from mednovelty.io.scan_folder import ScanFiles, scan_folder
from mednovelty.io.tally import LARGEST_SIGNAL, Tally
from mednovelty.preprocess.brain_mask import MedianOtsuSettings, median_otsu_mask
from mednovelty.preprocess.structural_mask import MaskMaker
from mednovelty.scan import Scan

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

    from mednovelty.protocols import VolumeSource

_TOLD_OF_SIDECAR = ("EchoTime", "RepetitionTime", "MagneticFieldStrength", "FlipAngle", "TotalReadoutTime")
"""Numbers only, and these only: sidecars carry names, dates and institutions."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How scans are read.

    Attributes:
        nifti: Limits and what is asked for in spite of them.
        median_otsu: How a brain mask is made where none is given.
        gradients: Whether the image must have gradients; False reads any 3-D or 4-D image.
        structural_mask: Of which a structural scan's mask is made where none is given: of the ``head``, or,
            simply, of the ``brain`` below the skull.
    """

    nifti: NiftiSettings = field(default_factory=NiftiSettings)
    median_otsu: MedianOtsuSettings = field(default_factory=MedianOtsuSettings)
    gradients: bool = True
    structural_mask: MaskMaker = "head"

    def __post_init__(self) -> None:
        if self.structural_mask not in get_args(MaskMaker):
            raise SettingsError(f"structural_mask={self.structural_mask!r} is neither 'head' nor 'brain'")


DEFAULTS = ReadOptions()


def with_mask_maker(options: ReadOptions, maker: str) -> ReadOptions:
    """Return the options with what a structural scan's mask is made of, ``--mask-maker``.

    Raises:
        SettingsError: Neither ``head`` nor ``brain``.
    """
    if maker not in get_args(MaskMaker):
        raise SettingsError(f"--mask-maker {maker}: head or brain are known")
    return replace(options, structural_mask=cast("MaskMaker", maker))


def read_scan(files: ScanFiles | str | Path, *, options: ReadOptions = DEFAULTS) -> Scan:
    """Read one scan; only the voxels of its brain mask are kept, as they are stored.

    Args:
        files: From ``scan_folder``, structural scans too; or an image, or a folder with one scan, whose
            other files are found beside it.
        options: See ``ReadOptions``.

    Raises:
        ScanError: Says which file cannot be used and why.
        SettingsError: The folder holds several scans.
    """
    files = scan_files(files)
    if files.contrasts:
        from mednovelty.io.structural import read_structural

        return read_structural(files, options)
    source = open_image(files.image, options.nifti)
    gradients, warnings = gradients_of_scan(files, source, options)
    mask, mask_source, more = _mask(files, source, gradients, options)
    warnings += more
    reading = _Reading(source, gradients, mask)
    reading.run()
    check_sha256(files, source)
    sidecar, more = sidecar_facts(files)
    return Scan(
        id=files.id,
        stored=reading.stored,
        scale=np.full(source.n_channels, source.slope),
        offset=np.full(source.n_channels, source.inter),
        mask=reading.mask,
        grid=source.grid,
        background=reading.background,
        whole_mean=reading.whole_mean,
        gradients=gradients,
        source=files.image,
        mask_source=mask_source,
        sha256=source.sha256,
        warnings=(*source.warnings, *warnings, *reading.warnings, *more),
        entities=files.entities,
        facts=_facts(source, gradients) | sidecar,
    )


def check_sha256(files: ScanFiles, source: VolumeSource) -> None:
    """Raise ``ScanError`` when an image, read to its end, is not the one that a manifest tells of."""
    if files.sha256 and files.sha256 != source.sha256:
        raise ScanError(f"{source.name}: its sha256 is {source.sha256}, the manifest says {files.sha256}",
                        code="file.checksum")  # fmt: skip


def scan_files(files: ScanFiles | str | Path) -> ScanFiles:
    """Return the files of one scan: those given, or those found beside an image.

    Raises:
        SettingsError: The folder holds several scans.
    """
    if isinstance(files, ScanFiles):
        return files
    path = Path(files)
    found = scan_folder(path)
    if len(found) > 1:
        what = f"holds {len(found)} scans, {found[0].id} and {found[1].id} among them; read_scan reads one"
        raise SettingsError(f"{shown(path)}: {what}: give its image, or an element of scan_folder(...)")
    return found[0]


def gradients_of(files: ScanFiles, options: ReadOptions = DEFAULTS) -> GradientTable | None:
    """Return the gradient table of a scan; of its image, only the header is read.

    Raises:
        ScanError: Image or gradient files cannot be used.
    """
    return gradients_of_scan(files, open_image(files.image, options.nifti), options)[0]


def gradients_of_scan(
    files: ScanFiles, source: VolumeSource, options: ReadOptions = DEFAULTS
) -> tuple[GradientTable | None, list[str]]:
    """Return the gradient table of an open scan, None where none is asked for, and warnings.

    Raises:
        ScanError: The image is no diffusion scan.
        GradientError: A gradient file is missing or does not fit.
    """
    if not options.gradients or files.contrasts:
        return None, []
    if source.ndim != 4:
        raise ScanError(
            f"{source.name}: 4-D is needed, found 3-D: {source.grid.shape}; structural scans are found by "
            "scan_folder(folder, kind='structural')",
            code="header.dims",
        )
    if sum(n > 1 for n in source.grid.shape) < 2:
        what = f"{source.grid.shape} voxels are less than one slice"
        raise ScanError(f"{source.name}: {what}", code="voxels.too_few")
    if files.grad_b is None:
        for path, suffix in ((files.bval, ".bval"), (files.bvec, ".bvec")):
            if path is None:
                what = f"no such file beside {source.name}; a scan needs .bval and .bvec, or MRtrix's .b"
                raise GradientError(f"{shown(stem(files.image) + suffix)}: {what}", code="gradients.absent")
    return read_gradients(
        bval=files.bval,
        bvec=files.bvec,
        grad_b=files.grad_b,
        affine=source.grid.affine,
        n_volumes=source.n_channels,
    )


def _mask(
    files: ScanFiles, source: VolumeSource, gradients: GradientTable | None, options: ReadOptions
) -> tuple[np.ndarray, str, list[str]]:
    if files.mask is not None:
        mask, warnings = read_mask(files.mask, source.grid, source.name, options.nifti)
        return mask, shown(files.mask), warnings
    chosen = _is_background(gradients, source.n_channels)
    b0 = _mean_b0(source, chosen)
    try:
        mask = median_otsu_mask(b0, source.grid.spacing_mm, source.name, options.median_otsu)
    except ScanError:
        _look_at_all(source, chosen & (gradients is not None))
        raise
    return mask, options.median_otsu.words(), []


def _is_background(gradients: GradientTable | None, n_channels: int) -> np.ndarray:
    """Return which channels the background is the mean of: the b=0, or the first."""
    return np.arange(n_channels) == 0 if gradients is None else np.asarray(gradients.b0s_mask, bool)


def _mean_b0(source: VolumeSource, chosen: np.ndarray) -> np.ndarray:
    """Return the mean of some channels, reading no further than the last of them."""
    total = np.zeros(source.grid.shape, np.float32, order="F")
    last = int(np.flatnonzero(chosen)[-1])
    with closing(source.volumes()) as volumes:
        for channel, volume in enumerate(volumes):
            if chosen[channel]:
                total += np.where(np.abs(volume) <= LARGEST_SIGNAL, volume, 0)
            if channel == last:
                break
    with np.errstate(over="ignore"):
        return total * np.float32(source.slope / chosen.sum()) + np.float32(source.inter)


def _look_at_all(source: VolumeSource, is_b0: np.ndarray) -> None:
    """Raise ``ScanError`` when the voxels themselves tell why no brain can be found in them."""
    tally = Tally(source.name, source.slope, source.inter, is_b0)
    for channel, volume in enumerate(source.volumes()):
        tally.add(volume, channel)
    tally.finish()


class _Reading:
    """One pass over all volumes: gathers the masked voxels, adds up the background, looks at everything."""

    def __init__(self, source: VolumeSource, gradients: GradientTable | None, mask: np.ndarray) -> None:
        self.mask = mask
        self.warnings: list[str] = []
        self._source = source
        self._chosen = _is_background(gradients, source.n_channels)
        self._tally = Tally(source.name, source.slope, source.inter, self._chosen & (gradients is not None))
        # 64-bit numbers hold nothing that float32 cannot: scanners deliver 12 to 16 bits.
        dtype = source.dtype if source.dtype.itemsize < 8 else np.dtype(np.float32)
        self._index = np.flatnonzero(mask.ravel(order="F"))
        self.stored = np.empty((source.n_channels, self._index.size), dtype)
        self.background = np.zeros(source.grid.shape, np.float32, order="F")

    def run(self) -> None:
        """Read the file to its verified end."""
        for channel, volume in enumerate(self._source.volumes()):
            self._tally.add(volume, channel)
            flat = volume.reshape(-1, order="F")
            if flat.dtype == self.stored.dtype:
                # mode="clip": without it numpy gathers into a buffer of its own first.
                np.take(flat, self._index, out=self.stored[channel], mode="clip")
            else:
                with np.errstate(over="ignore"):
                    self.stored[channel] = flat[self._index]
            if self._chosen[channel]:
                self.background += volume
        self.warnings = self._tally.finish()
        self.whole_mean = self._tally.whole_mean()
        self.background *= np.float32(self._source.slope / self._chosen.sum())
        self.background += np.float32(self._source.inter)
        self._drop_unusable()

    def _drop_unusable(self) -> None:
        if self._tally.usable is None:
            return
        keep = self._tally.usable[self._index]
        if not keep.any():
            raise ScanError(f"{self._source.name}: no voxel of the mask is finite in every volume",
                            code="voxels.not_finite")  # fmt: skip
        self.background.ravel(order="K")[~self._tally.usable] = 0
        self.mask = self._tally.usable.reshape(self.mask.shape, order="F") & self.mask
        if not keep.all():
            self.stored = _compacted(self.stored, keep)


def _compacted(stored: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return the kept columns, moved to the front of the same memory: a copy would double it."""
    n = int(np.count_nonzero(keep))
    flat = stored.reshape(-1)
    for channel in range(len(stored)):
        flat[channel * n : (channel + 1) * n] = stored[channel][keep]
    return flat[: len(stored) * n].reshape(len(stored), n)


def _facts(source: VolumeSource, gradients: GradientTable | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "dtype": str(source.dtype),
        "slope": source.slope,
        "inter": source.inter,
        "spacing_mm": [round(float(s), 6) for s in source.grid.spacing_mm],
    }
    if gradients is not None:
        facts["shells"] = shells(gradients.bvals)
        facts["n_b0"] = int(gradients.b0s_mask.sum())
    return facts


def sidecar_facts(files: ScanFiles) -> tuple[dict[str, Any], list[str]]:
    """Return the few numbers of the JSON beside the image that are told on, and warnings."""
    if files.sidecar is None:
        return {}, []
    try:
        content = json.loads(read_text(files.sidecar))
    except (ScanError, ValueError, RecursionError):
        return {}, [f"{shown(files.sidecar)}: cannot be read as JSON; ignored"]
    content = content if isinstance(content, dict) else {}
    told = {key: content[key] for key in _TOLD_OF_SIDECAR if type(content.get(key)) in (int, float)}
    return {"sidecar": told}, []
