"""Settings of maps that say where in a sample something is: how they are smoothed, averaged and finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mednovelty.errors import SettingsError
from mednovelty.methods.input_gradients import NoisyCopies
from mednovelty.nn.precision import Precision
from mednovelty.nn.smoothing import Smoothing

LARGEST_SIGMA, LARGEST_COPIES, LARGEST_MEDIAN_PX = 1000.0, 10_000, 15
"""Above these a setting is a slip of the pen."""


@dataclass(frozen=True, slots=True)
class MapSettings:
    """What is done to maps on their way to a file; it changes no network.

    Attributes:
        smoothing: How widely moduli of derivatives are smoothed, within each sample. In mm it is the same
            on every scan's grid, if the view can tell the spacing of its samples.
        copies: Noisy copies over which SmoothGrad averages, 1 to 10,000.
        copies_sigma: Of their noise, in units of the preprocessed signal.
        median_px: Side of the cube over which a finished map's median is taken, odd, in voxels of the scan;
            0 and 1: none. See ``postprocess.masked_median``. Maps that are one number a slice or window, and
            baselines of the signal as measured (``raw_FLAIR``, ``raw_b0``), stay as they are.
        precision: In what the layers of a network of slices or windows compute when it scores, forward and
            backward: ``float32``, or on CUDA ``float16``, or ``bfloat16``; see ``nn.precision``.
        signs: By contrast in which direction a lesion changes it: 1 brighter, -1 darker, other numbers weigh
            contrasts; those that are not named count 0. None named: 1 for each. For ``rec_signed``,
            ``combi_signed`` and ``raw_signed``.
    """

    smoothing: Smoothing = field(default_factory=Smoothing)
    copies: int = 8
    copies_sigma: float = 0.1
    median_px: int = 0
    precision: Precision = "float32"
    signs: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.noisy_copies  # It checks its own numbers.
        if self.copies > LARGEST_COPIES:
            raise SettingsError(f"maps.copies must be at most {LARGEST_COPIES}, got {self.copies}")
        if self.smoothing.sigma * self.smoothing.truncate > LARGEST_SIGMA:
            raise SettingsError(
                f"maps.smoothing: sigma times truncate must be at most {LARGEST_SIGMA:g}, got "
                f"{self.smoothing.sigma:g} times {self.smoothing.truncate:g}"
            )
        object.__setattr__(self, "signs", {name: float(sign) for name, sign in self.signs.items()})
        if self.signs and not (
            all(math.isfinite(sign) for sign in self.signs.values()) and any(self.signs.values())
        ):
            raise SettingsError(f"maps.signs must be finite numbers and not all 0, got {self.signs}")
        if not (0 <= self.median_px <= LARGEST_MEDIAN_PX and (self.median_px % 2 or not self.median_px)):
            raise SettingsError(
                f"maps.median_px must be 0 or an odd number up to {LARGEST_MEDIAN_PX}, got {self.median_px}"
            )

    @property
    def noisy_copies(self) -> NoisyCopies:
        """The copies; who scores gives them a seed."""
        return NoisyCopies(self.copies, self.copies_sigma)

    def signs_of(self, contrasts: Sequence[str]) -> tuple[float, ...]:
        """Return a sign for each contrast; none where none is named.

        Raises:
            SettingsError: One is named that is not among them.
        """
        if unknown := [name for name in self.signs if name not in contrasts]:
            raise SettingsError(
                f"maps.signs names {unknown[0]!r}; the contrasts are {', '.join(contrasts) or 'none'}"
            )
        return tuple(self.signs.get(name, 0.0) for name in contrasts) if self.signs else ()

    def told(self, options: tuple[str, ...], *, filtered: bool) -> dict[str, Any]:
        """Return what had a part in a map, as sidecars tell it.

        Args:
            options: Of the scorer: ``blur``, ``copies``, ``signs``.
            filtered: Whether the median filter is for its maps.
        """
        told: dict[str, Any] = {} if self.precision == "float32" else {"precision": self.precision}
        if "blur" in options:
            told["smoothing"] = asdict(self.smoothing)
        if "copies" in options:
            told["copies"] = {"count": self.copies, "sigma": self.copies_sigma}
        if "signs" in options:
            told["signs"] = dict(self.signs)
        if filtered and self.median_px > 1:
            told["median_px"] = self.median_px
        return told


__all__ = ["MapSettings"]
