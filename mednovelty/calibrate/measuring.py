"""Held-out normals, scored one after another, become a calibration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.calibrate.calibration import Calibration, CalibrationScan
from mednovelty.calibrate.files import SCANS, save_calibration
from mednovelty.calibrate.regions import Kind, features_of, label_image, labels_of
from mednovelty.calibrate.samples import count_of, of_samples, scores_of_samples
from mednovelty.calibrate.scan_maps import write_scan_maps
from mednovelty.errors import (
    DetectorError,
    OutputError,
    ScanError,
    SettingsError,
    StoppedError,
    failure_message,
)
from mednovelty.gathering import scan_of
from mednovelty.holding_out import name_of, subject_of
from mednovelty.io.structural import input_sha256
from mednovelty.scan import Scan

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.io.read_scan import ReadOptions

log = logging.getLogger("mednovelty")

ABNORMAL = ("anomalous", "abnormal")
"""Words of an annotation that keep a scan from being a normal one."""


@dataclass(frozen=True)
class CalibrateSettings:
    """How a detector is calibrated.

    Attributes:
        scores: Which, names or groups; none: those that the detector was fitted for.
        regions: ``one``, ``classes``, or a folder of label images by scan id.
        lesion_of: Gives a scan's lesion, ``(I, J, K)`` bool, or None; its voxels are no normals.
        options: How scans are read; None: as the detector has it.
    """

    scores: tuple[str, ...] = ()
    regions: str | Path = "one"
    lesion_of: Callable[[Scan], np.ndarray | None] | None = None
    options: ReadOptions | None = None

    @property
    def kind(self) -> Kind:
        """Of regions."""
        whole: dict[str, Kind] = {"one": "one", "classes": "classes"}
        return whole.get(str(self.regions), "labels")

    def names_of(self, detector: Detector) -> list[str]:
        """Return the scores to calibrate: of voxels, not of whole scans.

        Raises:
            SettingsError: None is left.
        """
        names = [name for name in detector.names_of(self.scores) if name not in detector.scan_scores]
        if not names:
            raise SettingsError("no score of voxels is there to be calibrated; name some: --scores")
        return names


Pair = tuple["Detector", Any]
"""A detector, and a scan or its files that it was not trained on."""


def measured(  # noqa: PLR0913 - all but the first three are by keyword
    pairs: Iterable[Pair],
    detector: Detector,
    model: Path,
    *,
    method: str,
    how: Mapping[str, Any],
    settings: CalibrateSettings,
    on_scan: Callable[[str, str], Any] = lambda scan_id, message: None,
) -> Calibration:
    """Score held-out normals, and write the calibration into the detector's folder.

    Args:
        pairs: Of each scan who scores it, and the scan.
        detector: Whose calibration it is; it must have been saved, so that it has a hash.
        model: Its folder.
        method: One of ``calibration.METHODS``.
        how: How it scores, which a later run is held against: ``Calibration.settings``.
        settings: Which scores, and which regions.
        on_scan: Told ``(scan id, message)`` of each; the message is empty where all went well.

    Raises:
        DetectorError: It was never saved, or knows no scans.
        OutputError: The folder cannot be written.
        ScanError: No scan can be used.
        SettingsError: No score is left, or an unknown one.
        StoppedError: Stopped by a signal.
    """
    if not detector.sha256 or not detector.preprocessing:
        raise DetectorError("only a detector of scans that was saved, or loaded, can be calibrated")
    names, folder = settings.names_of(detector), model / SCANS
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    scans: list[CalibrationScan] = []
    features: tuple[str, ...] = ()
    refused: list[str] = []
    for judge, files in pairs:
        name, message = name_of(files), ""
        try:
            scan, features = _scored(judge, files, names, folder, len(scans), settings)
            _refuse_twice(scan, scans)
            scans.append(scan)
        except (OutputError, SettingsError, StoppedError):
            raise
        except Exception as error:  # Whatever is wrong with one scan must not stop the others.
            log.debug("%s", name, exc_info=error)
            message = failure_message(error, name)
            refused.append(message)
        on_scan(name, message)
    if not scans:
        why = "; ".join(refused[:3]) or "none is there that the detector was not trained on"
        raise ScanError(f"no scan can be used to calibrate: {why}", code="calibration.no_scan")
    calibration = Calibration.of(scans, names, folder, kind=settings.kind, features=features, method=method,
                                 detector_sha256=detector.sha256, settings=how)  # fmt: skip
    return save_calibration(calibration, model)


def _scored(
    judge: Detector, files: Any, names: Sequence[str], folder: Path, number: int, settings: CalibrateSettings
) -> tuple[CalibrationScan, tuple[str, ...]]:
    """Score a scan and keep its maps; return what is told of it, and the names of its features."""
    scan = scan_of(files, settings.options or judge.reading)
    maps = judge.score(scan, names)
    inside = scan.mask & judge.covered(scan)
    if settings.lesion_of is not None and (lesion := settings.lesion_of(scan)) is not None:
        inside = inside & ~lesion
    count = int(np.count_nonzero(inside))
    if not count:
        raise ScanError(f"{scan.id}: no healthy voxel of it was scored", code="calibration.empty")
    labels = features = None
    told: tuple[str, ...] = ()
    if settings.kind == "labels":
        labels = labels_of(label_image(Path(settings.regions), scan.id), scan, inside)
    elif settings.kind == "classes":
        features, told = features_of(scan, inside)
    values = {name: maps[name].data[inside] for name in names}
    wrong = next((name for name, one in values.items() if not np.isfinite(one).all()), None)
    if wrong is not None:
        raise ScanError(f"{scan.id}: {wrong} is not finite everywhere", code="calibration.finite")
    sampled = scores_of_samples(judge, names)
    n_samples = count_of(judge, scan) if sampled else 0
    file, sha256 = write_scan_maps(
        folder, number, mask=inside, affine=scan.grid.affine, values=values, labels=labels, features=features,
        samples={name: of_samples(values[name], n_samples) for name in sampled},
    )  # fmt: skip
    voxel_mm3 = float(abs(np.linalg.det(scan.grid.affine[:3, :3])))
    return CalibrationScan(scan.id, scan.sha256, count, voxel_mm3, file, sha256), told


def _refuse_twice(scan: CalibrationScan, others: Sequence[CalibrationScan]) -> None:
    for other in others:
        if scan.id == other.id or (scan.sha256 and scan.sha256 == other.sha256):
            raise ScanError(f"{scan.id}: the same scan as {other.id}; it is used once",
                            code="calibration.duplicate")  # fmt: skip


def held_out_by(detector: Detector, scans: Iterable[Any]) -> tuple[list[Any], list[str]]:
    """Return the scans that a detector, or one that it started from, was not trained on; and notes.

    A file counts as the same by its bytes. What it was validated on stays, unless it is known to be abnormal.

    Args:
        detector: Of scans.
        scans: Scans or their files. What cannot be read is left, and is told when it is scored.
    """
    trained = {scan.sha256 for scan in detector.seen if scan.role == "training" and scan.sha256}
    known = {scan.sha256: scan.annotation for scan in detector.seen if scan.annotation}
    subjects = {subject_of(scan) for scan in detector.seen if scan.role == "training"}
    left, notes = [], []
    for files in scans:
        try:
            sha256 = files.sha256 if isinstance(files, Scan) else input_sha256(files)
        except ScanError:
            sha256 = ""
        if sha256 and sha256 in trained:
            notes.append(f"{name_of(files)}: left out: the detector was trained on it")
        elif any(word in known.get(sha256, "") for word in ABNORMAL):
            notes.append(f"{name_of(files)}: left out: it is {known[sha256]}")
        else:
            left.append(files)
            if subject_of(files) in subjects:
                notes.append(
                    f"{name_of(files)}: the detector was trained on other scans of {subject_of(files)}: its "
                    "scores may be too low, and p-values of others too small"
                )
    return left, notes


def validated_on(detector: Detector, scans: Iterable[Any]) -> list[Any]:
    """Return the scans that were held out whole in a fit.

    Raises:
        SettingsError: None was.
    """
    ids = {scan.id for scan in detector.scans if scan.role == "validation"}
    found = [files for files in scans if name_of(files) in ids]
    if not found:
        raise SettingsError(
            "no whole scan was held out to calibrate with; give --calibrate a folder of other normals, or "
            "leave-one-out"
        )
    return found


def normals_among(detector: Detector, scans: Iterable[Any]) -> list[Any]:
    """Return the scans, or files, that a detector has seen and does not know to be abnormal."""
    ids = {scan.id for scan in detector.scans if not any(word in scan.annotation for word in ABNORMAL)}
    return [files for files in scans if name_of(files) in ids]


def each_left_out(
    scans: Iterable[Any], fit: Callable[[list[Any]], Detector], told: Callable[[str], Any] = log.info
) -> Iterator[Pair]:
    """Yield each scan with a detector that was fitted on those of all other subjects.

    Args:
        scans: Scans or their files, all normal.
        fit: Gives a detector of some of them, as the one that is to be calibrated was fitted.
        told: Told in words who is left out.

    Raises:
        SettingsError: All are one subject's.
    """
    listed = sorted(scans, key=subject_of)
    groups = [list(group) for _, group in groupby(listed, subject_of)]
    if len(groups) < 2:
        raise SettingsError("leave-one-out needs scans of at least two subjects")
    for number, group in enumerate(groups):
        told(f"fitting without {subject_of(group[0])}, {number + 1} of {len(groups)}")
        judge = fit([files for files in listed if files not in group])
        yield from ((judge, files) for files in group)


__all__ = ["CalibrateSettings", "each_left_out", "held_out_by", "measured", "normals_among", "validated_on"]
