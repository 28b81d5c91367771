"""Whether scores find slices with lesions by what is in the lesions: Clever Hans scores of a score run.

What is detected is slices, as in ``slices``: AUROC is of the mean of their scores, the diseased against the
healthy. What explains it is the map of relevance that ``explain`` wrote: its cosine with the lesion in the
brain of each diseased slice, averaged over these slices. Beside it stands the cosine of relevance that is the
same everywhere, the root of the lesion's share of the slice: a score that looks at the lesion is above it.

Maps sum relevance over gradients or contrasts: this is about where, not about which of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.evaluation.clever_hans import DETECTS_FROM, CleverHans, clever_hans, mean_cosine
from mednovelty.evaluation.files import read_sidecar
from mednovelty.evaluation.truth import Truth
from mednovelty.io.guard import shown

if TYPE_CHECKING:
    from mednovelty.evaluation.result import Rated
    from mednovelty.evaluation.slices import SliceScores

ENDING = "_relevance.json"


@dataclass(frozen=True, slots=True)
class Reason:
    """How one score's relevance meets the lesions.

    Attributes:
        found: Its Clever Hans score.
        slices: Diseased ones that cosines are of.
        scans: That they are from.
        rule: How relevance was found.
    """

    found: CleverHans
    slices: int
    scans: int
    rule: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        found = self.found
        return {
            "clever_hans": found.value,
            "flagged": found.flagged,
            "threshold": found.threshold,
            "detects_from": DETECTS_FROM,
            "auroc": found.auroc,
            "cosine": found.cosine,
            "cosine_of_even_relevance": found.even,
            "slices": self.slices,
            "scans": self.scans,
            "rule": self.rule,
            "words": found.words(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Overlap:
    """Cosines of one scan's diseased slices with a lesion in the brain, as a sum; and how many they are."""

    cosine: float
    even: float
    slices: int


@dataclass(frozen=True, slots=True)
class RelevanceFile:
    """A map of relevance, and what its sidecar tells.

    Attributes:
        image: The map.
        about: The sidecar.
    """

    image: Path
    about: dict[str, Any]

    @property
    def rule(self) -> str:
        """How it was found; empty where that is not told."""
        told = self.about.get("Relevance")
        return str(told.get("rule", "")) if isinstance(told, dict) else ""


def find_relevance(folder: Path) -> dict[tuple[str, str], RelevanceFile]:
    """Return maps of relevance by scan id and score.

    Raises:
        ScanError: There is none, a sidecar cannot be used, or there are two of one scan and score.
    """
    found: dict[tuple[str, str], RelevanceFile] = {}
    for path in sorted(folder.rglob(f"*{ENDING}")):
        about = read_sidecar(path)
        key = about["ScanId"], about["Score"]["name"]
        if key in found:
            raise ScanError(
                f"{shown(path)}: {key[0]} has two maps of relevance for {key[1]}, {found[key].image} and "
                f"{path}; keep one",
                code="relevance.ambiguous",
            )
        found[key] = RelevanceFile(path.with_name(path.name.removesuffix(".json") + ".nii.gz"), about)
    if not found:
        raise ScanError(
            f"{folder}: no relevance is there; run `mednovelty explain MODEL SCANS -o {folder}` first",
            code="relevance.none",
        )
    return found


def reasons(
    folder: Path, truths: list[Truth], rated: Mapping[str, Rated], diseased_voxels: int
) -> tuple[dict[str, Reason], list[str]]:
    """Return each score's Clever Hans score, where there is relevance, and warnings.

    Args:
        folder: That ``explain`` wrote to.
        truths: The scans with a lesion mask.
        rated: What the scores' maps are worth.
        diseased_voxels: Lesion voxels that make a slice diseased.

    Raises:
        ScanError: See ``find_relevance``; or none of it is of a score that was evaluated.
    """
    files = find_relevance(folder)
    found: dict[str, Reason] = {}
    said: list[str] = []
    names = sorted({score for _, score in files} & set(rated))
    if not names:
        known = ", ".join(sorted({score for _, score in files}))
        raise ScanError(
            f"{folder}: relevance is for {known}, of which there are no maps to evaluate; "
            f"run `mednovelty explain` with --score {next(iter(rated))} or so",
            code="relevance.none",
        )
    for score in names:
        reason, remarks = _reason(score, files, truths, rated[score], diseased_voxels)
        said += remarks
        if reason is not None:
            found[score] = reason
    return found, said


