"""Where normals lie in a detector's latent space: on its two widest axes, or on a sphere."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mednovelty.capabilities import offered_by
from mednovelty.detector import Detector
from mednovelty.reference import device_of
from mednovelty.report.charts import BOTTOM as FOOT
from mednovelty.report.charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Series, chart_svg
from mednovelty.report.page import Picture

if TYPE_CHECKING:
    from markupsafe import Markup

MOST = 1000
"""Normals that are drawn."""
ON_A_SPHERE = ("hyperspherical",)
"""Methods whose latents are directions."""
ROWS = 64


@dataclass(frozen=True, slots=True)
class LatentSpace:
    """What is shown of it.

    Attributes:
        words: What it shows, or why there is nothing.
        chart: On two axes.
        picture: On the sphere.
    """

    words: str
    chart: Markup | None = None
    picture: Picture | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """The axes along which latents vary most, by principal component analysis.

    Attributes:
        mean: ``(d,)``.
        directions: ``(2, d)``, each of length 1, at right angles; the second is 0 where d is 1.
        shares: ``(2,)`` of the variance.
    """

    mean: np.ndarray
    directions: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, latents: np.ndarray) -> Axes:
        """Return the axes of ``(n, d)`` latents; signs are such that the largest weight is positive."""
        wide = latents.astype(np.float64)
        mean = wide.mean(0)
        _, spread, axes = np.linalg.svd(wide - mean, full_matrices=False)
        variance = np.concatenate([spread**2, [0.0]])
        total = max(float(variance.sum()), 1e-300)
        found = np.concatenate([axes, np.zeros((1, axes.shape[1]))])[:2]
        strongest = np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1)
        return cls(mean, found * np.where(strongest < 0, -1.0, 1.0), variance[:2] / total)

    def place(self, latents: np.ndarray) -> np.ndarray:
        """Return ``(n, 2)`` places of ``(n, d)`` latents."""
        return np.asarray((latents.astype(np.float64) - self.mean) @ self.directions.T)


def latent_space_of(detector: Detector) -> LatentSpace:
    """Return where a detector's normals lie in its latent space."""
    if "encode" not in offered_by(detector.fitted.method):
        return LatentSpace(f"The method {detector.settings.method} has no latent space.")
    normals = _normals(detector)
    if normals is None:
        return LatentSpace(
            "The reference holds neither latents nor samples: none of its scores asks for such."
        )
    if detector.settings.method in ON_A_SPHERE and normals.shape[1] >= 3:
        return _on_sphere(normals)
    axes = Axes.of(normals)
    held_out = detector.fitted.examples
    clouds = [_points(f"{len(normals):,} of the reference's normals", axes.place(normals), 0)]
    if held_out is not None and len(detector.shape) == 1:
        latents = _encoded(detector, held_out)
        clouds.append(_points(f"{len(latents)} held out", axes.place(latents), 1))
    shares = [f"{100 * share:.0f} %" for share in axes.shares]
    words = (
        f"{normals.shape[1]} latents on the two axes along which they vary most, which hold {shares[0]} and "
        f"{shares[1]} of the variance. Held-out normals should lie among the others."
    )
    x_range, y_range = _alike(np.concatenate([np.stack([one.x, one.y], 1) for one in clouds]))
    chart = Chart(
        alt=f"Cloud of {len(normals):,} normals in the latent space, {words}",
        x_label=f"first axis ({shares[0]})",
        y_label=f"second axis ({shares[1]})",
        series=clouds,
        x_range=x_range,
        y_range=y_range,
    )
    return LatentSpace(words, chart=chart_svg(chart))


def _normals(detector: Detector) -> np.ndarray | None:
    """Return ``(n, d)`` latent means of some normals, evenly over the reference; None where it has none."""
    parts = detector.reference.parts
    known = parts.get("latent_mean", parts.get("input"))
    if known is None or not len(known):
        return None
    rows = np.unique(np.linspace(0, len(known) - 1, MOST).round().astype(np.int64))
    chosen = known[torch.from_numpy(rows).to(known.device)]
    found = chosen.cpu().numpy() if "latent_mean" in parts else _encoded(detector, chosen)
    return found if found.shape[1] else None


@torch.no_grad()
def _encoded(detector: Detector, samples: Tensor) -> np.ndarray:
    device = device_of(detector.model)
    blocks = [detector.model.encode(block.to(device)).mean.cpu().numpy() for block in samples.split(ROWS)]
    return np.concatenate(blocks)


def _points(label: str, places: np.ndarray, colour: int) -> Series:
    return Series(label, places[:, 0], places[:, 1], colour, "points")


def _alike(points: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return ends of both axes such that a step to the right is as long as one upwards."""
    low, high = points.min(0), points.max(0)
    room = np.array([WIDTH - LEFT - RIGHT, HEIGHT - TOP - FOOT])
    half = max(float(((high - low) / room).max()), 1e-12) * room / 2 * 1.05
    (a, b), (c, d) = ((m - h, m + h) for m, h in zip((low + high) / 2, half, strict=True))
    return (float(a), float(b)), (float(c), float(d))


def _on_sphere(normals: np.ndarray) -> LatentSpace:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from mednovelty.report.sphere import Cloud, sphere_figure, thirds

    points = thirds(normals)
    figure, content = sphere_figure([Cloud("normals", points)]), io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    # Of directions spread evenly the mean is 0, of equal ones 1 away.
    together = float(np.linalg.norm(points.mean(0)))
    words = (
        f"{normals.shape[1]} latents as points on a sphere: averages of three thirds, brought to length 1. "
        f"Their mean is {together:.2f} from the centre: 0 for an even cover, 1 for a single point."
    )
    return LatentSpace(words, picture=Picture(content.getvalue(), f"{len(points):,} normals; {words}"))


__all__ = ["Axes", "LatentSpace", "latent_space_of"]
