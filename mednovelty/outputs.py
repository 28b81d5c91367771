"""The files of one scored scan: their names, what a sidecar tells, and whether they are done.

``OUT/<subject>/[<session>/]dwi/<id>_desc-<score>_novelty.nii.gz`` with a ``.json`` beside it that is
written last: its presence, with hashes that match, means done.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty.abnormality import annotation_of, told_of_score
from mednovelty.io.guard import sha256_of_file
from mednovelty.preprocess.qspace import describe
from mednovelty.reference import device_of
from mednovelty.scan import Scan
from mednovelty.searches import told_of
from mednovelty.store import json_types

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import ScanFiles
    from mednovelty.maps import NoveltyMap

PACKAGES = ("mednovelty", "torch", "numpy", "nibabel", "dipy", "faiss-cpu")
ENDINGS = ("_novelty.json", "_novelty.nii.gz", "_why.nii.gz", "_pvalue.nii.gz", "_z.nii.gz", "_mask.json",
           "_mask.nii.gz", "_dseg.nii.gz", "_dseg.seg.nrrd", "_clusters.tsv")  # fmt: skip
"""Of a scan's sidecars, maps and what says why; sidecars first: a map without one counts as unfinished."""


@dataclass(frozen=True)
class OutputNames:
    """Where the files of one scan go.

    Attributes:
        folder: Of all of them.
        stem: How their names begin.
        sources: The images that the scan is read from.
    """

    folder: Path
    stem: str
    sources: tuple[Path, ...] = ()

    @classmethod
    def of(cls, files: ScanFiles, out: Path) -> OutputNames:
        """Return the names of a scan's files: BIDS entities as folders, the whole id as the stem."""
        entities = dict(files.entities)
        levels = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities] or [files.id]
        images = tuple(path for _, path in files.contrasts) or (files.image,)
        return cls(out.joinpath(*levels, "anat" if files.contrasts else "dwi"), files.id, images)

    def map(self, score: str) -> Path:
        """The map of one score."""
        return self.folder / f"{self.stem}_desc-{score}_novelty.nii.gz"

    def sidecar(self, score: str) -> Path:
        """What is told about that map; written last."""
        return self.folder / f"{self.stem}_desc-{score}_novelty.json"

    def image(self, score: str, name: str) -> Path:
        """A further image of a score that says why, such as ``attention-1``."""
        return self.folder / f"{self.stem}_desc-{score}_{name}_why.nii.gz"

    def calibrated(self, score: str, kind: str = "pvalue") -> Path:
        """The map of a score as held-out normals see it: ``pvalue``, -log10 p, or ``z``."""
        return self.folder / f"{self.stem}_desc-{score}_{kind}.nii.gz"

    @property
    def background(self) -> Path:
        """The image to draw maps on."""
        return self.folder / f"{self.stem}_desc-background.nii.gz"

    @property
    def mask(self) -> Path:
        """The brain mask that was used."""
        return self.folder / f"{self.stem}_desc-brain_mask.nii.gz"

    def sidecars(self) -> list[Path]:
        """Return the sidecars that stand, of whatever score."""
        return [path for path in self._standing(ENDINGS[0]) if path.is_file()]

    def clear(self) -> None:
        """Remove every map and sidecar of the scan, of whatever score; an ``OSError`` goes through."""
        for path in [path for ending in ENDINGS for path in self._standing(ending)]:
            if path != self.mask:  # Of the brain; a segmentation's ends as it does.
                path.unlink(missing_ok=True)

    def _standing(self, ending: str) -> list[Path]:
        # Not by a pattern: the maps of sub-01_desc-preproc begin as those of sub-01 do.
        entries = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []
        names = [name for name in entries if name.endswith(ending)]
        return [self.folder / name for name in names if name.rpartition("_desc-")[0] == self.stem]


def settings_of(detector: Detector, options: ReadOptions) -> dict[str, Any]:
    """Return the settings that shape a scan's scores, as JSON types.

    Limits on what is read, as ``options.nifti`` has them, are left out: they refuse a scan or do nothing.
    """
    names = ("draws", "batch_voxels", "neighbours", "knn")
    scoring = {name: getattr(detector.settings, name) for name in names} | {"seed": detector.seed}
    scoring["maps"] = asdict(detector.settings.maps)
    nln = detector.settings.nln
    scoring["nln"] = {"k": nln.k, "alpha": nln.alpha, "reverse": nln.reverse}
    reading = asdict(options)
    del reading["nifti"]
    return json_types({"scoring": scoring, "reading": reading})


