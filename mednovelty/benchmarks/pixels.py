"""The trivial methods, in pixels, of every protocol that hands out its images: what a network has to beat.

    pixel_mean       squared distance to the mean normal image
    pixel_nearest    squared distance to the nearest normal image

Nothing is trained, and no setting changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from mednovelty.benchmarks.benchmark import Findings, Measured
from mednovelty.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from mednovelty.benchmarks.image_methods import Split

GROUP = "trivial"
SCORE = "score"
BATCH = 1000


def from_mean(normals: Tensor, test: Tensor) -> Tensor:
    """Return ``(m,)`` squared distances of ``(m, D)`` images to the mean of ``(n, D)``."""
    return (test - normals.mean(0)).square().sum(1)


def from_nearest(normals: Tensor, test: Tensor) -> Tensor:
    """Return ``(m,)`` squared distances of ``(m, D)`` images to the nearest of ``(n, D)``."""
    import torch

    from mednovelty.neighbours.exact import ExactNeighbours

    neighbours = ExactNeighbours(normals)
    return torch.cat([neighbours.search(rows, 1)[0][:, 0] for rows in test.split(BATCH)])


PIXELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pixel_mean": from_mean,
    "pixel_nearest": from_nearest,
}


def pixels_among(asked: Iterable[str], known: Container[str] = ()) -> tuple[list[str], list[str]]:
    """Return the methods of this module among those that were asked for, and the others.

    Args:
        asked: Names.
        known: Methods and groups of the protocol, which are never taken for a misspelt one; it may have
            trivial methods of its own.

    Raises:
        SettingsError: A name is nearly one of them.
    """
    own: list[str] = []
    others: list[str] = []
    for entry in asked:
        name = entry.replace("-", "_")
        if name == GROUP and GROUP not in known:
            own += PIXELS
        elif name in PIXELS:
            own.append(name)
        elif entry not in known and name.startswith("pixel"):
            near = get_close_matches(name, PIXELS, n=1, cutoff=0.0)[0]
            raise SettingsError(f"--methods: no trivial method is called {entry!r}; did you mean {near!r}?")
        else:
            others.append(entry)
    return list(dict.fromkeys(own)), others


def in_pixels(name: str, split: Split, device: str) -> Findings:
    """Return the AUROC of a trivial method, which looks at all normal images, those held out too."""
    import torch

    from mednovelty.devices import chosen
    from mednovelty.metrics import Ranking, auroc

    place = chosen(device)
    normals = torch.cat([split.training, split.held_out]).to(place)
    scores = PIXELS[name](normals, split.test.to(place)).cpu().numpy()
    value = auroc(Ranking.of(scores, split.novel, name))
    return Findings((Measured(SCORE, value),), {"images": len(normals)})


__all__ = ["GROUP", "PIXELS", "SCORE", "from_mean", "from_nearest", "in_pixels", "pixels_among"]
