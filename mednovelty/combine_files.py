"""One scan as several scores have mapped it: its maps, whether they fit, and what their combination tells.

A combination's files are those of any score: ``<id>_desc-fisher_novelty.nii.gz`` with its sidecar, which says
under ``Combination`` of which scores, ``_pvalue.nii.gz``, and what segmentation makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.combine.calibrated import Member, key_of
from mednovelty.combine.statistics import combination
from mednovelty.errors import ScanError
from mednovelty.evaluation.files import read_sidecar
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.io.guard import sha256_of_file, shown
from mednovelty.io.mask import read_mask
from mednovelty.io.nifti import volume_of
from mednovelty.io.nifti_source import DEFAULTS
from mednovelty.io.readers import open_image
from mednovelty.outputs import OutputNames, command_line, environment, relative_to, told
from mednovelty.segment_files import SegmentNames
from mednovelty.store import json_types

SAME = ("InputSha256", "BesideSha256", "DetectorSha256", "SettingsSha256")
"""Hashes that a combination has where all that it is made of share them."""
FIRST = ("ScanId", "Gradients", "Geometry", "SliceAxis")
"""What a combination's sidecar has from that of the first score."""


@dataclass(frozen=True, eq=False)
class ScanToCombine:
    """One scan, as all K members have scored it.

    Attributes:
        id: Of the scan.
        place: Where its combinations go.
        members: The scores, in the order in which they are combined.
        sidecars: Of each member's map.
        pvalues: The map of p-values of each.
        brains: The brain mask of each folder.
    """

    id: str
    place: OutputNames
    members: Sequence[Member]
    sidecars: Sequence[Mapping[str, Any]]
    pvalues: Sequence[Path]
    brains: Sequence[Path]

    @classmethod
    def of(
        cls,
        id: str,
        scans: Mapping[str, ScoredScan | None],
        members: Sequence[Member],
        out: Path,
        *,
        other_images: bool,
    ) -> ScanToCombine:
        """Return a scan's files.

        Args:
            id: Of the scan.
            scans: What each folder has of it, by ``Member.where``.
            members: In their order.
            out: Where combinations go.
            other_images: Whether its maps may be of different images.

        Raises:
            ScanError: A folder has no maps of it, or none with p-values of the member's calibration; or they
                are of different images.
        """
        found: dict[str, ScoredScan] = {}
        for where, scan in scans.items():
            if scan is None:
                raise ScanError(f"{id}: there are no maps of it in {where}", code="combine.missing")
            found[where] = scan
        names = [_names_of(id, member, found[member.where]) for member in members]
        sidecars = [read_sidecar(one.novelty_sidecar) for one in names]
        for member, sidecar, one in zip(members, sidecars, names, strict=True):
            _check_calibrated(id, member, sidecar, one.pvalue)
        images = {m.where: str(s.get("InputSha256")) for m, s in zip(members, sidecars, strict=True)}
        if len(set(images.values())) > 1 and not other_images:
            told_of = "; ".join(f"{where}: {sha256[:12]}" for where, sha256 in images.items())
            raise ScanError(
                f"{id}: its maps are of different images ({told_of}); if they are images of one session, on "
                "one grid, add --other-images",
                code="combine.images",
            )
        where, first = next(iter(found.items()))
        folder = out / first.brain.parent.relative_to(where)
        place = OutputNames(folder, first.brain.name.rpartition("_desc-")[0])
        return cls(id, place, members, sidecars, [one.pvalue for one in names],
                   [one.brain for one in found.values()])  # fmt: skip

    def about(self, name: str) -> dict[str, Any]:
        """Return, as JSON types, what tells a combination from another one of that name."""
        of = [
            {
                "Score": member.score,
                "DetectorSha256": member.calibration.detector_sha256,
                "CalibrationSha256": member.calibration.sha256,
                "InputSha256": sidecar.get("InputSha256"),
                "PvalueSha256": sidecar["Calibration"]["Files"]["pvalue"],
            }
            for member, sidecar in zip(self.members, self.sidecars, strict=True)
        ]
        return {"By": name, "Key": key_of(self.members), "Of": json_types(of)}

    def state(self, name: str, *, with_z: bool) -> str:
        """Return ``done``, ``absent``, or ``other``: a map of that name stands that is of something else."""
        sidecar = told(self.place.sidecar(name))
        if sidecar is None:
            return "absent"
        if sidecar.get("Combination") != self.about(name):
            return "other"
        files = (sidecar.get("Calibration") or {}).get("Files") or {}
        if not {"pvalue", *(["z"] if with_z else [])} <= set(files):
            return "absent"
        hashes = {self.place.map(name): sidecar.get("MapSha256")}
        hashes |= {self.place.calibrated(name, kind): sha256 for kind, sha256 in files.items()}
        try:
            whole = all(path.is_file() and sha256_of_file(path) == sha256 for path, sha256 in hashes.items())
        except ScanError:  # An empty file, or none that can be read.
            return "absent"
        return "done" if whole and self.place.mask.is_file() else "absent"

    def calibration_key(self) -> str | None:
        """Return what the sidecars of all members say that p-values must be of; None where they differ."""
        keys = {sidecar["Calibration"].get("Key") for sidecar in self.sidecars}
        return keys.pop() if len(keys) == 1 else None

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ``(K, n)`` p-values, ``(I, J, K)`` the n voxels in the masks of all, and the affine.

        Raises:
            GeometryError: The maps lie on different voxels.
            ScanError: A map cannot be read or holds no p-values, or the masks do not meet.
        """
        volumes = [volume_of(open_image(path, DEFAULTS)) for path in self.pvalues]
        first = volumes[0]
        for volume, member in zip(volumes[1:], self.members[1:], strict=True):
            volume.grid.check_same(
                first.grid, f"{volume.name} in {member.where}", f"{first.name} in {self.members[0].where}"
            )
        inside = np.ones(first.grid.shape, bool)
        for brain in self.brains:
            inside &= read_mask(brain, first.grid, first.name)[0]
        if not inside.any():
            raise ScanError(
                f"{self.id}: no voxel of it lies in the masks of all folders", code="combine.mask"
            )
        surprise = np.stack([volume.data[0][inside] for volume in volumes]).astype(np.float64)
        for volume, row in zip(volumes, surprise, strict=True):
            if not np.isfinite(row).all() or (row < 0).any():
                raise ScanError(
                    f"{volume.name}: holds what is no -log10 of a p-value; score {self.id} again",
                    code="maps.pvalue",
                )
        return 10.0**-surprise, inside, first.affine

    def sidecar(
        self, name: str, calibrated: Mapping[str, Any] | None, voxels: int, notes: Sequence[str]
    ) -> dict[str, Any]:
        """Return what is told of the map of a combination, which stands.

        Args:
            name: Of the combination.
            calibrated: Of its p-values.
            voxels: In the mask.
            notes: What was left out when it was calibrated.
        """
        first, words = self.sidecars[0], combination(name).words
        scores = [sidecar["Score"] for sidecar in self.sidecars]
        names = [member.score for member in self.members]
        annotated = [text for sidecar in self.sidecars if (text := sidecar.get("AnnotatedInTraining"))]
        warnings = dict.fromkeys(text for sidecar in self.sidecars for text in sidecar.get("Warnings") or ())
        same = {key: {str(sidecar.get(key)) for sidecar in self.sidecars} for key in SAME}
        return {
            "Description": f"{name}: {words}, of {', '.join(names)}, calibrated again",
            **{key: first.get(key) for key in FIRST},
            "Mask": {**(first.get("Mask") or {}), "Voxels": voxels},
            "Sources": [relative_to(path, self.place.folder) for path in self.pvalues],
            "Score": {
                "name": name,
                "description": f"{words}, of {', '.join(names)}",
                "combination": names,
                "trivial": all(score.get("trivial", False) for score in scores),
                "semi_supervised": any(score.get("semi_supervised", False) for score in scores),
            },
            "Combination": self.about(name),
            "Calibration": calibrated,
            "Threshold": None,
            "AnnotatedInTraining": annotated[0] if annotated else None,
            "UnscoredVoxels": max(int(sidecar.get("UnscoredVoxels") or 0) for sidecar in self.sidecars),
            "Images": {},
            "MapSha256": sha256_of_file(self.place.map(name)),
            **{key: first.get(key) if len(values) == 1 else None for key, values in same.items()},
            "GeneratedBy": {
                "Name": "mednovelty",
                "Version": version("mednovelty"),
                "CommandLine": command_line(),
            },
            "Environment": environment(),
            "Fallbacks": [],
            "Warnings": [*warnings, *notes],
        }


def _names_of(id: str, member: Member, scan: ScoredScan) -> SegmentNames:
    if member.score not in scan.maps:
        raise ScanError(f"{id}: there is no map of {member.score} in {member.where}", code="combine.missing")
    return SegmentNames.beside(scan.maps[member.score])


def _check_calibrated(id: str, member: Member, sidecar: Mapping[str, Any], path: Path) -> None:
    found = sidecar.get("Calibration")
    files = found.get("Files") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(files, dict) or not path.is_file():
        raise ScanError(f"{id}: there are no p-values of {member.score} in {member.where}; score it again",
                        code="combine.pvalue")  # fmt: skip
    if found.get("Sha256") != member.calibration.sha256:
        raise ScanError(
            f"{shown(path)}: was made with another calibration than the one that stands; score {id} again "
            "with --overwrite",
            code="combine.calibration",
        )
    if files.get("pvalue") != sha256_of_file(path):
        raise ScanError(f"{shown(path)}: is not the map that its sidecar tells of; score {id} again",
                        code="maps.changed")  # fmt: skip


__all__ = ["ScanToCombine"]
