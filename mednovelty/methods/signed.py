"""Where contrasts are off in the direction in which a lesion is known to put them.

``rec_signed``     RecSigned     sum over contrasts of sign times residual
``combi_signed``   CombiSigned   KL-grad times what is positive of that
``raw_signed``     RawSigned     the same sum of the signal itself: the trivial baseline of both

Most lesions are bright on FLAIR and dark on T1. Who looks for such ones says so by a sign for each contrast
(``maps.signs``): one contrast's evidence then counts against the other's, where squares can only add up, and
what is bright in both, as fat is, stays dark in the map. No lesion has to be seen for that, but that a lesion
of the other kind is not looked for must be known to the reader: the signs stand in each sidecar.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mednovelty.batch import Batch, sample_shape
from mednovelty.methods.input_gradients import GradientScorer, MapScorer
from mednovelty.nn.smoothing import RELEASED, Blur
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.types import Samples, VoxelScores

Signs = tuple[float, ...]
"""One number a contrast; none: 1 for each."""


class RecSigned(MapScorer):
    """Residual in the direction of each contrast's sign.

    ``s(x)_v = sum_c a_c (x - E p(x | E q(z|x)))_cv``; below 0 where contrasts are off the other way round.

    Args:
        model: Trained, in evaluation mode.
        signs: ``(C,)`` a_c; none: 1 for each contrast, brighter than expected.
    """

    asks: ClassVar[tuple[str, ...]] = ("encode", "decode")
    options = ("signs",)
    unit = "normalised signal"
    group = "localisation_options"

    def __init__(self, model: ProbabilisticAutoencoder, signs: Signs = ()) -> None:
        super().__init__(model)
        self.signs = signs

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores, of either sign."""
        return _signed_sum(self.model, self.residual(batch), self.signs)


class CombiSigned(GradientScorer):
    """KL-grad times the residual in the direction of each contrast's sign.

    ``s(x)_v = KLGradient(x)_v * max(0, RecSigned(x)_v)``.

    Args:
        model: Trained, in evaluation mode.
        blur: Smooths KL-grad.
        signs: As of ``RecSigned``.
    """

    options = ("blur", "signs")
    unit = "nats"
    group = "localisation_options"

    def __init__(self, model: ProbabilisticAutoencoder, blur: Blur = RELEASED, signs: Signs = ()) -> None:
        super().__init__(model, blur)
        self.signs = signs

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores; 0 where contrasts are as expected or off the other way round."""
        return self.kl_map(batch) * _signed_sum(self.model, self.residual(batch), self.signs).clamp_min(0)


class RawSigned(RecSigned):
    """Preprocessed signal in the direction of each contrast's sign; looks at no model.

    ``s(x)_v = sum_c a_c x_cv``: what ``rec_signed`` must beat to be worth a network.
    """

    asks = ()
    trivial: ClassVar[bool] = True

    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores, of either sign."""
        return _signed_sum(self.model, batch.x, self.signs)


def _signed_sum(model: ProbabilisticAutoencoder, values: Samples, signs: Signs) -> VoxelScores:
    shape = sample_shape(model)
    if signs and len(signs) != shape[0]:
        raise ValueError(f"there are signs for {len(signs)} contrasts, samples have {shape[0]}")
    weights: Tensor = values.new_tensor(signs or (1.0,) * shape[0])
    return torch.einsum("bc...,c->b...", values.reshape(len(values), *shape), weights)


__all__ = ["CombiSigned", "RawSigned", "RecSigned", "Signs"]
