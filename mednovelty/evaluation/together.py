"""What neither finds alone: two scores' maps as one, rated beside both.

Each map is turned into ranks ``r`` among the voxels of the scan that its score has seen, equal scores sharing
their mean rank, ``r = (rank - 1/2) / m`` in (0, 1). How far up a voxel stands is then a tail probability
``1 - r`` whatever the scores' units, and two of them are combined as

    ``-log(1 - r_A) - log(1 - r_B)``

after R. A. Fisher, Statistical Methods for Research Workers (1925; section 21.1 from the 4th edition, 1932,
on). That is half of his statistic. It is used as a score, not as a test: two scores of one scan are not
independent, so no p-value follows, and its threshold is found like that of any score.

A rank knows no other scan: the top percent of a healthy scan ranks as high as that of a sick one. So numbers
of all scans pooled, and of slices of several scans, lose what a score knows of scans as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from mednovelty.errors import SettingsError
from mednovelty.evaluation.lesions import POINTS
from mednovelty.evaluation.scored import ScoredScan

if TYPE_CHECKING:
    from mednovelty.evaluation.result import Evaluation

Pair = tuple[str, str]
GAINED = {"auroc": "AUROC", "ap": "AP", "dice_fifth": "Dice by a fifth"}
POOLED = ("auroc", "ap")


def surprise(scores: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` float64 ``-log(1 - r)``, 0 where a score has seen nothing and above 0 elsewhere.

    Args:
        scores: ``(n,)`` of one scan, without NaN; infinities are ranked.
        seen: ``(n,)`` bool: voxels that a sample covered.
    """
    found = np.zeros(scores.shape)
    m = int(np.count_nonzero(seen))
    if m:
        # 1 - r as a quotient: at the top, where it matters, nothing cancels.
        found[seen] = np.log(m / (m - rankdata(scores[seen]) + 0.5))
    return found


def pairs_of(asked: Sequence[Any], scans: Mapping[str, ScoredScan]) -> tuple[Pair, ...]:
    """Return the combinations that are asked for, each once.

    Args:
        asked: Two names, or any number of pairs of names; a pair may be one text with a comma.
        scans: Whose maps there are.

    Raises:
        SettingsError: Not two different names, no such score, or no scan that has maps of both.
    """
    # Two names are one pair; a text with a comma is a pair by itself.
    one = len(asked) == 2 and all(isinstance(name, str) and "," not in name for name in asked)
    pairs: list[Pair] = []
    for entry in [asked] if one else asked:
        names = [name.strip() for name in (entry.split(",") if isinstance(entry, str) else entry)]
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise SettingsError(f"together needs two different scores, as A,B; got {','.join(names)!r}")
        _check(names, scans)
        if not any(set(pair) == set(names) for pair in pairs):
            pairs.append((names[0], names[1]))
    return tuple(pairs)


def _check(names: Sequence[str], scans: Mapping[str, ScoredScan]) -> None:
    known = sorted({score for files in scans.values() for score in files.maps})
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise SettingsError(f"together: no map of {name!r}; {hint}")
    if not any(set(names) <= set(files.maps) for files in scans.values()):
        raise SettingsError(
            f"together: no scan has maps of both {names[0]} and {names[1]}; score the same scans with both"
        )


def combine(scans: Iterable[ScoredScan], pairs: Sequence[Pair]) -> None:
    """Let scans that have maps of both scores of a pair have one of their combination, ``A+B``."""
    for files in scans:
        files.together.update({"+".join(pair): pair for pair in pairs if set(pair) <= set(files.maps)})


@dataclass(frozen=True, slots=True)
class Gain:
    """How far a combination is ahead of the better of both, in the scans that all three can be rated in.

    Attributes:
        better: The score that has the higher mean.
        value: That mean.
        together: The combination's mean.
        ahead: Mean difference, scan by scan; NaN where there is no such scan.
        interval: Of it, over patients.
        scans: How many.
    """

    better: str
    value: float
    together: float
    ahead: float
    interval: list[float] | None
    scans: int


@dataclass(frozen=True, slots=True)
class SharedLesions:
    """Lesions by who finds them, each score at its own threshold; the first five add up to all.

    Attributes:
        both: Found by either score.
        first: By the first alone.
        second: By the second alone.
        together: By neither, but by the combination.
        none: By none of the three.
        lost: Found by one or both, but not by the combination.
    """

    both: int
    first: int
    second: int
    together: int
    none: int
    lost: int

    @property
    def lesions(self) -> int:
        """All of them."""
        return self.both + self.first + self.second + self.together + self.none


