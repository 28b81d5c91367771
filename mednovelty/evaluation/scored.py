"""One scan's maps, and what their sidecars tell of how they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def axis_number(told: Any) -> int | None:
    """Return the array axis 0, 1 or 2 of ``"I"``, ``"J"``, ``"K"`` or of its number; None for all else.

    Examples:
        >>> axis_number("k"), axis_number(0), axis_number("axial"), axis_number(True)
        (2, 0, None, None)
    """
    if isinstance(told, str) and told.upper() in ("I", "J", "K"):
        return "IJK".index(told.upper())
    return told if type(told) is int and 0 <= told <= 2 else None


@dataclass(frozen=True, slots=True)
class Made:
    """What a sidecar says its map was made of; None where it does not say.

    Attributes:
        detector: The detector's hash.
        image: The scan's hash.
        beside: The hashes of the gradient and mask files.
        voxels: In the mask.
        sha256: The map's own hash.
        trivial: Whether the score is a trivial baseline.
        slice_axis: 0, 1 or 2: along which axis a model of slices saw the scan.
        unscored: Voxels of the mask that no sample covered, as in slices left out; the map is 0 there.
        semi_supervised: Whether its detector was shown what is abnormal.
        annotated: What its detector was told of this very scan, in words; empty where nothing.
        method: Of its detector.
        prior: What the method was trained to find, in words.
        outlines: The hashes of the lesion masks whose outlines were planted in its training.
    """

    detector: str | None
    image: str | None
    beside: str | None
    voxels: int | None
    sha256: str | None
    trivial: bool | None = None
    slice_axis: int | None = None
    unscored: int | None = None
    semi_supervised: bool | None = None
    annotated: str | None = None
    method: str | None = None
    prior: str | None = None
    outlines: frozenset[str] = frozenset()

    @classmethod
    def of(cls, sidecar: dict[str, Any]) -> Made:
        """Take what a sidecar tells; what is of another type counts as not told."""
        keys = ("DetectorSha256", "InputSha256", "BesideSha256", "MapSha256")
        detector, image, beside, own = (
            value if isinstance(value := sidecar.get(key), str) else None for key in keys
        )
        mask = sidecar.get("Mask")
        voxels = mask.get("Voxels") if isinstance(mask, dict) else None
        unscored = sidecar.get("UnscoredVoxels")
        score, detector_told = _dict(sidecar.get("Score")), _dict(sidecar.get("Detector"))
        trivial, semi = score.get("trivial"), score.get("semi_supervised")
        return cls(
            detector,
            image,
            beside,
            voxels if isinstance(voxels, int) else None,
            own,
            trivial if isinstance(trivial, bool) else None,
            axis_number(sidecar.get("SliceAxis")),
            unscored if type(unscored) is int and unscored >= 0 else None,
            semi if isinstance(semi, bool) else None,
            _text(sidecar.get("AnnotatedInTraining")),
            _text(detector_told.get("Method")),
            _text(_dict(score.get("prior")).get("words")),
            frozenset(_outlines(_dict(score.get("prior")).get("ranges"))),
        )

    @classmethod
    def of_both(cls, one: Made, other: Made) -> Made:
        """Return what is told of a map that two others were combined to."""
        same = one.slice_axis == other.slice_axis
        return cls(
            None,
            None,
            None,
            None,
            None,
            bool(one.trivial and other.trivial),
            one.slice_axis if same or other.slice_axis is None else other.slice_axis,
            None,
            bool(one.semi_supervised or other.semi_supervised),
            one.annotated or other.annotated,
            outlines=one.outlines | other.outlines,
        )


def _dict(told: Any) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}


def _outlines(families: Any) -> Iterator[str]:
    """Yield the hashes of the masks whose outlines any family planted."""
    for told in _dict(families).values():
        masks = _dict(_dict(told).get("outlines")).get("masks")
        yield from (mask for mask in masks if isinstance(mask, str)) if isinstance(masks, list) else ()


def _text(told: Any) -> str | None:
    return told if isinstance(told, str) and told else None


_MADE_OF: tuple[tuple[str, Callable[[Made], Any], Callable[[Any], str]], ...] = (
    ("by different detectors", lambda made: made.detector, lambda value: f" ({value[:8]})"),
    ("from different images", lambda made: made.image, lambda value: f" ({value[:8]})"),
    ("with different gradient or mask files", lambda made: made.beside, lambda value: ""),
    ("in different masks", lambda made: made.voxels, lambda value: f" ({value} voxels)"),
)


@dataclass(frozen=True, slots=True)
class ScoredScan:
    """What a score run wrote for one scan.

    Attributes:
        id: The scan's id, from the sidecars.
        brain: The mask it was scored in.
        maps: Score name to raw map.
        made: Score name to what its sidecar says the map was made of.
        together: Name of a combination to the two scores that it is of; both have maps.
        copies: Maps that are the same as one of ``maps``, to the byte, in other folders.
    """

    id: str
    brain: Path
    maps: dict[str, Path] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    together: dict[str, tuple[str, str]] = field(default_factory=dict)
    copies: list[Path] = field(default_factory=list)

    @property
    def copied_to(self) -> list[Path]:
        """Folders that hold copies of its maps and none of its own, as of a whole scan that is kept."""
        own = {path.parent for path in self.maps.values()}
        return sorted({path.parent for path in self.copies} - own)

    @property
    def scores(self) -> set[str]:
        """Scores that have a map, and combinations of such."""
        return {*self.maps, *self.together}

    def made_of(self, score: str) -> Made | None:
        """Return what is told of a map, or of both that a combination is of; None where nothing is."""
        if score not in self.together:
            return self.made.get(score)
        one, other = (self.made.get(part) for part in self.together[score])
        return None if one is None or other is None else Made.of_both(one, other)

    def kinds(self, score: str) -> tuple[str, ...]:
        """Return what must stand beside a score's name, wherever it stands."""
        made = self.made_of(score)
        semi = made is not None and bool(made.semi_supervised)
        combined = score in self.together
        return (*(["combination"] if combined else []), *(["semi-supervised"] if semi else []))

    def mixtures(self) -> list[str]:
        """Say where maps that stand side by side were not made from the same; nothing told, nothing said."""
        found = []
        # Who asks for a combination means to have maps of two detectors.
        for what, of, shortened in _MADE_OF[1 if self.together else 0 :]:
            groups: dict[Any, list[str]] = {}
            for score, made in self.made.items():
                if of(made) is not None:
                    groups.setdefault(of(made), []).append(score)
            if len(groups) > 1:
                parts = [f"{', '.join(scores)}{shortened(value)}" for value, scores in groups.items()]
                found.append(
                    f"{self.id}: its maps were made {what}: {' against '.join(parts)}; do not compare them, "
                    "score it again in one run"
                )
        return found


def named(score: str, kinds: Iterable[str]) -> str:
    """Return a score's name with what must stand beside it.

    Examples:
        >>> named("fcdd_map", ["semi-supervised"]), named("raw_FLAIR", [])
        ('fcdd_map (semi-supervised)', 'raw_FLAIR')
    """
    beside = ", ".join(kinds)
    return f"{score} ({beside})" if beside else score


__all__ = ["Made", "ScoredScan", "axis_number", "named"]
