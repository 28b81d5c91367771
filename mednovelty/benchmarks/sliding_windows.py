"""What sliding windows cost beside the passes through the network that they are there for.

    python -m mednovelty.benchmarks.sliding_windows [--size 32] [--rounds 7] [--device cpu]

``stitched`` is ``PatchView.stitch`` as users have it, from a scan in memory to maps on its voxels; its score
takes the gradient of a variational encoder's KL term by the window. ``bare`` is that score's forward and
backward passes over the same windows, cut beforehand, in batches as full as can be. Rounds take turns, and
the ratio is the median of each round's. The encoder has the channels of Zimmerer et al. 2019, in 3-D, and
random weights, on which no time depends. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mednovelty.devices import chosen
from mednovelty.scan import Scan, Volume
from mednovelty.views.patch import PatchSettings, PatchView

WIDTHS = (16, 32, 64, 256)
LATENT = 256


class Encoder(nn.Module):
    """Halves each side four times; two numbers for each latent of what is left: mean and log sigma."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in zip((channels, *WIDTHS), WIDTHS, strict=False):
            parts += [nn.Conv3d(before, after, 4, stride=2, padding=1, bias=False), nn.LeakyReLU()]
        self.net = nn.Sequential(*parts, nn.Conv3d(WIDTHS[-1], 2 * LATENT, 2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B,)`` KL(q(z|x) || p(z)) in nats."""
        mean, log_sigma = self.net(x).chunk(2, 1)
        divergence = 0.5 * ((2 * log_sigma).exp() + mean.square() - 1 - 2 * log_sigma)
        return divergence.flatten(1).sum(1)


def kl_gradient(encoder: Encoder, windows: Tensor) -> dict[str, Tensor]:
    """Return ``(B, *size)`` how strongly each voxel pulls the KL term, summed over channels."""
    with torch.enable_grad():
        x = windows.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(encoder(x).sum(), x)
    return {"kl_gradient": gradient.abs().sum(1)}


def head_like_scan(shape: tuple[int, int, int], channels: int) -> Scan:
    """Return a scan in memory: noise in the ellipsoid that just fits the shape."""
    axes = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in shape], indexing="ij")
    mask = np.asfortranarray(sum(a * a for a in axes) < 1)
    data = np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)
    return Scan.of(Volume(data, np.eye(4), "noise"), mask, id="noise")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds of both, and the ratio."""
    device = chosen(options.device)
    torch.manual_seed(0)
    encoder = Encoder(options.channels).to(device).eval().requires_grad_(False)
    scan = head_like_scan(tuple(options.shape), options.channels)
    view = PatchView(
        PatchSettings(
            (options.size,) * 3, options.overlap, windows_a_batch=options.windows_a_batch, min_brain=0
        )
    )
    windows = torch.from_numpy(view.cut(scan, 0, view.count(scan))).to(device)

    def bare() -> None:
        for batch in windows.split(options.windows_a_batch):
            kl_gradient(encoder, batch)

    def stitched() -> None:
        view.stitch(scan, lambda batch: kl_gradient(encoder, batch), device=device)

    jobs: dict[str, Callable[[], None]] = {"bare": bare, "stitched": stitched}
    rounds = []
    for turn in range(options.rounds + 1):
        # Every other round the other way about, so that a machine that slows down favours neither.
        order = list(jobs)[:: 1 if turn % 2 else -1]
        rounds.append({name: _seconds(jobs[name], device) for name in order})
    rounds = rounds[1:]  # The first warms up, and imports MONAI.
    found: dict[str, Any] = {"windows": len(windows)}
    for clock, of in (("seconds", 0), ("processor_seconds", 1)):
        ratios = [times["stitched"][of] / times["bare"][of] for times in rounds]
        found[clock] = {
            name: round(statistics.median(times[name][of] for times in rounds), 4) for name in jobs
        }
        found[clock] |= {
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    return found


def _seconds(job: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Return seconds by the clock, and of the processor, which a busy machine disturbs less."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started, used = time.perf_counter(), time.process_time()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, time.process_time() - used


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 112, 88))
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--windows-a-batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    figures = {**vars(options), "threads": torch.get_num_threads(), **measure(options)}
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
