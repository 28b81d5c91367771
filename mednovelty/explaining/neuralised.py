"""Scores written as networks that end in distances, and the relevance of inputs by their layers.

Ruff, "Deep One-Class Learning", 2021, Sec. 4.4.2: a feature layer, a layer of distances, a pooling of them.

===================  ==============  ============================  ===========================================
detector             features        distances                     pooling
===================  ==============  ============================  ===========================================
``kde``              none, or axes   d_j = ||x - x_j||^2 / (2h^2)  soft minimum -log mean_j exp(-d_j)
nearest normal       none            d_j = ||x - x_j||^2           minimum
Deep SVDD, SAD, HSC  the encoder     h(phi(x) - c)                 none: there is one
reconstruction       the network     ||x - xhat||^2                none: there is one
===================  ==============  ============================  ===========================================

The soft minimum f gives d_j the part p_j f, with p_j = exp(-d_j) / sum_j exp(-d_j); a squared distance gives
each of its terms itself; the encoder's layers are in ``layers``. A reconstruction is taken as given, not
followed back into the input. What does not depend on x is ``constant``: of ``kde`` the height of its kernels,
of a soft boundary -R^2. So is what the soft minimum gives to kernels that lie on x itself, as those of
training samples do: (x_i - x_ji)^2 / ||x - x_j||^2 tends to another limit from each side, and p_j f has no
input to go to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mednovelty.explaining.layers import Rules, Weighted, propagated, steps_of
from mednovelty.methods.hypersphere_model import HSCModel, Hypersphere
from mednovelty.methods.shallow.density import KDE
from mednovelty.methods.shallow.pca import PCA
from mednovelty.papers import equation
from mednovelty.scoring import Scoring
from mednovelty.types import Samples


@dataclass(frozen=True, eq=False)
class Explained:
    """Relevance of ``(B, D)`` inputs, the ``(B,)`` scores, their constant part, and the rule in words."""

    values: Tensor
    score: Tensor
    constant: Tensor
    rule: str


Neuralised = Callable[[Scoring, Samples, Rules], Explained]


def neuralised(scoring: Scoring, score: str) -> Neuralised | None:
    """Return what explains a score of a model by its layers; None where it is no such network."""
    model = scoring.model
    if score == "outlier_score" and isinstance(model, KDE):
        return of_density
    if score == "outlier_score" and isinstance(model, PCA):
        return of_plane
    if score == "hypersphere" and isinstance(model, Hypersphere):
        return of_hypersphere
    if score == "nearest_normal":
        return of_nearest
    return of_reconstruction if score in ("reconstruction_error", "rec_error") else None


@equation("ruff2021_thesis", "Sec. 4.4.2, KDE")
def of_density(scoring: Scoring, x: Samples, rules: Rules) -> Explained:
    """Return the relevance of inputs for -log of a kernel density, in nats.

    Where principal components are compared, so are the points that they stand for: distances are the same.
    """
    model: Any = scoring.model
    points, features = model.normals(), model.preparation.standardised(x)
    if model.preparation.reduction is not None:
        axes = model.preparation.reduction.axes[:, : model.preparation.width]
        features, points = model.preparation(x) @ axes.T, points @ axes.T
    # In float64: shares are of differences of numbers that may be far from 0.
    # That of x or worse: normals were kept in single precision.
    precision = torch.finfo(torch.float32).eps
    pooled, values, own = soft_minimum(
        features.double(), points.double(), model.bandwidth.double(), precision
    )
    height = model.preparation.width * (model.bandwidth.double().log() + 0.5 * math.log(2 * math.pi))
    score = pooled + height
    rule = "soft minimum of distances to normals, squared differences; constant: kernels' height, own kernel"
    return Explained(values.to(x), score.to(x), (height + own).to(x), rule)


def soft_minimum(
    x: Tensor, points: Tensor, bandwidth: Tensor, precision: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return f = -log mean_j exp(-d_j), ``(B,)``, its ``(B, D)`` relevance, and what no input can be given.

    ``R_i = sum_j p_j f (x_i - x_ji)^2 / ||x - x_j||^2`` over points that x does not equal; of the others
    ``sum_j p_j f`` is the third, ``(B,)``, and all three together conserve f.

    Args:
        x: ``(B, D)``.
        points: ``(n, D)``.
        bandwidth: h.
        precision: Relative, that x was computed with: nearer than that, differences are but rounding.
    """
    same = 16 * precision * (x.norm(dim=1, keepdim=True) + points.norm(dim=1))
    centre = points.mean(0)
    x, points = x - centre, points - centre
    squared = torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    exponents = squared / (-2 * bandwidth.square())
    pooled = math.log(len(points)) - exponents.logsumexp(1)
    parts, apart = exponents.softmax(1), squared > same.square()
    weights = torch.where(apart, parts / squared.clamp_min(1e-300), 0.0)
    # sum_j w_j (x - x_j)^2, without an array of (B, n, D).
    shares = (
        x.square() * weights.sum(1, keepdim=True) - 2 * x * (weights @ points) + weights @ points.square()
    )
    own = torch.where(apart, 0.0, parts).sum(1)
    return pooled, pooled[:, None] * shares.clamp_min(0), pooled * own


