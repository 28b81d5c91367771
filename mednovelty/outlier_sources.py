"""Samples that are no normal ones: from scans that are abnormal throughout, or from pictures of anything.

Scans go through what normal scans go through, and each of their samples is an outlier. Pictures are for
slices alone: grey, the same in all contrasts, through the same preprocessing as a scan of a single slice
whose mask is all of it, and then brought to the size of the samples, stretched where sides differ.

A part is held out as of the scans, whole scans or pictures, so that validation sees outliers that training
did not. In the table the held-out outliers lie before all scans and the others after them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.annotations import Annotations
from mednovelty.errors import (
    MedNoveltyError,
    OutputError,
    ScanError,
    SettingsError,
    StoppedError,
    failure_message,
)
from mednovelty.interpolation import interpolation
from mednovelty.io.guard import shown
from mednovelty.io.pictures import picture_files, read_picture
from mednovelty.outlier_exposure import Exposed, with_more_labelled
from mednovelty.scan import Scan, Volume
from mednovelty.seeds import numpy_generator
from mednovelty.voxel_cache import VoxelCache

if TYPE_CHECKING:
    from mednovelty.fitting import FitSettings
    from mednovelty.io.scan_folder import Kind

log = logging.getLogger("mednovelty")
AT_A_TIME = 64
PREFIX = "outliers: "
"""Of their names in a table; scans have ids without a blank."""


@dataclass(frozen=True)
class Pictures:
    """Some picture files that are read together."""

    id: str
    paths: tuple[Path, ...]


@dataclass
class Exposure:
    """The outliers of a training, and where they lie in its table.

    Attributes:
        held_out: Scans, their files, or ``Pictures``, for validation.
        training: The same, to train on.
        share: Of a batch.
        labelled_share: Of a batch, where there are labelled anomalies and no outliers; 0: as they come.
        on_scan: Told ``(id, message)`` of each that cannot be used.
        apart: Names of rows in the table that are held out besides, neighbours behind the scans.
    """

    held_out: tuple[Any, ...] = ()
    training: tuple[Any, ...] = ()
    share: float = 0.5
    labelled_share: float = 0.0
    on_scan: Callable[[str, str], Any] = lambda name, message: None
    apart: list[str] = field(default_factory=list)
    _names: dict[str, list[str]] = field(default_factory=lambda: {"held out": [], "training": []})
    _counts: dict[str, int] = field(default_factory=lambda: {"held out": 0, "training": 0})

    @classmethod
    def of(
        cls, known: Annotations, fraction: float, seed: int, on_scan: Callable[[str, str], Any]
    ) -> Exposure:
        """Return the outliers that are known, some of them held out.

        Args:
            known: Its ``outliers``.
            fraction: How many are held out; of a single one, none.
            seed: Decides which.
            on_scan: See the attributes.
        """
        listed = known.outliers
        order = numpy_generator(seed, "outliers").permutation(len(listed))
        count = min(len(listed) - 1, max(1, round(fraction * len(listed)))) if len(listed) > 1 else 0
        chosen = [listed[i] for i in order]
        settings, labelled = known.settings, known.settings.labelled_share if known.labelled else 0.0
        groups = _grouped(chosen[:count]), _grouped(chosen[count:])
        return cls(*groups, settings.outlier_share, labelled if known.semi else 0.0, on_scan)

    def hold_out(self, table: VoxelCache, rows_of: Callable[[Any], np.ndarray], notes: list[str]) -> None:
        """Begin a table with the outliers that are held out.

        Args:
            table: Empty.
            rows_of: Reads one scan or a picture, and returns its labelled rows.
            notes: What cannot be used is noted there.
        """
        self._fill(table, "held out", rows_of, notes)

    def train(self, table: VoxelCache, rows_of: Callable[[Any], np.ndarray], notes: list[str]) -> None:
        """End a table with the outliers to train on; arguments as of ``hold_out``.

        Raises:
            ScanError: There were to be some, and none can be used (``outliers.none``).
        """
        self._fill(table, "training", rows_of, notes)
        if not self.training and not self.held_out:
            return
        if not self._names["training"]:
            raise ScanError(f"no outlier can be used: {'; '.join(notes[-3:])}", code="outliers.none")
        kept, held = self._counts["training"], self._counts["held out"]
        notes.append(
            f"{kept:,} outliers to train on, {held:,} held out; {self.share:.0%} of each batch are outliers"
        )

    def split(
        self, table: VoxelCache, held_out: int, settings: FitSettings, split: Callable[..., Any]
    ) -> tuple[VoxelCache, VoxelCache, tuple[str, ...]]:
        """Return training samples, with their outliers, held-out samples, outliers among them, and notes.

        Args:
            table: All rows.
            held_out: How many scans are held out.
            settings: Of the training.
            split: ``gathering.split``.
        """
        own = [name for name in table.scans if not name.startswith(PREFIX) and name not in self.apart]
        training, validation, notes = split(table, held_out, settings.validation_fraction, own)
        if held_out and self._names["held out"]:
            validation = table.part([*self._names["held out"], *own[:held_out]])
        elif self._names["held out"]:
            validation = table.joined([table.part(self._names["held out"]), validation])
        if self.apart:
            validation = table.joined([validation, table.part(self.apart)])
        if self._names["training"]:
            training = Exposed(training, table.part(self._names["training"]), self.share)
        elif self.labelled_share:
            training = with_more_labelled(training, self.labelled_share)
        return training, validation, notes

    def _fill(
        self, table: VoxelCache, role: str, rows_of: Callable[[Any], np.ndarray], notes: list[str]
    ) -> None:
        for files in self.held_out if role == "held out" else self.training:
            members = files.paths if isinstance(files, Pictures) else (files,)
            blocks = [rows for one in members if (rows := self._rows(one, rows_of, notes)) is not None]
            if blocks:
                name = PREFIX + (getattr(files, "id", None) or str(files))
                table.append(name, np.concatenate(blocks))
                self._names[role].append(name)
                self._counts[role] += sum(map(len, blocks))

    def _rows(self, files: Any, rows_of: Callable[[Any], np.ndarray], notes: list[str]) -> np.ndarray | None:
        """Return the rows of one outlier; None where it cannot be used, which is told."""
        name = getattr(files, "id", None) or shown(files)
        try:
            rows = rows_of(files)
        except (OutputError, StoppedError):
            raise
        except Exception as error:  # Whatever is wrong with one outlier must not stop the others.
            log.debug("%s", name, exc_info=error)
            message = f"outlier left out: {failure_message(error, name)}"
            notes.append(message)
            self.on_scan(name, message)
            return None
        return rows if len(rows) else None


def _grouped(listed: Sequence[Any]) -> tuple[Any, ...]:
    """Return scans one by one, and pictures many together."""
    paths = [files for files in listed if isinstance(files, Path)]
    groups = [paths[i : i + AT_A_TIME] for i in range(0, len(paths), AT_A_TIME)]
    pictures = [Pictures(f"pictures from {group[0]}", tuple(group)) for group in groups]
    return (*(files for files in listed if not isinstance(files, Path)), *pictures)


def find_outliers(
    folder: Path, kind: Kind, view: str, find_scans: Callable[[Path], Sequence[Any]]
) -> tuple[Any, ...]:
    """Return the files of outliers in a folder: scans, or pictures where there are such.

    Args:
        folder: Of either.
        kind: Of the scans that are trained on.
        view: How they are cut, ``slice`` where pictures will do.
        find_scans: Lists the scans of a folder.

    Raises:
        ScanError: There is no such folder (``outliers.folder``), or no scan.
        SettingsError: Pictures for samples that are none (``outliers.pictures``).
    """
    if not folder.is_dir():
        raise ScanError(f"{folder}: not a folder; give one of scans or pictures", code="outliers.folder")
    pictures = picture_files(folder)
    if not pictures:
        return tuple(find_scans(folder))
    try:
        scans = tuple(find_scans(folder))
    except MedNoveltyError:
        scans = ()
    if scans:
        raise ScanError(
            f"{folder}: holds {len(pictures)} pictures and {len(scans)} scans; give a folder of either, so "
            "that no preview is taken for an outlier",
            code="outliers.folder",
        )
    if view != "slice" or kind == "dwi":
        what = "diffusion scans" if kind == "dwi" else "windows"
        raise SettingsError(
            f"{folder}: holds {len(pictures)} pictures, which are outliers for slices alone; for {what} give "
            "a folder of scans like those that are trained on",
            code="outliers.pictures",
        )
    return tuple(pictures)


def picture_samples(
    path: Path, contrasts: Sequence[str], steps: Sequence[tuple[str, Any]], shape: Sequence[int]
) -> np.ndarray:
    """Return the samples that the pictures of a file make, ``(n, C, H, W)`` float32.

    Args:
        path: A picture file.
        contrasts: Of the scans that are trained on; a picture is the same in all of them.
        steps: Preprocessors by name.
        shape: ``(C, H, W)`` of a sample.

    Raises:
        ScanError: It cannot be read, or not be preprocessed.
    """
    samples = []
    for grey in read_picture(path):
        data = np.repeat(grey[None, :, :, None], len(contrasts), 0)
        whole = np.ones((*grey.shape, 1), bool)
        scan = replace(Scan.of(Volume(data, np.eye(4), shown(path)), whole), contrasts=tuple(contrasts))
        for _, step in steps:
            scan = step(scan)
        samples.append(resized(scan.dense()[..., 0], shape[1:]))
    return np.stack(samples)


def resized(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return ``(C, *size)`` float32 of ``(C, H, W)`` images, each axis stretched by itself."""
    rows, columns = (
        interpolation(n, m, n / m, clamp=True) for n, m in zip(images.shape[1:], size, strict=True)
    )
    return np.asarray(rows @ images @ columns.T, np.float32)


__all__ = ["Exposure", "Pictures", "find_outliers", "picture_samples", "resized"]
