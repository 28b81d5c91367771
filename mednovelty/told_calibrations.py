"""What a folder of maps knows of the calibrations that its p-values are from: ``OUT/calibration.json``.

    {"Calibrations": {sha256: what Calibration.told tells, ...}}

One folder may hold maps of several detectors, or of one before and after it was calibrated again. The sidecar
of each map names its calibration, ``Calibration.Sha256``, and the map is held against that one and no other.
Before there could be several, the one record was the whole file; it is still read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mednovelty.calibrate.files import RECORD
from mednovelty.errors import ScanError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.outputs import told
from mednovelty.segment.controls import Controls
from mednovelty.store import json_types

log = logging.getLogger("mednovelty")


@dataclass(frozen=True, eq=False)
class ToldCalibrations:
    """The calibrations that a folder of maps knows of.

    Attributes:
        path: The file.
        records: By sha256 of the calibration, see ``Calibration.told``.
    """

    path: Path
    records: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, out: Path) -> ToldCalibrations:
        """Return what a folder knows; nothing where there is no file.

        Raises:
            ScanError: The file is damaged (``calibration.damaged``).
        """
        path = out / RECORD
        if not path.exists() and not path.is_symlink():
            return cls(path, {})
        content = told(path) or {}
        found = content.get("Calibrations", _of_one(content))
        if not isinstance(found, dict) or not all(
            isinstance(one, dict) and isinstance(one.get("Scores"), dict) for one in found.values()
        ):
            raise ScanError(
                f"{path}: damaged; score the scans again: maps that stand are kept, and it is written anew",
                code="calibration.damaged",
            )
        return cls(path, found)

    def table(self, score: str, sidecar: Mapping[str, Any]) -> tuple[Controls, str]:
        """Return what the calibration scans show of a score, and the sha256 of all that it is read from.

        A calibration scan is held against the others, where there are any: it is no control of its own.

        Args:
            score: Which.
            sidecar: Of the map, which names its calibration, and its image, ``InputSha256``.

        Raises:
            ScanError: It names none, or one that is not there (``calibration.missing``); or the record is
                damaged.
        """
        sha256 = calibration_named(sidecar)
        if sha256 is None:
            raise ScanError(
                f"{score}: there are p-values, but the map's sidecar does not say of which calibration; "
                "score the scan again with --overwrite",
                code="calibration.missing",
            )
        record = self.records.get(sha256)
        if record is None or score not in record["Scores"]:
            raise ScanError(
                f"{self.path}: knows nothing of the calibration {sha256[:12]} that the p-values of {score} "
                "are from, so that no cluster can be held against calibration scans; score the scans again "
                "with that detector, or combine again, which tells it anew, or give --no-cluster-size",
                code="calibration.missing",
            )
        controls = Controls.from_told(record, score, str(self.path))
        shared = {key: value for key, value in record.items() if key != "Scores"}
        text = json.dumps([shared, record["Scores"][score]], sort_keys=True)
        images, own = record.get("ImagesSha256"), sidecar.get("InputSha256")
        if own and isinstance(images, list) and own in images[: len(controls)] and len(controls) > 1:
            controls = controls.without(images.index(own))
        return controls, hashlib.sha256(text.encode()).hexdigest()


def calibration_named(sidecar: Mapping[str, Any]) -> str | None:
    """Return the sha256 of the calibration that a map's sidecar names; None where it names none."""
    found = sidecar.get("Calibration")
    sha256 = found.get("Sha256") if isinstance(found, dict) else None
    return sha256 if isinstance(sha256, str) else None


def tell_calibration(out: Path, record: Mapping[str, Any]) -> None:
    """Write what is told of a calibration into a folder of maps; what is told of others stays.

    Args:
        out: The folder.
        record: See ``Calibration.told``. Scores that the folder knows of the same calibration stay, too.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        standing = dict(ToldCalibrations.read(out).records)
    except ScanError as error:
        log.warning("%s; it is written anew, with the calibration %s alone", error,
                    record["Sha256"][:12])  # fmt: skip
        standing = {}
    known = standing.get(record["Sha256"], {}).get("Scores", {})
    standing[record["Sha256"]] = {**record, "Scores": {**known, **record["Scores"]}}
    content = json_types({"Calibrations": dict(sorted(standing.items()))})
    write_text_atomic(out / RECORD, json.dumps(content, indent=1) + "\n")


def _of_one(content: Mapping[str, Any]) -> Any:
    """Return by calibration what a file of one record tells: its scores may be of combinations, too."""
    scores = content.get("Scores")
    if not isinstance(scores, dict) or not all(isinstance(one, dict) for one in scores.values()):
        return None
    found: dict[str, dict[str, Any]] = {}
    for score, one in scores.items():
        sha256 = str(one.get("Sha256", content.get("Sha256", "")))
        record = found.setdefault(sha256, {**content, "Sha256": sha256, "Scores": {}})
        record["Scores"][score] = one
    return found


__all__ = ["ToldCalibrations", "calibration_named", "tell_calibration"]
