"""One scan's lesion on the voxels that were scored, and its maps read onto them, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.evaluation.lesions import Detection, Lesions, detect
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.evaluation.slices import SliceCounts, SliceScores
from mednovelty.evaluation.together import surprise
from mednovelty.io.guard import shown
from mednovelty.scan import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Where one scan's lesion is, among the voxels that were scored.

    Attributes:
        files: The scan's maps.
        grid: Of the maps.
        brain: ``(I, J, K)`` bool, packed eight voxels a byte: one for every scan stays in memory.
        lesion: ``(n,)`` bool over the voxels of ``brain``, packed.
        n: Voxels in ``brain``.
        outside: Lesion voxels outside ``brain``, which no map scores.
        box: The smallest box that holds ``brain``.
        lesions: The connected components of the lesion in ``brain``.
        slices: Counts of the slices along I, J and K.
    """

    files: ScoredScan
    grid: Grid
    brain: np.ndarray
    lesion: np.ndarray
    n: int
    outside: int
    box: tuple[slice, ...]
    lesions: Lesions
    slices: tuple[SliceCounts, ...]

    @property
    def id(self) -> str:
        """The scan's id."""
        return self.files.id

    @property
    def two_classes(self) -> bool:
        """Whether there are lesion voxels and others: without, there is nothing to tell apart."""
        return 0 < int(np.bitwise_count(self.lesion).sum()) < self.n

    def labels(self) -> np.ndarray:
        """Return ``(n,)`` bool: in the lesion."""
        return np.unpackbits(self.lesion, count=self.n).view(bool)

    def inside(self) -> np.ndarray:
        """Return ``(I, J, K)`` bool: in the brain mask."""
        size = int(np.prod(self.grid.shape))
        return np.unpackbits(self.brain, count=size).view(bool).reshape(self.grid.shape)

    def slice_scores(self, scores: np.ndarray, axis: int) -> SliceScores:
        """Reduce ``(n,)`` scores to the slices along an axis."""
        return SliceScores.of(axis, scores, self.inside(), self.slices[axis])

    def detections(
        self, scores: np.ndarray, thresholds: dict[str, float], found_share: float
    ) -> dict[str, Detection]:
        """Return what each threshold finds in ``(n,)`` scores; thresholds that are NaN are left out."""
        inside = self.inside()[self.box]
        lesion, flagged = np.zeros((2, *inside.shape), dtype=bool)
        lesion[inside] = self.labels()
        found = {}
        for name, threshold in thresholds.items():
            if not np.isnan(threshold):
                flagged[inside] = scores >= threshold
                found[name] = detect(flagged, lesion, self.lesions, threshold, found_share)
        return found

    def scores(self, score: str) -> np.ndarray:
        """Return ``(n,)`` scores in the order of ``labels``; of a combination, what its two maps give.

        Raises:
            ScanError: The map is damaged, holds NaN, or is not the file that its sidecar tells of.
            GeometryError: It lies on other voxels than the brain mask.
        """
        if score in self.files.together:
            one, other = self.files.together[score]
            return self._surprise(one) + self._surprise(other)

        from mednovelty.io.nifti import volume_of
        from mednovelty.io.nifti_source import DEFAULTS
        from mednovelty.io.readers import open_image

        source = open_image(self.files.maps[score], DEFAULTS)
        volume, told = volume_of(source), self.files.made[score].sha256
        if told is not None and told != source.sha256:
            raise ScanError(
                f"{volume.name}: its sha256 is {source.sha256}, its sidecar says {told}; "
                f"score {self.files.id} again",
                code="maps.changed",
            )
        volume.grid.check_same(self.grid, volume.name, self.files.brain.name)
        values = volume.data[0][self.inside()]
        if missing := int(np.count_nonzero(np.isnan(values))):
            raise ScanError(
                f"{volume.name}: {missing} of {values.size} scores are NaN; score {self.files.id} again",
                code="maps.nan",
            )
        return values

    def _surprise(self, score: str) -> np.ndarray:
        values = self.scores(score)
        return surprise(values, self.seen(score, values))

    def unscored(self, score: str, scores: np.ndarray) -> dict[str, float]:
        """Count voxels of the brain that no sample covered, and lesion voxels among them.

        How many they are the sidecar tells; where they are, the map: in slices, or else in voxels, that are
        0 throughout and as many. NaN where that cannot be told from the map; empty where nothing is told.

        Args:
            score: Whose sidecar is asked.
            scores: ``(n,)`` of that score.
        """
        lesion, told = self.labels(), self.files.made.get(score)
        if score in self.files.together:
            unseen = scores == 0  # Where neither of the two has seen anything; elsewhere it is above.
            return {
                "unscored_voxels": int(unseen.sum()),
                "unscored_lesion_voxels": int((lesion & unseen).sum()),
            }
        if told is None or told.unscored is None:
            return {}
        where = self._blank(score, scores)
        among = math.nan if where is None else int((lesion & where).sum())
        return {"unscored_voxels": told.unscored, "unscored_lesion_voxels": among}

    def seen(self, score: str, scores: np.ndarray) -> np.ndarray:
        """Return ``(n,)`` bool: voxels that a sample covered; all, where that cannot be told."""
        blank = self._blank(score, scores)
        return np.ones(self.n, dtype=bool) if blank is None else ~blank

    def _blank(self, score: str, scores: np.ndarray) -> np.ndarray | None:
        """Return ``(n,)`` bool: voxels that no sample covered; None where that cannot be told."""
        made = self.files.made.get(score)
        if made is None or made.unscored is None:
            return None
        zero = scores == 0
        axis = 2 if made.slice_axis is None else made.slice_axis
        of_slice = np.nonzero(self.inside())[axis]
        blank = np.bincount(of_slice, weights=~zero, minlength=self.grid.shape[axis]) == 0
        ways = (blank[of_slice], zero)
        return next((way for way in ways if int(way.sum()) == made.unscored), None)

    def facts(self) -> dict[str, float]:
        """Return the counts that stand beside the metrics."""
        lesion = int(np.bitwise_count(self.lesion).sum())
        return {"lesion_voxels": lesion, "lesion_voxels_outside_brain": self.outside, "brain_voxels": self.n,
                "prevalence": lesion / self.n, "lesions": len(self.lesions)}  # fmt: skip


