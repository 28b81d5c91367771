"""The normals nearest to a sample: who they are, where they lie, and how they look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mednovelty.explaining.places import Place

if TYPE_CHECKING:
    from mednovelty.detector import Detector

ROWS = 1 << 15
WAYS = {
    "input": "signals",
    "latent_mean": "latents",
    "reconstruction_mean": "reconstructions",
}
"""In which part of a reference normals are looked for, the first there is; what distances are between."""


@dataclass(frozen=True, slots=True)
class Normal:
    """One of the nearest normals.

    Attributes:
        scan: Id of its scan; empty where the detector does not tell.
        mm: Where in it, in that scan's world (RAS+) coordinates; None where the detector does not tell.
        distance: To the sample, between what ``NearestNormals.between`` says.
    """

    scan: str
    mm: Place | None
    distance: float


@dataclass(frozen=True, eq=False)
class NearestNormals:
    """The nearest normals of one sample, the nearest first.

    Attributes:
        normals: k of them.
        between: What distances are between: signals, latents or reconstructions.
        samples: ``(k, D)`` float32, preprocessed: their signals, or what the decoder makes of their latents.
        decoded: Whether they are the latter.
    """

    normals: tuple[Normal, ...]
    between: str
    samples: np.ndarray
    decoded: bool


def nearest_normals(detector: Detector, x: Tensor, k: int) -> NearestNormals | None:
    """Return the k normals nearest to ``(1, D)``, by comparing with all; None where the reference has none.

    Searches that are approximate have no part in it, so that the one that is shown is the nearest.
    """
    reference, model = detector.reference, detector.model
    part = next((name for name in WAYS if name in reference.parts), None)
    if part is None or not len(reference):
        return None
    vectors = reference.parts[part]
    squared, rows = _closest(vectors, _seen(model, x, part).to(vectors.device), min(k, len(reference)))
    samples, decoded = vectors[rows], part != "input"
    if part == "latent_mean":
        # A model that does not decode has no picture of them.
        samples = model.decode(samples).mean if _decodes(detector) else samples.new_empty((0, x.shape[1]))
    places = detector.fitted.places
    told = [("", None) if places is None else places.told(row) for row in rows.tolist()]
    normals = tuple(
        Normal(scan, mm, distance)
        for (scan, mm), distance in zip(told, squared.clamp_min(0).sqrt().tolist(), strict=True)
    )
    return NearestNormals(normals, WAYS[part], samples.detach().cpu().numpy(), decoded)


def reconstruction(detector: Detector, x: Tensor) -> np.ndarray | None:
    """Return what the model makes of ``(1, D)``, ``(D,)``; None of one that does not decode."""
    if not _decodes(detector):
        return None
    with torch.no_grad():
        found = detector.model.decode(detector.model.encode(x).mean).mean[0]
    return np.asarray(found.cpu().numpy(), np.float32)


def _decodes(detector: Detector) -> bool:
    from mednovelty.capabilities import offered_by

    return {"encode", "decode"} <= set(offered_by(detector.fitted.method))


@torch.no_grad()
def _seen(model: Any, x: Tensor, part: str) -> Tensor:
    if part == "input":
        return x
    latents: Tensor = model.encode(x).mean
    return latents if part == "latent_mean" else model.decode(latents).mean


@torch.no_grad()
def _closest(vectors: Tensor, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return squared distances to the k nearest of ``(N, D)``, ascending, and their indices."""
    squared = torch.cat([(block - query).square().sum(1) for block in vectors.split(ROWS)])
    found, rows = squared.topk(k, largest=False)
    order = torch.argsort(found, stable=True)
    return found[order], rows[order]


__all__ = ["NearestNormals", "Normal", "nearest_normals", "reconstruction"]
