"""K and alpha of nearest latent neighbours, chosen on held-out normals and anomalies made of them.

Mesarcik et al. 2021 choose both by the AUROC on the test set. Here half of the held-out normals are turned
into anomalies (``mednovelty.synthetic_anomalies``). No label is looked at; how well made-up anomalies stand
for real ones, nobody knows.

A score of samples is judged by the AUROC of the anomalies against the other half. A map is judged by its
voxels, all samples pooled: those pasted against all others, of the anomalies and of the other half, since a
patient's map is read over slices with and without a lesion. Voxels outside the mask, where a sample shows the
view's background, are left out: what maps say there is never written. Where a map is among the scores, alpha
is above 0, for a map of the distance alone is one number a sample.

Of settings that the samples cannot tell apart, that nearest to the one asked for, or the default, is taken:
those whose AUROC is within one standard error of the best. The error is that of the difference, by the
influence of each sample on both AUROCs; it counts voxels of a sample as one observation (N. A. Obuchowski,
Nonparametric analysis of clustered ROC curve data, Biometrics 53, 1997).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.batch import Batch, sample_shape
from mednovelty.calibration import scale_of, terms_by_k
from mednovelty.capabilities import WORDS, asked_by
from mednovelty.errors import SettingsError
from mednovelty.neighbours.latent_settings import OFFERED_NEIGHBOURS, NLNSettings
from mednovelty.plugins import names as plugin_names
from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.synthetic_anomalies import synthetic_anomalies

ALPHAS = tuple(i / 10 for i in range(11))
FEWEST = 20
"""Held-out samples below which an AUROC says nothing."""
MOST_IMAGES, MOST_VOXELS = 400, 8192
"""Held-out slices or windows, and voxels, that are looked at: of each ten neighbours are decoded, and more
would hardly change a choice among 55 settings, or a mean and a standard deviation."""
MOST_PLACES = 1 << 17
"""Voxels of maps that are ranked, of all samples together."""
NUMBERS_A_BATCH = 1 << 20
"""Samples times neighbours times values that are decoded at once; a network's layers have many times more."""

Terms = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Trial:
    """What settings are judged by.

    Attributes:
        x: ``(n, D)``, normals and anomalies.
        novel: ``(n,)`` bool, which are anomalies.
        places: ``(n, m)`` int64, the voxels of each sample that are looked at.
        pasted: ``(n, m)`` bool, which of them are foreign.
        counted: ``(n, m)`` bool, which of them are within the mask.
    """

    x: Tensor
    novel: Tensor
    places: Tensor
    pasted: Tensor
    counted: Tensor


class _Judged(NamedTuple):
    auroc: float
    influence: np.ndarray
    """``(n,)``, what each sample adds to the AUROC's error; squares add up to its variance."""


def takes_neighbours(names: Sequence[str]) -> list[str]:
    """Return those scores, by name, that are by nearest latent neighbours: K and alpha are for them."""
    return [name for name in names if "nln" in getattr(plugin("scorers", name), "options", ())]


def check_tuning(names: Sequence[str], offers: Sequence[str]) -> None:
    """Refuse to tune where no score is by nearest latent neighbours.

    Args:
        names: Scores.
        offers: What the method's models have, see ``mednovelty.capabilities``.

    Raises:
        SettingsError: There is none; it says which there are.
    """
    if takes_neighbours(names):
        return
    known = [
        name
        for name in takes_neighbours(plugin_names("scorers"))
        if set(asked_by(plugin("scorers", name))) <= set(offers)
    ]
    raise SettingsError(
        f"nln.tune: none of the scores {', '.join(names)} is by nearest latent neighbours; ask for at least "
        f"one of {', '.join(known)}, with --scores"
    )


def check_held_out(count: int) -> None:
    """Refuse to tune on too few samples.

    Raises:
        SettingsError: There are fewer than ``FEWEST``.
    """
    if count < FEWEST:
        raise SettingsError(
            f"nln.tune: {count} held-out samples; it takes at least {FEWEST}: hold out more scans "
            "(validation_fraction), or leave --tune out"
        )


def widest(nln: NLNSettings, most: int) -> NLNSettings:
    """Return settings with the largest K that constants are measured for, of at most ``most`` normals."""
    return replace(nln, k=max(nln.offered(most), default=nln.k))


def enough(normals: Tensor, shape: Sequence[int]) -> Tensor:
    """Return of ``(n, D)`` held-out samples as many as are looked at, spread evenly; of that shape each."""
    most = MOST_VOXELS if len(shape) == 1 else MOST_IMAGES
    if len(normals) <= most:
        return normals
    return normals[torch.linspace(0, len(normals) - 1, most).round().long().to(normals.device)]


