"""How each score of a folder was segmented last, ``OUT/segmentation.json``: later scans are segmented so.

    {"Scores": {score: what told_of tells, and "Atlas": its place as seen from OUT, or null}}

Before atlases were each score's own, one ``Atlas`` stood beside ``Scores``; it is still read, as that of all.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mednovelty.errors import ScanError, SettingsError
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.io.atomic import write_text_atomic
from mednovelty.outputs import told
from mednovelty.segment.segmentation import SegmentSettings, settings_of_told, told_of
from mednovelty.segment_labelled import labelled_thresholds
from mednovelty.store import json_types

log = logging.getLogger("mednovelty")

SEGMENTATION = "segmentation.json"


@dataclass(frozen=True)
class Way:
    """How the maps of one score are segmented.

    Attributes:
        settings: From map to clusters.
        atlas: Image of labels for all scans, or a folder of such by scan id; it may be gone.
    """

    settings: SegmentSettings
    atlas: Path | None = None


@dataclass(frozen=True)
class FolderSettings:
    """How the maps of a folder are segmented.

    Attributes:
        segment: How each is.
        labelled: Folder of lesion masks, or a manifest: the threshold of each score is that of the best Dice
            on a fifth of them, in place of ``segment.rule``.
        seed: Of that fifth.
        scores: Which; none: all that can be.
        atlas: Image of labels for all scans, or a folder of such by scan id; None: that of before.
        without_atlas: Whether that of before is let go.
        again: Whether scores that were segmented otherwise before are segmented anew in this way; otherwise
            further scans are segmented as those were.
    """

    segment: SegmentSettings = field(default_factory=SegmentSettings)
    labelled: Path | None = None
    seed: int = 0
    scores: tuple[str, ...] = ()
    atlas: Path | None = None
    without_atlas: bool = False
    again: bool = True

    def __post_init__(self) -> None:
        if self.atlas is not None and self.without_atlas:
            raise SettingsError("--atlas and --no-atlas contradict each other; give one of them")


def ways_in(out: Path) -> dict[str, Way]:
    """Return how the scores of a folder were segmented last.

    Raises:
        ScanError: The file that says so is damaged (``segmentation.damaged``).
    """
    path = out / SEGMENTATION
    if not path.is_file():
        return {}
    try:
        content = told(path) or {}
        return {score: _way(out, {"Atlas": content.get("Atlas")} | one)
                for score, one in content["Scores"].items()}  # fmt: skip
    except (SettingsError, KeyError, TypeError, AttributeError) as error:
        raise ScanError(
            f"{path}: damaged: {error}; run mednovelty threshold again", code="segmentation.damaged"
        ) from error


def write_ways(out: Path, ways: Mapping[str, Way]) -> None:
    """Write how the scores of a folder were segmented.

    Raises:
        OutputError: It cannot be written.
    """
    scores = {score: told_of(way.settings) | {"Atlas": _place(out, way.atlas)} for score, way in ways.items()}
    content = json_types({"Scores": dict(sorted(scores.items()))})
    write_text_atomic(out / SEGMENTATION, json.dumps(content, indent=2) + "\n")


def ways_before(out: Path, settings: FolderSettings) -> dict[str, Way]:
    """Return how scores were segmented before; a damaged file is let go where they are segmented anew.

    Raises:
        ScanError: It is damaged, and scans are to be segmented as it says.
    """
    try:
        return ways_in(out)
    except ScanError as error:
        if not settings.again:
            raise
        log.warning("%s, which happens now; atlases of before are forgotten", error)
        return {}


def ways_of(
    out: Path,
    scans: Mapping[str, ScoredScan],
    scores: Sequence[str],
    settings: FolderSettings,
    before: Mapping[str, Way],
) -> dict[str, Way]:
    """Return how each score is segmented: as asked, or, for ``again`` False, as it was before.

    The atlas is that of before unless it is asked for otherwise. A score that is new has that of all others.

    Args:
        out: The folder of the maps.
        scans: What was found there.
        scores: Which.
        settings: What is asked for.
        before: See ``ways_before``.

    Raises:
        ScanError, SettingsError: Labelled scans cannot be used.
    """
    rules = {}
    if settings.labelled is not None:
        rules = labelled_thresholds(out, scans, scores, settings.labelled, settings.seed)
    places = {way.atlas for way in before.values()}
    shared = Way(settings.segment, places.pop() if len(places) == 1 else None)
    ways = {}
    for score in scores:
        standing = before.get(score, shared)
        how = settings.segment if settings.again else standing.settings
        how = replace(how, rule=rules[score]) if score in rules else how
        ways[score] = Way(how, settings.atlas or (None if settings.without_atlas else standing.atlas))
    return ways


def _way(out: Path, one: Mapping[str, object]) -> Way:
    place = one["Atlas"]
    return Way(settings_of_told(one), out / place if isinstance(place, str) else None)


def _place(out: Path, atlas: Path | None) -> str | None:
    return None if atlas is None else Path(os.path.relpath(atlas, out)).as_posix()


__all__ = ["SEGMENTATION", "FolderSettings", "Way", "ways_before", "ways_in", "ways_of", "write_ways"]
