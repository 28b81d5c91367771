"""Anomalies planted in the normal samples of Deep SAD and hypersphere classification."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from mednovelty.errors import SettingsError
from mednovelty.methods.hypersphere_model import Hypersphere
from mednovelty.nn.planted_anomalies import chance, planted
from mednovelty.nn.planted_diffusion import B0_S_PER_MM2, with_exchange
from mednovelty.types import Samples

KINDS = ("diffusion", "confetti", "lesions")


def plants(settings: Any) -> bool:
    """Return whether some settings ask for anomalies to be planted."""
    return getattr(settings, "anomalies", "none") in KINDS


def learn_acquisition(model: Hypersphere, settings: Any, rows: Any) -> None:
    """Let a model know the acquisition of a ``VoxelCache``, where planting needs it.

    Raises:
        SettingsError: It is not known, or has nothing at b = 0; or samples have no axes, or have some.
    """
    kind, voxels = getattr(settings, "anomalies", "none"), len(model.shape) == 1
    if kind in KINDS and (kind == "diffusion") != voxels:
        raise SettingsError(
            f"method_settings.anomalies={kind} cannot be planted in samples of shape {model.shape}: "
            "diffusion is of q-space voxels, confetti and lesions of slices and windows",
            code="anomalies.kind",
        )
    if kind != "diffusion":
        return
    if rows.acquisition is None:
        raise SettingsError(
            "method_settings.anomalies=diffusion: the b-values of these voxels, or what they were "
            "divided by, are not known; it needs diffusion scans whose preprocessors change no channel by "
            "itself (none but resample), or set it to none and give labels",
            code="anomalies.acquisition",
        )
    bvalues = torch.tensor(rows.acquisition.bvalues_s_per_mm2)
    if not (bvalues <= B0_S_PER_MM2).any():
        raise SettingsError(
            "method_settings.anomalies=diffusion: there is no volume at b = 0, of which a compartment's "
            "signal is a share; set it to none and give labels",
            code="anomalies.acquisition",
        )
    model.bvalues.copy_(bvalues)
    model.divisors.copy_(torch.tensor(rows.acquisition.divisors))


def with_planted(
    model: Hypersphere,
    settings: Any,
    samples: Samples,
    labels: Tensor | None,
    generator: Generator,
    *,
    everywhere: bool = False,
) -> tuple[Samples, Tensor]:
    """Return samples with anomalies in some that have none, and their labels, ``(B,)``.

    Args:
        model: Whose samples they are.
        settings: What is planted, and in how many.
        samples: ``(B, D)``.
        labels: ``(B,)``; None: none is labelled.
        generator: On the device of the samples.
        everywhere: Whether each sample gets one that is not labelled as abnormal.
    """
    labels = samples.new_zeros(len(samples)) if labels is None else labels
    wanted = 1.0 if everywhere else chance(labels, settings.share)
    drawn = torch.rand(len(samples), generator=generator, device=generator.device)
    chosen = (drawn < wanted).to(samples.device) & (labels >= 0)
    if not chosen.any():
        return samples, labels
    made = samples.clone()
    if settings.anomalies == "diffusion":
        bvalues, divisors = model.bvalues.to(samples.device), model.divisors.to(samples.device)
        made[chosen] = with_exchange(samples[chosen], bvalues, divisors, generator)
    else:
        images = samples[chosen].unflatten(1, model.shape)
        found = planted(images, settings.anomalies, generator, settings.background or 0.0)
        made[chosen] = found.images.flatten(1)
    return made, torch.where(chosen, -1.0, labels)


__all__ = ["KINDS", "learn_acquisition", "plants", "with_planted"]
