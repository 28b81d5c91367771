"""What is on disk of one scored scan, gathered for its page: maps, segmentations, sidecars, quality."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.io.guard import read_text, shown
from mednovelty.io.mask import read_mask
from mednovelty.io.nifti import read_volume
from mednovelty.outputs import told
from mednovelty.quality import ENDING, Quality
from mednovelty.segment_files import SegmentNames

PEAK_COLUMNS = ("peak_x_mm", "peak_y_mm", "peak_z_mm")
LARGEST_TABLE_BYTES = 16 << 20
EXPLAINED = "_explained.png"
LAYOUT = 3
"""Counted up where pages look otherwise, so that those that stand are made again."""


@dataclass(frozen=True, eq=False)
class Cluster:
    """One row of a table of clusters.

    Attributes:
        cells: By column, as they stand there.
        peak_mm: RAS+; not finite where the table has none.
    """

    cells: Mapping[str, str]
    peak_mm: tuple[float, float, float]

    @property
    def is_placed(self) -> bool:
        """Whether it is known where its peak is."""
        return bool(np.isfinite(self.peak_mm).all())

    @property
    def volume_mm3(self) -> float:
        """Its volume; NaN where the table has none."""
        try:
            return float(self.cells.get("volume_mm3", "nan"))
        except ValueError:
            return float("nan")


@dataclass(frozen=True, eq=False)
class MapFacts:
    """One score of a scan.

    Attributes:
        name: Of the score.
        names: Where its files lie.
        sidecar: What is told of the map.
        segmentation: What is told of the segmentation; empty where there is none.
        clusters: Its clusters, in the order of the table: the largest first.
    """

    name: str
    names: SegmentNames
    sidecar: Mapping[str, Any]
    segmentation: Mapping[str, Any]
    clusters: tuple[Cluster, ...]

    @property
    def placed(self) -> list[Cluster]:
        """Its clusters that can be looked at."""
        return [cluster for cluster in self.clusters if cluster.is_placed]

    @property
    def novelty(self) -> Path:
        """The map."""
        return Path(f"{self.names.start}_novelty.nii.gz")

    @property
    def score(self) -> Mapping[str, Any]:
        """What is told of the score."""
        return as_dict(self.sidecar.get("Score"))

    @property
    def unit(self) -> str:
        """Of its values."""
        return str(self.score.get("unit") or "")

    @property
    def is_trivial(self) -> bool:
        """Whether it is a baseline that looks at no model."""
        return bool(self.score.get("trivial"))

    @property
    def is_calibrated(self) -> bool:
        """Whether there are p-values."""
        return bool(self.sidecar.get("Calibration")) and self.names.pvalue.is_file()

    @property
    def numbers(self) -> Mapping[str, Any]:
        """Of the segmentation, as a whole."""
        return as_dict(self.segmentation.get("Numbers"))

    @property
    def threshold_words(self) -> str:
        """How it was segmented."""
        return str(as_dict(self.segmentation.get("Threshold")).get("Words") or "")

    def values(self) -> np.ndarray:
        """Read the map, ``(I, J, K)``."""
        return read_volume(self.novelty).data[0]

    def minus_log10_p(self) -> np.ndarray | None:
        """Read its p-values, ``(I, J, K)``; None where there are none."""
        return read_volume(self.names.pvalue).data[0] if self.is_calibrated else None

    def segmented(self) -> np.ndarray | None:
        """Read what is segmented, ``(I, J, K)`` bool; None where nothing was."""
        return read_volume(self.names.mask).data[0] > 0 if self.names.mask.is_file() else None


@dataclass(frozen=True, eq=False)
class ScanFacts:
    """One scored scan.

    Attributes:
        scored: Its files.
        maps: Its scores: those with clusters first, then segmented, calibrated, others, trivial baselines.
        quality: None where nothing is known.
        explained: Pictures of explained voxels, sorted.
    """

    scored: ScoredScan
    maps: tuple[MapFacts, ...]
    quality: Quality | None
    explained: tuple[Path, ...] = field(default=())

    @classmethod
    def of(cls, scored: ScoredScan) -> ScanFacts:
        """Gather what is told of a scan; no image is read.

        Raises:
            ScanError: A table of clusters cannot be read.
        """
        maps = [_map_facts(name, path) for name, path in scored.maps.items()]
        maps.sort(
            key=lambda one: (not one.segmentation, not one.clusters, not one.is_calibrated, one.is_trivial)
        )
        folder, stem = scored.brain.parent, stem_of(scored)
        quality = Quality.read(folder / f"{stem}{ENDING}")
        own = {one.sidecar.get("InputSha256") for one in maps}
        if quality is not None and quality.input_sha256 not in own:
            quality = None  # Of what was scored before.
        pictures = [folder / name for name in sorted(os.listdir(folder))
                    if name.endswith(EXPLAINED) and name.rpartition("_desc-")[0] == stem]  # fmt: skip
        return cls(scored, tuple(maps), quality, tuple(pictures))

    @property
    def id(self) -> str:
        """Of the scan."""
        return self.scored.id

    @property
    def page(self) -> Path:
        """Where its page lies."""
        return self.scored.brain.parent / f"{stem_of(self.scored)}.html"

    @property
    def background_path(self) -> Path:
        """The image that maps are drawn on."""
        return self.scored.brain.parent / f"{stem_of(self.scored)}_desc-background.nii.gz"

    @cached_property
    def sidecar(self) -> Mapping[str, Any]:
        """What is told of the first of its maps that a detector made: of its scan, mask and detector."""
        made = [one.sidecar for one in self.maps if as_dict(one.sidecar.get("Mask"))]
        return (made or [self.maps[0].sidecar])[0]

    @property
    def warnings(self) -> list[str]:
        """What its sidecars warn of, each once."""
        found: list[str] = []
        by_text: dict[str, list[str]] = {}
        for one in self.maps:
            found += [str(text) for text in as_list(one.sidecar.get("Warnings"))]
            own = as_list(as_dict(one.sidecar.get("Calibration")).get("Warnings"))
            own = [str(text) for text in (*own, *as_list(one.sidecar.get("Fallbacks")))]
            if unscored := one.sidecar.get("UnscoredVoxels"):
                own.append(f"{unscored} voxels of the mask were not scored; the map is 0 there")
            if annotated := one.sidecar.get("AnnotatedInTraining"):
                found.append(f"the detector was shown this scan in training, annotated: {annotated}")
            for text in own:
                by_text.setdefault(text, []).append(one.name)
        found += [f"{', '.join(names)}: {text}" for text, names in by_text.items()]
        return list(dict.fromkeys([*found, *self.scored.mixtures()]))

    @property
    def sources(self) -> list[Path]:
        """The images that it was read from, where its sidecar says that they lay."""
        told_of = as_list(self.sidecar.get("Sources"))
        return [Path(os.path.normpath(self.scored.brain.parent / str(path))) for path in told_of]

    def images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read background, brain mask and affine; without a background the mask stands for it.

        Raises:
            ScanError: One cannot be read.
            GeometryError: They do not lie on the same voxels.
        """
        first = read_volume(self.maps[0].novelty)
        mask, _ = read_mask(self.scored.brain, first.grid, first.name)
        if not mask.any():
            raise ScanError(f"{shown(self.scored.brain)}: is empty; score {self.id} again", code="mask.empty")
        if not self.background_path.is_file():
            return mask.astype(np.float32), mask, first.affine
        background = read_volume(self.background_path)
        background.grid.check_same(first.grid, background.name, first.name)
        return background.data[0], mask, first.affine

    def made_of(self) -> str:
        """Return a hash of all that the page is made of; images count by their bytes, and are not decoded."""
        parts: list[Any] = [self.id, version("mednovelty"), LAYOUT]
        for one in self.maps:
            parts += [one.name, dict(one.sidecar), dict(one.segmentation),
                      [dict(cluster.cells) for cluster in one.clusters]]  # fmt: skip
        parts.append(None if self.quality is None else self.quality.told())
        images = [self.scored.brain, self.background_path]
        for one in self.maps:
            images += [one.novelty, one.names.pvalue, one.names.mask]
        # Links of git-annex whose content was dropped are as good as gone.
        parts += [(path.name, _sha256_of(path)) for path in (*images, *self.explained) if path.is_file()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def stem_of(scored: ScoredScan) -> str:
    """Return how the names of a scan's files begin."""
    return scored.brain.name.rpartition("_desc-brain_mask")[0]


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_dict(value: Any) -> Mapping[str, Any]:
    """Return what a sidecar tells where it should be an object; empty where it is none."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return what a sidecar tells where it should be a list; empty where it is none."""
    return value if isinstance(value, list) else []


def _map_facts(name: str, path: Path) -> MapFacts:
    names = SegmentNames.beside(path)
    segmentation = told(names.sidecar) or {}
    clusters = _clusters(names.clusters) if segmentation and names.clusters.is_file() else ()
    return MapFacts(name, names, told(names.novelty_sidecar) or {}, segmentation, clusters)


def _clusters(path: Path) -> tuple[Cluster, ...]:
    found = []
    text = read_text(path, LARGEST_TABLE_BYTES)
    # A quotation mark in a region's name is one, and hides no row.
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    for row in rows:
        try:
            x, y, z = (float(row[column]) for column in PEAK_COLUMNS)
        except (KeyError, TypeError, ValueError) as error:
            raise ScanError(
                f"{shown(path)}: a row does not tell where the cluster's peak is; segment again: "
                "mednovelty threshold",
                code="clusters.damaged",
            ) from error
        found.append(Cluster({str(k): str(v) for k, v in row.items()}, (x, y, z)))
    return tuple(found)


__all__ = ["Cluster", "MapFacts", "ScanFacts", "as_dict", "as_list", "stem_of"]
