"""Which scans and anomalies are held out, and in which order scans are read.

Subjects are held out whole, all of their sessions. Anomalies are held out, too, so that an epoch is not
chosen by normal samples alone.

Anomalies are few, and most are trained on. Of several annotated subjects some are held out whole, as many as
of healthy ones; of a single one a fifth of the samples that are labelled as abnormal, which follow each other
in the file's order: no more than that can be had without a second patient, and a note says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from mednovelty.errors import MedNoveltyError, OutputError, ScanError, StoppedError, failure_message
from mednovelty.fitting import make_method
from mednovelty.io.folds import subject_of as _subject_of_files
from mednovelty.sample_places import SamplePlaces
from mednovelty.scan import Scan
from mednovelty.seeds import numpy_generator
from mednovelty.voxel_cache import VoxelCache

log = logging.getLogger("mednovelty")
PART = 0.2
"""Of the abnormal samples of a single annotated subject."""


@dataclass
class HeldAnomalies:
    """What is held out of the scans with anomalies, which lie behind all others in a table.

    Attributes:
        whole: Ids of scans that are held out.
        part: Id of a scan of which a part is; empty: of none.
        seed: Decides which part.
        names: Of the held-out rows in the table.
    """

    whole: frozenset[str] = frozenset()
    part: str = ""
    seed: int = 0
    names: list[str] = field(default_factory=list)

    def append(
        self, table: VoxelCache, scan: str, rows: np.ndarray, places: SamplePlaces | None = None
    ) -> str:
        """Add the labelled rows of a scan, ``(n, D)``, to a table; return a note, empty where there is none.

        Args:
            table: The rows that are held out are its last ones.
            scan: Its id.
            rows: They end with labels where any of the scan is held out.
            places: Where they are, as far as is known.
        """
        if scan in self.whole:
            table.append(scan, rows, places)
            self.names.append(scan)
            return "held out whole: its anomalies help to choose the epoch"
        abnormal = np.flatnonzero(rows[:, -1] < 0) if scan == self.part else np.empty(0, np.int64)
        if len(abnormal) < 2:
            table.append(scan, rows, places)
            return ""
        count = min(max(1, round(PART * len(abnormal))), len(abnormal) - 1)
        start = numpy_generator(self.seed, "held-out anomalies", scan).integers(len(abnormal) - count + 1)
        chosen = np.zeros(len(rows), bool)
        chosen[abnormal[start : start + count]] = True
        name = f"held out of {scan}"
        table.append(scan, rows[~chosen], None if places is None else places.kept(~chosen))
        table.append(name, rows[chosen])
        self.names.append(name)
        return (
            f"{count} of its {len(abnormal)} abnormal samples, which follow each other, are held out to "
            "choose the epoch: of the same patient as those that are trained on, since no other is annotated"
        )


def refuse_outlier(scan: Scan, seen: Iterable[Any], outliers: dict[str, str]) -> None:
    """Refuse an outlier that is a scan to train on, byte for byte, and remember its hash.

    Args:
        scan: The outlier.
        seen: Scans of the training so far, with ``id`` and ``sha256``.
        outliers: Ids by hash.

    Raises:
        ScanError: It is one of these (``outliers.overlap``).
    """
    same = next((other.id for other in seen if scan.sha256 and other.sha256 == scan.sha256), None)
    if same is not None:
        raise ScanError(f"{scan.id}: the same file, byte for byte, as the scan {same}, which is trained on",
                        code="outliers.overlap")  # fmt: skip
    if scan.sha256:
        outliers[scan.sha256] = scan.id


def refuse_copy_of_outlier(scan: Scan, outliers: Mapping[str, str]) -> None:
    """Refuse a scan to train on that is an outlier, byte for byte.

    Raises:
        ScanError: It is one (``outliers.overlap``).
    """
    if scan.sha256 in outliers:
        raise ScanError(
            f"{scan.id}: the same file, byte for byte, as the outlier {outliers[scan.sha256]}; a scan is one "
            "of the two",
            code="outliers.overlap",
        )


def held_of(subjects: Sequence[tuple[str, Sequence[str]]], count: int, seed: int) -> HeldAnomalies:
    """Return what is held out of annotated scans.

    Args:
        subjects: Each subject and the ids of its scans, in the order in which they are held out.
        count: How many subjects; 0: a part of a single one.
        seed: Decides which part.
    """
    if count:
        return HeldAnomalies(frozenset(id for _, ids in subjects[:count] for id in ids), seed=seed)
    return HeldAnomalies(part=subjects[-1][1][-1] if subjects else "", seed=seed)


def validation_first(listed: list[Any], seed: int) -> list[Any]:
    """Return the scans in the order they are read: those for validation first, each kind's subjects shuffled.

    Shuffled, since scans are often sorted by site or date; the first that can be read are held out, so
    that a scan that cannot gives its place to the next.
    """
    subjects = list(dict.fromkeys(map(subject_of, listed)))
    order = numpy_generator(seed, "validation scans").permutation(len(subjects))
    place = {subjects[i]: rank for rank, i in enumerate(order)}
    shuffled = sorted(listed, key=lambda files: place[subject_of(files)])
    return sorted(shuffled, key=lambda files: getattr(files, "role", None) != "validation")


def add_known(listed: Iterable[Any], gather: Any, on_scan: Callable[[str, str], Any], seed: int = 0) -> None:
    """Read scans one after another and add each with its lesion; those that are anomalous come last.

    All scans of a subject with an anomaly are among the last, so that no subject is on both sides. They are
    read again when their turn comes: many scans do not fit into memory.

    Args:
        listed: Scans or their files, in the order in which they are held out, those of a subject together.
        gather: Has ``read``, ``add``, ``known``, ``held``, ``subjects`` and ``notes``.
        on_scan: Told ``(scan id, message)`` of each.
        seed: Decides which anomalies are held out.
    """
    waiting: list[Any] = []
    ids: dict[str, str] = {}
    groups = [list(group) for _, group in groupby(listed, subject_of)]
    gather.subjects = {name_of(files): subject_of(files) for group in groups for files in group}

    def quiet(name: str, message: str) -> None:
        if message:
            on_scan(name, message)

    def add(files: Any) -> None:
        scan = gather.read(files)
        # Of a path the id is known only now.
        ids[name_of(files)] = scan.id
        gather.subjects[scan.id] = subject_of(files)
        lesion, role = gather.known.lesion(scan), getattr(files, "role", None)
        if role != "validation" and gather.known.is_anomalous(scan, lesion):
            waiting.append(files)
        else:
            gather.add(scan, role, lesion)

    for group in groups:
        if len(group) > 1 and _any_anomalous(group, gather):
            late = [files for files in group if getattr(files, "role", None) != "validation"]
            waiting += late
            for files in late:
                on_scan(name_of(files), "")
            group = [files for files in group if files not in late]
        add_each(group, add, gather.notes, on_scan)
    # The first are held out: those with anomalies, of which there are few, are to be trained on.
    gather.held = _held([(subject_of(files), _id_of(files, ids)) for files in waiting], gather, seed)
    waiting.sort(key=lambda files: _id_of(files, ids) in gather.held.whole)
    add_each(waiting, partial(_add_late, gather), gather.notes, quiet)


def _add_late(gather: Any, files: Any) -> None:
    scan = gather.read(files)
    gather.add(scan, getattr(files, "role", None), gather.known.lesion(scan))


def _any_anomalous(group: list[Any], gather: Any) -> bool:
    """Return whether one of a subject's scans has an anomaly; what is wrong with one is said later."""
    if not gather.known.semi or (gather.known.lesion_of is None and gather.known.labels is None):
        return False
    for files in group:
        with suppress(MedNoveltyError, OSError, ValueError):
            scan = gather.read(files)
            if gather.known.is_anomalous(scan, gather.known.lesion(scan)):
                return True
    return False


