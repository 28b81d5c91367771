"""What is told of a trained hypersphere: where held-out samples lie, and whether any are told apart."""

from __future__ import annotations

from typing import Any

import torch

from mednovelty.methods.hypersphere_model import Hypersphere
from mednovelty.methods.hypersphere_settings import HypersphereSettings

COLLAPSED = 1e-3
"""A spread of latents below this share of what it is measured by is that of a constant map."""


@torch.no_grad()
def assess(
    model: Hypersphere, settings: HypersphereSettings, training: Any, validation: Any
) -> dict[str, Any]:
    """Return JSON types.

    ``spread`` is the root mean squared distance of held-out latents from their mean, ``spread_at_start``
    the same of training samples before training, ``centre`` the distance from the centre to 0. The network
    has collapsed where the spread is below a thousandth of the larger of the other two.
    ``labelled_anomalies`` counts those trained with; ``outside`` is the share of held-out samples beyond a
    soft boundary; ``pretraining`` tells the autoencoder's error before and after.

    Args:
        model: Trained.
        settings: Of the method.
        training: The ``VoxelCache`` it was trained on.
        validation: One of samples of other scans.
    """
    _, width = model.moments(validation)
    numbers = {
        "spread": width.item(),
        "spread_at_start": model.at_start.item(),
        "centre": torch.linalg.vector_norm(model.centre).item(),
    }
    scores = torch.cat([model.hypersphere(z) for z in model.latents_of(validation)]).double()
    anomalies = _anomalies(model, training)
    collapsed, verdict = _verdict(model, numbers, scores.mean().item(), anomalies)
    found: dict[str, Any] = {
        "verdict": verdict,
        "collapsed": collapsed,
        **numbers,
        "score": scores.mean().item(),
    }
    if model.labels:
        found["labelled_anomalies"] = anomalies
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


def _verdict(model: Hypersphere, numbers: dict[str, float], score: float, anomalies: int) -> tuple[bool, str]:
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
            "nothing but a constant; give labels or masks of anomalies, or train deep_svdd"
        )
    return False, f"{model.latents} latents of held-out samples, {score:.3g} from where normal ones belong"


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
