"""Maps of p-values beside raw maps, and what sidecars tell of the calibration that they are from.

``<id>_desc-<score>_pvalue.nii.gz``  -log10 p, 0 outside the mask and where nothing was scored
``<id>_desc-<score>_z.nii.gz``       the normal quantile of 1 - p, where it is asked for
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.calibrate.calibration import Calibration
from mednovelty.calibrate.files import RECORD, check_fits, load_calibration
from mednovelty.calibrate.regions import features_of, label_image, labels_of
from mednovelty.errors import SettingsError
from mednovelty.io.guard import sha256_of_file
from mednovelty.outputs import OutputNames, WantedMaps, settings_of
from mednovelty.scan import Scan, Volume

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import ScanFiles
    from mednovelty.maps import NoveltyMap

KINDS = ("pvalue", "z")
SHOWN_FROM_P = 0.05
"""Viewers begin their colours at this p."""


def how_scored(detector: Detector, options: ReadOptions) -> dict[str, Any]:
    """Return the settings that a calibration holds for, as JSON types: all that shape a scan's scores.

    How many samples go through at once does not.
    """
    settings = settings_of(detector, options)
    del settings["scoring"]["batch_voxels"]
    return settings


def calibration_of(detector: Detector, model: Path, options: ReadOptions) -> Calibration | None:
    """Return the calibration in a detector's folder; None where there is none.

    Args:
        detector: As it is to score.
        model: Its folder.
        options: How scans are to be read.

    Raises:
        DetectorError: It is damaged, or of another detector, or of this one with other settings.
    """
    calibration = load_calibration(model)
    if calibration is not None:
        check_fits(calibration, detector.sha256, how_scored(detector, options), model / RECORD)
    return calibration


@dataclass(frozen=True)
class PValueMaps:
    """What makes p-values of raw maps.

    Attributes:
        calibration: Of the detector that made the raw maps.
        regions: Folder of label images by scan id, for a calibration by labels.
        with_z: Whether maps of z are written too.
    """

    calibration: Calibration
    regions: Path | None = None
    with_z: bool = False

    def __post_init__(self) -> None:
        by_labels = self.calibration.regions.kind == "labels"
        if by_labels and self.regions is None:
            raise SettingsError(
                "the detector was calibrated by regions of label images; give those of the scans to score: "
                "--regions FOLDER"
            )
        if self.regions is not None and not by_labels:
            raise SettingsError(
                f"--regions {self.regions}: the detector was calibrated without label images; calibrate it "
                "with --regions, or leave it out here"
            )

    def wanted(self, files: ScanFiles) -> WantedMaps:
        """Return what must stand of a scan for it to count as done.

        Raises:
            ScanError: It has no label image, and needs one.
        """
        key = self.calibration.sha256
        if self.regions is not None:
            key += f" {sha256_of_file(label_image(self.regions, files.id))}"
        return WantedMaps(key, self.calibration.scores, KINDS if self.with_z else KINDS[:1])

    def regions_of(self, scan: Scan, inside: np.ndarray) -> np.ndarray | None:
        """Return ``(n,)`` int32 regions of some voxels of a scan, ``(I, J, K)`` bool; None where all are one.

        Raises:
            ScanError: Its label image is missing or unfit.
        """
        kind = self.calibration.regions.kind
        if kind == "one":
            return None
        if kind == "classes":
            return self.calibration.regions.classes_of(features_of(scan, inside)[0])
        assert self.regions is not None  # __post_init__ has seen to it.
        return labels_of(label_image(self.regions, scan.id), scan, inside)

    def write(
        self,
        place: OutputNames,
        novelty: NoveltyMap,
        inside: np.ndarray,
        regions: np.ndarray | None,
        key: str,
    ) -> dict[str, Any] | None:
        """Write the maps of a score; return what its sidecar tells, None of one without a calibration.

        Args:
            place: Names of the scan's files.
            novelty: The raw map.
            inside: ``(I, J, K)`` bool, the n voxels that were scored.
            regions: ``(n,)``, see ``regions_of``.
            key: Of ``wanted``.

        Raises:
            OutputError: A map cannot be written.
            ScanError: A score is not finite.
        """
        from mednovelty.io.nifti import write_map

        score, calibration = novelty.score, self.calibration
        if score not in calibration.scores:
            return None
        values = novelty.data[inside]
        found = {"pvalue": -np.log10(calibration.p(score, values, regions)) + 0.0}
        limits = {"pvalue": (-np.log10(SHOWN_FROM_P), -np.log10(calibration.smallest_p(score)))}
        if self.with_z:
            found["z"], limits["z"] = calibration.z(score, values, regions), (2.0, 5.0)
        files = {}
        for kind, one in found.items():
            data = np.zeros((1, *inside.shape), np.float32)
            data[0, inside] = one
            path, (low, high) = place.calibrated(score, kind), limits[kind]
            volume = Volume(data, novelty.affine, f"{kind} of {score}")
            write_map(path, volume, cal_min=low, cal_max=max(high, low + 1), description=f"mednovelty {kind}")
            files[kind] = sha256_of_file(path)
        return {**calibration.about(score), "Key": key, "Files": files}


__all__ = ["KINDS", "PValueMaps", "calibration_of", "how_scored"]
