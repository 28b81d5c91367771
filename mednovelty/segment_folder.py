"""Every map of a folder segmented, and what is told of the cohort; nothing is scored.

``OUT/cohort.tsv``         each scan's numbers, and its p-values against the calibration scans
``OUT/segmentation.json``  how each score was segmented last, so that ``score`` does so with further scans
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mednovelty.errors import OutputError, ScanError, SettingsError, StoppedError, failure_message
from mednovelty.evaluation.files import find_maps
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.outputs import told
from mednovelty.scan_table import write_cohort_table
from mednovelty.segment.atlas import Atlases, with_regions
from mednovelty.segment.controls import Controls
from mednovelty.segment.segmentation import (
    MapToSegment,
    Segmentation,
    segment,
    told_of,
)
from mednovelty.segment_files import (
    ReadMap,
    SegmentNames,
    is_current,
    read_map,
    remove,
    write_segmentation,
)
from mednovelty.segment_ways import FolderSettings, Way, ways_before, ways_in, ways_of, write_ways
from mednovelty.told_calibrations import ToldCalibrations, calibration_named

log = logging.getLogger("mednovelty")


@dataclass(frozen=True)
class SegmentedMap:
    """What became of one map.

    Attributes:
        id: Of the scan.
        score: Its name.
        status: ``done``, ``up to date`` or ``failed``.
        message: Why it failed.
        numbers: Of the scan as a whole.
    """

    id: str
    score: str
    status: str
    message: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


def segment_folder(out: Path, settings: FolderSettings) -> list[SegmentedMap]:
    """Segment the maps of a folder; a map that cannot be is a failure, and stops no other.

    The caller keeps other runs out of the folder, see ``output_folder.sole_writer``.

    Raises:
        OutputError: Something cannot be written.
        ScanError: There are no maps, or calibration, atlas or labelled scans cannot be used.
        SettingsError: An unknown score, or one without the p-values that are asked for.
    """
    scans, warnings = find_maps(out)
    for warning in warnings:
        log.warning("%s", warning)
    calibrations = ToldCalibrations.read(out)
    wanted = _scores(out, scans, settings)
    before = ways_before(out, settings)
    ways = ways_of(out, scans, wanted, settings, before)
    run = _Run(calibrations, ways, _atlases(ways, settings))
    found = [_one(run, scan, score) for scan in scans.values() for score in wanted if score in scan.maps]
    write_ways(out, before | ways)
    write_cohort_table(out, scans)
    return found


@dataclass(frozen=True, eq=False)
class _Run:
    """What is the same for every map."""

    calibrations: ToldCalibrations
    ways: Mapping[str, Way]
    atlases: Mapping[Path, Atlases]
    """Those that are there, by their place."""

    def atlas(self, score: str) -> Atlases | None:
        """Return the atlas of a score; None where it has none, or it is gone."""
        place = self.ways[score].atlas
        return None if place is None else self.atlases.get(place)

    def controls(self, id: str, score: str, sidecar: Mapping[str, Any]) -> tuple[Controls | None, str | None]:
        """Return what the scans show that the p-values of a map are from, and the hash of that.

        Without the rule of cluster sizes a map can do without, which is told.
        """
        try:
            return self.calibrations.table(score, sidecar)
        except ScanError as error:
            if error.code != "calibration.missing" or self.ways[score].settings.cluster_size:
                raise
            log.warning("%s: the scan as a whole gets no p-values: %s", id, error)
            return None, None


def _one(run: _Run, scan: ScoredScan, score: str) -> SegmentedMap:
    try:
        read = read_map(scan, score)
        names, way = SegmentNames.beside(scan.maps[score]), run.ways[score].settings
        if way.rule.needs_p and read.pvalue_sha256 is None:
            remove(names)  # Of a map that was scored again, and is not calibrated any more.
            raise ScanError(f"{names.pvalue}: there are no p-values of this map", code="maps.pvalue")
        own = told(names.novelty_sidecar) or {}
        calibrated = read.pvalue_sha256 is not None
        controls, of_controls = run.controls(scan.id, score, own) if calibrated else (None, None)
        atlas = run.atlas(score)
        made = {
            "MapSha256": read.map_sha256,
            "PvalueSha256": read.pvalue_sha256,
            "ControlsSha256": of_controls,
            "Atlas": None if atlas is None else atlas.sha256_of(scan.id),
        }
        facts = {"Settings": told_of(way), "Made": made}
        if is_current(names, facts, any_atlas=atlas is None and run.ways[score].atlas is not None):
            numbers = (told(names.sidecar) or {}).get("Numbers", {})
            return SegmentedMap(scan.id, score, "up to date", numbers=numbers)
        found = _segmented(run, scan.id, score, read, controls)
        facts = _facts(run, scan, score, found) | facts
        write_segmentation(names, found, read.image.affine, facts, with_atlas=atlas is not None)
    except (OutputError, StoppedError):
        raise
    except Exception as error:  # Whatever is wrong with one map must not stop the others.
        return SegmentedMap(scan.id, score, "failed", failure_message(error, f"{scan.id}, {score}"))
    return SegmentedMap(scan.id, score, "done", numbers=found.numbers)


def _segmented(run: _Run, id: str, score: str, read: ReadMap, controls: Controls | None) -> Segmentation:
    image: MapToSegment = read.image
    found = segment(image, run.ways[score].settings, controls)
    atlases = run.atlas(score)
    atlas = None if atlases is None else atlases.of(id)
    if atlas is None:
        return found
    return replace(found, clusters=tuple(with_regions(found.clusters, found.labels, image.affine, atlas)))


def _facts(run: _Run, scan: ScoredScan, score: str, found: Segmentation) -> dict[str, Any]:
    """Return what the sidecar tells first."""
    way, names = run.ways[score].settings, SegmentNames.beside(scan.maps[score])
    own = told(names.novelty_sidecar) or {}
    words = [way.rule.words]
    if found.limit_mm3 is not None:
        words.append(
            f"clusters above {found.limit_mm3:g} mm3, the largest that calibration scans show at that p"
        )
    elif found.p == 0:
        words.append("nothing is flagged")
    elif not way.cluster_size:
        words.append("clusters are not held against those of calibration scans")
    words += [way.cleaning.words] if way.cleaning.words else []
    words += [f"clusters of {way.min_mm3:g} mm3 or more"] if way.min_mm3 else []
    threshold = {
        **told_of(way),
        "FlaggedP": found.p,
        "LimitMm3": found.limit_mm3,
        "Words": "; ".join(words),
    }
    sources = [scan.maps[score], *([names.pvalue] if names.pvalue.is_file() else [])]
    return {
        "Description": f"Where {score} is abnormal: {threshold['Words']}",
        "ScanId": scan.id,
        "Score": {"name": score},
        "Sources": [path.name for path in sources],
        "Threshold": threshold,
        "Calibration": own.get("Calibration"),
    }


def _scores(out: Path, scans: Mapping[str, ScoredScan], settings: FolderSettings) -> list[str]:
    """Return the scores to segment: those that were asked for, or all that have what is needed."""
    known = sorted({score for scan in scans.values() for score in scan.maps})
    # Those whose p-values are gone, too, so that each such map is told and loses what was made of them.
    with_p = {
        score
        for scan in scans.values()
        for score, path in scan.maps.items()
        if (names := SegmentNames.beside(path)).pvalue.is_file()
        or calibration_named(told(names.novelty_sidecar) or {})
    }
    if unknown := [score for score in settings.scores if score not in known]:
        raise SettingsError(f"{out}: there is no map of {', '.join(unknown)}; there are {', '.join(known)}")
    if settings.labelled is not None:
        return list(settings.scores) or known
    if not settings.again:  # A threshold of scores needs no p.
        before = ways_in(out)
        with_p |= {one for one, way in before.items() if one in known and not way.settings.rule.needs_p}
    if not with_p or (without := [score for score in settings.scores if score not in with_p]):
        of = ", ".join(without) if with_p else "any score"
        raise SettingsError(
            f"{out}: there are no p-values of {of}; calibrate the detector (`mednovelty calibrate MODEL`) "
            "and score again, or give --masks of labelled scans",
            code="segment.no_p",
        )
    return list(settings.scores) or [score for score in known if score in with_p]


def _atlases(ways: Mapping[str, Way], settings: FolderSettings) -> dict[Path, Atlases]:
    """Return the atlases that are there; those of before that are not are told.

    Raises:
        ScanError: The one that is asked for is not there, or one cannot be used.
    """
    found = {}
    for place in dict.fromkeys(way.atlas for way in ways.values() if way.atlas is not None):
        if settings.atlas is not None or place.exists():
            found[place] = Atlases(place)
        else:
            log.warning(
                "%s: the atlas of the clusters is gone; what is segmented now has no regions. Give it again, "
                "--atlas, or --no-atlas",
                place,
            )
    return found


__all__ = ["SegmentedMap", "segment_folder"]
