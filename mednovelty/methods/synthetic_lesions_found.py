"""How well a detector of synthetic lesions finds each family of anomalies: what it is blind to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from mednovelty.anomalies.mixture import Mixture
from mednovelty.errors import SettingsError
from mednovelty.methods.synthetic_lesions_model import Rows, SyntheticLesionsModel
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


def ranking_of(model: SyntheticLesionsModel, clean: Sequence[Tensor], planted: Sequence[Rows]) -> Ranking:
    """Return voxels of planted anomalies among all others of the tissue, of clean samples, too.

    Args:
        model: What judges.
        clean: ``(n,)`` log-odds each, see ``ranked``, of samples as they are.
        planted: Samples with anomalies.
    """
    values = [*clean, *(ranked(model, rows.images, rows.mask) for rows in planted)]
    truth = [torch.zeros_like(one, dtype=torch.bool) for one in clean]
    truth += [rows.truth[rows.mask].cpu() for rows in planted]
    return Ranking.of(torch.cat(values).numpy(), torch.cat(truth).numpy())


def found_of_all(
    method: Any, model: SyntheticLesionsModel, validation: Any, generator: Generator
) -> list[dict[str, Any]]:
    """Return for each family of the kind, ``family``, ``trained_on``, ``auroc`` and ``ap`` of its voxels.

    Families trained on and held out are planted with the detector's settings, others with their defaults;
    those that need what is not there, as outlines of real lesions, are left out.

    Args:
        method: Plants.
        model: Trained.
        validation: A ``VoxelCache`` of samples held out.
        generator: On the CPU.
    """
    most = max(8, min(SAMPLES, VALUES // model.channels)) if model.shape[1:] else VOXELS
    rows = model.split(torch.from_numpy(validation.take_evenly(min(most, len(validation)))))
    rows = rows.take(rows.labels >= 0)
    if not len(rows.images):
        return []
    mixtures, every = model.mixtures, torch.ones_like(rows.labels, dtype=torch.bool)
    known = {**mixtures.validation.families, **mixtures.training.families}
    clean = ranked(model, rows.images, rows.mask)
    found = []
    for name in plugin_names("anomalies"):
        family = known.get(name) or plugin("anomalies", name)()
        if family.needs != mixtures.training.needs:
            continue
        try:
            planted = method.with_planted(model, rows, every, Mixture({name: family}, {}), generator)
        except SettingsError:
            continue
        ranking = ranking_of(model, [clean], [planted])
        if ranking.undefined:
            continue
        told = {"auroc": auroc(ranking), "ap": average_precision(ranking), "share": ranking.prevalence}
        found.append({"family": name, "trained_on": name in mixtures.training.families, **told})
    return found


__all__ = ["found_of_all", "ranked", "ranking_of"]
