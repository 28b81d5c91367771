"""What sliding windows cost beside the passes through the network that they are there for.

    python -m mednovelty.benchmarks.sliding_windows [--size 32] [--rounds 7] [--device cpu]

``stitched`` is ``PatchView.stitch`` as users have it, from a scan in memory to maps on its voxels; its score
takes the gradient of the KL term of Zimmerer et al.'s network, in 3-D, by the window. ``bare`` is that
score's forward and backward passes over the same windows, cut beforehand, in batches as full as can be.
``forward`` is MONAI's plain sliding-window inference of the same network's forward pass, encoder and decoder,
over all of the volume: what anybody would have without mednovelty. Rounds take turns, and the ratio is the
median of each round's. Weights are as drawn; no time depends on them. On a card, ``peak_mib`` is the most
memory that each takes there. Prints JSON.

A volume of the size of BraTS: ``--shape 240 240 155 --channels 4 --device cuda``.
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
from torch import Tensor
from torch.distributions import kl_divergence

from mednovelty.devices import chosen
from mednovelty.methods.image_vae import ImageVAE, ImageVAEMethod
from mednovelty.scan import Scan, Volume
from mednovelty.seeds import generator
from mednovelty.views.patch import PatchSettings, PatchView


def network(channels: int, size: int) -> ImageVAE:
    """Return the paper's network for windows of ``size`` voxels a side, its weights drawn, frozen."""
    method = ImageVAEMethod()
    model = method.build((channels, size, size, size))
    method.start(model, None, generator(0, "benchmark"))
    return model.eval().requires_grad_(False)


def divergence(model: ImageVAE, windows: Tensor) -> Tensor:
    """Return ``(B,)`` KL(q(z|x) || p(z)) in nats of ``(B, C, *size)`` windows."""
    return kl_divergence(model.encode(windows.flatten(1)), model.prior)


def kl_gradient(model: ImageVAE, windows: Tensor) -> dict[str, Tensor]:
    """Return ``(B, *size)`` how strongly each voxel pulls the KL term, summed over channels."""
    with torch.enable_grad():
        x = windows.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(model, x).sum(), x)
    return {"kl_gradient": gradient.abs().sum(1)}


@torch.no_grad()
def forward(model: ImageVAE, windows: Tensor) -> Tensor:
    """Return ``(B, C, *size)`` reconstructions."""
    return model.image(model.posterior(windows.flatten(1))[0]).reshape(windows.shape)


def head_like_scan(shape: tuple[int, int, int], channels: int) -> Scan:
    """Return a scan in memory: noise in the ellipsoid that just fits the shape."""
    axes = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in shape], indexing="ij")
    mask = np.asfortranarray(sum(a * a for a in axes) < 1)
    data = np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)
    return Scan.of(Volume(data, np.eye(4), "noise"), mask, id="noise")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds of each, and the ratio of stitched to bare."""
    from monai.inferers.utils import sliding_window_inference

    device = chosen(options.device)
    model = network(options.channels, options.size).to(device)
    scan = head_like_scan(tuple(options.shape), options.channels)
    view = PatchView(
        PatchSettings(
            (options.size,) * 3, options.overlap, windows_a_batch=options.windows_a_batch, min_brain=0
        )
    )
    windows = torch.from_numpy(view.cut(scan, 0, view.count(scan))).to(device)

    def bare() -> None:
        for batch in windows.split(options.windows_a_batch):
            kl_gradient(model, batch)

    def stitched() -> None:
        view.stitch(scan, lambda batch: kl_gradient(model, batch), device=device)

    dense = torch.from_numpy(scan.dense())[None]

    def plain() -> None:
        sliding_window_inference(
            dense.to(device),
            (options.size,) * 3,
            options.windows_a_batch,
            lambda batch: forward(model, batch),
            overlap=options.overlap,
            mode="gaussian",
        )

    jobs: dict[str, Callable[[], None]] = {"bare": bare, "stitched": stitched, "forward": plain}
    rounds = []
    for turn in range(options.rounds + 1):
        # Every other round the other way about, so that a machine that slows down favours neither.
        order = list(jobs)[:: 1 if turn % 2 else -1]
        rounds.append({name: _seconds(jobs[name], device) for name in order})
    rounds = rounds[1:]  # The first warms up, and imports MONAI.
    found: dict[str, Any] = {"windows": len(windows)}
    if device.type == "cuda":
        found["peak_mib"] = {name: _peak_mib(job, device) for name, job in jobs.items()}
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


def _peak_mib(job: Callable[[], None], device: torch.device) -> float:
    """Return the most memory that tensors took on a card, what lies there all along included."""
    torch.cuda.reset_peak_memory_stats(device)
    job()
    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)


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
