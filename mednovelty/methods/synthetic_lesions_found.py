"""How well a detector of synthetic lesions finds each family of anomalies: what it is blind to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.anomalies.mixture import Mixture, Split
from mednovelty.errors import SettingsError
from mednovelty.methods.synthetic_lesions_model import SyntheticLesionsModel
from mednovelty.metrics import Ranking, auroc, average_precision
from mednovelty.plugins import names as plugin_names
from mednovelty.plugins import plugin

SAMPLES = 64
"""Held-out samples, at most, that each family is planted in."""
VALUES = 1 << 24
"""Of windows, which are large, as many samples as have this many values."""
VOXELS = 20_000
"""Of samples that are voxels."""
BLOCK = 16


def ranked(model: SyntheticLesionsModel, images: Tensor, mask: Tensor) -> Tensor:
    """Return ``(n,)`` log-odds of the tissue of ``(B, C, *space)`` samples, on the CPU."""
    size = len(images) if not model.shape[1:] else BLOCK
    device = model.low.device
    maps = [model.logits(some.to(device)).cpu() for some in images.split(max(size, 1))]
    return torch.cat(maps)[mask.cpu()].float()


def found_of_all(
    method: Any, model: SyntheticLesionsModel, mixtures: Split, validation: Any, generator: Generator
) -> list[dict[str, Any]]:
    """Return for each family of the kind, ``family``, ``trained_on``, ``auroc`` and ``ap`` of its voxels.

    Families trained on and held out are planted with the detector's settings, others with their defaults;
    those that need what is not there, as outlines of real lesions, are left out.

    Args:
        method: Plants.
        model: Trained.
        mixtures: What it was trained on.
        validation: A ``VoxelCache`` of samples held out.
        generator: On the CPU.
    """
    most = max(8, min(SAMPLES, VALUES // model.channels)) if model.shape[1:] else VOXELS
    chosen = np.unique(np.linspace(0, len(validation) - 1, min(most, len(validation))).astype(np.int64))
    rows = model.split(torch.from_numpy(validation.take(chosen)))
    rows = rows.take(rows.labels >= 0)
    if not len(rows.images):
        return []
    known = {**mixtures.validation.families, **mixtures.training.families}
    clean = ranked(model, rows.images, rows.mask)
    found = []
    for name in plugin_names("anomalies"):
        family = known.get(name) or plugin("anomalies", name)()
        if family.needs != mixtures.training.needs:
            continue
        every = torch.ones_like(rows.labels, dtype=torch.bool)
        try:
            planted = method.with_planted(model, rows, every, Mixture({name: family}, {}), generator)
        except SettingsError:
            continue
        values = torch.cat([clean, ranked(model, planted.images, planted.mask)]).numpy()
        truth = torch.cat([torch.zeros_like(clean, dtype=torch.bool), planted.truth[planted.mask].cpu()])
        ranking = Ranking.of(values, truth.numpy())
        if ranking.undefined:
            continue
        told = {"auroc": auroc(ranking), "ap": average_precision(ranking), "share": ranking.prevalence}
        found.append({"family": name, "trained_on": name in mixtures.training.families, **told})
    return found


__all__ = ["found_of_all", "ranked"]
