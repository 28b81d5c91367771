"""Which maps of a scan are explained together: those of one detector, and combinations that they are part of.

No sample of a voxel drives a combination: its scores do, and a detector drives these. The sidecar of a
combination names their maps, so that they are found in whichever folders they lie. Of several detectors each
gets a page of its own, with what the scores of the others are there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mednovelty.errors import DetectorError, ScanError, SettingsError
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.io.guard import shown
from mednovelty.outputs import told
from mednovelty.segment_files import SegmentNames
from mednovelty.store import RECORD

AGAIN = "explain the folder that score wrote, or combine again into a new folder"


@dataclass(frozen=True, eq=False)
class MapsToExplain:
    """Maps of one scan by one detector, and what is told beside them.

    Attributes:
        scored: The detector's, and the mask that they were made in.
        first: Names of the scores to look at first, which have peaks; none: the detector's own order.
        combinations: Maps of combinations, by name; they come before all else.
        others: Maps of scores by other detectors that the combinations are of, by what they are called.
        members: Of each combination, the names here of the scores that it is of.
        brain: The mask of the voxels that have all of these scores.
        number: Which of several detectors, from 1; 0 where there is only one.
    """

    scored: ScoredScan
    first: tuple[str, ...] = ()
    combinations: Mapping[str, Path] = field(default_factory=dict)
    others: Mapping[str, Path] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    brain: Path | None = None
    number: int = 0

    @property
    def sidecar(self) -> Path:
        """Of the first of the detector's own maps, which tells of detector and scan."""
        return SegmentNames.beside(next(iter(self.scored.maps.values()))).novelty_sidecar

    @property
    def facts(self) -> dict[str, Any]:
        """What it tells."""
        return told(self.sidecar) or {}


def maps_to_explain(scored: ScoredScan, asked: Sequence[str] = ()) -> list[MapsToExplain]:
    """Return what is to be explained of a scan, one a detector.

    Args:
        scored: All maps that are known of it.
        asked: Which scores come first; none: the detector's own, of a folder of combinations these.

    Raises:
        ScanError: The maps that a combination is of are gone or were made anew.
        SettingsError: There is no map of a score that is asked for.
    """
    unknown = [name for name in asked if name not in scored.maps]
    if unknown:
        raise SettingsError(
            f"{scored.id}: has no map of {', '.join(map(repr, unknown))}; it has {', '.join(scored.maps)}"
        )
    known = {name: path for name, path in scored.maps.items() if _combined(path) is not None}
    own = {name: path for name, path in scored.maps.items() if name not in known}
    first = tuple(asked) or (() if own else tuple(_clustered_first(known)))
    combinations = {name: known[name] for name in first if name in known}
    of = {name: _members(name, path) for name, path in combinations.items()}
    if own:
        members = {name: tuple(m.score for m in found) for name, found in of.items()}
        files = replace(scored, maps=own)
        return [MapsToExplain(files, first, combinations, members=members, brain=scored.brain)]
    groups: dict[str, list[_Member]] = {}
    for member in dict.fromkeys(m for found in of.values() for m in found):
        groups.setdefault(member.detector, []).append(member)
    result = []
    for number, (detector, group) in enumerate(groups.items(), 1):
        files = ScoredScan(scored.id, group[0].brain, {m.score: m.novelty for m in group})
        names = {m: m.score if m.detector == detector else f"{m.score} of {_called(m, groups)}"
                 for every in groups.values() for m in every}  # fmt: skip
        others = {called: m.novelty for m, called in names.items() if m.detector != detector}
        members = {name: tuple(names[m] for m in found) for name, found in of.items()}
        numbered = number if len(groups) > 1 else 0
        result.append(MapsToExplain(files, first, combinations, others, members, scored.brain, numbered))
    return result