def read_truth(files: ScoredScan, path: Path) -> tuple[Truth, list[str]]:
    """Read a scan's lesion mask onto the voxels of its brain mask.

    More than 0.5 is lesion. A mask whose voxels are stored along other axes is turned to fit; one without
    a lesion is taken, a healthy scan has none.

    Args:
        files: What was written for the scan.
        path: Its lesion mask.

    Returns:
        The truth, and warnings.

    Raises:
        ScanError: Either mask cannot be read, the brain mask is empty, or lesion values are below 0.
        GeometryError: The lesion mask lies on other voxels than the brain mask.
    """
    from mednovelty.io.mask import read_on_grid
    from mednovelty.io.nifti import read_volume

    brain = read_volume(files.brain)
    values, warnings = read_on_grid(path, brain.grid, brain.name)
    inside = brain.data[0] > 0.5
    n = int(np.count_nonzero(inside))
    if not n:
        raise ScanError(f"{brain.name}: the brain mask is empty; score {files.id} again", code="mask.empty")
    if not (values >= 0).all():
        raise ScanError(
            f"{shown(path)}: a lesion mask is 0 outside and positive inside; its least value is "
            f"{values.min():.3g}",
            code="mask.values",
        )
    if soft := int(np.count_nonzero((values > 0) & (values < 1))):
        warnings.append(f"{shown(path)}: {soft} voxels between 0 and 1; more than 0.5 counts as lesion")
    marked = values > 0.5
    seen = marked & inside
    truth = Truth(
        files,
        brain.grid,
        np.packbits(inside),
        np.packbits(marked[inside]),
        n,
        outside=int(np.count_nonzero(marked & ~inside)),
        box=_box(inside),
        lesions=Lesions.of(seen),
        # All that is annotated: a slice whose lesion lies outside the brain mask is no healthy slice.
        slices=tuple(SliceCounts.along(axis, inside, marked) for axis in range(3)),
    )
    return truth, warnings


def _box(inside: np.ndarray) -> tuple[slice, ...]:
    ends = []
    for axis in range(3):
        at = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append(slice(int(at[0]), int(at[-1]) + 1))
    return tuple(ends)
