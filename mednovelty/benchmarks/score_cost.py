"""What scores cost that search no neighbours and optimise nothing: one by one, and all in one batch.

    python -m mednovelty.benchmarks.score_cost [--latent 16] [--channels 33] [--draws 8] [--rounds 15]

Rounds go through all scores, each on batches of its own, then through all of them on shared batches; the
quickest rounds are compared, which other programs on the machine slow least. ``bare`` is the least that the
dearest could do: the decoder at each draw, one squared error, nothing shared. The net is the paper's with
random weights, on which no time depends. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mednovelty.batch import Batch, antithetic_noise
from mednovelty.methods.vae import NETS, VAE, VAESettings
from mednovelty.plugins import plugin
from mednovelty.protocols import Scorer
from mednovelty.scoring import resolve_names
from mednovelty.seeds import generator


def sharing_scorers(model: VAE) -> dict[str, Scorer]:
    """Return the scorers that compare with no normal and optimise nothing, by name."""
    kinds = {name: plugin("scorers", name) for name in resolve_names(["fast"])}
    return {name: kind(model) for name, kind in kinds.items() if kind.needs == ("model",)}


def random_model(channels: int, latent: int) -> VAE:
    """Return the paper's net of that many latents, its weights drawn."""
    model = VAE(channels, VAESettings(hidden=NETS[latent], latent=latent))
    for part in (model.encoder, model.decoder):
        part.initialise(generator(0, "score cost"))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def bare_fully_stochastic(model: VAE, batch: Batch) -> Tensor:
    """Return Eq. (11) and nothing else: ``(B,)``."""
    assert batch.noise is not None
    assert batch.decoder_noise is not None
    mean, log_sigma = model.encode_standardised(model.standardised(batch.x))
    sigma, total = log_sigma.exp(), torch.zeros_like(mean[:, 0])
    for draw, decoder_draw in zip(batch.noise, batch.decoder_noise, strict=True):
        likelihood = model.decode(mean + sigma * draw).base_dist
        total += (batch.x - likelihood.loc - likelihood.scale * decoder_draw).square_().sum(1)
    return total / len(batch.noise)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return microseconds a voxel of each score alone, of all together, and the ratios."""
    model = random_model(options.channels, options.latent)
    noise = antithetic_noise(options.draws, options.latent, generator(0, "latent draws"))
    decoder_noise = antithetic_noise(options.draws, options.channels, generator(0, "decoder draws"))
    blocks = torch.randn(options.voxels, options.channels, generator=generator(0, "voxels"))
    scorers = sharing_scorers(model)

    def timed(work: Callable[[Batch], Any]) -> float:
        started = time.perf_counter()
        for x in blocks.split(options.batch_voxels):
            work(Batch(x, noise=noise, decoder_noise=decoder_noise))
        return 1e6 * (time.perf_counter() - started) / options.voxels

    jobs: dict[str, Callable[[Batch], Any]] = {name: scorer.score for name, scorer in scorers.items()}
    jobs["together"] = lambda batch: [scorer.score(batch) for scorer in scorers.values()]
    jobs["bare"] = lambda batch: bare_fully_stochastic(model, batch)
    rounds = [{name: timed(work) for name, work in jobs.items()} for _ in range(options.rounds + 1)][1:]
    cost = {name: min(times[name] for times in rounds) for name in jobs}
    alone = {name: cost[name] for name in scorers}
    dearest = max(alone, key=alone.__getitem__)
    return {
        "microseconds_a_voxel": {name: round(value, 3) for name, value in cost.items()},
        "dearest": dearest,
        "together_over_dearest": round(cost["together"] / cost[dearest], 3),
        "together_over_bare": round(cost["together"] / cost["bare"], 3),
        "sum_over_together": round(sum(alone.values()) / cost["together"], 2),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voxels", type=int, default=65_536)
    parser.add_argument("--batch-voxels", type=int, default=1 << 14)
    parser.add_argument("--channels", type=int, default=33)
    parser.add_argument("--latent", type=int, default=16, choices=sorted(NETS))
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    figures = {**vars(options), "threads": torch.get_num_threads(), **measure(options)}
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