def gain(found: Evaluation, name: str, metric: str) -> Gain:
    """Compare a combination with the better of its two scores, scan by scan."""
    pair = found.together[name]
    ours, *theirs = (found.column(score, metric) for score in (name, *pair))
    common = [id for id in ours if all(id in column for column in theirs)]
    if not common:
        return Gain(pair[0], math.nan, math.nan, math.nan, None, 0)
    means = [float(np.mean([column[id] for id in common])) for column in theirs]
    best = int(np.argmax(means))
    by = {id: ours[id] - theirs[best][id] for id in common}
    mean = float(np.mean([ours[id] for id in common]))
    return Gain(pair[best], means[best], mean, float(np.mean(list(by.values()))), found.interval(by), len(by))


def pooled_gain(found: Evaluation, name: str, metric: str) -> Gain:
    """Compare the numbers of all scans pooled; NaN where the three do not have the same scans."""
    rows = [found.pooled.get(score, {}) for score in (name, *found.together[name])]
    ours, *theirs = (row.get(metric, math.nan) for row in rows)
    best = int(np.argmax(np.nan_to_num(theirs, nan=-1.0)))
    same = len({tuple(sorted(_scans(found, score))) for score in (name, *found.together[name])}) == 1
    ahead = ours - theirs[best] if same else math.nan
    return Gain(found.together[name][best], theirs[best], ours, ahead, None, rows[0].get("scans", 0))


def shared_lesions(found: Evaluation, name: str, point: str) -> SharedLesions | None:
    """Count lesions by who finds them at a threshold of ``POINTS``; None where one has no threshold."""
    three = [found.rated[score].detections if score in found.rated else {} for score in
             (*found.together[name], name)]  # fmt: skip
    ids = [id for id in three[0] if all(point in one.get(id, ()) for one in three)]
    if not ids:
        return None
    a, b, c = (np.concatenate([one[id][point].found for id in ids]) for one in three)
    parts = (a & b, a & ~b, b & ~a, c & ~a & ~b, ~(a | b | c), (a | b) & ~c)
    return SharedLesions(*(int(part.sum()) for part in parts))


def to_dict(found: Evaluation) -> dict[str, dict[str, Any]]:
    """Return all of it as JSON types, but for NaN, by combination."""
    told: dict[str, dict[str, Any]] = {}
    for name, pair in found.together.items():
        lesions = {point: shared_lesions(found, name, point) for point in POINTS}
        told[name] = {
            "scores": list(pair),
            "mean": {metric: asdict(gain(found, name, metric)) for metric in GAINED},
            "pooled": {metric: asdict(pooled_gain(found, name, metric)) for metric in POOLED},
            "lesions": {point: asdict(one) for point, one in lesions.items() if one is not None},
        }
    return told


def words(found: Evaluation) -> list[str]:
    """Say of each combination how far it is ahead of the better of both, or behind."""
    return [
        f"{found.named(name)} against the better of both: "
        + "; ".join(_said(gain(found, name, metric), what) for metric, what in GAINED.items())
        + "."
        for name in found.together
    ]


def pooled_words(found: Evaluation) -> list[str]:
    """Say the same of all scans pooled."""
    return [
        f"{found.named(name)} against the better of both, pooled: "
        + "; ".join(_said(pooled_gain(found, name, metric), GAINED[metric]) for metric in POOLED)
        + "."
        for name in found.together
    ]


def _said(one: Gain, metric: str) -> str:
    if math.isnan(one.ahead):
        return f"{metric} cannot be compared"
    size = f"{abs(one.ahead):.3f}"
    if one.interval is not None:
        low, high = one.interval if one.ahead >= 0 else (-one.interval[1], -one.interval[0])
        size += f" [{low:.3f}, {high:.3f}]"
    way = "above" if one.ahead >= 0 else "below"
    return f"{metric} {one.together:.3f}, {size} {way} {one.better} ({one.value:.3f})"


def _scans(found: Evaluation, score: str) -> set[str]:
    return set(found.rated[score].rows) if score in found.rated else set()


__all__ = [
    "GAINED",
    "Gain",
    "SharedLesions",
    "combine",
    "gain",
    "pairs_of",
    "pooled_gain",
    "pooled_words",
    "shared_lesions",
    "surprise",
    "to_dict",
    "words",
]
