"""What a detector makes of normal samples: each beside its reconstruction, from the best to the worst.

Of voxels the signals, gradient by gradient; of slices and windows a picture for each contrast: the sample,
its reconstruction, and how far they are apart. All as the network sees them, normalised.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mednovelty.capabilities import BOTH_WAYS, offered_by
from mednovelty.detector import Detector
from mednovelty.report.charts import Chart, Series, chart_svg
from mednovelty.report.page import Picture
from mednovelty.views import samples_of

if TYPE_CHECKING:
    from markupsafe import Markup

SHOWN = 4
MOST_CHANNELS = 3
"""Of images; of windows of diffusion the first, one in the middle and the last."""
ROWS = 8
"""Samples that go through the network together."""


@dataclass(frozen=True, slots=True)
class Reconstructions:
    """What is shown of them.

    Attributes:
        words: What samples they are, and how they were chosen.
        charts: Of voxels.
        pictures: Of slices and windows.
    """

    words: str
    charts: tuple[tuple[Markup, str], ...] = ()
    pictures: tuple[Picture, ...] = ()


def reconstructions_of(detector: Detector) -> Reconstructions:
    """Return some held-out samples beside their reconstructions; why there are none, where there are none."""
    offers = offered_by(detector.fitted.method)
    if not set(BOTH_WAYS) <= set(offers):
        return Reconstructions(
            f"The method {detector.settings.method} judges samples without reconstructing them: there is "
            "nothing to compare them with."
        )
    samples, whose = _samples(detector)
    if samples is None:
        return Reconstructions(
            "No sample lies beside this detector, and its reference holds none: it was fitted before samples "
            "were kept, or they were removed. Fit it again to see reconstructions."
        )
    filled = ~_is_empty(samples, tuple(detector.shape))
    passed = int((~filled).sum()) if filled.any() else 0
    samples = samples[filled] if passed else samples
    made = reconstructed(detector, samples)
    errors = (samples - made).square().mean(1).sqrt().numpy()
    order = np.argsort(errors, kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, SHOWN).round().astype(int))]
    words = f"{len(rows)} of {len(errors)} {whose}, from the one that is reconstructed best to the worst."
    if passed:
        are = "is" if passed == 1 else "are"
        words += f" {passed} without any signal, which is no work to reconstruct, {are} left out."
    ranks = {int(row): place + 1 for place, row in enumerate(order)}
    pairs = [
        (samples[row].numpy(), made[row].numpy(),
         f"number {ranks[row]} of {len(order)}: root mean squared difference {errors[row]:.3g}")
        for row in rows.tolist()
    ]  # fmt: skip
    if len(detector.shape) == 1:
        return Reconstructions(words, charts=tuple(_chart(detector, *pair) for pair in pairs))
    return Reconstructions(words, pictures=tuple(_picture(detector, *pair) for pair in pairs))


@torch.no_grad()
def reconstructed(detector: Detector, samples: Tensor) -> Tensor:
    """Return what the decoder makes of ``(n, C)`` samples at their latent means, ``(n, C)`` on the CPU."""
    model, device = detector.model, _device(detector)
    made = [model.decode(model.encode(block.to(device)).mean).mean.cpu() for block in samples.split(ROWS)]
    return torch.cat(made).reshape(len(samples), -1).float()


def _is_empty(samples: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return ``(n,)`` bool of ``(n, C)`` samples: a voxel of zeros, a picture that is the same all over."""
    if len(shape) == 1:
        return (samples == 0).all(1)
    channels = samples.reshape(len(samples), shape[0], -1)
    return (channels.amax(2) == channels.amin(2)).all(1)


def _device(detector: Detector) -> torch.device:
    from mednovelty.reference import device_of

    return device_of(detector.model)


def _samples(detector: Detector) -> tuple[Tensor | None, str]:
    """Return ``(n, C)`` samples and what they are: held out, or of detectors without such, trained on."""
    kind = samples_of(detector.settings.view)
    if detector.fitted.examples is not None:
        return detector.fitted.examples, f"held-out {kind}"
    known = detector.reference.parts.get("input")
    if known is None or not len(known):
        return None, ""
    rows = np.unique(np.linspace(0, len(known) - 1, 64).round().astype(np.int64))
    what = f"{kind} that it was trained on (this detector kept none that were held out)"
    return known[torch.from_numpy(rows).to(known.device)].cpu(), what


def _chart(detector: Detector, sample: np.ndarray, made: np.ndarray, words: str) -> tuple[Markup, str]:
    order, x = _order(detector)
    at = np.arange(len(order))
    few = len(order) <= SHOWN
    kind = "points" if few else "line"
    chart = Chart(
        alt=f"Signals of a normal voxel and their reconstruction over {len(order)} channels; {words}; "
        f"signals from {sample.min():.3g} to {sample.max():.3g}",
        x_label=x,
        y_label="signal, normalised",
        series=(
            Series("the voxel", at, sample[order], 0, kind),  # type: ignore[arg-type]
            Series("its reconstruction", at, made[order], 1, kind, dashed=True),  # type: ignore[arg-type]
        ),
    )
    return chart_svg(chart), words


def _order(detector: Detector) -> tuple[np.ndarray, str]:
    """Return the channels in the order of their b-values, and what they are in words."""
    scheme = detector.scheme
    if scheme is None:
        names = ", ".join(f"{n} {name}" for n, name in enumerate(detector.contrasts)) or "channel"
        return np.arange(detector.model.channels), names
    values = np.asarray(scheme.bvalues_s_per_mm2)
    return np.argsort(values, kind="stable"), "gradients, by b-value"


def _picture(detector: Detector, sample: np.ndarray, made: np.ndarray, words: str) -> Picture:
    shape = tuple(detector.shape)
    before, after = _planes(sample.reshape(shape)), _planes(made.reshape(shape))
    chosen = np.unique(np.linspace(0, shape[0] - 1, min(shape[0], MOST_CHANNELS)).round().astype(int))
    rows = [_row(before[channel], after[channel]) for channel in chosen]
    names = [detector.contrasts[c] if detector.contrasts else f"gradient {c}" for c in chosen]
    plane = "" if len(shape) == 3 else ", the middle plane of each window"
    caption = f"{words}. {' / '.join(names)}{plane}: the sample, its reconstruction, how far apart"
    return Picture(_png(np.concatenate(rows)), caption, caption, crisp=True)


def _planes(sample: np.ndarray) -> np.ndarray:
    """Return ``(C, H, W)``, of windows the middle plane: the front on top, right on the left."""
    flat = sample if sample.ndim == 3 else sample[..., sample.shape[-1] // 2]
    return flat.transpose(0, 2, 1)[:, ::-1, ::-1]


def _row(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return sample, reconstruction and difference side by side, ``(H, 3 W, 3)`` of bytes."""
    from matplotlib import colormaps

    low, high = (float(end) for end in np.percentile(before, [0.5, 99.5]))
    span = max(high - low, 1e-6)
    greys = [np.clip((image - low) / span, 0, 1) for image in (before, after)]
    apart = np.clip(np.abs(after - before) / span, 0, 1)
    tiles = [np.repeat((255 * grey)[..., None], 3, axis=2) for grey in greys]
    return (
        np.concatenate([*tiles, 255 * colormaps["inferno"](apart)[..., :3]], axis=1).round().astype(np.uint8)
    )


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", optimize=True)
    return content.getvalue()


__all__ = ["Reconstructions", "reconstructed", "reconstructions_of"]
