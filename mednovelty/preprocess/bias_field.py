"""Slow brightness changes across the head, which come from the coil, divided out (N4, SimpleITK).

Tustison et al. 2010. Most public scans are corrected already, and a second time costs minutes and can
flatten large lesions: no recipe asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mednovelty.errors import ScanError, SettingsError
from mednovelty.scan import Scan

_FEWEST_BLOCKS = 8
"""Along each axis, if there are so many voxels: the splines have four control points."""


@dataclass(frozen=True, slots=True)
class N4BiasField:
    """Divides each contrast by its bias field, estimated over the mask; its mean there stays as it is.

    Args:
        shrink: The field is estimated on every n-th voxel along each axis; on more of them along axes of few
            voxels.
        iterations: Most iterations at each level; each level doubles the field's detail.
        tolerance: A level ends when the field changes less than this.
    """

    shrink: int = 4
    iterations: tuple[int, ...] = (50, 50, 50, 50)
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "iterations", tuple(int(n) for n in self.iterations))
        if self.shrink < 1 or not self.iterations or min(self.iterations) < 1 or not self.tolerance > 0:
            raise SettingsError(
                "n4_bias_field: shrink and all iterations must be at least 1 and tolerance above 0, got "
                f"{self.shrink}, {self.iterations} and {self.tolerance}"
            )

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan corrected, its channels as float32.

        Raises:
            ScanError: A contrast has no positive voxel, or N4 does not come to an end on it.
        """
        stored = np.empty(scan.stored.shape, np.float32)
        flat = np.flatnonzero(scan.mask.ravel(order="F"))
        for channel, row in enumerate(stored):
            signal = scan.stored[channel] * np.float32(scan.scale[channel])
            signal = signal + np.float32(scan.offset[channel])
            field = self._field(scan, signal).ravel(order="F")[flat]
            corrected = signal / field
            total = corrected.sum(dtype=np.float64)
            row[:] = corrected * (signal.sum(dtype=np.float64) / total if total else 1)
        n = scan.n_channels
        return replace(scan, stored=stored, scale=np.ones(n), offset=np.zeros(n))

    def _field(self, scan: Scan, signal: np.ndarray) -> np.ndarray:
        """Return the field ``(I, J, K)`` of one channel's ``(n,)`` signal."""
        import SimpleITK as sitk

        positive = signal > 0
        if not positive.any():
            raise ScanError(
                f"{scan.id}: no voxel of the mask is above 0 in a contrast; N4 works on the signal as "
                "measured, before any standardising",
                code="voxels.mean",
            )
        # N4 takes logarithms: what is not positive tells nothing of the field.
        image = _image(scan, np.where(positive, signal, 1))
        mask = _image(scan, positive.astype(np.uint8))
        factors = [min(self.shrink, max(1, n // _FEWEST_BLOCKS)) for n in scan.grid.shape]
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(self.iterations)
        n4.SetConvergenceThreshold(self.tolerance)
        n4.SetMaskLabel(1)
        try:
            n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
            field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))
        except RuntimeError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise ScanError(
                f"{scan.id}: N4 fails: {reason}; leave n4_bias_field out", code="voxels.bias_field"
            ) from error
        return np.exp(field.transpose(2, 1, 0))

    def state(self) -> dict[str, Any]:
        """Return the settings."""
        return {"shrink": self.shrink, "iterations": list(self.iterations), "tolerance": self.tolerance}


def _image(scan: Scan, values: np.ndarray) -> Any:
    """Return ``(n,)`` values in their voxels as an ITK image, 0 outside the mask."""
    import SimpleITK as sitk

    flat = np.zeros(scan.mask.size, values.dtype)
    flat[np.flatnonzero(scan.mask.ravel(order="F"))] = values
    # ITK's arrays run K, J, I.
    image = sitk.GetImageFromArray(flat.reshape(scan.mask.shape[::-1]))
    image.SetSpacing([float(mm) for mm in scan.grid.spacing_mm])
    return image
