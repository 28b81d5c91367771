"""The latent space as points on a sphere: normals against scored samples, as PNG and as interactive HTML.

Ascarate et al., "VAE with Hyperspherical Coordinates", 2026, section 4.3: the latents of a sample, in three
blocks of equal length (the last takes what is left over), are averaged block by block, and the three averages
brought to length 1. Of an uncompressed latent space that is a sphere covered evenly; of a compressed one, an
island. It shows directions only, and three averages of d numbers hide most of what there is.
"""

from __future__ import annotations

import html
import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mednovelty.detector import Detector
from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.io.read_scan import ReadOptions, read_scan
from mednovelty.report.figures import save_figure
from mednovelty.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("mednovelty")

PNG, HTML = "sphere.png", "sphere.html"
MOST_NORMALS, MOST_SAMPLES, MOST_SCANS = 2000, 500, 10
"""Points drawn of the reference, of a scan, and scans."""
NORMAL_COLOUR = "#9aa5b1"
COLOURS = ("#d1495b", "#30638e", "#009e73", "#e69f00", "#7b4fa3", "#56b4e9", "#8c1c13", "#3c6e47", "#cc79a7",
           "#5d5d81")  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Cloud:
    """Points of one kind.

    Attributes:
        name: For the legend.
        points: ``(n, 3)``, each of length 1, or 0 where the latents are.
    """

    name: str
    points: np.ndarray


def thirds(latents: np.ndarray) -> np.ndarray:
    """Return the averages of three thirds of ``(n, d)`` latents, brought to length 1, ``(n, 3)``.

    Raises:
        SettingsError: d is less than 3.

    Examples:
        >>> thirds(np.array([[3.0, 2.0, 1.0, 7.0, 0.0, 0.0, 0.0, 0.0]])).round(3).tolist()
        [[0.53, 0.848, 0.0]]
    """
    d = latents.shape[1]
    if d < 3:
        raise SettingsError(f"a picture on the sphere needs at least 3 latents, there are {d}")
    third = d // 3
    parts = (latents[:, :third], latents[:, third : 2 * third], latents[:, 2 * third :])
    averages = np.stack([part.mean(1, dtype=np.float64) for part in parts], axis=1)
    length = np.linalg.norm(averages, axis=1, keepdims=True)
    return averages / np.where(length > 0, length, 1.0)


def check_drawable(detector: Detector) -> None:
    """Raise unless the reference holds latents that can be drawn.

    Raises:
        SettingsError: It has none, or they are fewer than 3.
    """
    normals = detector.reference.parts.get("latent_mean")
    if normals is None:
        raise SettingsError(
            "the detector's reference has no latent means to draw; fit with a score that compares with them, "
            "such as hyperspherical_knn"
        )
    thirds(np.zeros((0, normals.shape[1])))


def clouds(detector: Detector, scans: Iterable[Any], options: ReadOptions | None = None) -> list[Cloud]:
    """Return the normals of a detector's reference, and samples of some scans, as points.

    Args:
        detector: Its reference holds ``latent_mean``.
        scans: In memory, or what ``read_scan`` takes, at most ``MOST_SCANS`` of them; scans that cannot be
            read or scored are left out.
        options: How they are read; None: as those that the detector was fitted on.

    Raises:
        SettingsError: As ``check_drawable``.
    """
    check_drawable(detector)
    normals = detector.reference.parts["latent_mean"]
    rows = _evenly(len(normals), MOST_NORMALS)
    found = [Cloud("normals", thirds(normals[torch.from_numpy(rows).to(normals.device)].cpu().numpy()))]
    listed = list(scans)
    if len(listed) > MOST_SCANS:
        log.info("the sphere shows the first %d of %d scans", MOST_SCANS, len(listed))
    for scan in listed[:MOST_SCANS]:
        try:
            given = scan if isinstance(scan, Scan) else read_scan(scan, options=options or detector.reading)
            found.append(Cloud(given.id, thirds(_latents(detector, given))))
        except ScanError as error:
            log.warning("%s", error)
    return found


