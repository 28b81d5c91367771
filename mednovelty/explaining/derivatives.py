"""Relevance by derivatives, for scores that are no networks of layers that rules are known for.

    gradient x input   R_i = (x_i - b_i) ds/dx_i, with a baseline b, 0 unless another is given
    SmoothGrad         R_i = mean_k ds/dx_i at x + e_k, e_k ~ N(0, sigma^2) (Smilkov et al. 2017)

The first adds up to s(x) - s(b) where s is linear between the two, and not otherwise; the second is no share
of the score, but how it changes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mednovelty.errors import ScanError, SettingsError
from mednovelty.methods.input_gradients import NoisyCopies
from mednovelty.plugins import plugin
from mednovelty.scoring import Scoring
from mednovelty.types import Samples, SampleScores

Score = Callable[[Samples], SampleScores]


def gradient(score: Score, x: Samples, name: str) -> tuple[Tensor, SampleScores]:
    """Return ds/dx, ``(B, D)``, and s(x), ``(B,)``.

    Args:
        score: Of ``(B, D)`` samples; no sample's score depends on another's.
        x: ``(B, D)``.
        name: Of the score, for messages.

    Raises:
        SettingsError: It has no derivative.
        ScanError: It has one, which at some of these samples is not finite.
    """
    slope, found = _slope(score, x, name)
    bad = int((~torch.isfinite(slope)).any(1).sum())
    if bad:
        told = f"{name}: cannot be explained here: it has no finite derivative at {bad} of {len(x)} samples"
        raise ScanError(f"{told}; leave this scan out, or use method='lrp' where there is one",
                        code="relevance.derivative")  # fmt: skip
    return slope, found


def check_differentiable(score: Score, like: Samples, name: str) -> None:
    """Raise where a score has no derivative; whether it is finite is only known of samples.

    Args:
        score: As of ``gradient``.
        like: ``(B, D)`` of any values, which are not looked at.
        name: Of the score, for messages.

    Raises:
        SettingsError: It has none.
    """
    # Numbers of no pattern: a score may be constant at 0.
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
    _slope(score, noise.to(like), name)


def _slope(score: Score, x: Samples, name: str) -> tuple[Tensor, SampleScores]:
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        found = score(leaf)
        if not found.requires_grad:
            raise SettingsError(_words(name, "does not depend on the sample through functions that torch can "
                                             "differentiate, as of searches and of trees"))  # fmt: skip
        # Of the sum: a mean would divide each sample's derivative by how many there are.
        (slope,) = torch.autograd.grad(found.sum(), leaf, allow_unused=True)
    if slope is None:
        raise SettingsError(_words(name, "does not depend on the sample"))
    return slope, found.detach()


def smooth_gradient(score: Score, x: Samples, copies: NoisyCopies, name: str) -> tuple[Tensor, SampleScores]:
    """Return ds/dx averaged over noisy copies of the samples, ``(B, D)``, and s(x), ``(B,)``."""
    total = torch.zeros_like(x)
    for noise in copies.noise(x.shape[1]).to(x):
        total += gradient(score, x + noise, name)[0]
    with torch.no_grad():
        return total / copies.count, score(x)


def differentiable(scoring: Scoring, name: str) -> Score:
    """Return a score as a function of ``(B, D)`` samples with a graph; maps are summed over the sample.

    Raises:
        UnknownPluginError: There is no scorer of that name.
        SettingsError: It needs something that is not here, or is made of derivatives itself.
    """
    scorer: Any = scoring.scorers([name])[name]
    # Derivatives within a score have lost their graph: what is left of it would give wrong ones.
    if getattr(scorer, "differentiates", 0) or "copies" in getattr(scorer, "options", ()):
        raise SettingsError(_words(name, "is made of derivatives, which are taken as given"))
    if scorer.reference_parts:
        raise SettingsError(_words(name, "looks for the nearest normals, and searches have no derivative"))
    # Scorers run without a graph, by a decorator; what it wraps makes one.
    score = inspect.unwrap(type(scorer).score)
    whole = plugin("scorers", name).level == "sample"

    def of(x: Samples) -> SampleScores:
        found = score(scorer, scoring.batch(x))
        return found if whole else found.reshape(len(x), -1).sum(1)

    return of


def _words(name: str, why: str) -> str:
    return (
        f"{name}: cannot be explained: it {why}; explain a score such as reconstruction_error, hypersphere "
        "or, of kde and pca, outlier_score"
    )


__all__ = ["Score", "check_differentiable", "differentiable", "gradient", "smooth_gradient"]
