"""What scoring leaves on disk: names, sidecars, and whether a map is done.

``OUT/<subject>/[<session>/]dwi/<id>_desc-<score>_novelty.nii.gz`` with a ``.json`` beside it that is
written last: its presence, with hashes that match, means done.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.guard import GuardedFile
from mednovelty.preprocess.qspace import describe
from mednovelty.scan import Scan

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.io.scan_folder import ScanFiles
    from mednovelty.maps import NoveltyMap

PACKAGES = ("mednovelty", "torch", "numpy", "nibabel", "dipy", "faiss-cpu")
BLOCK_BYTES = 1 << 20
BIDSIGNORE = (
    "*_novelty.nii.gz\n*_novelty.json\n*_desc-background.nii.gz\nrun.json\nfailures.tsv\nlogs\nevaluation\n"
)


@dataclass(frozen=True)
class OutputNames:
    """Where the files of one scan go."""

    folder: Path
    stem: str

    @classmethod
    def of(cls, files: ScanFiles, out: Path) -> OutputNames:
        """Return the names of a scan's files: BIDS entities as folders, the whole id as the stem."""
        entities = dict(files.entities)
        levels = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities] or [files.id]
        return cls(out.joinpath(*levels, "dwi"), files.id)

    def map(self, score: str) -> Path:
        """The map of one score."""
        return self.folder / f"{self.stem}_desc-{score}_novelty.nii.gz"

    def sidecar(self, score: str) -> Path:
        """What is told about that map; written last."""
        return self.folder / f"{self.stem}_desc-{score}_novelty.json"

    @property
    def background(self) -> Path:
        """The image to draw maps on."""
        return self.folder / f"{self.stem}_desc-background.nii.gz"

    @property
    def mask(self) -> Path:
        """The brain mask that was used."""
        return self.folder / f"{self.stem}_desc-brain_mask.nii.gz"


def key_of(detector: Detector, files: ScanFiles, image_sha256: str) -> dict[str, str]:
    """Return the hashes that a finished map must carry to count as done."""
    beside = [path for path in (files.bval, files.bvec, files.grad_b, files.mask) if path is not None]
    return {
        "InputSha256": image_sha256,
        "BesideSha256": " ".join(sha256_of_file(path) for path in beside),
        "DetectorSha256": detector.sha256,
    }


def state_of(place: OutputNames, wanted: Sequence[str], key: dict[str, str]) -> str:
    """Return ``done``, ``absent``, or ``other``: there are maps, but made from something else."""
    states = [_map_state(place, name, key) for name in wanted]
    if "other" in states:
        return "other"
    finished = (
        all(state == "done" for state in states) and place.mask.is_file() and place.background.is_file()
    )
    return "done" if finished else "absent"


def _map_state(place: OutputNames, name: str, key: dict[str, str]) -> str:
    path = place.map(name)
    if not place.sidecar(name).is_file():
        # A map without a sidecar is what an unfinished run leaves: it is done again.
        return "absent"
    try:
        told = json.loads(place.sidecar(name).read_text())
    except (OSError, ValueError, RecursionError):
        return "absent"
    if not isinstance(told, dict) or any(told.get(field) != value for field, value in key.items()):
        return "other"
    whole = path.is_file() and not path.is_symlink() and sha256_of_file(path) == told.get("MapSha256")
    return "done" if whole else "absent"


def sidecar_of(
    detector: Detector, scan: Scan, novelty: NoveltyMap, place: OutputNames, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return what is told about one map; ``facts`` holds hashes and the run's time and memory."""
    reference = detector.reference
    return {
        "Description": f"{novelty.score}: {novelty.about.get('description', '')}",
        "ScanId": scan.id,
        "Sources": [_relative(scan.source, place.folder)] if scan.source else [],
        "Score": novelty.about,
        "Calibration": None,
        "Threshold": None,
        "Detector": {
            "Sha256": detector.sha256,
            "Method": detector.settings.method,
            "ReferenceVoxels": len(reference),
            "ReferenceDrawnFrom": reference.drawn_from,
            "Neighbours": reference.neighbours,
        },
        "Gradients": None if scan.gradients is None else {"Scheme": describe(scan.gradients.bvals)},
        "Mask": {"Source": scan.mask_source, "Voxels": scan.n_voxels},
        "Geometry": {
            "Shape": list(scan.grid.shape),
            "SpacingMm": scan.grid.spacing_mm.round(6),
            "Affine": scan.grid.affine,
        },
        "GeneratedBy": {
            "Name": "mednovelty",
            "Version": version("mednovelty"),
            "CommandLine": command_line(),
        },
        "Environment": environment(detector),
        "Fallbacks": [],
        "Warnings": list(scan.warnings),
        **facts,
    }


def environment(detector: Detector | None = None) -> dict[str, Any]:
    """Return versions, device and numeric settings, as sidecars tell them."""
    import torch

    facts: dict[str, Any] = {"Python": platform.python_version(), "Device": "cpu", "Dtype": "float32"}
    facts |= {package: _version(package) for package in PACKAGES}
    facts["Threads"] = torch.get_num_threads()
    if detector is not None:
        facts |= {"Seed": detector.seed, "BatchVoxels": detector.settings.batch_voxels}
        facts["Draws"] = detector.settings.draws
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_mib() -> float:
    """Return the most memory this process has held so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def write_folder_facts(out: Path) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore``."""
    generated = {"Name": "mednovelty", "Version": version("mednovelty")}
    described = {
        "Name": "Novelty maps",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [generated],
    }
    write_text_atomic(out / "dataset_description.json", json.dumps(described, indent=2) + "\n")
    write_text_atomic(out / ".bidsignore", BIDSIGNORE)


def command_line() -> str:
    """Return how the program was called, as a shell would take it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a regular file's bytes, 64 hexadecimal digits.

    Raises:
        ScanError: The file is absent, unreadable, or a pipe or device, which might never end.
    """
    with GuardedFile(path, hashed=True) as file:
        while file.read(BLOCK_BYTES):
            pass
        return file.sha256