def draw_sphere(given: Sequence[Cloud], folder: Path) -> list[Path]:
    """Write the picture as PNG and as one HTML file that needs nothing else; return their paths.

    Raises:
        OutputError: They cannot be written.
    """
    picture = save_figure(sphere_figure(given), folder / PNG)
    write_text_atomic(folder / HTML, sphere_page(given))
    return [picture, folder / HTML]


def sphere_figure(given: Sequence[Cloud]) -> Figure:
    """Return the picture, seen from where the samples are, which are drawn over the normals."""
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D

    figure = Figure(figsize=(7, 6))
    axes = figure.add_subplot(projection="3d", computed_zorder=False)
    assert isinstance(axes, Axes3D)
    azimuth, height = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    around = np.sin(height) * np.cos(azimuth), np.sin(height) * np.sin(azimuth), np.cos(height)
    axes.plot_wireframe(*around, color="#dddddd", linewidth=0.4)
    for number, (cloud, colour) in enumerate(zip(given, _colours(given), strict=True)):
        label, order = f"{cloud.name} ({len(cloud.points)})", number + 2
        # Larger and paler below: where normals and samples lie in one place, both are seen.
        shown = {"s": 40, "alpha": 0.4} if number == 0 else {"s": 5, "alpha": 0.8}
        axes.scatter(*cloud.points.T, color=colour, label=label, zorder=order, linewidths=0, **shown)
    axes.view_init(*_facing(np.concatenate([cloud.points for cloud in given])))
    axes.set_box_aspect((1, 1, 1))
    axes.set_xlabel("first third")
    axes.set_ylabel("second third")
    axes.set_zlabel("last third")
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_ticks([-1, 0, 1])
    figure.legend(loc="upper left", fontsize=8)
    return figure


def sphere_page(given: Sequence[Cloud]) -> str:
    """Return the picture as HTML that can be turned with the mouse; names are escaped."""
    told = [
        {"colour": colour, "points": cloud.points.round(4).tolist()}
        for cloud, colour in zip(given, _colours(given), strict=True)
    ]
    legend = "\n".join(
        f'<label><input type="checkbox" checked data-cloud="{i}"><span style="color:{colour}">&#9679;</span> '
        f"{html.escape(cloud.name)} ({len(cloud.points)})</label>"
        for i, (cloud, colour) in enumerate(zip(given, _colours(given), strict=True))
    )
    page = files("mednovelty.report").joinpath("sphere.html").read_text(encoding="utf-8")
    return page.replace("<!--LEGEND-->", legend).replace("/*CLOUDS*/[]", json.dumps(told))


def _facing(points: np.ndarray) -> tuple[float, float]:
    """Return elevation and azimuth, in degrees, from which most of some points are seen, and all axes."""
    x, y, z = points.mean(0)
    height, azimuth = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
    return min(height + 20, 60), azimuth + 25


def _colours(given: Sequence[Cloud]) -> list[str]:
    return [NORMAL_COLOUR, *(COLOURS[i % len(COLOURS)] for i in range(len(given) - 1))]


@torch.no_grad()
def _latents(detector: Detector, scan: Scan) -> np.ndarray:
    """Return latent means of samples spread evenly over a scan, ``(m, d)``."""
    prepared, _ = detector.prepare(scan)
    view, device = detector.view, detector.reference.parts["latent_mean"].device
    rows = _evenly(view.count(prepared), MOST_SAMPLES)
    cut = [view.cut(prepared, int(row), int(row) + 1) for row in rows]
    samples = torch.from_numpy(np.concatenate(cut)).flatten(1).to(device)
    return np.concatenate([detector.model.encode(block).mean.cpu().numpy() for block in samples.split(64)])


def _evenly(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


__all__ = ["Cloud", "check_drawable", "clouds", "draw_sphere", "sphere_figure", "sphere_page", "thirds"]
