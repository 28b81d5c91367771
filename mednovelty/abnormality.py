"""What a detector takes to be abnormal, and who told it so: for sidecars, model card and tables.

A method that makes its own anomalies says in ``summary["prior"]`` which: ``words``, ``ranges`` by name, and
``held_out``, the same of those that it was judged by, or None. ``summary["found"]`` lists what it finds of
each family of anomalies: ``family``, ``trained_on``, ``auroc``, ``ap``.

A detector that was shown which scans, or parts of scans, are abnormal is semi-supervised. Classes of normal
scans, as ``hyperspherical`` takes them, tell nothing of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mednovelty.capabilities import asked_by, offered_by, own_of
from mednovelty.plugins import names as plugin_names
from mednovelty.plugins import plugin
from mednovelty.text import printable

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.scan import Scan

BLIND = "it is blind to what looks otherwise"
FOUND_HEADS = ("family", "trained on", "AUROC", "AP")


def annotated(detector: Detector) -> list[str]:
    """Return the scans of which more was known than that they were taken to be healthy, and what."""
    own = len(detector.scans)
    return [
        f"{scan.id}: {scan.annotation}" + (" (seen by the detector it started from)" if i >= own else "")
        for i, scan in enumerate(detector.seen)
        if scan.annotation
    ]


def outliers_of(detector: Detector) -> int:
    """Return how many outliers a detector was trained with."""
    told = detector.fitted.summary.get("outliers", 0)
    return told if type(told) is int else 0


def is_semi_supervised(detector: Detector) -> bool:
    """Return whether a detector was shown what is abnormal: by masks, labels or outliers."""
    learns = bool(getattr(detector.fitted.method, "semi_labels", ()))
    return learns and bool(annotated(detector) or outliers_of(detector))


def told_of_score(detector: Detector, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what else a sidecar tells of a score: who taught its detector, and what it looks for.

    Args:
        detector: What scored.
        about: What is told already: ``name``, and ``trivial`` of scores that look at no model, which nobody
            taught anything.
    """
    semi = not about.get("trivial", False) and is_semi_supervised(detector)
    told: dict[str, Any] = {"semi_supervised": semi}
    if semi:
        told |= {"annotated_scans": len(annotated(detector)), "outliers": outliers_of(detector)}
    prior = detector.fitted.summary.get("prior")
    return told | ({"prior": prior} if prior and is_own(detector, about["name"]) else {})


def is_own(detector: Detector, score: str) -> bool:
    """Return whether a score is of the method's own making: it asks for what only its model offers."""
    group = next((group for group in ("scorers", "scan_scorers") if score in plugin_names(group)), None)
    if group is None:  # A contrast's own intensity is no plug-in.
        return False
    return bool(set(asked_by(plugin(group, score))) & set(own_of(offered_by(detector.fitted.method))))


def annotation_of(detector: Detector, scan: Scan) -> str | None:
    """Return what a detector was told of a scan, by its id or its bytes; None where it was told nothing."""
    seen = (
        one.annotation
        for one in detector.seen
        if one.annotation and (one.id == scan.id or (one.sha256 and one.sha256 == scan.sha256))
    )
    return next(seen, None)


def prior_section(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines of a model card that say what it takes to be abnormal; none where nothing says."""
    prior = summary.get("prior")
    if not prior:
        return []
    lines = [
        "## What it takes to be abnormal",
        "",
        f"It was trained to find {_words(prior)}; {BLIND}.",
        "",
        *_ranges(prior),
        *_outlines(prior),
    ]
    held_out = prior.get("held_out")
    if held_out:
        lines += [f"Judged, without labels, by anomalies that it was not trained on: {_words(held_out)}.", ""]
        lines += _ranges(held_out)
    return lines


def found_section(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines of a model card's blindness table; none where nothing was measured."""
    found: Sequence[Mapping[str, Any]] = summary.get("found") or ()
    if not found:
        return []
    rows = [
        (
            _cell(row["family"]),
            "yes" if row["trained_on"] else "no",
            _number(row["auroc"]),
            _number(row["ap"]),
        )
        for row in found
    ]
    return [
        "## What it finds, and what it is blind to",
        "",
        "Planted anomalies of each family in held-out samples. An AUROC of 0.5 is chance.",
        "",
        *(f"| {' | '.join(row)} |" for row in (FOUND_HEADS, ("---", "---", "---:", "---:"), *rows)),
        "",
    ]


def _words(prior: Mapping[str, Any]) -> str:
    return printable(str(prior.get("words", ""))).rstrip(". ")


def _ranges(prior: Mapping[str, Any]) -> list[str]:
    ranges = prior.get("ranges") or {}
    lines = [
        f"* {_cell(str(name).replace('_', ' '))}: {_cell(_range(value))}" for name, value in ranges.items()
    ]
    return [*lines, ""] if lines else []


def _outlines(prior: Mapping[str, Any]) -> list[str]:
    """Return what follows from outlines of real lesions; nothing where there are none."""
    ranges = prior.get("ranges") or {}
    if not any(isinstance(own, Mapping) and own.get("outlines") for own in ranges.values()):
        return []
    words = (
        "It has seen the shapes of the lesions whose outlines these are: how well it finds those very "
        "lesions says nothing of others, so evaluate it on masks that are not among them."
    )
    return [words, ""]


def _range(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{str(name).replace('_', ' ')} {_range(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        ends = [_range(one) for one in value]
        both = len(ends) == 2 and all(isinstance(one, int | float) for one in value)
        return f"{ends[0]} to {ends[1]}" if both else ", ".join(ends)
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _cell(text: str) -> str:
    return printable(str(text)).replace("|", "\\|")


__all__ = [
    "BLIND",
    "annotated",
    "annotation_of",
    "found_section",
    "is_own",
    "is_semi_supervised",
    "outliers_of",
    "prior_section",
    "told_of_score",
]
