"""A page of Markdown that tells what a detector is, what it saw and how good it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mednovelty.abnormality import annotated, found_section, is_semi_supervised, outliers_of, prior_section
from mednovelty.searches import told_of
from mednovelty.tuning import takes_neighbours, told_in_words
from mednovelty.views import samples_of

if TYPE_CHECKING:
    from mednovelty.detector import Detector


def model_card(detector: Detector, sha256: str) -> str:
    """Return the model card of a detector, Markdown.

    Args:
        detector: What it is about.
        sha256: Of the record that lies beside the card, 64 hexadecimal digits.
    """
    summary, settings = detector.fitted.summary, detector.settings
    roles = [scan.role for scan in detector.scans]
    samples, count = samples_of(settings.view), sum(scan.n_voxels for scan in detector.scans)
    scheme = detector.scheme.describe() if detector.scheme else f"{detector.model.channels} channels"
    scheme = f"contrasts {', '.join(detector.contrasts)}" if detector.contrasts else scheme
    record, said = detector.fitted.record, annotated(detector)
    average = settings.train.average
    lines = [
        "# A novelty detector",
        "",
        "Trained by mednovelty on scans that were taken to be healthy; it scores how unlike them a voxel is."
        + (" Some were annotated: maps of these scans say nothing of how well it does." if said else ""),
        "Not a medical device: its maps point at what is unusual, which need not be disease.",
        "",
        f"* Record: `detector.json`, sha256 `{sha256}`",
        f"* Recipe and method: `{detector.recipe}`, `{settings.method}`; seed {detector.seed}",
        f"* Acquisition: {scheme}; other acquisitions are refused",
        f"* Scans: {roles.count('training')} to train on, {roles.count('validation')} held out, "
        f"{count:,} {samples}",
        *[f"* Annotated: {words}" for words in said],
        *([] if detector.origin is None else [f"* Weights: {detector.origin.words}"]),
        *_supervision(detector),
        f"* Preprocessing: {', '.join(name for name, _ in detector.preprocessing) or 'none'}",
        f"* Reference: {len(detector.reference):,} of {detector.reference.drawn_from:,} training {samples} "
        f"({detector.reference.n_bytes / 2**20:.1f} MiB)",
        *[f"* Neighbours, {place}: {_search(told)}" for place, told in told_of(detector.reference).items()],
        f"* Scores: {', '.join(f'`{name}`' for name in settings.scores)}",
        *_neighbours(detector),
        f"* Training: {len(record.rows) - 1} epochs, the best was {record.best_epoch}"
        + ("" if record.seconds is None else f", {record.seconds:.0f} s")
        + ("" if average is None else f"; kept is a moving average of weights, decay {average:g}"),
        "",
        *prior_section(summary),
        *found_section(summary),
        f"## How well it describes held-out {samples}",
        "",
        *[
            f"* {name.replace('_', ' ')}: {_shown(value)}"
            for name, value in summary.items()
            if name not in ("candidates", "tuned", "started_from", "prior", "found")
        ],
        "",
        "## What fitting had to say",
        "",
        *([f"* {note}" for note in detector.notes] or ["* nothing"]),
        "",
        "The training curve is in `training.csv` and `training.png`.",
        "",
    ]
    return "\n".join(lines)


def _supervision(detector: Detector) -> list[str]:
    """Return by what it was shown what is abnormal, where it was."""
    if not is_semi_supervised(detector):
        return []
    scans, outliers = len(annotated(detector)), outliers_of(detector)
    shown = [f"{scans:,} annotated scan{'s' * (scans != 1)}"] if scans else []
    shown += [f"{outliers:,} outlier{'s' * (outliers != 1)}"] if outliers else []
    return [f"* Semi-supervised: trained with {' and '.join(shown)}"]


def _neighbours(detector: Detector) -> list[str]:
    """Return what is told of K and alpha, where a score has them."""
    settings, tuned = detector.settings, detector.fitted.summary.get("tuned", {}).get("nln", {})
    names = takes_neighbours(settings.scores)
    if not names:
        return []
    nln = settings.nln
    words = f"K = {nln.k}, alpha = {nln.alpha:g}, as asked for"
    if tuned.get("k") is not None:
        words = f"chosen: {told_in_words(tuned)}"
        if (tuned["k"], tuned["alpha"]) != (nln.k, nln.alpha):
            words = f"K = {nln.k}, alpha = {nln.alpha:g}, as asked for; {words}"
    others = [k for k in sorted(detector.fitted.constants_by_k) if k != nln.k]
    also = f"; K = {', '.join(map(str, others))} can be had when scoring" if others else ""
    return [f"* Nearest latent neighbours: {words}{also}"]


def _search(told: dict[str, Any]) -> str:
    if "Recall" not in told:
        return f"`{told['Name']}`, exact"
    return f"`{told['Name']}`, recall {told['Recall']:.4f} on {told['Sample']:,} held-out voxels"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