def _id_of(files: Any, ids: Mapping[str, str]) -> str:
    return ids.get(name_of(files), name_of(files))


def _held(waiting: list[tuple[str, str]], gather: Any, seed: int) -> HeldAnomalies:
    """Return which anomalies, by subject and scan, are held out; none where others are, or roles decide."""
    by_subject: dict[str, list[str]] = {}
    for subject, scan_id in waiting:
        by_subject.setdefault(subject, []).append(scan_id)
    healthy = {gather.subjects[scan.id] for scan in gather.seen}
    fraction = gather.settings.validation_fraction
    others = (
        bool(gather.asked)
        or bool(gather.exposure.held_out)
        or getattr(make_method(gather.settings), "plants", False)
        or held_out_count(len(healthy | set(by_subject)), fraction) > len(healthy)
        or (not healthy and len(by_subject) > 1)
    )
    if not by_subject or others:
        return HeldAnomalies()
    return held_of(list(by_subject.items()), held_out_count(len(by_subject), fraction), seed)


def add_each(
    scans: Iterable[Any], add: Callable[[Any], None], notes: list[str], on_scan: Callable[[str, str], Any]
) -> None:
    """Add scans one after another, and note each that could not be.

    Args:
        scans: Scans or their files.
        add: Reads and keeps one.
        notes: What could not be added is noted there.
        on_scan: Told ``(scan id, message)`` of each; the message is empty where all went well.
    """
    for files in scans:
        name, message = name_of(files), ""
        try:
            add(files)
        except (OutputError, StoppedError):
            raise
        except Exception as error:  # Whatever is wrong with one scan must not stop the others.
            log.debug("%s", name, exc_info=error)
            message = failure_message(error, name)
            notes.append(f"left out: {message}")
        on_scan(name, message)


