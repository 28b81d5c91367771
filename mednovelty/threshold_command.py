"""The ``threshold`` command: maps on disk become masks, clusters and numbers, as often as one likes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mednovelty import console
from mednovelty.errors import ScanError, SettingsError
from mednovelty.report_command import report_scored
from mednovelty.slicer_command import show_scored

if TYPE_CHECKING:
    from mednovelty.segment.cleaning import Cleaning
    from mednovelty.segment.rules import Rule
    from mednovelty.segment_folder import SegmentedMap
    from mednovelty.segment_ways import FolderSettings

log = logging.getLogger("mednovelty")


@dataclass(frozen=True)
class ThresholdRequest:
    """What ``threshold`` was asked for."""

    output: Path
    fdr: float | None = None
    p: float | None = None
    quantile: float | None = None
    masks: Path | None = None
    seed: int = 0
    scores: str | None = None
    min_mm3: float = 0.0
    connectivity: int = 26
    cluster_size: bool | None = None
    median: int | None = None
    opening: int | None = None
    closing: int | None = None
    atlas: Path | None = None
    without_atlas: bool = False
    reported: bool = True
    as_json: bool = False


def threshold(request: ThresholdRequest) -> int:
    """Segment the maps of a folder; return the exit code."""
    from mednovelty.evaluation.files import find_maps
    from mednovelty.output_folder import sole_writer, write_folder_facts
    from mednovelty.segment_folder import segment_folder

    settings = _settings(request)
    if not request.output.is_dir():
        raise ScanError(f"{request.output}: no such folder; give the one that score wrote", code="maps.none")
    find_maps(request.output)  # Before anything is written into a folder that is none of ours.
    with sole_writer(request.output):
        write_folder_facts(request.output)
        found = segment_folder(request.output, settings)
    shown = show_scored(request.output)
    reported = report_scored(request.output) if request.reported else 0
    code = exit_code_of(found) or shown or reported
    if request.as_json:
        console.print_json({"exit_code": code, "maps": [vars(one) for one in found]})
    say(found, request.output)
    return code


def segment_scored(output: Path) -> int:
    """Segment what ``score`` has written, as it was before or else by default; return the exit code.

    A folder without maps or without p-values is left as it is: why, ``score`` has told. What else is wrong is
    told here, and does not keep ``score`` from telling of the maps.
    """
    from mednovelty.output_folder import sole_writer
    from mednovelty.segment_folder import segment_folder
    from mednovelty.segment_ways import FolderSettings

    try:
        with sole_writer(output):
            found = segment_folder(output, FolderSettings(again=False))
    except (ScanError, SettingsError) as error:
        if error.code in ("maps.none", "segment.no_p"):
            return 0
        log.error("not segmented: %s", error)
        return error.exit_code
    say(found, output)
    return exit_code_of(found)


def say(found: Sequence[SegmentedMap], output: Path) -> None:
    """Tell what was segmented: a line a map with clusters, then how many there are, what failed last."""
    good = [one for one in found if one.status != "failed"]
    for one in good:
        log.log(logging.INFO if one.numbers.get("clusters") else logging.DEBUG, "%s", line_of(one))
    for score in dict.fromkeys(one.score for one in good):
        of = [bool(one.numbers.get("clusters")) for one in good if one.score == score]
        log.info("%s: clusters in %d of %d scans", score, sum(of), len(of))
    done = [one.status for one in found]
    log.info("%d maps segmented, %d up to date, %d failed; clusters lie beside the maps, scans in %s",
             done.count("done"), done.count("up to date"), done.count("failed"),
             output / "cohort.tsv")  # fmt: skip
    for one in found:
        if one.status == "failed":
            log.error("failed: %s: %s", one.id, one.message)


def line_of(one: SegmentedMap) -> str:
    """Return what was found of one map, in words.

    Examples:
        >>> from mednovelty.segment_folder import SegmentedMap
        >>> numbers = {"clusters": 2, "novel_mm3": 1250.0, "novel_share": 0.00125, "p_volume": 0.1}
        >>> line_of(SegmentedMap("sub-01", "elbo", "done", numbers=numbers))
        'sub-01: elbo: 2 clusters, 1.25 ml (0.125 % of the mask); as much in a control: p = 0.1'
    """
    numbers = {"clusters": 0, "novel_mm3": 0.0, "novel_share": 0.0} | dict(one.numbers)
    said = f"{one.id}: {one.score}: {numbers['clusters']} cluster{'s' * (numbers['clusters'] != 1)}"
    if numbers["clusters"]:
        said += f", {numbers['novel_mm3'] / 1000:.3g} ml ({100 * numbers['novel_share']:.3g} % of the mask)"
    if numbers.get("p_volume") is not None:
        said += f"; as much in a control: p = {numbers['p_volume']:.2g}"
    return said


def exit_code_of(found: Sequence[SegmentedMap]) -> int:
    """Return 0 where every map was segmented, 3 where none was, 6 where some were not."""
    failed = sum(one.status == "failed" for one in found)
    return 0 if not failed else ScanError.exit_code if failed == len(found) else 6


def _settings(request: ThresholdRequest) -> FolderSettings:
    """Return the settings of a request.

    Raises:
        SettingsError: Two rules, two ways of cleaning, or a value that is out of range.
    """
    from mednovelty.fit_command import names_of
    from mednovelty.segment.segmentation import SegmentSettings
    from mednovelty.segment_ways import FolderSettings

    names = () if request.scores is None else tuple(names_of(request.scores))
    how = SegmentSettings(
        rule=_rule(request),
        # A threshold of labelled scans may flag most of a healthy scan, one cluster larger than any lesion.
        cluster_size=request.masks is None if request.cluster_size is None else request.cluster_size,
        connectivity=request.connectivity,
        min_mm3=request.min_mm3,
        cleaning=_cleaning(request),
    )
    return FolderSettings(how, request.masks, request.seed, names, request.atlas, request.without_atlas)


def _rule(request: ThresholdRequest) -> Rule:
    from mednovelty.segment.rules import FalseDiscoveries, FixedP, Quantile

    given = {"--fdr": request.fdr, "--p": request.p, "--quantile": request.quantile, "--masks": request.masks}
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) > 1:
        raise SettingsError(f"{' and '.join(asked)} are different thresholds; give one of them")
    if request.p is not None:
        return FixedP(request.p)
    if request.quantile is not None:
        return Quantile.of(request.quantile)
    return FalseDiscoveries() if request.fdr is None else FalseDiscoveries(request.fdr)


def _cleaning(request: ThresholdRequest) -> Cleaning:
    from mednovelty.segment.cleaning import Cleaning

    ways = {"median": request.median, "opening": request.opening, "closing": request.closing}
    asked = {name: size for name, size in ways.items() if size is not None}
    if len(asked) > 1:
        raise SettingsError(
            f"{' and '.join(f'--{name}' for name in asked)}: are two ways of cleaning; give one"
        )
    for name, size in asked.items():
        return Cleaning(name, size)  # type: ignore[arg-type]
    return Cleaning()


__all__ = ["ThresholdRequest", "exit_code_of", "line_of", "say", "segment_scored", "threshold"]
