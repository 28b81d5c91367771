"""What is told of a trained hypersphere: where held-out samples lie, and whether any are told apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from mednovelty.methods.hypersphere_model import Hypersphere
from mednovelty.methods.hypersphere_settings import HypersphereSettings
from mednovelty.outlier_exposure import UNJUDGED

COLLAPSED = 1e-3
"""A spread of latents below this share of what it is measured by is that of a constant map."""
ASSESSED, ASSESSED_BYTES, AT_A_TIME = 16384, 1 << 27, 256
"""Held-out samples, at most, that are told from anomalies; of large ones fewer; and how many at a time."""


@torch.no_grad()
def assess(
    model: Hypersphere, method: Any, training: Any, validation: Any, generator: Generator
) -> dict[str, Any]:
    """Return JSON types.

    ``spread`` is the root mean squared distance of held-out latents from their mean, ``spread_at_start``
    the same of training samples before training, ``centre`` the distance from the centre to 0. The network
    has collapsed where the spread is below a thousandth of the larger of the other two.
    ``labelled_anomalies`` counts those trained with, ``outliers`` those shown beside them; ``auroc`` is that
    of held-out samples against held-out outliers and labelled anomalies, and the same samples with anomalies
    planted in them, where there are such. ``outside`` is the share of held-out samples beyond a
    soft boundary; ``pretraining`` tells the autoencoder's error before and after.

    Args:
        model: Trained.
        method: With its settings.
        training: The ``VoxelCache`` it was trained on.
        validation: One of samples of other scans.
        generator: On the CPU; anomalies are planted with it.
    """
    settings: HypersphereSettings = method.settings
    _, width = model.moments(validation)
    numbers = {
        "spread": width.item(),
        "spread_at_start": model.at_start.item(),
        "centre": torch.linalg.vector_norm(model.centre).item(),
    }
    scores = torch.cat([model.hypersphere(z) for z in model.latents_of(validation)]).double()
    anomalies = _anomalies(model, training)
    outliers = training.n_outliers
    told = bool(anomalies or outliers or method.plants)
    collapsed, verdict = _verdict(model, numbers, scores.mean().item(), told)
    found: dict[str, Any] = {
        "verdict": verdict,
        "collapsed": collapsed,
        **numbers,
        "score": scores.mean().item(),
    }
    if model.labels:
        found["labelled_anomalies"] = anomalies
    if outliers:
        found["outliers"] = outliers
    if method.plants:
        found["anomalies"] = method.settings.anomalies
    auroc = _told_apart(model, method, validation, generator)
    if auroc is not None:
        found["auroc"] = auroc
        found["verdict"] += f"; these are told from held-out anomalies with an AUROC of {auroc:.3f}"
    if not method.can_choose(model, training, validation):
        found["verdict"] += f"; {UNJUDGED}"
    if model.soft:
        found |= {"radius": model.radius.item(), "outside": (scores > 0).double().mean().item()}
        found["verdict"] += _boundary(model, found["outside"])
    if settings.pretrain_epochs and model.pretraining.any():
        before, after = model.pretraining.tolist()
        found["pretraining"] = {"epochs": settings.pretrain_epochs, "error": before, "error_after": after}
        found["verdict"] += (
            f"; started from an autoencoder whose error fell from {before:.3g} to {after:.3g} in "
            f"{settings.pretrain_epochs} epochs"
        )
    return found


def _verdict(
    model: Hypersphere, numbers: dict[str, float], score: float, anomalies: bool
) -> tuple[bool, str]:
    """Return whether all samples are mapped alike, or will be, and what to say of it."""
    spread, scale = numbers["spread"], max(numbers["spread_at_start"], numbers["centre"])
    if not spread > COLLAPSED * scale:
        return True, (
            f"the network has collapsed: held-out latents spread by {spread:.3g}, where the centre is "
            f"{numbers['centre']:.3g} from 0 and the spread was {numbers['spread_at_start']:.3g} before "
            "training; all samples score alike; train for fewer epochs, lower the learning rate or the "
            "weight decay, or pretrain for longer"
        )
    if any(part.bias is not None for part in _layers(model)) and not anomalies:
        return True, (
            "no labelled anomaly was among the training samples, and a network with biases then learns "
            "nothing but a constant; give labels, masks or outliers, or train deep_svdd"
        )
    return False, f"{model.latents} latents of held-out samples, {score:.3g} from where normal ones belong"


def _told_apart(model: Hypersphere, method: Any, validation: Any, generator: Generator) -> float | None:
    """Return the AUROC of held-out normals against held-out anomalies; None where there are none."""
    count = max(1, min(len(validation), ASSESSED, ASSESSED_BYTES // (4 * validation.channels)))
    rows = validation.take_evenly(count)
    device, scores, labels = model.centre.device, [], []
    # Anomalies are drawn where the generator is.
    for some in torch.from_numpy(rows).split(AT_A_TIME):
        for x, label in method.both(model, *model.split(some), generator):
            scores.append(model.hypersphere(model.encode(x.to(device)).mean).cpu())
            labels.append(x.new_zeros(len(x)) if label is None else label)
    found, abnormal = torch.cat(scores).double(), torch.cat(labels) < 0
    if not abnormal.any() or abnormal.all():
        return None
    # Equals count half: the mean of the ranks that each could have.
    ordered = found[~abnormal].sort().values
    below = torch.searchsorted(ordered, found[abnormal]) + torch.searchsorted(
        ordered, found[abnormal], right=True
    )
    return (below.double().mean() / (2 * len(ordered))).item()


def _boundary(model: Hypersphere, share: float) -> str:
    if not model.radius > 0:
        return "; its radius is still 0: train for more epochs than warm_up"
    return f"; {share:.1%} of held-out samples are outside of the radius {model.radius.item():.3g}"


def _anomalies(model: Hypersphere, rows: Any) -> int:
    labels = (model.split(torch.from_numpy(block))[1] for block in rows.blocks())
    return sum(int((found < 0).sum()) for found in labels if found is not None)


def _layers(model: Hypersphere) -> Any:
    return (part for part in model.encoder.modules() if hasattr(part, "weight") and hasattr(part, "bias"))


__all__ = ["assess"]
