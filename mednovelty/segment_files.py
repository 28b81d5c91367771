"""The files of one segmented map: their names, how they are read and written, and whether they are current.

Beside a map, ``<id>_desc-<score>_novelty.nii.gz``, and its p-values, ``_pvalue.nii.gz``:

    _mask.nii.gz    1 in what is segmented
    _dseg.nii.gz    the number of each cluster
    _clusters.tsv   what is told of each
    _dseg.seg.nrrd  clusters as 3D Slicer's segments, which ``viewers`` makes of the two
    _mask.json      threshold, hashes and the scan's numbers; written last: with it all is whole
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import OutputError, ScanError
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.guard import sha256_of_file, shown
from mednovelty.io.mask import read_mask
from mednovelty.io.nifti import volume_of, write_map
from mednovelty.io.nifti_source import DEFAULTS
from mednovelty.io.readers import open_image
from mednovelty.outputs import command_line, told
from mednovelty.scan import Volume
from mednovelty.segment.segmentation import MapToSegment, Segmentation
from mednovelty.segment.table import clusters_tsv
from mednovelty.store import json_types

NOVELTY = "_novelty.nii.gz"


@dataclass(frozen=True)
class SegmentNames:
    """Where the files of one segmented map lie.

    Attributes:
        start: All of their names begin so, folder included: ``sub-01/dwi/sub-01_desc-elbo``.
    """

    start: str

    @classmethod
    def beside(cls, novelty: Path) -> SegmentNames:
        """Return the names beside a map."""
        return cls(str(novelty).removesuffix(NOVELTY))

    @property
    def novelty(self) -> Path:
        """The map itself."""
        return Path(f"{self.start}{NOVELTY}")

    @property
    def pvalue(self) -> Path:
        """-log10 p of the map."""
        return Path(f"{self.start}_pvalue.nii.gz")

    @property
    def mask(self) -> Path:
        """What is segmented."""
        return Path(f"{self.start}_mask.nii.gz")

    @property
    def labels(self) -> Path:
        """The number of each cluster."""
        return Path(f"{self.start}_dseg.nii.gz")

    @property
    def segments(self) -> Path:
        """The clusters as segments of 3D Slicer."""
        return Path(f"{self.start}_dseg.seg.nrrd")

    @property
    def clusters(self) -> Path:
        """What is told of each cluster."""
        return Path(f"{self.start}_clusters.tsv")

    @property
    def sidecar(self) -> Path:
        """What is told of all that; written last."""
        return Path(f"{self.start}_mask.json")

    @property
    def novelty_sidecar(self) -> Path:
        """The map's own sidecar, which tells the threshold, too."""
        return Path(f"{self.start}_novelty.json")


@dataclass(frozen=True, eq=False)
class ReadMap:
    """One map as it was read.

    Attributes:
        image: What is segmented.
        map_sha256: Of the map.
        pvalue_sha256: Of its p-values; None where there are none.
    """

    image: MapToSegment
    map_sha256: str
    pvalue_sha256: str | None


def read_map(scan: ScoredScan, score: str) -> ReadMap:
    """Return one map of a scan, with its p-values where there are any.

    Raises:
        ScanError: A file cannot be read, is not what its sidecar tells of, or holds what it cannot hold.
        GeometryError: Map, p-values and brain mask lie on other voxels than each other.
    """
    path = scan.maps[score]
    source = open_image(path, DEFAULTS)
    volume, known = volume_of(source), scan.made[score].sha256
    if known is not None and known != source.sha256:
        raise ScanError(
            f"{volume.name}: its sha256 is {source.sha256}, its sidecar says {known}; score {scan.id} again",
            code="maps.changed",
        )
    mask, _ = read_mask(scan.brain, volume.grid, volume.name)
    _refuse_missing(volume, mask, scan.id)
    names = SegmentNames.beside(path)
    if not names.pvalue.is_file():
        return ReadMap(MapToSegment(volume.data[0], mask, volume.affine), source.sha256, None)
    p_source = open_image(names.pvalue, DEFAULTS)
    p_volume = volume_of(p_source)
    p_volume.grid.check_same(volume.grid, p_volume.name, volume.name)
    _refuse_missing(p_volume, mask, scan.id)
    if (lowest := p_volume.data[0][mask].min()) < 0:
        raise ScanError(
            f"{p_volume.name}: -log10 of a p-value cannot be {lowest:g}; score {scan.id} again",
            code="maps.pvalue",
        )
    image = MapToSegment(volume.data[0], mask, volume.affine, p_volume.data[0])
    return ReadMap(image, source.sha256, p_source.sha256)


def _refuse_missing(volume: Volume, mask: np.ndarray, id: str) -> None:
    if missing := int(np.count_nonzero(~np.isfinite(volume.data[0][mask]))):
        raise ScanError(
            f"{volume.name}: {missing} of {np.count_nonzero(mask)} voxels are not finite; score {id} again",
            code="maps.nan",
        )


def write_segmentation(
    names: SegmentNames,
    found: Segmentation,
    affine: np.ndarray,
    facts: Mapping[str, Any],
    *,
    with_atlas: bool,
) -> None:
    """Write the files of one segmentation, and its threshold into the map's own sidecar.

    Args:
        names: Where.
        found: What was segmented.
        affine: ``(4, 4)`` of the map.
        facts: What else the sidecar tells: at least ``Threshold``.
        with_atlas: Whether the table has regions.

    Raises:
        OutputError: They cannot be written.
    """
    remove(names)
    of = shown(names.mask)
    write_map(names.mask, Volume(found.mask[None].astype(np.uint8), affine, of), dtype=np.uint8)
    dtype = np.int16 if len(found.clusters) < 1 << 15 else np.int32
    write_map(names.labels, Volume(found.labels[None], affine, shown(names.labels)), dtype=dtype)
    write_text_atomic(names.clusters, clusters_tsv(found.clusters, with_atlas=with_atlas))
    own = told(names.novelty_sidecar)
    if own:
        _write_json(names.novelty_sidecar, own | {"Threshold": facts["Threshold"]})
    written = {
        "Files": {path.name: sha256_of_file(path) for path in (names.mask, names.labels, names.clusters)},
        "GeneratedBy": {
            "Name": "mednovelty",
            "Version": version("mednovelty"),
            "CommandLine": command_line(),
        },
    }
    _write_json(names.sidecar, {**facts, "Numbers": found.numbers, **written})


def remove(names: SegmentNames) -> None:
    """Remove a segmentation, what says that it is whole first.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        for path in (names.sidecar, names.mask, names.labels, names.clusters, names.segments):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{names.sidecar}: cannot be removed: {error.strerror}") from error


def is_current(names: SegmentNames, facts: Mapping[str, Any], *, any_atlas: bool = False) -> bool:
    """Whether a segmentation is whole and was made from, and by, what is told of now.

    ``any_atlas``: whatever its atlas, since the one that is wanted cannot be looked at.
    """
    standing = told(names.sidecar)
    if not standing:
        return False
    wanted, files = json_types(dict(facts)), standing.get("Files")
    if any_atlas and isinstance(standing.get("Made"), dict):
        wanted["Made"]["Atlas"] = standing["Made"].get("Atlas")
    if any(standing.get(key) != wanted[key] for key in ("Settings", "Made")) or not isinstance(files, dict):
        return False
    paths = (names.mask, names.labels, names.clusters)
    return all(path.is_file() and files.get(path.name) == sha256_of_file(path) for path in paths)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text_atomic(path, json.dumps(json_types(dict(content)), indent=2) + "\n")


__all__ = ["ReadMap", "SegmentNames", "is_current", "read_map", "remove", "write_segmentation"]
