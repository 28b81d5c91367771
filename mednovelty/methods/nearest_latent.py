"""Nearest latent neighbours (Mesarcik et al. 2021): a sample against its neighbours, decoded.

Eq. (4)  NearestLatentNeighbours   error against the decoded neighbours, and distance to them
Eq. (7)  NLNResidual               the same in the features of a discriminator
Eq. (8)  NLNConsistency            the same in latents, as a second encoder sees the decoded neighbours
map      NLNMap                    Eq. (4) voxel by voxel

    s(x) = alpha E'(x) + (1 - alpha) D'(x),    D = 1/K sum_k ||z - z_k||
    E  = 1/(K N) sum_k |x - g(z_k)|_1                                       Eq. (4)
    E  = 1/(K H) sum_k |q(x) - q(g(z_k))|_1                                 Eq. (7)
    E  = 1/(K L) sum_k |f(x) - f_con(g(z_k))|_1                             Eq. (8)

f encodes (of a variational model: its mean), g decodes, z = f(x), and z_1 ... z_K are the K nearest to z of
the training samples' latents. A dash is the normalisation by held-out normals, ``mednovelty.calibration``;
the paper says only that both terms are normalised. N counts the values of a sample, H those of q, L = Z.

Where the released code departs: it takes smallest and largest of the test set for the normalisation; it fixes
alpha = 0.6; and it compares the *neighbours'* latents with f_con of the *sample's* reconstruction in Eq. (8),
``nln.reverse``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mednovelty.batch import Batch, sample_shape
from mednovelty.calibration import Constants, Scale
from mednovelty.errors import SettingsError
from mednovelty.methods.input_gradients import MapScorer
from mednovelty.methods.sample_scorers import ReferenceScorer
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.papers import equation
from mednovelty.reference import Reference
from mednovelty.types import Latents, SampleScores, VoxelScores

AS_PRINTED: Constants = {"error": Scale(), "distance": Scale()}
"""Terms as the equations print them."""
PRINTED_SETTINGS = NLNSettings()


class LatentNeighbours:
    """The nearest training latents of a batch's samples, and what the decoder makes of them.

    Args:
        model: Any ``Autoencoder``.
        reference: Its normals, with ``latent_mean``.
        k: K.
    """

    def __init__(self, model: Any, reference: Reference, k: int) -> None:
        self._model, self._reference, self._k = model, reference, k

    def distances(self, batch: Batch) -> Tensor:
        """Return ``(B, K)`` Euclidean distances to the neighbours' latents."""
        return self._found(batch)[0].sqrt()

    def latents(self, batch: Batch) -> Latents:
        """Return ``(B * K, Z)`` latents, a sample's one after the other."""
        normals = self._reference.parts["latent_mean"]
        return normals[self._found(batch)[1].flatten().to(normals.device)].to(batch.x.device)

    def decoded(self, batch: Batch) -> Tensor:
        """Return ``(B * K, D)`` samples that the neighbours' latents stand for."""
        key = ("decoded neighbours", self._model, self._reference, self._k)
        return batch.once(key, lambda: self._model.decode(self.latents(batch)).mean)

    def errors(self, of_sample: Tensor, of_neighbours: Tensor) -> Tensor:
        """Return ``(B, K, W)`` absolute differences to the ``(B * K, W)`` of a sample's neighbours."""
        neighbours = of_neighbours.unflatten(0, (len(of_sample), self._k))
        return (of_sample[:, None] - neighbours).abs()

    def _found(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self._k > len(self._reference):
            raise SettingsError(
                f"nln.k={self._k}: the reference holds {len(self._reference)} normals; set nln.k to one of "
                f"1 to {len(self._reference)}"
            )
        key = ("latent neighbours", self._model, self._reference, self._k)
        latents = batch.part(self._model, "latent_mean")
        return batch.once(key, lambda: self._reference.nearest("latent_mean", latents, self._k))


@equation("mesarcik2021_nln", "Eq. (4)")
class NearestLatentNeighbours(ReferenceScorer):
    """Error against the decoded nearest latent neighbours, and the distance to them.

    ``s(x) = alpha E'(x) + (1 - alpha) D'(x)`` with ``E = 1/(K N) sum_k |x - g(z_k)|_1`` and
    ``D = 1/K sum_k ||z - z_k||``; see the module. alpha = 0 ranks by the distances to K latent neighbours.

    Args:
        model: Trained, in evaluation mode.
        reference: Its normals, with ``latent_mean``.
        nln: K and alpha.
        constants: How the terms ``error`` and ``distance`` are normalised; as printed: not at all.
    """

    asks: ClassVar[tuple[str, ...]] = ("encode", "decode")
    options: ClassVar[tuple[str, ...]] = ("nln",)
    terms: ClassVar[tuple[str, ...]] = ("error", "distance")
    reference_parts = ("latent_mean",)
    unit = "standard deviations from the mean of held-out normals; below 0: nearer than they are"
    group = "nln"

    def __init__(
        self,
        model: Any,
        reference: Reference,
        nln: NLNSettings = PRINTED_SETTINGS,
        constants: Constants = AS_PRINTED,
    ) -> None:
        super().__init__(model, reference)
        self.nln, self.constants = nln, constants
        self.neighbours = LatentNeighbours(model, reference, nln.k)

    @torch.no_grad()
    def score(self, batch: Batch) -> SampleScores:
        """Return ``(B,)`` scores, 0 for a normal like those held out."""
        return weighed(self.terms_of(batch), self.nln, self.constants)

    @torch.no_grad()
    def terms_of(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``(B,)`` by term, not normalised."""
        error = self.errors(batch).mean(1).mean(1)
        return {"error": error, "distance": self.neighbours.distances(batch).mean(1)}

    @torch.no_grad()
    def terms_by_k(self, batch: Batch, ks: Sequence[int]) -> dict[int, dict[str, Tensor]]:
        """Return ``terms_of`` for several K, none above this scorer's: each neighbour is decoded once."""
        errors, distances = self.errors(batch).mean(2), self.neighbours.distances(batch)
        return {k: {"error": errors[:, :k].mean(1), "distance": distances[:, :k].mean(1)} for k in ks}

    def errors(self, batch: Batch) -> Tensor:
        """Return ``(B, K, W)`` absolute differences, the nearest neighbour's first."""
        return self.neighbours.errors(batch.x, self.neighbours.decoded(batch))


@equation("mesarcik2021_nln", "Eq. (7)")
class NLNResidual(NearestLatentNeighbours):
    """Error against the decoded latent neighbours in a discriminator's features.

    ``E = 1/(K H) sum_k |q(x) - q(g(z_k))|_1`` in place of Eq. (4)'s, q the last features before the
    discriminator's decision, H of them.
    """

    asks = ("features", "encode", "decode")

    def errors(self, batch: Batch) -> Tensor:
        """Return ``(B, K, H)`` absolute differences, the nearest neighbour's first."""
        decoded = self.neighbours.decoded(batch)
        return self.neighbours.errors(self.model.features(batch.x), self.model.features(decoded))


@equation("mesarcik2021_nln", "Eq. (8)")
class NLNConsistency(NearestLatentNeighbours):
    """Error between a sample's latents and its neighbours', decoded and encoded again.

    ``E = 1/(K L) sum_k |f(x) - f_con(g(z_k))|_1`` in place of Eq. (4)'s. With ``nln.reverse`` as the released
    code has it: ``1/(K L) sum_k |z_k - f_con(g(f(x)))|_1``.
    """

    asks = ("consistent", "encode", "decode")

    def errors(self, batch: Batch) -> Tensor:
        """Return ``(B, K, Z)`` absolute differences, the nearest neighbour's first."""
        if self.nln.reverse:
            again = self.model.consistent(batch.likelihood(self.model).mean)
            return self.neighbours.errors(again, self.neighbours.latents(batch))
        again = self.model.consistent(self.neighbours.decoded(batch))
        return self.neighbours.errors(batch.part(self.model, "latent_mean"), again)


@equation("mesarcik2021_nln", "segmentation")
class NLNMap(MapScorer):
    """Error of each voxel against its decoded latent neighbours; 0 is the mean of held-out normals.

    ``s(x)_v = alpha E'(x)_v + (1 - alpha) D'(x)``, ``E_v`` the mean over contrasts and neighbours of
    ``|x - g(z_k)|_v``: the mean over a sample's voxels is its score by ``nearest_latent_neighbours``, whose
    arguments it has. Within the mask values may be negative: more like the normals than those held out are on
    the average. The 0 outside it is no such value.
    """

    asks = ("encode", "decode")
    needs: ClassVar[tuple[str, ...]] = ("model", "reference")
    options = ("nln",)
    terms = NearestLatentNeighbours.terms
    reference_parts = ("latent_mean",)
    unit = (
        "standard deviations from the mean of held-out normals; within the mask 0 is their mean and values "
        "may be negative, outside 0 stands for no score"
    )

    def __init__(
        self,
        model: Any,
        reference: Reference,
        nln: NLNSettings = PRINTED_SETTINGS,
        constants: Constants = AS_PRINTED,
    ) -> None:
        super().__init__(model)
        self.reference, self.nln, self.constants = reference, nln, constants
        self.sample = NearestLatentNeighbours(model, reference, nln, constants)

    @torch.no_grad()
    def score(self, batch: Batch) -> VoxelScores:
        """Return ``(B, *space)`` scores."""
        error = self._on_voxels(self.sample.errors(batch).mean(1))
        distance = self._spread_out(self.sample.neighbours.distances(batch).mean(1))
        return weighed({"error": error, "distance": distance}, self.nln, self.constants)

    def terms_of(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``(B,)`` by term, not normalised."""
        return self.sample.terms_of(batch)

    def terms_by_k(self, batch: Batch, ks: Sequence[int]) -> dict[int, dict[str, Tensor]]:
        """Return ``terms_of`` for several K, none above this scorer's."""
        return self.sample.terms_by_k(batch, ks)

    @torch.no_grad()
    def maps_by_k(self, batch: Batch, ks: Sequence[int]) -> dict[int, dict[str, Tensor]]:
        """Return by K what ``score`` weighs: errors ``(B, *space)``, and one distance a sample."""
        errors, distances = self.sample.errors(batch), self.sample.neighbours.distances(batch)
        return {
            k: {
                "error": self._on_voxels(errors[:, :k].mean(1)),
                "distance": self._spread_out(distances[:, :k].mean(1)),
            }
            for k in ks
        }

    def _on_voxels(self, error: Tensor) -> Tensor:
        return self.summed(error) / sample_shape(self.model)[0]

    def _spread_out(self, distance: Tensor) -> Tensor:
        return distance.reshape(-1, *(1 for _ in sample_shape(self.model)[1:]))


def weighed(terms: dict[str, Tensor], nln: NLNSettings, constants: Constants) -> Tensor:
    """Return ``alpha error' + (1 - alpha) distance'``, of terms whose shapes fit each other."""
    error, distance = (constants[name](terms[name]) for name in ("error", "distance"))
    return nln.alpha * error + (1 - nln.alpha) * distance


__all__ = ["LatentNeighbours", "NLNConsistency", "NLNMap", "NLNResidual", "NearestLatentNeighbours"]
