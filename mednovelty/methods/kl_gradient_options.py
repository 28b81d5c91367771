"""Relatives of the maps of ``kl_gradient``: what is released, signed, or averaged over noisy copies.

``rec_likelihood``        RecLikelihood        -log p of each voxel, the released code's Rec-Error
``combi_likelihood``      CombiLikelihood      KL-grad times that, the released code's Combi
``combi_additive``        CombiAdditive        KL-grad plus squared error, each by its mean over normals
``kl_gradient_smooth``    KLGradientSmooth     SmoothGrad of the KL term
``combi_smooth``          CombiSmooth          that times squared error
``rec_error_bright``      RecErrorBright       squared error where x is brighter than expected
``rec_error_dark``        RecErrorDark         the same where it is darker
``combi_bright``          CombiBright          KL-grad times the first
``combi_dark``            CombiDark            KL-grad times the second
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mednovelty.batch import Batch
from mednovelty.methods.input_gradients import (
    COPIES,
    GradientScorer,
    MapScorer,
    NoisyCopies,
    noisy_kl_gradient,
)
from mednovelty.nn.smoothing import RELEASED, Blur
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.reference import Reference
from mednovelty.types import VoxelScores

NORMALS = 64
"""How many normals say how large the terms of ``combi_additive`` are."""
ROWS = 8
"""How many of them are differentiated at a time."""


class RecLikelihood(MapScorer):
    """Negative log-likelihood of each voxel under its reconstruction.

    ``s(x)_v = sum_c -log p(x_cv | E q(z|x))``, in nats, with the constants of the Gaussian. Where sigma
    differs from voxel to voxel it ranks voxels otherwise than ``rec_error``.
    """

    unit = "nats"
    group = "localisation_options"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores, of either sign."""
        return self.summed(-batch.likelihood(self.model).base_dist.log_prob(batch.x))


class CombiLikelihood(GradientScorer):
    """KL-grad times the negative log-likelihood of each voxel.

    ``s(x)_v = KLGradient(x)_v * sum_c -log p(x_cv | E q(z|x))``: as released, but for the scaling of KL-grad
    over the batch. For sigma = 1 the constant, 0.919 a contrast, is larger than most errors, and the map is
    close to KL-grad; where sigma is so small that the density exceeds 1, what is well reconstructed gets
    scores below 0.
    """

    unit = "nats squared per normalised signal"
    group = "localisation_options"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores, of either sign."""
        return self.kl_map(batch) * self.summed(-batch.likelihood(self.model).base_dist.log_prob(batch.x))


class CombiAdditive(GradientScorer):
    """KL-grad plus squared error, each in multiples of its mean over normals.

    ``s(x)_v = KLGradient(x)_v / a + RecError(x)_v / b``, a and b the means over all voxels of up to 64
    normals of the reference. Released, published nowhere: the code scales both by their least and greatest
    over all pixels of the test set, so that a map depends on what else was scored.

    Args:
        model: Trained, in evaluation mode.
        reference: It holds ``input``.
        blur: Smooths KL-grad.
    """

    needs = ("model", "reference")
    reference_parts = ("input",)
    unit = "means over normals"
    group = "localisation_options"

    def __init__(
        self,
        model: ProbabilisticAutoencoder,
        reference: Reference,
        blur: Blur = RELEASED,
    ) -> None:
        super().__init__(model, blur)
        normals = reference.parts["input"]
        spread = torch.linspace(0, len(normals) - 1, min(NORMALS, len(normals))).round().long()
        chosen = normals[spread.to(normals.device)].to(model.prior.mean)
        terms = [torch.stack(self._terms(Batch(rows))).flatten(1) for rows in chosen.split(ROWS)]
        # A term that is 0 for all normals must not divide by 0.
        means = torch.cat(terms, dim=1).double().mean(1).clamp_min(1e-30)
        self.kl_mean, self.error_mean = means.tolist()

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores; 2 on average over normals."""
        kl, error = self._terms(batch)
        return kl / self.kl_mean + error / self.error_mean

    def _terms(self, batch: Batch) -> tuple[VoxelScores, VoxelScores]:
        with torch.no_grad():
            return self.kl_map(batch), self.summed(self.residual(batch).square())