def _reason(
    score: str,
    files: Mapping[tuple[str, str], RelevanceFile],
    truths: list[Truth],
    rated: Rated,
    diseased_voxels: int,
) -> tuple[Reason | None, list[str]]:
    said, overlaps, rules = [], [], set()
    with_lesion = [truth for truth in truths if truth.id in rated.slices and truth.two_classes]
    missing = [truth.id for truth in with_lesion if (truth.id, score) not in files]
    if missing:
        said.append(f"{score}: no relevance of {', '.join(missing[:10])}; cosines are of the other scans")
    for truth in with_lesion:
        if truth.id in missing:
            continue
        file = files[truth.id, score]
        try:
            relevance = _read(file, truth, score)
        except ScanError as error:
            said.append(f"{error}; {truth.id} is left out of the cosines of {score}")
            continue
        overlap = _overlap(relevance, truth, rated.slices[truth.id], diseased_voxels)
        if overlap.slices:
            overlaps.append(overlap)
            rules.add(file.rule)
    auroc = float(rated.pooled.get("slice_mean_auroc", np.nan))
    count = sum(overlap.slices for overlap in overlaps)
    if not count or np.isnan(auroc):
        what = (
            "slices without a lesion to tell from those with one"
            if count
            else "diseased slice with relevance"
        )
        return None, [*said, f"{score}: no Clever Hans score: there is no {what}"]
    cosine, even = (sum(getattr(o, name) for o in overlaps) / count for name in ("cosine", "even"))
    return Reason(clever_hans(auroc, cosine, even), count, len(overlaps), "; ".join(sorted(rules))), said


def _read(file: RelevanceFile, truth: Truth, score: str) -> np.ndarray:
    """Return ``(I, J, K)`` relevance on the voxels of the scan's maps.

    Raises:
        ScanError: It is damaged, is not finite, or was made from something else than the maps.
        GeometryError: It lies on other voxels.
    """
    from mednovelty.io.nifti import volume_of
    from mednovelty.io.nifti_source import DEFAULTS
    from mednovelty.io.readers import open_image

    made = truth.files.made.get(score)
    for key, own in (("DetectorSha256", made and made.detector), ("InputSha256", made and made.image)):
        if own is not None and file.about.get(key) != own:
            what = "by another detector" if key == "DetectorSha256" else "from another image"
            raise ScanError(
                f"{shown(file.image)}: was made {what} than the map of {score}; explain {truth.id} again",
                code="relevance.other",
            )
    source = open_image(file.image, DEFAULTS)
    volume, hashes = volume_of(source), file.about.get("FilesSha256")
    told = hashes.get(file.image.name) if isinstance(hashes, dict) else None
    if told is not None and told != source.sha256:
        raise ScanError(
            f"{volume.name}: its sha256 is {source.sha256}, its sidecar says {told}; explain {truth.id} "
            "again",
            code="relevance.changed",
        )
    volume.grid.check_same(truth.grid, volume.name, truth.files.brain.name)
    if not np.isfinite(volume.data).all():
        raise ScanError(f"{volume.name}: is not finite; explain {truth.id} again", code="relevance.nan")
    return volume.data[0]


def _overlap(relevance: np.ndarray, truth: Truth, slices: SliceScores, diseased_voxels: int) -> _Overlap:
    inside = truth.inside()
    lesion = np.zeros(inside.shape, bool)
    lesion[inside] = truth.labels()
    classes = np.array(slices.classes(diseased_voxels))
    chosen = slices.index[classes == "diseased"]
    # Of a slice whose lesion lies outside the brain mask there is nothing to compare with.
    chosen = [k for k in chosen.tolist() if lesion.take(k, slices.axis).any()]
    if not chosen:
        return _Overlap(0.0, 0.0, 0)
    shown, where, brain = (
        np.moveaxis(volume, slices.axis, 0)[chosen]
        for volume in (np.where(inside, relevance, 0), lesion, inside)
    )
    n = len(chosen)
    return _Overlap(n * mean_cosine(shown, where), n * mean_cosine(brain, where), n)


__all__ = ["Reason", "RelevanceFile", "find_relevance", "reasons"]