def held_out_ids(
    ids: list[str], asked: set[str], fraction: float, subjects: Mapping[str, str] | None = None
) -> set[str]:
    """Return which scans are held out: those that the manifest says, else those of the first subjects.

    Args:
        ids: Of scans, in the order in which they were read, those of a subject together.
        asked: What the manifest says.
        fraction: How many subjects.
        subjects: By scan; a scan that is not there is one of its own.

    Raises:
        ScanError: None would be left to train on.
    """
    if asked and len(asked) == len(ids):
        raise ScanError("every usable scan is held out for validation; none is left to train on",
                        code="cohort.roles")  # fmt: skip
    if asked:
        return asked
    whose = [(subjects or {}).get(id, id) for id in ids]
    several = list(dict.fromkeys(whose))
    if len(several) == 1:
        # Sessions of a single subject: there is no other to hold out.
        return set(ids[: held_out_count(len(ids), fraction)])
    chosen = set(several[: held_out_count(len(several), fraction)])
    return {id for id, subject in zip(ids, whose, strict=True) if subject in chosen}


def held_out_count(scans: int, fraction: float) -> int:
    """Return how many of some scans are held out: at least one, and at least one is left; 0 of one."""
    return 0 if scans < 2 else min(scans - 1, max(1, round(fraction * scans)))


def name_of(files: Any) -> str:
    """Return what messages call a scan or its files."""
    return getattr(files, "id", None) or str(files)


def subject_of(files: Any) -> str:
    """Return whose scan it is: all sessions of a BIDS subject are one's, also of scans in memory."""
    if hasattr(files, "entities") and not isinstance(files, Scan):
        return _subject_of_files(files)
    name = name_of(files)
    return name.partition("_")[0] if name.startswith("sub-") else name


__all__ = [
    "HeldAnomalies",
    "add_each",
    "add_known",
    "held_of",
    "held_out_count",
    "held_out_ids",
    "name_of",
    "refuse_copy_of_outlier",
    "refuse_outlier",
    "subject_of",
    "validation_first",
]