def of_nearest(scoring: Scoring, x: Samples, rules: Rules) -> Explained:
    """Return the relevance of inputs for the squared distance to the nearest normal sample."""
    index = scoring.reference.nearest("input", x)[1][:, 0]
    values = (x - scoring.reference.parts["input"].to(x)[index]).square()
    rule = "minimum of distances to normals, squared differences"
    return Explained(values, values.sum(1), x.new_zeros(len(x)), rule)


@equation("ruff2021_thesis", "Sec. 4.4.2, Deep SVDD")
def of_hypersphere(scoring: Scoring, x: Samples, rules: Rules) -> Explained:
    """Return the relevance of inputs for the distance of latents from a centre.

    The centre is a bias of the last layer, whose outputs are then phi(x) - c.
    """
    model: Any = scoring.model
    centre = torch.zeros_like(model.centre) if isinstance(model, HSCModel) else model.centre
    steps, inputs = shifted(model.encoder, -centre), model.standardised(x)
    offset = model.encoder(inputs) - centre
    distances, relevance = of_terms(lambda d: model.distances(d + centre), offset)
    score = model.hypersphere(offset + centre)
    values = propagated(steps, inputs, relevance, rules)
    return Explained(values, score, score - distances, f"distance from the centre, {rules.words()}")


def shifted(encoder: nn.Module, by: Tensor) -> list[Any]:
    """Return an encoder's steps, with something added to its ``(Z,)`` outputs."""
    steps = steps_of(encoder)
    last = max(number for number, step in enumerate(steps) if isinstance(step, Weighted))
    steps[last] = steps[last].shifted(by)  # type: ignore[attr-defined]
    return steps


def of_terms(norm: Callable[[Tensor], Tensor], offset: Tensor) -> tuple[Tensor, Tensor]:
    """Return a norm h, ``(B,)``, and what each of ``(B, Z)`` numbers has to do with it.

    ``R_j = h(d) d_j h_j(d) / sum_j d_j h_j(d)`` with h_j = dh / dd_j: of a square d_j^2, of the 1-norm |d_j|.
    """
    with torch.enable_grad():
        leaf = offset.detach().requires_grad_()
        distances = norm(leaf)
        (slope,) = torch.autograd.grad(distances.sum(), leaf)
    terms, distances = offset * slope, distances.detach()
    total = terms.sum(1, keepdim=True)
    # A root has no slope at 0, where there is nothing to give away either.
    shares = torch.where(total > 0, terms / torch.where(total > 0, total, 1.0), 0.0)
    return distances, distances[:, None] * shares


@equation("ruff2021_thesis", "Sec. 4.4.2, autoencoder")
def of_reconstruction(scoring: Scoring, x: Samples, rules: Rules) -> Explained:
    """Return the squared error of each input: they add up to the reconstruction error."""
    model: Any = scoring.model
    values = (x - model.decode(model.encode(x).mean).mean).square()
    return Explained(values, values.sum(1), x.new_zeros(len(x)), "squared error of each input")


def of_plane(scoring: Scoring, x: Samples, rules: Rules) -> Explained:
    """Return the squared distance of each input from the plane of the principal components."""
    model: Any = scoring.model
    inputs = model.preparation.standardised(x)
    values = (inputs - model.axes.back(model.axes.project(inputs))).square()
    return Explained(values, values.sum(1), x.new_zeros(len(x)), "squared error of each input")


__all__ = ["Explained", "Neuralised", "neuralised", "of_terms", "soft_minimum"]
