"""One scan's lesion on the voxels that were scored, and its maps read onto them, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.evaluation.files import ScoredScan
from mednovelty.evaluation.result import Row
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
    """

    files: ScoredScan
    grid: Grid
    brain: np.ndarray
    lesion: np.ndarray
    n: int
    outside: int

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

    def scores(self, score: str) -> np.ndarray:
        """Return ``(n,)`` scores in the order of ``labels``.

        Raises:
            ScanError: The map is damaged, holds NaN, or is not the file that its sidecar tells of.
            GeometryError: It lies on other voxels than the brain mask.
        """
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
        size = int(np.prod(self.grid.shape))
        inside = np.unpackbits(self.brain, count=size).view(bool).reshape(self.grid.shape)
        values = volume.data[0][inside]
        if missing := int(np.count_nonzero(np.isnan(values))):
            raise ScanError(
                f"{volume.name}: {missing} of {values.size} scores are NaN; score {self.files.id} again",
                code="maps.nan",
            )
        return values

    def facts(self) -> Row:
        """Return the counts that stand beside the metrics."""
        lesion = int(np.bitwise_count(self.lesion).sum())
        return {"lesion_voxels": lesion, "lesion_voxels_outside_brain": self.outside, "brain_voxels": self.n,
                "prevalence": lesion / self.n}  # fmt: skip


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
    outside = int(np.count_nonzero(marked & ~inside))
    truth = Truth(files, brain.grid, np.packbits(inside), np.packbits(marked[inside]), n, outside)
    return truth, warnings
