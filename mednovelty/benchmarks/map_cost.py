"""What maps of derivatives cost: one by one, all in one batch, and beside bare passes of the same net.

    python -m mednovelty.benchmarks.map_cost [--size 64] [--contrasts 1] [--batch 64] [--rounds 15]

The net is that of Zimmerer et al. (2019), weights drawn, on which no time depends. ``bare`` is the least that
all maps together could do: encoder and decoder forward once, the KL term and the reconstruction term
backward once each, nothing else. The quickest rounds are compared, which other programs on the machine slow
least. Prints JSON, times in milliseconds a batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from mednovelty.plugins import plugin
from mednovelty.reference import Reference
from mednovelty.scoring import LOCALISATION, Scoring, score_groups

MAPS = (16, 32, 64, 256)


class PaperNet(nn.Module):
    """Encoder and decoder of the paper, fixed sigma 1; for slices whose sides are multiples of 16."""

    def __init__(self, contrasts: int, size: int) -> None:
        super().__init__()
        self.shape, self.channels = (contrasts, size, size), contrasts * size * size
        self.latents = (256, size // 16 - 3, size // 16 - 3)
        down, up = [contrasts, *MAPS], [256, *MAPS[2::-1]]
        self.encoder = nn.Sequential(
            *(layer for sizes in pairwise(down) for layer in _half(*sizes)),
            nn.Conv2d(256, 512, 4, bias=False),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(256, 256, 4, bias=False),
            nn.LeakyReLU(0.01),
            *(layer for sizes in pairwise(up) for layer in _double(*sizes)),
            nn.ConvTranspose2d(16, contrasts, 4, stride=2, padding=1, bias=False),
        )
        self.eval().requires_grad_(False)

    @property
    def prior(self) -> Independent:
        """N(0, 1)."""
        zero = next(self.parameters()).new_zeros(prod(self.latents))
        return _gaussian(zero, torch.ones_like(zero))

    def encode(self, x: Tensor) -> Independent:
        """Return q(z|x), latents flattened."""
        mean, log_sigma = self.encoder(x.reshape(len(x), *self.shape)).chunk(2, dim=1)
        return _gaussian(mean.flatten(1), log_sigma.flatten(1).exp())

    def decode(self, z: Tensor) -> Independent:
        """Return p(x|z), images flattened."""
        mean = self.decoder(z.reshape(len(z), *self.latents)).flatten(1)
        return _gaussian(mean, mean.new_ones(()).expand_as(mean))


def bare_passes(net: PaperNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return d KL / dx and d -log p(x|z) / dx, ``(B, D)`` each."""
    with torch.enable_grad():
        images = x.reshape(len(x), *net.shape).detach().requires_grad_()
        mean, log_sigma = net.encoder(images).chunk(2, dim=1)
        kl = (0.5 * ((2 * log_sigma).exp() + mean.square() - 1) - log_sigma).sum()
        misfit = 0.5 * (images - net.decoder(mean)).square().sum()
    (by_misfit,) = torch.autograd.grad(misfit, images, retain_graph=True)
    (by_kl,) = torch.autograd.grad(kl, images)
    return by_kl.flatten(1), by_misfit.flatten(1)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds a batch of each map alone, of all together, of bare passes, and the ratios."""
    net = PaperNet(options.contrasts, options.size).to(options.device)
    x = torch.randn(options.batch, net.channels, generator=torch.Generator().manual_seed(0)).to(
        net.prior.mean
    )
    scoring = Scoring(net, Reference({}, "exact", 0), 2, 0, options.batch)
    groups = score_groups(images=True)
    known = [
        name
        for group in LOCALISATION
        for name in groups[group]
        if not plugin("scorers", name).reference_parts
    ]
    smooth = [name for name in known if name.endswith("_smooth")]
    names = [name for name in known if name not in smooth]

    def timed(work: Callable[[], Any]) -> float:
        started = time.perf_counter()
        work()
        if x.is_cuda:
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - started)

    def scored(asked: list[str]) -> Callable[[], Any]:
        predict = scoring.predictor(asked)
        return lambda: predict(x, None)

    jobs = {name: scored([name]) for name in known}
    jobs |= {"together": scored(names), "bare": lambda: bare_passes(net, x)}
    rounds = [{name: timed(work) for name, work in jobs.items()} for _ in range(options.rounds + 1)][1:]
    cost = {name: min(times[name] for times in rounds) for name in jobs}
    dearest = max(names, key=cost.__getitem__)
    return {
        "milliseconds_a_batch": {name: round(value, 2) for name, value in cost.items()},
        "dearest": dearest,
        "together_over_dearest": round(cost["together"] / cost[dearest], 3),
        "together_over_bare": round(cost["together"] / cost["bare"], 3),
        "sum_over_together": round(sum(cost[name] for name in names) / cost["together"], 2),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--contrasts", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    with torch.no_grad():
        figures = {**vars(options), "threads": torch.get_num_threads(), **measure(options)}
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


def _half(into: int, out: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(into, out, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.01)


def _double(into: int, out: int) -> tuple[nn.Module, nn.Module]:
    return nn.ConvTranspose2d(into, out, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.01)


def _gaussian(mean: Tensor, sigma: Tensor) -> Independent:
    return Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False)


if __name__ == "__main__":
    main()
