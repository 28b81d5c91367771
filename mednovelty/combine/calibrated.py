"""A combination held against the same combination of held-out normals, so that its p-values are honest.

Scores of one voxel depend on each other, so no table tells what their combination is on normals. It is
measured: each calibration scan has p-values by each score among the other calibration scans; their statistic,
over all scans, is the combination's own null, and what each scan shows among the others is measured as for
any score. Scores may be of several detectors that were calibrated on the same scans.

A new scan's p-values may be smaller than those of a calibration scan among one scan less, for no other reason
than that. So all count as no smaller than the smallest p that each calibration scan can have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from mednovelty.calibrate.calibration import Calibration, CalibrationScan
from mednovelty.calibrate.healthy_scans import HealthyScans, floor_p, left_out_p
from mednovelty.calibrate.null import Null
from mednovelty.calibrate.nulls import ALL
from mednovelty.calibrate.regions import Regions
from mednovelty.calibrate.samples import of_samples
from mednovelty.calibrate.scan_maps import ScanMaps
from mednovelty.combine.statistics import as_stored, combination, combined
from mednovelty.errors import ScanError, SettingsError
from mednovelty.scan import Grid

FORM = 1
"""Raised where the same p-values come to give other statistics."""


@dataclass(frozen=True, eq=False)
class Member:
    """One of the scores that are combined.

    Attributes:
        score: Its name.
        calibration: Of its detector.
        where: What messages call its detector.
    """

    score: str
    calibration: Calibration
    where: str

    @property
    def floor(self) -> float:
        """The smallest p that every calibration scan can have among the others; of one, among itself."""
        return floor_p(self.calibration.counts(self.score))

    def samples(self, id: str) -> int | None:
        """Return how many samples a calibration scan has of a score with one value a sample; else None."""
        counts = self.calibration.samples.get(self.score)
        return None if counts is None else counts[self.place(id)]

    def place(self, id: str) -> int:
        """Return which of the calibration's scans it is."""
        return [scan.id for scan in self.calibration.scans].index(id)


@dataclass(frozen=True, eq=False)
class Combined:
    """Scores that are combined, and what their combinations are on held-out normals.

    Attributes:
        members: The K scores, in the order in which they are combined.
        names: Of the combinations.
        calibration: Of the combinations, as of any score; nothing of it lies on disk.
        notes: In words, what did not fit and was left out.
    """

    members: tuple[Member, ...]
    names: tuple[str, ...]
    calibration: Calibration
    notes: tuple[str, ...] = ()

    def statistic(self, name: str, p: np.ndarray) -> np.ndarray:
        """Return ``(n,)`` float32 of ``(K, n)`` p-values of the members.

        Raises:
            ScanError: A p-value is not in (0, 1].
            SettingsError: An unknown name.
        """
        return combined(name, as_stored(p), [member.floor for member in self.members])


def in_order(members: Sequence[Member]) -> tuple[Member, ...]:
    """Return members in the one order in which they are combined, whatever the order in which they are given.

    Raises:
        SettingsError: There are fewer than two, or one is there twice.
    """
    ordered = sorted(members, key=lambda member: (member.calibration.sha256, member.score))
    if len(ordered) < 2:
        told = f"only {ordered[0].score} of {ordered[0].where}" if ordered else "none"
        raise SettingsError(f"a combination is of two calibrated scores or more; there is {told}")
    for one, other in pairwise(ordered):
        if (one.calibration.sha256, one.score) == (other.calibration.sha256, other.score):
            raise SettingsError(
                f"{one.score} of {one.where} and of {other.where} are the same score of the same detector; "
                "it counts once"
            )
    return tuple(ordered)


