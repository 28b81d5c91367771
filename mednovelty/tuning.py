"""K and alpha of nearest latent neighbours, chosen on held-out normals and anomalies made of them.

Mesarcik et al. 2021 choose both by the AUROC on the test set. Here half of the held-out normals are turned
into anomalies: a region of each, of a quarter to a half of every axis, is replaced by a region of another
sample at another place; of a voxel, which has no axes, half of its channels by another voxel's. What tells
these best from the other half is kept. No label is looked at; how well made-up anomalies stand for real ones,
nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from mednovelty.batch import Batch
from mednovelty.calibration import scale_of
from mednovelty.errors import SettingsError
from mednovelty.metrics import Ranking, auroc
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.plugins import plugin
from mednovelty.reference import Reference

NEIGHBOURS = (1, 2, 3, 5, 10)
ALPHAS = tuple(i / 10 for i in range(11))
FEWEST = 20
"""Held-out samples below which an AUROC says nothing."""


def widest(nln: NLNSettings) -> NLNSettings:
    """Return settings with the largest K that may come of them."""
    return replace(nln, k=max(nln.k, *NEIGHBOURS)) if nln.tune else nln


def tuned_nln(
    model: Any,
    reference: Reference,
    names: Sequence[str],
    normals: Tensor,
    nln: NLNSettings,
    generator: Generator,
) -> tuple[NLNSettings, dict[str, Any]]:
    """Return the settings that tell synthetic anomalies best from held-out normals, and what was tried.

    Args:
        model: Trained, in evaluation mode.
        reference: Its normals.
        names: The scores that take such settings; the AUROC is averaged over them.
        normals: ``(n, D)`` held-out samples.
        nln: What is not chosen stays as it is here.
        generator: Of the anomalies, on the CPU.

    Raises:
        SettingsError: There are too few held-out samples, or no such scores.
    """
    if len(normals) < FEWEST or not names:
        raise SettingsError(
            f"nln.tune: {len(normals)} held-out samples and {len(names)} scores by nearest latent "
            f"neighbours; it takes at least {FEWEST} samples, and a score such as nearest_latent_neighbours"
        )
    half = len(normals) // 2
    order = torch.randperm(len(normals), generator=generator).to(normals.device)
    usual = normals[order[:half]]
    shape = tuple(getattr(model, "shape", (normals.shape[1],)))
    novel = synthetic_anomalies(normals[order[half:]], shape, generator)
    tried = {}
    for k in (k for k in NEIGHBOURS if k <= len(reference)):
        scorers = [plugin("scorers", name)(model, reference, replace(nln, k=k)) for name in names]
        terms = [(scorer.terms_of(Batch(usual)), scorer.terms_of(Batch(novel))) for scorer in scorers]
        for alpha in ALPHAS:
            tried[k, alpha] = sum(_auroc(*pair, alpha) for pair in terms) / len(terms)
    # Of equals that nearest to the defaults.
    best = max(tried, key=lambda at: (round(tried[at], 4), -abs(at[0] - nln.k), -abs(at[1] - nln.alpha)))
    told = [{"k": k, "alpha": alpha, "auroc": value} for (k, alpha), value in tried.items()]
    return replace(nln, k=best[0], alpha=best[1]), {"nln": {"auroc": tried[best], "tried": told}}


def synthetic_anomalies(x: Tensor, shape: Sequence[int], generator: Generator) -> Tensor:
    """Return ``(n, D)`` samples, each with a region of another one in it.

    Args:
        x: ``(n, D)``, at least two.
        shape: Of a sample, ``(C,)`` or ``(C, *space)``.
        generator: On the CPU.
    """
    # A shift by 1 to n - 1 gives everyone another one.
    shift = int(torch.randint(1, len(x), (), generator=generator))
    samples, donors = x.clone().unflatten(1, tuple(shape)), x.roll(shift, 0).unflatten(1, tuple(shape))
    for sample, donor in zip(samples, donors, strict=True):
        if len(shape) == 1:
            channels = torch.randperm(len(sample), generator=generator)[: max(len(sample) // 2, 1)]
            sample[channels] = donor[channels]
        else:
            to, back = _regions(shape[1:], generator)
            sample[(slice(None), *to)] = donor[(slice(None), *back)]
    return samples.flatten(1)


def _regions(space: Sequence[int], generator: Generator) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return two places of one random box in an image."""
    places: tuple[list[slice], list[slice]] = ([], [])
    for side in space:
        length = int(torch.randint(max(side // 4, 1), max(side // 2, 1) + 1, (), generator=generator))
        for place in places:
            start = int(torch.randint(0, side - length + 1, (), generator=generator))
            place.append(slice(start, start + length))
    return tuple(places[0]), tuple(places[1])


def _auroc(usual: Mapping[str, Tensor], novel: Mapping[str, Tensor], alpha: float) -> float:
    scores = []
    for terms in (usual, novel):
        error, distance = (scale_of(usual[name])(terms[name]) for name in ("error", "distance"))
        scores.append((alpha * error + (1 - alpha) * distance).cpu())
    flags = torch.arange(sum(map(len, scores))) >= len(scores[0])
    return auroc(Ranking.of(torch.cat(scores).numpy(), flags.numpy()))


__all__ = ["synthetic_anomalies", "tuned_nln"]
