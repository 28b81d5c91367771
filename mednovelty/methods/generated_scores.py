"""Novelty as distance from all that a decoder can generate (Vasilev et al. 2018, section 3.2).

Eq. (18)           ClosestGenerated                     squared distance to the closest mean
Eq. (18), bounded  ClosestGeneratedBounded              the same over latents within [-10, 10]
Eq. (19)           HighestGeneratedLikelihood           smallest negative log-likelihood
Eq. (19), bounded  HighestGeneratedLikelihoodBounded    the same over latents within [-10, 10]

Each is a minimisation over the latents, for every sample. The paper's released code gives each sample to an
optimiser of its own with numerical gradients, takes the distance without its square (the same minimiser)
and has no Eq. (19); here all samples are minimised side by side with exact derivatives, see
``mednovelty.nn.minimise``. A minimum is a local one: the smallest that was found from the posterior's mean
and from three other points of the posterior.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mednovelty.batch import Batch
from mednovelty.nn.minimise import ROWS, Minimum, better, minimise
from mednovelty.nn.misfits import Misfit, NegativeLogLikelihood, SquaredError
from mednovelty.papers import equation
from mednovelty.protocols import ProbabilisticAutoencoder
from mednovelty.seeds import generator
from mednovelty.types import SampleScores

BOUND = 10.0
"""The box of the bounded scores is [-10, 10] in every latent, as in the paper."""


class _GeneratedScorer:
    level: ClassVar[Literal["sample"]] = "sample"
    needs: ClassVar[tuple[str, ...]] = ("model",)
    reference_parts: ClassVar[tuple[str, ...]] = ()
    group = "generated"
    misfit: ClassVar[type[SquaredError] | type[NegativeLogLikelihood]]
    bounded: ClassVar[bool]

    def __init__(self, model: ProbabilisticAutoencoder) -> None:
        self.model = model

    def minimum(self, batch: Batch) -> Minimum:
        """Return each sample's latents, its score there, and whether the minimisation converged."""
        key = ("generated", self.model, self.misfit)
        free, boxed = batch.once(key, lambda: free_and_boxed(self.model, self.misfit(self.model), batch))
        return boxed if self.bounded else free

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; never above that of the posterior's mean, if that is within the box."""
        return self.minimum(batch).value

    @torch.no_grad()
    def facts(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``converged``, ``(B,)`` bool: whose last steps gained nothing worth mentioning."""
        return {"converged": self.minimum(batch).converged}


@equation("vasilev2018", "Eq. (18)")
class ClosestGenerated(_GeneratedScorer):
    """Squared distance to the closest sample that the decoder can generate without noise.

    ``s(x) = min_z ||x - E p(x|z)||^2``, in squared units of the normalised signal.
    """

    unit = "normalised signal squared"
    misfit = SquaredError
    bounded = False


@equation("vasilev2018", "Eq. (18), bounded")
class ClosestGeneratedBounded(_GeneratedScorer):
    """Squared distance to the closest sample generated from latents within [-10, 10].

    ``s(x) = min_{z in [-10, 10]^d} ||x - E p(x|z)||^2``, in squared units of the normalised signal.
    """

    unit = "normalised signal squared"
    misfit = SquaredError
    bounded = True


@equation("vasilev2018", "Eq. (19)")
class HighestGeneratedLikelihood(_GeneratedScorer):
    """Negative log-likelihood of a sample under the latents that explain it best.

    ``s(x) = min_z -log p(x|z)``, in nats. The smallest sigma that the decoder may give bounds it from below.
    """

    unit = "nats"
    misfit = NegativeLogLikelihood
    bounded = False


@equation("vasilev2018", "Eq. (19), bounded")
class HighestGeneratedLikelihoodBounded(_GeneratedScorer):
    """Negative log-likelihood of a sample under the latents within [-10, 10] that explain it best.

    ``s(x) = min_{z in [-10, 10]^d} -log p(x|z)``, in nats.
    """

    unit = "nats"
    misfit = NegativeLogLikelihood
    bounded = True


@torch.no_grad()
def free_and_boxed(model: ProbabilisticAutoencoder, misfit: Misfit, batch: Batch) -> tuple[Minimum, Minimum]:
    """Return the minima over all latents and over those within the box.

    A free minimum within the box is the boxed one too; the few others are sought again within the box. A
    boxed one that comes out smaller (both are local) is the free one too: no free minimum is above the boxed.
    """
    starts = posterior_starts(model, batch)
    free = minimise(misfit, batch.x, starts)
    outside = (free.z.abs() > BOUND).any(1).nonzero()[:, 0]
    if not len(outside):
        return free, free
    again = minimise(misfit, batch.x[outside], starts[:, outside], bound=BOUND)
    boxed = Minimum(*(part.index_copy(0, outside, new) for part, new in zip(free, again, strict=True)))
    return better(free, boxed), boxed


def posterior_starts(model: ProbabilisticAutoencoder, batch: Batch) -> Tensor:
    """Return where to start, ``(4, B, Z)``: the posterior's mean and three points about it.

    All samples share the draws, in units of their posteriors' sigma: one to both sides, another to one side.
    """
    # A start is as good as its last bit at a kink: a small batch is padded as the minimiser pads.
    short = len(batch) < ROWS
    padded = torch.cat([batch.x, batch.x[-1:].expand(-len(batch) % ROWS, -1)]) if short else batch.x
    posterior = model.encode(padded) if short else batch.posterior(model)
    mean, sigma = posterior.mean[: len(batch)], posterior.stddev[: len(batch)]
    (latent,) = model.prior.event_shape
    first, second = torch.randn(2, latent, generator=generator(0, "starts of generated scores")).to(mean)
    return torch.stack([mean, mean + sigma * first, mean - sigma * first, mean + sigma * second])


__all__ = [
    "ClosestGenerated",
    "ClosestGeneratedBounded",
    "HighestGeneratedLikelihood",
    "HighestGeneratedLikelihoodBounded",
    "free_and_boxed",
    "posterior_starts",
]
