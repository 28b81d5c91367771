"""What all voxels of a scan say about it while they stream past: empty, constant, not finite, negative.

A voxel that is not finite, or so large that its square overflows float32, is taken out of the mask: one
such number spreads through every mean. A scan of which nothing sensible is left is refused.
"""

from __future__ import annotations

import numpy as np

from mednovelty.errors import ScanError

LARGEST_SIGNAL = 1e18
"""Its square still fits float32."""

_ROW = 4096
_TAKEN_OUT = "voxels with them were taken out of the mask"


class Tally:
    """Counts over the volumes of one scan, added one after another.

    Args:
        name: What messages call the scan.
        slope: Multiplied onto stored voxels.
        inter: Added after it.
        is_b0: ``(C,)`` bool.
        signed: Whether values below 0 are as they should be: in CT, or after bias correction.

    Attributes:
        usable: ``(I * J * K,)`` bool in file order, False where a volume held an unusable voxel; None
            while all were usable.
    """

    def __init__(
        self, name: str, slope: float, inter: float, is_b0: np.ndarray, *, signed: bool = False
    ) -> None:
        self.usable: np.ndarray | None = None
        self._name = name
        self._slope, self._inter = slope, inter
        self._is_b0 = is_b0
        self._signed = signed
        self._sum, self._count = 0.0, 0
        self._low, self._high = np.inf, -np.inf
        self._b0_high = 0.0
        self._unfinite, self._huge, self._negative, self._inexact = 0, 0, 0, 0
        self._empty: list[int] = []

    def add(self, volume: np.ndarray, channel: int) -> None:
        """Take in one volume, ``(I, J, K)`` as stored."""
        flat = volume.reshape(-1, order="F")
        low, high = flat.min(), flat.max()
        # NaN and inf come through min and max, so clean volumes need no look at each voxel.
        if flat.dtype.kind != "f":
            self._check_scaling(float(low), float(high))
        elif not (self._is_usable(float(low)) and self._is_usable(float(high))):
            flat = self._without_unusable(flat)
            if not flat.size:
                return
            low, high = flat.min(), flat.max()
        self._note(flat, float(low), float(high), channel)

    def _note(self, flat: np.ndarray, low: float, high: float, channel: int) -> None:
        self._sum += _sum(flat)
        self._count += flat.size
        self._low, self._high = min(self._low, low), max(self._high, high)
        ends = sorted((low * self._slope + self._inter, high * self._slope + self._inter))
        if ends[0] < 0 and not self._signed:
            self._negative += int(np.count_nonzero(flat * np.float64(self._slope) + self._inter < 0))
        if ends == [0.0, 0.0]:
            self._empty.append(channel)
        if self._is_b0[channel]:
            self._b0_high = max(self._b0_high, abs(ends[0]), abs(ends[1]))
        if flat.dtype.itemsize == 8 and flat.dtype.kind in "iu" and max(abs(low), abs(high)) > 2**24:
            self._inexact += 1

    def whole_mean(self) -> float:
        """Return the mean signal over all usable voxels of all volumes."""
        return self._sum / self._count * self._slope + self._inter

    def finish(self) -> list[str]:
        """Return what there is to warn of.

        Raises:
            ScanError: Nothing finite, nothing but zeros, nothing that varies, or an empty b=0.
        """
        if not self._count:
            raise ScanError(f"{self._name}: no voxel of it is finite", code="voxels.not_finite")
        if self._low == self._high:
            value = self._low * self._slope + self._inter
            what = "empty: every voxel is 0" if value == 0 else f"constant: every voxel is {value:g}"
            raise ScanError(f"{self._name}: {what}", code="voxels.empty" if value == 0 else "voxels.constant")
        if self._is_b0.any() and self._b0_high == 0:
            what = f"the b=0 is empty: volumes {_listed(np.flatnonzero(self._is_b0))} are all 0"
            raise ScanError(f"{self._name}: {what}", code="voxels.b0_empty")
        self._check_exact()
        return self._warnings()

    def _warnings(self) -> list[str]:
        found = []
        if self._unfinite:
            found.append(f"{self._unfinite} voxel values are not finite; {_TAKEN_OUT}")
        if self._huge:
            found.append(f"{self._huge} voxel values are over {LARGEST_SIGNAL:g}; {_TAKEN_OUT}")
        if self._empty:
            found.append(f"volumes {_listed(self._empty)} are all 0")
        if self._negative:
            found.append(f"{self._negative} voxel values are negative")
        if self._inexact:
            found.append(f"values up to {self._high:g} were rounded to float32's 24 bits")
        return [f"{self._name}: {what}" for what in found]

    def _check_exact(self) -> None:
        if self._inexact and max(abs(self._low), abs(self._high)) > 2**53:
            what = f"integers up to {self._high:.3g} do not fit float32: differences would be rounded away"
            raise ScanError(f"{self._name}: {what}", code="voxels.range")

    def _is_usable(self, stored: float) -> bool:
        scaled = stored * self._slope + self._inter
        return bool(np.isfinite(scaled)) and abs(scaled) <= LARGEST_SIGNAL

    def _check_scaling(self, low: float, high: float) -> None:
        """Raise ``ScanError`` when integers that are fine as stored are not once they are scaled."""
        for stored in (low, high):
            if abs(stored) <= LARGEST_SIGNAL and not self._is_usable(stored):
                reach = stored * self._slope + self._inter
                what = f"scaled by {self._slope:g}, voxels reach {reach:.3g}, too much for float32"
                raise ScanError(f"{self._name}: {what}; is scl_slope right?", code="voxels.range")

    def _without_unusable(self, flat: np.ndarray) -> np.ndarray:
        """Count the unusable voxels of a volume, mark them for all volumes, and return the others."""
        finite = np.isfinite(flat)
        with np.errstate(invalid="ignore", over="ignore"):
            usable = finite & (np.abs(flat * np.float64(self._slope) + self._inter) <= LARGEST_SIGNAL)
        self._unfinite += int(np.count_nonzero(~finite))
        self._huge += int(np.count_nonzero(finite & ~usable))
        self.usable = usable if self.usable is None else self.usable & usable
        return flat[usable]


def _sum(flat: np.ndarray) -> float:
    """Return the sum in float64, in rows first: four times as fast as one long int64 or float64 sum."""
    # A row of 16-bit numbers cannot overflow 32 bits; float32 rows are summed pairwise.
    kind: type = np.float64
    if flat.dtype.itemsize <= 2:
        kind = np.int32
    elif flat.dtype == np.float32:
        kind = np.float32
    whole = flat.size // _ROW * _ROW
    rows = np.add.reduce(flat[:whole].reshape(-1, _ROW), axis=1, dtype=kind)
    return float(rows.sum(dtype=np.float64)) + float(flat[whole:].sum(dtype=np.float64))


def _listed(channels: np.ndarray | list[int], most: int = 8) -> str:
    shown = ", ".join(str(c) for c in channels[:most])
    return shown + (f" and {len(channels) - most} more" if len(channels) > most else "")
