"""A calibration on disk, in the folder of its detector.

``MODEL/calibration.json``          ``CalibrationRecord``; written last, so that with it all is whole
``MODEL/calibration.safetensors``   nulls, and what each scan shows
``MODEL/calibration/``              the maps of the scans

It is a detector's own: it names that detector's sha256 and how it scored, and is refused for any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mednovelty.calibrate.calibration import Calibration, CalibrationScan
from mednovelty.calibrate.healthy_scans import THRESHOLDS_P, HealthyScans
from mednovelty.calibrate.null import Null
from mednovelty.calibrate.nulls import ALL
from mednovelty.calibrate.regions import LEVELS, Regions
from mednovelty.errors import DetectorError, OutputError
from mednovelty.io.atomic import write_bytes_atomic, write_text_atomic
from mednovelty.store import json_types, one_line, read_json

RECORD, TENSORS, SCANS = "calibration.json", "calibration.safetensors", "calibration"
SCHEMA_VERSION = 1
_HASH = "^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ScanRecord(_Strict):
    """One calibration scan."""

    id: str
    sha256: str
    n_voxels: int = Field(gt=0)
    voxel_mm3: float = Field(gt=0)
    file: str = Field(pattern=r"^scan-[0-9]{3,}-[0-9a-f]{12}\.safetensors$")
    file_sha256: str = Field(pattern=_HASH)


class RegionsRecord(_Strict):
    """How voxels are told apart."""

    kind: Literal["one", "classes", "labels"]
    features: list[str]
    cuts: list[list[float]]


class CalibrationRecord(_Strict):
    """All of a calibration but its numbers."""

    schema_version: Literal[1] = 1
    detector_sha256: str = Field(pattern=_HASH)
    settings: dict[str, Any]
    method: Literal["validation scans", "held-out scans", "leave-one-scan-out"]
    scores: dict[str, list[str]] = Field(min_length=1, description="the regions of each that have a null")
    samples: dict[str, list[int]] = Field(
        default_factory=dict, description="of scores with one value a sample, how many each scan has"
    )
    regions: RegionsRecord
    thresholds_p: list[float]
    scans: list[ScanRecord] = Field(min_length=1)
    tensors_sha256: str = Field(pattern=_HASH)
    version: str


def save_calibration(calibration: Calibration, model: Path) -> Calibration:
    """Write a calibration into a detector's folder, where its scans' maps are; return it with its sha256.

    Raises:
        OutputError: It cannot be written.
    """
    tensors: dict[str, np.ndarray] = {}
    for score, nulls in calibration.nulls.items():
        for region, null in nulls.items():
            tensors |= {f"null/{score}/{region}/{name}": one for name, one in null.arrays().items()}
        healthy = calibration.healthy[score].arrays()
        tensors |= {f"healthy/{score}/{name}": np.ascontiguousarray(one) for name, one in healthy.items()}
    content = save(tensors)
    regions = calibration.regions
    record = CalibrationRecord(
        detector_sha256=calibration.detector_sha256,
        settings=json_types(dict(calibration.settings)),
        method=calibration.method,  # type: ignore[arg-type]
        scores={score: list(nulls) for score, nulls in calibration.nulls.items()},
        samples={score: list(counts) for score, counts in calibration.samples.items()},
        regions=RegionsRecord(
            kind=regions.kind, features=list(regions.features), cuts=[list(cut) for cut in regions.cuts]
        ),
        thresholds_p=THRESHOLDS_P.tolist(),
        scans=[ScanRecord(**asdict(scan)) for scan in calibration.scans],
        tensors_sha256=hashlib.sha256(content).hexdigest(),
        version=version("mednovelty"),
    )
    text = record.model_dump_json(indent=2) + "\n"
    try:
        (model / RECORD).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{model / RECORD}: cannot be replaced: {error.strerror}") from error
    write_bytes_atomic(model / TENSORS, content)
    write_text_atomic(model / RECORD, text)
    _remove_strangers(model, {scan.file for scan in calibration.scans})
    return replace(calibration, sha256=hashlib.sha256(text.encode()).hexdigest(), folder=model / SCANS)


def load_calibration(model: Path) -> Calibration | None:
    """Return the calibration in a detector's folder; None where there is none.

    Raises:
        DetectorError: It is damaged, or a newer version wrote it.
    """
    path = model / RECORD
    if not path.exists() and not path.is_symlink():
        return None
    content, sha256 = read_json(path, "calibration")
    record = _validated(path, content)
    tensors = _tensors(model / TENSORS, record.tensors_sha256)
    for scan in record.scans:
        if not (model / SCANS / scan.file).is_file():
            raise DetectorError(f"{model / SCANS / scan.file}: is missing; calibrate the detector again")
    try:
        return _of(record, tensors, model / SCANS, sha256)
    except (ValueError, KeyError) as error:
        raise DetectorError(f"{model / TENSORS}: cannot be put together: {one_line(error)}") from error


def remove_calibration(model: Path) -> None:
    """Remove a calibration and all that belongs to it.

    The record goes first: what is left without it counts as nothing.

    Raises:
        OutputError: It cannot be removed.
    """
    try:
        for name in (RECORD, TENSORS):
            (model / name).unlink(missing_ok=True)
        _remove_strangers(model, set())
    except OSError as error:
        raise OutputError(f"{model}: its calibration cannot be removed: {error.strerror}") from error
    with contextlib.suppress(OSError):  # Somebody else's file may lie there.
        (model / SCANS).rmdir()


def check_fits(
    calibration: Calibration, detector_sha256: str, settings: Mapping[str, Any], path: Path
) -> None:
    """Raise unless a calibration is one of a detector that scores in a certain way.

    Args:
        calibration: What was read.
        detector_sha256: Of the detector.
        settings: How it scores, as ``Calibration.settings`` tells it.
        path: What messages call the calibration.

    Raises:
        DetectorError: It is another detector's, or that detector scored with other settings.
    """
    if calibration.detector_sha256 != detector_sha256:
        raise DetectorError(
            f"{path}: belongs to another detector ({calibration.detector_sha256[:12]}, and this is "
            f"{detector_sha256[:12]}); calibrate this one: mednovelty calibrate, or score with "
            "--no-calibration"
        )
    for name, there, here in _differences(dict(calibration.settings), json_types(dict(settings))):
        raise DetectorError(
            f"{path}: the detector was calibrated with {name}={there}, and is to score with {here}: its "
            "p-values would be wrong; calibrate again with that setting, or score with --no-calibration"
        )


def _differences(there: Any, here: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        pairs = [(f"{name}.{key}".lstrip("."), there.get(key), here.get(key)) for key in keys]
        return [row for key, a, b in pairs for row in _differences(a, b, key)]
    return [] if there == here else [(name, json.dumps(there), json.dumps(here))]


def _validated(path: Path, content: Any) -> CalibrationRecord:
    told = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(told, int) and told > SCHEMA_VERSION:
        raise DetectorError(f"{path}: written in format {told}; this version reads up to {SCHEMA_VERSION}")
    try:
        record = CalibrationRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        words = " ".join(f"{place}: {first['msg']}".split())
        raise DetectorError(f"{path}: not a calibration's record: {words}") from error
    ids = [scan.id for scan in record.scans]
    shape = (len(record.regions.features), *(len(cut) for cut in record.regions.cuts))
    classes = record.regions.kind == "classes"
    wrong = (
        "scans: two have one id" if len(set(ids)) != len(ids)
        else "thresholds_p: not those of this version" if record.thresholds_p != THRESHOLDS_P.tolist()
        else "regions: not two cuts for each feature"
        if shape != (len(record.regions.cuts), *[len(LEVELS) - 1] * len(record.regions.cuts))
        or bool(record.regions.cuts) != classes
        or any(cut != sorted(cut) for cut in record.regions.cuts)
        else "scores: each needs the null of all voxels, and of regions by number" if any(
            regions[:1] != [ALL]
            or not all(region.isascii() and region.isdigit() for region in regions[1:])
            or (len(regions) > 1 and record.regions.kind == "one")
            for regions in record.scores.values()
        )
        else "samples: not of a score that is there, or with regions of their own"
        if any(len(record.scores.get(score, ())) != 1 for score in record.samples)
        else ""
    )  # fmt: skip
    if wrong:
        raise DetectorError(f"{path}: not a calibration's record: {wrong}")
    return record


def _tensors(path: Path, sha256: str) -> dict[str, np.ndarray]:
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DetectorError(f"{path}: damaged: its sha256 is not the one in {RECORD}")
        return dict(load(content))
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DetectorError(f"{path}: cannot be read: {one_line(error)}") from error


def _of(
    record: CalibrationRecord, tensors: Mapping[str, np.ndarray], folder: Path, sha256: str
) -> Calibration:
    nulls = {
        score: {region: Null.from_arrays(_below(tensors, f"null/{score}/{region}/")) for region in regions}
        for score, regions in record.scores.items()
    }
    healthy = {
        score: HealthyScans.from_arrays(_below(tensors, f"healthy/{score}/")) for score in record.scores
    }
    scans = tuple(CalibrationScan(**scan.model_dump()) for scan in record.scans)
    voxels = [scan.n_voxels for scan in scans]
    for score in record.scores:
        counts, what = record.samples.get(score, voxels), "samples" if score in record.samples else "voxels"
        if (
            len(counts) != len(scans)
            or nulls[score][ALL].n != sum(counts)
            or len(healthy[score].max_score) != len(scans)
        ):
            raise ValueError(f"{score}: not of the {sum(counts)} {what} of {len(scans)} scans")
    regions = Regions(
        record.regions.kind,
        tuple(record.regions.features),
        tuple((low, high) for low, high in record.regions.cuts),
    )
    return Calibration(nulls, healthy, scans, regions, record.method, record.detector_sha256,
                       record.settings, folder, sha256,
                       {score: tuple(counts) for score, counts in record.samples.items()})  # fmt: skip


def _below(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _remove_strangers(model: Path, kept: set[str]) -> None:
    """Remove maps of earlier calibrations; only what is named as one."""
    for path in sorted((model / SCANS).glob("scan-*.safetensors")):
        if path.name not in kept:
            path.unlink(missing_ok=True)


__all__ = ["RECORD", "SCANS", "TENSORS", "check_fits", "load_calibration", "remove_calibration",
           "save_calibration"]  # fmt: skip
