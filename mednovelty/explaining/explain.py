"""``explain``: samples and a score in, the relevance of each input out, and by which rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mednovelty.batch import sample_shape
from mednovelty.errors import SettingsError
from mednovelty.explaining.derivatives import check_differentiable, differentiable, gradient, smooth_gradient
from mednovelty.explaining.layers import Rules
from mednovelty.explaining.neuralised import Explained, neuralised
from mednovelty.explaining.relevance import Relevance
from mednovelty.methods.input_gradients import NoisyCopies
from mednovelty.reference import Reference
from mednovelty.score_names import needs_signal
from mednovelty.scoring import Scoring

Method = Literal["auto", "lrp", "gradient_x_input", "smoothgrad"]
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True)
class ExplainSettings:
    """How scores are explained.

    Attributes:
        rules: Of layer-wise relevance propagation.
        copies: Of SmoothGrad.
        baseline: b of gradient x input, one number or ``(D,)``, in the units of x.
    """

    rules: Rules = field(default_factory=Rules)
    copies: NoisyCopies = field(default_factory=NoisyCopies)
    baseline: float | tuple[float, ...] = 0.0


def explain(
    subject: Any,
    samples: Tensor | np.ndarray,
    score: str,
    method: Method = "auto",
    settings: ExplainSettings | None = None,
) -> Relevance:
    """Return the relevance of each input of some samples for a score.

    Args:
        subject: A ``Detector`` or ``Scoring``; or a trained model, for scores that need no reference.
        samples: ``(B, C, *space)`` or ``(B, D)``, preprocessed as the model has them.
        score: Name of the scorer.
        method: ``lrp``: layer-wise relevance propagation through the score written as a network;
            ``gradient_x_input``; ``smoothgrad``; ``auto``: the first where there is one for model and score,
            and else the second.
        settings: None: the defaults.

    Raises:
        UnknownPluginError: There is no scorer of that name.
        SettingsError: The score cannot be explained, or not so; samples of another size or not finite.
        ScanError: Its derivative is not finite at some of these samples.
    """
    settings = settings or ExplainSettings()
    if method not in METHODS:
        raise SettingsError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    scoring = scoring_of(subject)
    scoring.check([score])
    x = checked_samples(samples, scoring)
    found, conserves = _found(scoring, x, score, method, settings)
    values = found.values.detach().reshape(len(x), *sample_shape(scoring.model))
    return Relevance(values, found.score.detach(), found.constant.detach(), found.rule, conserves)


def check_explainable(scoring: Scoring, score: str, method: Method = "auto") -> None:
    """Refuse a score that cannot be explained, or not so, before any scan is read.

    Raises:
        UnknownPluginError: There is no scorer of that name.
        SettingsError: See ``explain``; whether derivatives are finite is only known of samples.
    """
    if needs_signal([score]):
        raise SettingsError(
            f"{score}: is of the signal as measured, which the model does not see; there is nothing to "
            "explain"
        )
    scoring.check([score])
    by_layers = method in ("auto", "lrp") and neuralised(scoring, score) is not None
    if method == "lrp" and not by_layers:
        raise SettingsError(_no_layers(scoring, score))
    if not by_layers:
        model = scoring.model
        like = torch.zeros(2, math.prod(sample_shape(model)), dtype=dtype_of(model), device=scoring.device)
        check_differentiable(differentiable(scoring, score), like, score)


def _no_layers(scoring: Scoring, score: str) -> str:
    return (
        f"{score} of {type(scoring.model).__name__} is not written as a network that relevance goes back "
        "through; use method='gradient_x_input', 'smoothgrad' or 'auto'"
    )


def _found(
    scoring: Scoring, x: Tensor, score: str, method: Method, settings: ExplainSettings
) -> tuple[Explained, bool]:
    by_layers = neuralised(scoring, score) if method in ("auto", "lrp") else None
    if by_layers is not None:
        with torch.no_grad():
            found = by_layers(scoring, x, settings.rules)
        return replace(found, rule=f"lrp: {found.rule}"), True
    if method == "lrp":
        raise SettingsError(_no_layers(scoring, score))
    of, nothing = differentiable(scoring, score), x.new_zeros(len(x))
    if method == "smoothgrad":
        values, scores = smooth_gradient(of, x, settings.copies, score)
        told = f"{settings.copies.count} noisy copies, sigma {settings.copies.sigma:g}"
        return Explained(values, scores, nothing, f"smoothgrad: gradient, mean over {told}"), False
    slope, scores = gradient(of, x, score)
    return Explained(slope * (x - _baseline(settings, x)), scores, nothing, "gradient x input"), False


def scoring_of(subject: Any) -> Scoring:
    """Return what scores, in full precision: a detector's, or that of a model without a reference."""
    if isinstance(subject, Scoring):
        return replace(subject, precision="float32")
    if hasattr(subject, "scoring"):
        return replace(subject.scoring(), precision="float32")
    return Scoring(subject, Reference({}, "exact", 0), draws=16, seed=0, batch_voxels=1 << 12)


def checked_samples(samples: Tensor | np.ndarray, scoring: Scoring) -> Tensor:
    """Return ``(B, D)`` samples in the model's precision, on its device.

    Raises:
        SettingsError: They are of another size, or not finite.
    """
    x = torch.as_tensor(samples)
    shape = sample_shape(scoring.model)
    if tuple(x.shape[1:]) not in (tuple(shape), (math.prod(shape),)):
        raise SettingsError(
            f"samples must be (B, {', '.join(map(str, shape))}) or (B, {math.prod(shape)}), got "
            f"{tuple(x.shape)}"
        )
    x = x.to(device=scoring.device, dtype=dtype_of(scoring.model)).flatten(1)
    bad = int((~torch.isfinite(x)).any(1).sum())
    if bad:
        raise SettingsError(f"{bad} of {len(x)} samples have values that are not finite; leave them out")
    return x


def dtype_of(model: Any) -> torch.dtype:
    """Return a model's precision; float32 where it has no weights to tell."""
    for of in ("parameters", "buffers"):
        for tensor in getattr(model, of, list)():
            if tensor.is_floating_point():
                return tensor.dtype
    return torch.float32


def _baseline(settings: ExplainSettings, x: Tensor) -> Tensor:
    baseline = torch.as_tensor(settings.baseline).to(x)
    if baseline.dim() and baseline.shape != x.shape[1:]:
        raise SettingsError(f"baseline must be one number or {x.shape[1]}, got {len(baseline)}")
    return baseline


__all__ = [
    "METHODS",
    "ExplainSettings",
    "Method",
    "check_explainable",
    "checked_samples",
    "explain",
    "scoring_of",
]
