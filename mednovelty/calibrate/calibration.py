"""A detector's calibration: what its scores are on held-out normals, and so the p-value of any score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.calibrate.healthy_scans import THRESHOLDS_P, HealthyScans, floor_p, left_out_p
from mednovelty.calibrate.null import Null, z_of
from mednovelty.calibrate.nulls import ALL, nulls_of, regions_of
from mednovelty.calibrate.regions import Kind, Regions
from mednovelty.calibrate.scan_maps import ScanMaps
from mednovelty.errors import DetectorError, SettingsError
from mednovelty.segment.clusters import CONNECTIVITIES

FEW_SCANS, COARSE_P = 5, 1e-4
"""Below, and above, which a calibration is told to be coarse."""

METHODS = ("validation scans", "held-out scans", "leave-one-scan-out")


@dataclass(frozen=True)
class CalibrationScan:
    """One scan that a calibration was made from.

    Attributes:
        id: Of the scan.
        sha256: Of its image.
        n_voxels: How many were scored.
        voxel_mm3: Volume of a voxel.
        file: Name of its maps, in the calibration's folder.
        file_sha256: Of that file.
    """

    id: str
    sha256: str
    n_voxels: int
    voxel_mm3: float
    file: str
    file_sha256: str


@dataclass(frozen=True, eq=False)
class Calibration:
    """What scores are on held-out normals.

    Attributes:
        nulls: By score and region: ``"all"``, and the numbers of regions that have a null of their own.
        healthy: By score, what each calibration scan shows when it is held against the others.
        scans: The S scans.
        regions: How voxels are told apart.
        method: One of ``METHODS``.
        detector_sha256: Of the detector whose scores these are.
        settings: How it scored: what ``outputs.settings_of`` says of it.
        folder: Where the maps of the scans lie.
        sha256: Of the record on disk.
        samples: By score, of those with one value for each slice or window, how many of them each scan has.
    """

    nulls: Mapping[str, Mapping[str, Null]]
    healthy: Mapping[str, HealthyScans]
    scans: tuple[CalibrationScan, ...]
    regions: Regions
    method: str
    detector_sha256: str
    settings: Mapping[str, Any]
    folder: Path
    sha256: str = field(default="", compare=False)
    samples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(  # noqa: PLR0913 - all but the first three are by keyword
        cls,
        scans: Sequence[CalibrationScan],
        scores: Sequence[str],
        folder: Path,
        *,
        kind: Kind = "one",
        features: Sequence[str] = (),
        method: str = METHODS[1],
        detector_sha256: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> Calibration:
        """Return the calibration that scans make whose maps are on disk.

        Args:
            scans: Their files lie in ``folder``.
            scores: Which of their scores.
            folder: See ``files``.
            kind: Of regions.
            features: Of classes, names of what the scans' ``features`` are.
            method: One of ``METHODS``.
            detector_sha256: Of the detector.
            settings: How it scored.

        Raises:
            DetectorError: A file is missing or damaged.
            ScanError: A score is not finite.
        """
        maps = [ScanMaps.read(folder / scan.file, scan.id, scan.file_sha256) for scan in scans]
        regions = Regions(kind)
        if kind == "classes":
            regions = Regions.found_in([one.features for one in maps], features)
        found = {name: nulls_of(name, maps, regions) for name in scores}
        sampled = [name for name in scores if name in maps[0].of_samples]
        samples = {name: tuple(len(one.counted(name)) for one in maps) for name in sampled}
        return cls(
            {name: nulls for name, (nulls, _) in found.items()},
            {name: healthy for name, (_, healthy) in found.items()},
            tuple(scans), regions, method, detector_sha256, dict(settings or {}), folder,
            samples=samples,
        )  # fmt: skip

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the calibrated scores."""
        return tuple(self.nulls)

    def p(self, score: str, values: np.ndarray, regions: np.ndarray | None = None) -> np.ndarray:
        """Return p-values, float64 in (0, 1], of the shape of the scores.

        Args:
            score: One of ``scores``.
            values: Scores of voxels.
            regions: The region of each; may be None where all voxels are one.

        Raises:
            ScanError: A score is not finite.
            SettingsError: The score has no calibration, or its regions are missing.
        """
        nulls = self._nulls(score)
        found = nulls[ALL].p(values)
        if len(nulls) == 1:
            return found
        for region in self._present(values, regions):
            if region in nulls:
                inside = np.asarray(regions) == int(region)
                found[inside] = nulls[region].p(np.asarray(values)[inside])
        return found

    def z(self, score: str, values: np.ndarray, regions: np.ndarray | None = None) -> np.ndarray:
        """Return the normal quantiles of ``1 - p``, float64; see ``p`` and ``null.z_of``."""
        nulls = self._nulls(score)
        floor = np.full(np.shape(values), nulls[ALL].smallest_p)
        for region in self._present(values, regions) if len(nulls) > 1 else ():
            if region in nulls:
                floor[np.asarray(regions) == int(region)] = nulls[region].smallest_p
        return z_of(self.p(score, values, regions), floor)

    def smallest_p(self, score: str) -> float:
        """Return the smallest p-value that a voxel of any region can get: the largest of its nulls'."""
        return max(null.smallest_p for null in self._nulls(score).values())

    def counts(self, score: str) -> tuple[int, ...]:
        """Return of each scan how many values of a score are in its null: of samples, or of voxels."""
        return self.samples.get(score) or tuple(scan.n_voxels for scan in self.scans)

    def floor_p(self, score: str) -> float:
        """Return the smallest p-value that each of the scans can have among the others, in whatever region.

        Below it the scans show nothing, and so say nothing of a new scan.

        Raises:
            DetectorError: A scan's file is missing or damaged.
        """
        own = [region for region in self._nulls(score) if region != ALL]
        found = [floor_p(self.counts(score))]
        if own:
            found += [
                floor_p([of_scan.get(int(region), 0) for of_scan in self._voxels_by_region]) for region in own
            ]
        return max(found)

    @cached_property
    def _voxels_by_region(self) -> list[dict[int, int]]:
        """Of each scan, how many voxels it has by region."""
        counted = []
        for number in range(len(self.scans)):
            regions, counts = np.unique(self.regions_of(self.maps(number)), return_counts=True)  # type: ignore[call-overload]
            counted.append(dict(zip(regions.tolist(), counts.tolist(), strict=True)))
        return counted

    @property
    def smallest_scan_p(self) -> float:
        """The smallest p-value that a whole scan can get among the S calibration scans."""
        return 1.0 / (len(self.scans) + 1.0)

    @cached_property
    def _maps(self) -> dict[int, ScanMaps]:
        return {}

    def maps(self, number: int) -> ScanMaps:
        """Return the maps of one of the scans, by its place in ``scans``.

        Raises:
            DetectorError: The file is missing or damaged.
        """
        if number not in self._maps:
            scan = self.scans[number]
            maps = ScanMaps.read(self.folder / scan.file, scan.id, scan.file_sha256)
            if maps.n_voxels != scan.n_voxels or set(maps.scores) != set(self.scores):
                raise DetectorError(f"{maps.path}: is not what the calibration's record says of {scan.id}")
            self._maps[number] = maps
        return self._maps[number]

    def regions_of(self, maps: ScanMaps) -> np.ndarray | None:
        """Return ``(n,)`` int32 regions of a calibration scan's voxels; None where all are one."""
        return regions_of(maps, self.regions)

    def left_out(self, score: str) -> Iterator[tuple[ScanMaps, np.ndarray]]:
        """Yield each calibration scan's maps and its ``(n,)`` p-values among the other scans.

        Of a single scan the p-values are those among its own voxels.

        Raises:
            DetectorError: A scan's file is missing or damaged.
            SettingsError: The score has no calibration.
        """
        maps = [self.maps(number) for number in range(len(self.scans))]
        own = [int(region) for region in self._nulls(score) if region != ALL]
        counted = [one.counted(score) for one in maps] if score in self.samples else None
        regions = [self.regions_of(one) for one in maps]
        found = left_out_p([one.values(score) for one in maps], regions, own, counted)
        yield from zip(maps, found, strict=True)

    def warnings(self, score: str) -> list[str]:
        """Return in which ways the p-values of a score are coarse."""
        told = []
        if len(self.scans) < FEW_SCANS:
            told.append(
                f"calibrated on {len(self.scans)} scan{'s' * (len(self.scans) > 1)}: p-values of voxels do "
                "not know how people differ, and none of a whole scan is below "
                f"{self.smallest_scan_p:.2g}; calibrate on more, or leave-one-out"
            )
        if score in self.samples:
            told.append(
                f"{score} has one value for each slice or window: no p-value below "
                f"{self.smallest_p(score):.2g} can be had from {sum(self.samples[score])} of them, however "
                "many voxels they have; corrections for many voxels may find nothing, and a score of voxels "
                "says where"
            )
        elif self.smallest_p(score) > COARSE_P:
            fewest = min(null.n for null in self._nulls(score).values())
            told.append(
                f"no p-value below {self.smallest_p(score):.2g} can be had from {fewest} voxels; corrections "
                "for many voxels may find nothing"
            )
        return told

    def about(self, score: str) -> dict[str, Any]:
        """Return what sidecars tell of the calibration of a score."""
        return {
            "Sha256": self.sha256,
            "Method": self.method,
            "Scans": len(self.scans),
            "Voxels": sum(scan.n_voxels for scan in self.scans),
            **({"Samples": sum(self.samples[score])} if score in self.samples else {}),
            "Regions": self.regions.kind,
            "SmallestP": self.smallest_p(score),
            "SmallestScanP": self.smallest_scan_p,
            "Warnings": self.warnings(score),
        }

    def told(self) -> dict[str, Any]:
        """Return what is needed of it where its files are not: JSON types, by ``Calibration.told``'s names.

        ``Scores`` holds, by score, ``LargestMm3`` (scan, connectivity, threshold), ``NovelMm3`` and ``Share``
        (scan, threshold), ``MaxScore`` and ``MinP`` (scan), ``FloorP``, see ``floor_p``, and what
        ``about`` tells.
        """
        return {
            "Sha256": self.sha256,
            "DetectorSha256": self.detector_sha256,
            "Method": self.method,
            "Scans": [scan.id for scan in self.scans],
            "ImagesSha256": [scan.sha256 for scan in self.scans],
            "ThresholdsP": THRESHOLDS_P.tolist(),
            "Connectivities": list(CONNECTIVITIES),
            "Scores": {
                score: {
                    "LargestMm3": healthy.largest_mm3.tolist(),
                    "NovelMm3": healthy.novel_mm3.tolist(),
                    "Share": healthy.share.tolist(),
                    "MaxScore": healthy.max_score.tolist(),
                    "MinP": healthy.min_p.tolist(),
                    "FloorP": self.floor_p(score),
                    **self.about(score),
                }
                for score, healthy in self.healthy.items()
            },
        }

    def _nulls(self, score: str) -> Mapping[str, Null]:
        if score not in self.nulls:
            raise SettingsError(f"{score} is not calibrated; there are {', '.join(self.nulls)}")
        return self.nulls[score]

    def _present(self, values: np.ndarray, regions: np.ndarray | None) -> list[str]:
        if regions is None or np.shape(regions) != np.shape(values):
            raise SettingsError(
                f"this calibration is by regions ({self.regions.kind}); give the region of each of the "
                f"{np.size(values)} voxels, not {'none' if regions is None else np.size(regions)}"
            )
        return [str(region) for region in np.unique(regions)]

    def __repr__(self) -> str:
        return (
            f"Calibration({len(self.scans)} scans, {self.method}, {self.regions.kind}, "
            f"{', '.join(self.scores)})"
        )


__all__ = ["METHODS", "Calibration", "CalibrationScan"]