def rows_a_batch(k: int, channels: int) -> int:
    """Return how many samples of D values may have their K neighbours decoded at once, at least 1."""
    return max(1, NUMBERS_A_BATCH // (k * max(channels, 1)))


def tuned_nln(  # noqa: PLR0913 - what, on what, and by keyword how
    model: Any,
    reference: Reference,
    names: Sequence[str],
    normals: Tensor,
    nln: NLNSettings,
    generator: Generator,
    *,
    background: float | None = None,
) -> tuple[NLNSettings, dict[str, Any]]:
    """Return the settings that tell synthetic anomalies from held-out normals, and what was tried.

    Args:
        model: Trained, in evaluation mode.
        reference: Its normals.
        names: Scores; the AUROC is averaged over those by nearest latent neighbours.
        normals: ``(n, D)`` held-out samples; of more than are needed some are taken.
        nln: Its K and alpha are kept where others are no better; what is not chosen stays as it is here.
        generator: Of the anomalies, on the CPU.
        background: What samples show outside the mask, in all contrasts; None: all voxels are looked at.

    Raises:
        SettingsError: There are too few held-out samples, or no such scores.
    """
    check_tuning(names, [what for what in WORDS if hasattr(model, what)])
    check_held_out(len(normals))
    names = takes_neighbours(names)
    trial = _trial_of(normals, sample_shape(model), background, generator)
    ks = [k for k in OFFERED_NEIGHBOURS if k <= len(reference)]
    scorers = {
        name: plugin("scorers", name)(model=model, reference=reference, nln=replace(nln, k=ks[-1]))
        for name in names
    }
    terms = _terms_of(scorers, trial, ks)
    alphas = ALPHAS[1:] if any(_is_map(scorer) for scorer in scorers.values()) else ALPHAS
    tried = {
        (k, alpha): {name: _judged(scorers[name], terms[name, k], trial, alpha) for name in names}
        for k in ks
        for alpha in alphas
    }
    best = _chosen({at: _average(list(found.values())) for at, found in tried.items()}, nln)
    told = [
        {"k": k, "alpha": alpha, "auroc": _average(list(found.values())).auroc}
        for (k, alpha), found in tried.items()
    ]
    chosen = replace(nln, k=best[0], alpha=best[1])
    auroc = _average(list(tried[best].values())).auroc
    by_score = {name: found.auroc for name, found in tried[best].items()}
    facts = {"k": chosen.k, "alpha": chosen.alpha, "auroc": auroc, "by_score": by_score, "tried": told}
    return chosen, {"nln": facts | {"samples": len(trial.x)}}


def told_in_words(tuned: Mapping[str, Any]) -> str:
    """Return what ``tuned_nln`` tells, in one line.

    Examples:
        >>> told_in_words({"k": 3, "alpha": 0.7, "auroc": 0.8312})
        'K = 3, alpha = 0.7: AUROC 0.831 on held-out normals and anomalies made of them'
    """
    return (
        f"K = {tuned['k']}, alpha = {tuned['alpha']:g}: AUROC {tuned['auroc']:.3f} on held-out normals and "
        "anomalies made of them"
    )


def _trial_of(
    normals: Tensor, shape: tuple[int, ...], background: float | None, generator: Generator
) -> _Trial:
    normals = enough(normals, shape)
    order = torch.randperm(len(normals), generator=generator).to(normals.device)
    half = len(order) // 2
    before = normals[order]
    novel = torch.arange(len(order)) >= half
    x, pasted = synthetic_anomalies(before[half:], shape, generator)
    voxels = pasted.shape[1]
    pasted = torch.cat([torch.zeros(half, voxels, dtype=torch.bool), pasted])
    # The mask is the sample's own: a hole that was pasted into a brain is within it.
    inside = torch.ones_like(pasted)
    if background is not None:
        inside = (before.unflatten(1, (shape[0], voxels)) != background).any(1).cpu()
    if not (inside & pasted).any() or not (inside & ~pasted).any():
        inside = torch.ones_like(pasted)
    places = _places(len(order), voxels, generator)
    before[half:] = x
    return _Trial(before, novel, places, pasted.gather(1, places), inside.gather(1, places))


def _places(samples: int, voxels: int, generator: Generator) -> Tensor:
    """Return ``(samples, m)`` voxels of each sample, ascending: all, or as many as are ranked, drawn."""
    count = min(voxels, max(1, MOST_PLACES // samples))
    if count == voxels:
        return torch.arange(voxels).expand(samples, -1)
    drawn = [torch.randperm(voxels, generator=generator)[:count].sort().values for _ in range(samples)]
    return torch.stack(drawn)


def _terms_of(
    scorers: Mapping[str, Any], trial: _Trial, ks: Sequence[int]
) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Return by score and K normalised terms: ``(n, 1)``, and ``(n, m)`` errors of maps."""
    found: dict[tuple[str, int], list[tuple[Terms, Terms]]] = {}
    for batch, places in _batches(trial, ks[-1]):
        for name, scorer in scorers.items():
            by_k = terms_by_k(scorer, batch, ks)
            shown_by_k = scorer.maps_by_k(batch, ks) if _is_map(scorer) else by_k
            for k in ks:
                at = {term: _at(values, places) for term, values in shown_by_k[k].items()}
                found.setdefault((name, k), []).append((by_k[k], at))
    joined = {}
    for key, blocks in found.items():
        of_samples, shown = (_joined(side) for side in zip(*blocks, strict=True))
        scales = {term: scale_of(values[~trial.novel]) for term, values in of_samples.items()}
        joined[key] = {term: scales[term](values).numpy() for term, values in shown.items()}
    return joined


def _joined(blocks: Sequence[Terms]) -> dict[str, Tensor]:
    return {term: torch.cat([block[term].cpu() for block in blocks]) for term in blocks[0]}


def _batches(trial: _Trial, k: int) -> Iterator[tuple[Batch, Tensor]]:
    rows = rows_a_batch(k, trial.x.shape[1])
    for x, places in zip(trial.x.split(rows), trial.places.split(rows), strict=True):
        yield Batch(x), places


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Return ``(B, m)`` values at places of a map, or ``(B, 1)`` where there is one value a sample."""
    flat = values.reshape(len(values), -1)
    return flat if flat.shape[1] == 1 else flat.gather(1, places.to(flat.device))


def _is_map(scorer: Any) -> bool:
    return bool(scorer.level == "voxel")


def _judged(scorer: Any, terms: Mapping[str, np.ndarray], trial: _Trial, alpha: float) -> _Judged:
    scores = alpha * terms["error"] + (1 - alpha) * terms["distance"]
    if not _is_map(scorer):
        return clustered_auroc(scores, trial.novel.numpy()[:, None], np.ones_like(scores, bool))
    return clustered_auroc(scores, trial.pasted.numpy(), trial.counted.numpy())


def clustered_auroc(scores: np.ndarray, novel: np.ndarray, counted: np.ndarray) -> _Judged:
    """Return the AUROC of pooled scores, and how each sample moves it.

    Args:
        scores: ``(n, m)``, of n samples.
        novel: ``(n, m)`` bool, which should have high ones.
        counted: ``(n, m)`` bool; others are left out. Both kinds are among them.
    """
    owners = np.broadcast_to(np.arange(len(scores))[:, None], scores.shape)
    flags, values, owners = novel[counted], scores[counted], owners[counted]
    high, low = values[flags], values[~flags]
    above = _share_below(high, low)
    auroc = float(above.mean())
    below = 1 - _share_below(low, high)
    influence = np.bincount(owners[flags], (above - auroc) / len(high), len(scores))
    influence += np.bincount(owners[~flags], (below - auroc) / len(low), len(scores))
    return _Judged(auroc, influence)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each value the share of others that are below it; equal ones count half."""
    others = np.sort(others)
    order = np.argsort(values)
    asked = values[order]
    places = np.searchsorted(others, asked, "left") + np.searchsorted(others, asked, "right")
    shares = np.empty(len(values))
    shares[order] = places / (2 * len(others))
    return shares


def _average(found: Sequence[_Judged]) -> _Judged:
    count = len(found)
    return _Judged(
        sum(one.auroc for one in found) / count, np.sum([one.influence for one in found], 0) / count
    )


def _chosen(tried: Mapping[tuple[int, float], _Judged], nln: NLNSettings) -> tuple[int, float]:
    """Return of K and alpha as good as the best, within one standard error, those nearest to ``nln``."""
    best = max(tried.values(), key=lambda found: found.auroc)

    def is_as_good(found: _Judged) -> bool:
        error = math.sqrt(np.square(best.influence - found.influence).sum())
        return best.auroc - found.auroc <= error + 1e-9

    def steps(at: tuple[int, float]) -> float:
        # Twice as many neighbours are as far as a tenth of alpha.
        return abs(math.log2(at[0] / nln.k)) + 10 * abs(at[1] - nln.alpha)

    good = [at for at, found in tried.items() if is_as_good(found)]
    return min(good, key=lambda at: (round(steps(at), 6), -tried[at].auroc))


__all__ = [
    "check_held_out",
    "check_tuning",
    "clustered_auroc",
    "enough",
    "rows_a_batch",
    "takes_neighbours",
    "told_in_words",
    "tuned_nln",
    "widest",
]
