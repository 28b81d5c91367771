"""What can be told of a scan's quality while it is in memory: ``<id>_quality.json``, beside its maps.

Mean signal of each volume inside the mask, gradients in world axes, and how far these are from those that the
detector knows. A report can show it long after the scan has moved elsewhere. A volume counts as an outlier
where its mean lies far from those of its shell: see ``outlying``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import SchemeError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.outputs import OutputNames, told
from mednovelty.preprocess.qspace import B0_THRESHOLD_S_PER_MM2, GradientScheme
from mednovelty.scan import Scan

if TYPE_CHECKING:
    from mednovelty.detector import Detector

ENDING = "_quality.json"
FAR_DEVIATIONS, FAR_SHARE = 5.0, 0.05
"""A volume is an outlier where it is both so many standard deviations, estimated by the median absolute
deviation, and such a share of the shell's median away from it: of a shell whose volumes hardly differ the
first alone would mark differences that nobody can see, of one whose volumes differ the second alone."""
_FEWEST_VOLUMES = 4
"""Of a shell, to say what is usual there."""


def _nothing() -> np.ndarray:
    return np.empty(0)


def _no_directions() -> np.ndarray:
    return np.empty((0, 3))


@dataclass(frozen=True, eq=False)
class Quality:
    """What is known of a scan's quality.

    Attributes:
        signal: ``(C,)`` mean signal of each volume or contrast inside the mask.
        contrasts: Names of a structural scan's channels; empty of diffusion scans.
        bvalues_s_per_mm2: ``(C,)``, or empty.
        directions: ``(C, 3)`` in RAS+ axes, zeros where b=0, or empty.
        scheme_bvalues_s_per_mm2: ``(C,)`` of the gradients that the detector knows, or empty.
        scheme_directions: ``(C, 3)``, as ``directions``, in the detector's order.
        angle_deg: ``(C,)`` between each of the detector's gradients and that of the scan that takes its
            place, 0 where b=0; empty where they do not fit.
        input_sha256: Of the scan's image.
    """

    signal: np.ndarray
    contrasts: tuple[str, ...] = ()
    bvalues_s_per_mm2: np.ndarray = field(default_factory=_nothing)
    directions: np.ndarray = field(default_factory=_no_directions)
    scheme_bvalues_s_per_mm2: np.ndarray = field(default_factory=_nothing)
    scheme_directions: np.ndarray = field(default_factory=_no_directions)
    angle_deg: np.ndarray = field(default_factory=_nothing)
    input_sha256: str = ""

    @classmethod
    def of(cls, scan: Scan, scheme: GradientScheme | None) -> Quality:
        """Return what a scan shows, its channels as they were read.

        Args:
            scan: As ``read_scan`` returns it, before any preprocessing.
            scheme: The gradients that the detector knows; None of structural scans.
        """
        # Row by row: a scan of many volumes must not be in memory a second time.
        means = np.array([row.mean(dtype=np.float64) for row in scan.stored])
        signal = means * scan.scale + scan.offset
        if scan.gradients is None:
            return cls(signal, scan.contrasts, input_sha256=scan.sha256)
        own = GradientScheme.of(scan.gradients)
        bvalues, directions = np.array(own.bvalues_s_per_mm2), np.array(own.directions)
        if scheme is None:
            return cls(signal, (), bvalues, directions, input_sha256=scan.sha256)
        known_b, known = np.array(scheme.bvalues_s_per_mm2), np.array(scheme.directions)
        try:
            order = scheme.order_of(scan.gradients, scan.id)
            cosine = np.abs((known * directions[order]).sum(1))
            angle = np.where(
                known_b > B0_THRESHOLD_S_PER_MM2, np.degrees(np.arccos(np.clip(cosine, 0, 1))), 0
            )
        except SchemeError:
            angle = np.empty(0)
        return cls(signal, (), bvalues, directions, known_b, known, angle, scan.sha256)

    @classmethod
    def read(cls, path: Path) -> Quality | None:
        """Return what a file tells; None where there is none, or it is damaged."""
        content = told(path)
        try:
            return None if not content else cls._of_told(content)
        except (KeyError, TypeError, ValueError):
            return None

    @classmethod
    def _of_told(cls, content: Mapping[str, Any]) -> Quality:
        scheme = content.get("DetectorScheme") or {}
        signal, bvalues = _row(content["MeanSignal"]), _row(content["BvaluesSPerMm2"])
        found = cls(
            signal,
            tuple(map(str, content["Contrasts"])),
            bvalues,
            _directions(content["Directions"]),
            _row(scheme.get("BvaluesSPerMm2", [])),
            _directions(scheme.get("Directions", [])),
            _row(scheme.get("AngleDegrees", [])),
            str(content.get("InputSha256", "")),
        )
        known = len(found.scheme_bvalues_s_per_mm2)
        if (
            len(found.directions) != len(bvalues)
            or (len(bvalues) and len(bvalues) != len(signal))
            or len(found.scheme_directions) != known
            or len(found.angle_deg) not in (0, known)
        ):
            raise ValueError("the lists are of different lengths")
        return found

    def told(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "Description": "Mean signal of each volume inside the mask, and gradients in RAS+ world axes",
            "InputSha256": self.input_sha256,
            "Contrasts": list(self.contrasts),
            "MeanSignal": [float(f"{value:.6g}") for value in self.signal],
            "BvaluesSPerMm2": self.bvalues_s_per_mm2.round(3).tolist(),
            "Directions": self.directions.round(5).tolist(),
            "DetectorScheme": {
                "BvaluesSPerMm2": self.scheme_bvalues_s_per_mm2.round(3).tolist(),
                "Directions": self.scheme_directions.round(5).tolist(),
                "AngleDegrees": self.angle_deg.round(4).tolist(),
            },
        }

    def write(self, path: Path) -> None:
        """Write it.

        Raises:
            OutputError: It cannot be written.
        """
        write_text_atomic(path, json.dumps(self.told()) + "\n")


def quality_path(place: OutputNames) -> Path:
    """Return where the quality of a scan is told."""
    return place.folder / f"{place.stem}{ENDING}"


def write_quality(scan: Scan, detector: Detector, place: OutputNames) -> None:
    """Write what a scan shows beside its maps.

    Raises:
        OutputError: It cannot be written.
    """
    Quality.of(scan, detector.scheme).write(quality_path(place))


def outlying(signal: np.ndarray, bvalues_s_per_mm2: np.ndarray) -> np.ndarray:
    """Return ``(C,)`` bool: volumes whose mean signal lies far from those of their shell.

    Shells with fewer than four volumes have none: nothing says what is usual there.

    Examples:
        >>> outlying(np.array([100.0, 50, 51, 30, 49, 50]), np.array([0.0, 1e3, 1e3, 1e3, 1e3, 1e3])).tolist()
        [False, False, False, True, False, False]
    """
    found = np.zeros(len(signal), bool)
    shells = shells_of(bvalues_s_per_mm2)
    for shell in np.unique(shells):
        inside = shells == shell
        if np.count_nonzero(inside) < _FEWEST_VOLUMES:
            continue
        middle = np.median(signal[inside])
        away = np.abs(signal - middle)
        deviation = 1.4826 * np.median(away[inside])
        found |= inside & (away > FAR_DEVIATIONS * deviation) & (away > FAR_SHARE * abs(middle))
    return found


def shells_of(bvalues_s_per_mm2: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return the shell of each volume, its b-value to the nearest 100 s/mm2, 0 for b=0."""
    bvalues = np.asarray(bvalues_s_per_mm2, np.float64)
    return np.where(bvalues <= B0_THRESHOLD_S_PER_MM2, 0, np.round(bvalues, -2)).astype(int)


def _row(values: Any) -> np.ndarray:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError("must be a list of finite numbers")
    return found


def _directions(values: Any) -> np.ndarray:
    found = np.asarray(values, np.float64).reshape(-1, 3)
    if not np.isfinite(found).all():
        raise ValueError("must be finite")
    return found


__all__ = ["ENDING", "Quality", "outlying", "quality_path", "shells_of", "write_quality"]
