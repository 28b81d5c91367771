"""Small calibrations made of arrays, without a detector."""

import numpy as np

from mednovelty.calibrate.calibration import Calibration, CalibrationScan
from mednovelty.calibrate.scan_maps import write_scan_maps

AFFINE = np.array([[-2.0, 0, 0, 9], [0, 1.5, 0, -7], [0, 0, 3.0, 4], [0, 0, 0, 1]])
"""Voxels of 9 mm3."""
SHAPE = (9, 7, 5)
DETECTOR = "d" * 64


def scan_of(folder, number, values, **more):
    """Write a scan's maps: ``values`` by score, ``(n,)``, in the first n voxels of a mask with holes."""
    count = len(next(iter(values.values())))
    mask = np.zeros(SHAPE, bool)
    mask.ravel()[np.arange(0, 2 * count, 2) if 2 * count <= mask.size else np.arange(count)] = True
    folder.mkdir(parents=True, exist_ok=True)
    file, sha256 = write_scan_maps(folder, number, mask=mask, affine=AFFINE, values=values, **more)
    id = f"sub-c{number + 1:02d}"
    return CalibrationScan(id, f"{number:064x}", count, 9.0, file, sha256)


def calibration_of(folder, scans, **more):
    """Return a calibration of ``{score: values}`` for each scan; ``folder`` is the detector's."""
    made = [scan_of(folder / "calibration", number, values) for number, values in enumerate(scans)]
    more = {"detector_sha256": DETECTOR, "settings": {"maps": {"median_px": 1}}} | more
    return Calibration.of(made, list(scans[0]), folder / "calibration", **more)