def key_of(members: Sequence[Member]) -> str:
    """Return the sha256 that tells what members make: of their calibrations, names and order."""
    told = [FORM, *([member.calibration.sha256, member.score] for member in members)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def calibrated_again(
    members: Sequence[Member], names: Sequence[str], *, other_images: bool = False
) -> Combined:
    """Return combinations of scores, calibrated on the scans that all their detectors were calibrated on.

    Args:
        members: Two or more.
        names: Of ``statistics.COMBINATIONS``.
        other_images: Whether detectors may have seen different images of a scan, as of another contrast.

    Raises:
        DetectorError: The maps of a calibration scan are missing or damaged.
        GeometryError: The maps of a scan do not lie on one grid.
        ScanError: Detectors were calibrated on different images under one id, or in masks that do not meet.
        SettingsError: An unknown combination, fewer than two members, or no scan in common.
    """
    members = in_order(members)
    for name in names:
        combination(name)
    notes, ids = _common(members)
    shared = [_Shared.of([_maps_of(member, id) for member in members], members, other_images) for id in ids]
    notes += [one.note for one in shared if one.note]
    p: list[list[np.ndarray]] = [[] for _ in shared]
    for member in members:
        for number, found in _left_out(member, ids):
            p[number].append(found[shared[number].inside(member)])
    maps = [one.maps for one in shared]
    scans = tuple(
        CalibrationScan(one.maps.id, one.sha256, one.maps.n_voxels, one.maps.voxel_mm3, "", "")
        for one in shared
    )
    floors = [member.floor for member in members]
    nulls, healthy, samples = {}, {}, {}
    for name in names:
        values = [combined(name, as_stored(np.stack(of_scan)), floors) for of_scan in p]
        counted = _counted(values, members, ids)
        if counted is not None:
            samples[name] = tuple(map(len, counted))
        nulls[name] = {ALL: Null.of(np.concatenate(counted or values))}
        among = left_out_p(values, [None] * len(values), counted=counted)
        healthy[name] = HealthyScans.measured(zip(maps, values, among, strict=True))
    first = members[0].calibration
    methods = dict.fromkeys(member.calibration.method for member in members)
    detectors = {member.calibration.detector_sha256 for member in members}
    calibration = Calibration(
        nulls, healthy, scans, Regions(), " and ".join(methods),
        first.detector_sha256 if len(detectors) == 1 else "", {}, first.folder, key_of(members), samples,
    )  # fmt: skip
    return Combined(members, tuple(names), calibration, tuple(notes))


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all members have of one calibration scan.

    Attributes:
        maps: Its mask holds the voxels that all have scored.
        own: By calibration, the ``(I, J, K)`` voxels that were scored there.
        sha256: Of its image.
        note: In words, what is left out.
    """

    maps: ScanMaps
    own: dict[str, np.ndarray]
    sha256: str
    note: str

    @classmethod
    def of(
        cls, each: Sequence[tuple[ScanMaps, str]], members: Sequence[Member], other_images: bool
    ) -> _Shared:
        first, sha256 = each[0]
        mask, own = first.mask.copy(), {}
        for (maps, image), member in zip(each, members, strict=True):
            name, other = f"{maps.id} in {member.where}", f"{first.id} in {members[0].where}"
            if image != sha256 and not other_images:
                raise ScanError(
                    f"{name} is another image ({image[:12]}) than {other} ({sha256[:12]}), on which the "
                    "detectors were calibrated; if they are images of one session, add --other-images",
                    code="combine.images",
                )
            Grid(maps.mask.shape, maps.affine).check_same(Grid(first.mask.shape, first.affine), name, other)
            mask &= maps.mask
            own[member.calibration.sha256] = maps.mask
        left, most = int(np.count_nonzero(mask)), max(int(np.count_nonzero(one)) for one in own.values())
        if not left:
            raise ScanError(f"{first.id}: no voxel of it was scored by all detectors", code="combine.mask")
        note = f"calibration scan {first.id}: {left} of {most} voxels were scored by all detectors"
        maps = ScanMaps(first.id, mask, first.affine, (), Path())
        return cls(maps, own, sha256, note if left < most else "")

    def inside(self, member: Member) -> np.ndarray:
        """Return ``(n,)`` bool: which of a member's voxels all have."""
        return self.maps.mask[self.own[member.calibration.sha256]]


def _common(members: Sequence[Member]) -> tuple[list[str], list[str]]:
    """Return notes on scans that not all were calibrated on, and the ids of those that all were."""
    each = {member.where: [scan.id for scan in member.calibration.scans] for member in members}
    ids = [id for id in next(iter(each.values())) if all(id in known for known in each.values())]
    if not ids:
        told = "; ".join(f"{where}: {', '.join(known)}" for where, known in each.items())
        raise SettingsError(
            f"no scan was used to calibrate all detectors ({told}); calibrate them on the same normals"
        )
    notes = [
        f"{where}: calibration scans that not all detectors have are left out: {', '.join(others)}"
        for where, known in each.items()
        if (others := [id for id in known if id not in ids])
    ]
    return notes, ids


def _counted(
    values: Sequence[np.ndarray], members: Sequence[Member], ids: Sequence[str]
) -> list[np.ndarray] | None:
    """Return what of each scan counts in a null where all members have one value a sample; else None.

    Of several detectors each has its own slices or windows; what their combination knows is the fewest's.
    """
    found = []
    for one, id in zip(values, ids, strict=True):
        counts = [count for member in members if (count := member.samples(id)) is not None]
        if len(counts) < len(members):
            return None
        found.append(of_samples(one, min(counts)))
    return found


def _maps_of(member: Member, id: str) -> tuple[ScanMaps, str]:
    number = member.place(id)
    return member.calibration.maps(number), member.calibration.scans[number].sha256


def _left_out(member: Member, ids: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the place among ids, and the p-values, of each calibration scan of a member."""
    for maps, p in member.calibration.left_out(member.score):
        if maps.id in ids:
            yield ids.index(maps.id), p


__all__ = ["Combined", "Member", "calibrated_again", "in_order", "key_of"]