def settings_sha256(detector: Detector, options: ReadOptions) -> str:
    """Return the sha256 of ``settings_of`` as JSON with sorted keys and no blanks."""
    text = json.dumps(settings_of(detector, options), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(detector: Detector, files: ScanFiles, options: ReadOptions, image_sha256: str) -> dict[str, str]:
    """Return the hashes that a finished map must carry to count as done."""
    beside = [path for path in (files.bval, files.bvec, files.grad_b, files.mask) if path is not None]
    return {
        "InputSha256": image_sha256,
        "BesideSha256": " ".join(sha256_of_file(path) for path in beside),
        "DetectorSha256": detector.sha256,
        "SettingsSha256": settings_sha256(detector, options),
    }


@dataclass(frozen=True)
class WantedMaps:
    """Which maps of p-values are to stand beside raw maps.

    Attributes:
        key: Hashes of the calibration and of what it needs to know of the scan; empty: there is none.
        scores: Those that it knows.
        kinds: ``pvalue``, and ``z`` where it is asked for.
    """

    key: str = ""
    scores: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("pvalue",)

    def of(self, score: str) -> tuple[str, ...]:
        """Return the kinds of maps of a score."""
        return self.kinds if score in self.scores else ()


def state_of(
    place: OutputNames, wanted: Sequence[str], key: dict[str, str], calibrated: WantedMaps | None = None
) -> str:
    """Return ``done``, ``absent``, or what the maps there are, of any score, were made from.

    That is ``other``, something else, or ``recalibrated``: raw maps are the same, but another calibration, or
    other regions, made their p-values, or none are asked for. Raw maps that stand without p-values are
    neither: the p-values are what is absent.
    """
    told_by = {path: told(path) for path in place.sidecars()}
    known = [facts for facts in told_by.values() if facts is not None]
    if any(facts.get(field) != value for facts in known for field, value in key.items()):
        return "other"
    calibrated = calibrated or WantedMaps()
    if any(_told_of_calibration(facts).get("Key", calibrated.key) != calibrated.key for facts in known):
        return "recalibrated"
    whole = all(_is_whole(place, name, told_by.get(place.sidecar(name)), calibrated) for name in wanted)
    return "done" if whole and place.mask.is_file() and place.background.is_file() else "absent"


def _told_of_calibration(facts: dict[str, Any]) -> dict[str, Any]:
    found = facts.get("Calibration")
    return found if isinstance(found, dict) else {}


def told(sidecar: Path) -> dict[str, Any] | None:
    """Return what a sidecar tells; None where it cannot be read, as after a crash."""
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else {}


def _is_whole(place: OutputNames, name: str, facts: dict[str, Any] | None, calibrated: WantedMaps) -> bool:
    """Whether a map, and what says why, are those that its sidecar tells of.

    A map without a sidecar is what an unfinished run leaves.
    """
    images = (facts or {}).get("Images", {})
    if facts is None or not isinstance(images, dict):
        return False
    hashes = {place.image(name, image): sha256 for image, sha256 in images.items()}
    hashes[place.map(name)] = facts.get("MapSha256")
    files = _told_of_calibration(facts).get("Files", {})
    if not isinstance(files, dict) or not set(calibrated.of(name)) <= set(files):
        return False
    hashes |= {place.calibrated(name, kind): sha256 for kind, sha256 in files.items()}
    return all(
        not path.is_symlink() and path.is_file() and sha256_of_file(path) == sha256
        for path, sha256 in hashes.items()
    )


def sidecar_of(
    detector: Detector, scan: Scan, novelty: NoveltyMap, place: OutputNames, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return what is told about one map; ``facts`` holds what is the run's: hashes, time, memory."""
    reference = detector.reference
    return {
        "Description": f"{novelty.score}: {novelty.about.get('description', '')}",
        "ScanId": scan.id,
        "Sources": [relative_to(path, place.folder) for path in place.sources],
        "Score": {**novelty.about, **told_of_score(detector, novelty.about)},
        "Calibration": None,
        "Threshold": None,
        "Detector": {
            "Sha256": detector.sha256,
            "Folder": None if detector.folder is None else relative_to(detector.folder, place.folder),
            "Method": detector.settings.method,
            "ReferenceVoxels": len(reference),
            "ReferenceDrawnFrom": reference.drawn_from,
            "Neighbours": told_of(reference),
        },
        "AnnotatedInTraining": annotation_of(detector, scan),
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
        "SliceAxis": detector.slice_axis(scan),
        "Environment": environment(detector),
        "Fallbacks": list(novelty.fallbacks),
        "Warnings": list(scan.warnings),
        **facts,
    }


def environment(detector: Detector | None = None) -> dict[str, Any]:
    """Return versions, device and numeric settings, as sidecars tell them."""
    import torch

    facts: dict[str, Any] = {"Python": platform.python_version(), "Device": "cpu", "Dtype": "float32"}
    if detector is not None:
        facts |= {"Device": str(device_of(detector.model)), "Dtype": detector.settings.maps.precision}
    facts |= {package: _version(package) for package in PACKAGES}
    facts["Threads"] = torch.get_num_threads()
    if detector is not None:
        facts |= {"Seed": detector.seed, "BatchVoxels": detector.settings.batch_voxels}
        facts["Draws"] = detector.settings.draws
    return facts


@cache
def _version(package: str) -> str | None:
    # What this process has imported stays what it is, whatever is installed meanwhile.
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_mib() -> float:
    """Return the most memory this process has held so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def relative_to(path: Path, folder: Path) -> str:
    """Return the way from a folder to a file, links followed: what sidecars tell of other files."""
    return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder))).as_posix()


def command_line() -> str:
    """Return how the program was called, as a shell would take it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