def detector_folder(maps: MapsToExplain) -> Path:
    """Return where the detector of a scan's maps lies, as their sidecars tell.

    Raises:
        DetectorError: They do not, or it is there no more.
    """
    relative = _folder_told(maps.facts)
    if relative is None:
        raise DetectorError(
            f"{shown(maps.sidecar)}: does not tell where its detector lies; pass --detector FOLDER"
        )
    folder = Path(os.path.normpath(maps.sidecar.parent / relative))
    if not (folder / RECORD).is_file():
        raise DetectorError(
            f"{folder}: no detector is there any more, as {maps.sidecar.name} tells; pass --detector FOLDER"
        )
    return folder


def of_detector(maps: Sequence[MapsToExplain], sha256: str) -> list[MapsToExplain]:
    """Return those that a detector made.

    Raises:
        DetectorError: It made none.
    """
    found = [one for one in maps if one.facts.get("DetectorSha256") == sha256]
    if not found:
        makers = ", ".join(dict.fromkeys(str(one.facts.get("DetectorSha256"))[:12] for one in maps))
        raise DetectorError(
            f"{maps[0].scored.id}: its maps were made by another detector ({makers}, not {sha256[:12]}); "
            "pass that one with --detector"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Member:
    """One of the maps that a combination is of."""

    score: str
    novelty: Path
    detector: str
    folder: str

    @property
    def brain(self) -> Path:
        start = self.novelty.name.rpartition("_desc-")[0]
        return self.novelty.with_name(f"{start}_desc-brain_mask.nii.gz")


def _members(name: str, path: Path) -> list[_Member]:
    """Return the maps that a combination is of."""
    sidecar = SegmentNames.beside(path).novelty_sidecar
    facts = told(sidecar) or {}
    of, sources = (facts.get("Combination") or {}).get("Of"), facts.get("Sources")
    if not isinstance(of, list) or not isinstance(sources, list) or not of or len(of) != len(sources):
        raise ScanError(f"{shown(sidecar)}: does not tell which maps {name} is of; {AGAIN}",
                        code="sidecar.damaged")  # fmt: skip
    found = []
    for one, source in zip(of, sources, strict=True):
        pvalue = Path(os.path.normpath(sidecar.parent / str(source)))
        names = SegmentNames(str(pvalue).removesuffix("_pvalue.nii.gz"))
        novelty = Path(f"{names.start}_novelty.nii.gz")
        own = told(names.novelty_sidecar)
        if own is None or not novelty.is_file():
            raise ScanError(
                f"{shown(novelty)}: is not there, and {name} is a combination of it, which it explains; "
                f"{AGAIN}",
                code="maps.gone",
            )
        files = (own.get("Calibration") or {}).get("Files") or {}
        if files.get("pvalue") != one.get("PvalueSha256"):
            raise ScanError(
                f"{shown(novelty)}: was scored or calibrated again since {name} was made of it; "
                "combine again",
                code="maps.changed",
            )
        folder = _folder_told(own) or ""
        found.append(_Member(str(one.get("Score")), novelty, str(one.get("DetectorSha256")), folder))
    return found


def _called(member: _Member, groups: Mapping[str, Sequence[_Member]]) -> str:
    """Return what a member's detector is called: its folder where no other has the name, else its hash."""
    name = Path(member.folder).name
    same = [detector for detector, group in groups.items() if Path(group[0].folder).name == name]
    return name if name and len(same) == 1 else member.detector[:8]


def _combined(path: Path) -> dict[str, Any] | None:
    """Return what tells of a combination; None of other maps."""
    found = (told(SegmentNames.beside(path).novelty_sidecar) or {}).get("Combination")
    return found if isinstance(found, dict) else None


def _clustered_first(maps: Mapping[str, Path]) -> list[str]:
    return sorted(maps, key=lambda name: not SegmentNames.beside(maps[name]).clusters.is_file())


def _folder_told(facts: Mapping[str, Any]) -> str | None:
    detector = facts.get("Detector")
    found = detector.get("Folder") if isinstance(detector, dict) else None
    return found if isinstance(found, str) else None


__all__ = ["MapsToExplain", "detector_folder", "maps_to_explain", "of_detector"]