class _SmoothGradScorer(GradientScorer):
    """Averages KL's derivatives over noisy copies before their modulus.

    Args:
        model: Trained, in evaluation mode.
        blur: Smooths the modulus.
        copies: How many, and how noisy.
    """

    options = ("blur", "copies")
    differentiates = 0
    group = "localisation_options"

    def __init__(
        self,
        model: ProbabilisticAutoencoder,
        blur: Blur = RELEASED,
        copies: NoisyCopies = COPIES,
    ) -> None:
        super().__init__(model, blur)
        self.copies = copies
        self._noise = copies.noise(model.channels).to(model.prior.mean)

    def smooth_map(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` maps, once for all scores of a batch."""
        key = ("smoothgrad map", self.model, self.blur, self.copies)
        return batch.once(key, lambda: self.modulus(noisy_kl_gradient(self.model, batch.x, self._noise)))


class KLGradientSmooth(_SmoothGradScorer):
    """KL-grad averaged over noisy copies of the sample (SmoothGrad, Smilkov et al. 2017).

    ``s(x)_v = sum_c |mean_i d KL(q(z|x + e_i) || p(z)) / dx_cv|``, smoothed. All samples share the noise e_i,
    in pairs of opposite sign. The modulus is of the mean: derivatives that contradict each other cancel. What
    the authors' later code (MOOD 2020) calls adds the noise of each copy to that of those before, draws it
    anew for each batch, and averages moduli.
    """

    unit = "nats per normalised signal"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores."""
        return self.smooth_map(batch)


class CombiSmooth(_SmoothGradScorer):
    """KL-grad averaged over noisy copies, times squared error.

    ``s(x)_v = KLGradientSmooth(x)_v * RecError(x)_v``.
    """

    unit = "nats times normalised signal"

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores; 0 where the reconstruction is right."""
        return self.smooth_map(batch) * self.summed(self.residual(batch).square())


class RecErrorBright(MapScorer):
    """Squared error of each voxel that is brighter than expected.

    ``s(x)_v = sum_c max(0, (x - E p(x | E q(z|x)))_cv)^2``. With several contrasts each has its own sign: a
    lesion that is bright in one and dark in another keeps the first part only.
    """

    asks = ("encode", "decode")
    unit = "normalised signal squared"
    group = "localisation_options"
    sign: ClassVar[int] = 1

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores; 0 where no contrast is brighter than expected."""
        return self.summed(_kept(self.residual(batch), self.sign))


class RecErrorDark(RecErrorBright):
    """Squared error of each voxel that is darker than expected.

    ``s(x)_v = sum_c max(0, (E p(x | E q(z|x)) - x)_cv)^2``.
    """

    sign = -1


class CombiBright(GradientScorer):
    """KL-grad times squared error of each voxel that is brighter than expected.

    ``s(x)_v = KLGradient(x)_v * RecErrorBright(x)_v``.
    """

    unit = "nats times normalised signal"
    group = "localisation_options"
    sign: ClassVar[int] = 1

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores; 0 where no contrast is brighter than expected."""
        return self.kl_map(batch) * self.summed(_kept(self.residual(batch), self.sign))


class CombiDark(CombiBright):
    """KL-grad times squared error of each voxel that is darker than expected.

    ``s(x)_v = KLGradient(x)_v * RecErrorDark(x)_v``.
    """

    sign = -1


def _kept(residual: Tensor, sign: int) -> Tensor:
    """Return squares of the residuals of one sign, 0 for the others."""
    return (sign * residual).clamp_min(0).square()


__all__ = [
    "CombiAdditive",
    "CombiBright",
    "CombiDark",
    "CombiLikelihood",
    "CombiSmooth",
    "KLGradientSmooth",
    "RecErrorBright",
    "RecErrorDark",
    "RecLikelihood",
]
