"""Distance- and density-based scores of a VAE in signal space (Vasilev et al. 2018, section 2.2.2).

Eq. (12)   ReconstructionEuclidean         reconstruction to the nearest normal's reconstruction
Eq. (13)   ReconstructionBhattacharyya     the same between p(x|.) of both
Eq. (14)   ReconstructionDensity           how thin the normals' p(x|.) are at the reconstruction
Eq. (15)   InputToReconstructionEuclidean  sample to the nearest normal's reconstruction
Eq. (16)   InputDensity                    how thin the normals' p(x|.) are at the sample
Eq. (17)   ReconstructionToInputEuclidean  reconstruction to the nearest normal sample

Here m(x) = E q(z|x), and p(x|z) = N(M(z), diag S(z)^2).
"""

from __future__ import annotations

import torch

from mednovelty.batch import Batch
from mednovelty.methods.sample_scorers import ReferenceScorer
from mednovelty.papers import equation
from mednovelty.types import SampleScores


@equation("vasilev2018", "Eq. (12)")
class ReconstructionEuclidean(ReferenceScorer):
    """Distance between a sample's reconstruction and the nearest normal's.

    ``s(x) = min_y ||M(m(x)) - M(m(y))||^2``; the released code returns the root of it.
    """

    reference_parts = ("reconstruction_mean",)
    asks = ("encode", "decode")
    unit = "normalised signal squared"
    group = "comparison"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 for a copy of a normal."""
        return batch.nearest(
            self.model, self.reference, points="reconstruction_mean", part="reconstruction_mean"
        )


@equation("vasilev2018", "Eq. (13)")
class ReconstructionBhattacharyya(ReferenceScorer):
    """Bhattacharyya distance between a sample's decoder distribution and the nearest normal's.

    ``s(x) = min_y D_B(p(x|m(x)), p(x|m(y)))``, in nats; D_B as in ``latent_bhattacharyya``, where the
    released code departs in the same way.
    """

    reference_parts = ("reconstruction_mean", "reconstruction_sigma")
    unit = "nats"
    group = "comparison"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores; 0 for a copy of a normal."""
        return batch.nearest_gaussian(self.model, self.reference, "reconstruction")


@equation("vasilev2018", "Eq. (14)")
class ReconstructionDensity(ReferenceScorer):
    """How thinly the normals' decoder distributions cover a sample's reconstruction.

    ``s(x) = -ln 1/N sum_y N(M(m(x)); M(m(y)), diag S(m(y))^2)``, in nats; the paper's ``-p_Y`` is
    ``-exp(-s)``, the same ranking. The released code takes the sample's S for the normal's and leaves the
    sign as it is.
    """

    reference_parts = ("reconstruction_mean", "reconstruction_sigma")
    unit = "nats"
    group = "comparison"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return -batch.log_density(
            self.model, self.reference, points="reconstruction_mean", space="reconstruction"
        )


@equation("vasilev2018", "Eq. (15)")
class InputToReconstructionEuclidean(ReferenceScorer):
    """Distance between a sample and the nearest normal's reconstruction.

    ``s(x) = min_y ||x - M(m(y))||^2``; the released code returns the root of it.
    """

    reference_parts = ("reconstruction_mean",)
    asks = ("encode", "decode")
    unit = "normalised signal squared"
    group = "comparison"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.nearest(self.model, self.reference, points="input", part="reconstruction_mean")


@equation("vasilev2018", "Eq. (16)")
class InputDensity(ReferenceScorer):
    """How thinly the normals' decoder distributions cover a sample.

    ``s(x) = -ln 1/N sum_y N(x; M(m(y)), diag S(m(y))^2)``, in nats: ``reconstruction_density`` at the sample
    itself, where the released code departs in the same way.
    """

    reference_parts = ("reconstruction_mean", "reconstruction_sigma")
    unit = "nats"
    group = "comparison"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return -batch.log_density(self.model, self.reference, points="input", space="reconstruction")


@equation("vasilev2018", "Eq. (17)")
class ReconstructionToInputEuclidean(ReferenceScorer):
    """Distance between a sample's reconstruction and the nearest normal sample.

    ``s(x) = min_y ||M(m(x)) - y||^2``; the paper's brackets slip and put y among the latents. The released
    code returns the root of it.
    """

    reference_parts = ("input",)
    asks = ("encode", "decode")
    unit = "normalised signal squared"
    group = "comparison"

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores."""
        return batch.nearest(self.model, self.reference, points="reconstruction_mean", part="input")
