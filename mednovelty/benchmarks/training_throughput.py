"""How fast training is, beside the bare arithmetic of the same net.

    python -m mednovelty.benchmarks.training_throughput --channels 46 --latent 16

One process alternates between an epoch of the training loop (voxels through the cache in random
order, standardisation, noise, loss, Adam, validation, record) and as many voxels of bare forward and
backward passes of the same two networks on tensors that lie in memory in order. Other programs on
the machine slow both; the ratio is of neighbouring rounds. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mednovelty.methods.vae import NETS, VAE, VAEMethod, VAESettings
from mednovelty.train import TrainingRecord, TrainSettings, train
from mednovelty.voxel_cache import VoxelCache


@dataclass
class Rounds:
    """Voxels per second, one figure a round; called after each epoch of the loop.

    Args:
        model: The model in training; its networks are what the bare passes use too.
        batches: In memory, ``(b, C)`` each.
    """

    model: VAE
    batches: list[Tensor]
    bare: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)
    loop_with_validation: list[float] = field(default_factory=list)
    left: float = 0.0

    def __call__(self, record: TrainingRecord) -> None:
        """Note the epoch that has ended, then run the bare passes."""
        row, voxels = record.rows[-1], sum(len(x) for x in self.batches)
        if row.epoch > 1 and row.voxels_per_second is not None:  # The first epoch warms up.
            self.loop.append(row.voxels_per_second)
            self.loop_with_validation.append(voxels / (time.perf_counter() - self.left))
        started = time.perf_counter()
        for x in self.batches:
            forward_backward(self.model, x)
        if row.epoch > 0:
            self.bare.append(voxels / (time.perf_counter() - started))
        self.left = time.perf_counter()

    def summary(self) -> dict[str, float]:
        """Return medians, and the ratio of each epoch to the mean of the bare rounds around it."""
        around = [(a + b) / 2 for a, b in zip(self.bare[:-1], self.bare[1:], strict=True)]
        ratios = [a / b for a, b in zip(self.loop, around, strict=True)]
        whole = [a / b for a, b in zip(self.loop_with_validation, around, strict=True)]
        return {
            "bare_voxels_per_second": round(statistics.median(self.bare)),
            "loop_voxels_per_second": round(statistics.median(self.loop)),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_with_validation": round(statistics.median(whole), 3),
            "lowest_ratio": round(min(ratios), 3),
            "rounds": len(ratios),
        }


def forward_backward(model: VAE, x: Tensor) -> None:
    """Pass a batch through both networks and back: no noise, no loss, no optimiser."""
    for parameter in model.parameters():
        parameter.grad = None
    mean, log_sigma = model.encoder(x)
    decoded, log_noise = model.decoder(mean)
    (log_sigma.sum() + decoded.sum() + log_noise.sum()).backward()


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return the figures of one run."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((8, options.channels), np.float32)
    with (
        tempfile.TemporaryDirectory() as folder,
        VoxelCache(
            options.channels, budget_bytes=0 if options.on_disk else None, folder=Path(folder)
        ) as data,
    ):
        for scan in range(8):
            z = rng.standard_normal((options.voxels // 8, 8), np.float32)
            data.append(
                f"sub-{scan}", z @ mixing + 0.3 * rng.standard_normal((len(z), options.channels), np.float32)
            )
        method = VAEMethod(VAESettings(hidden=NETS[options.latent], latent=options.latent))
        model = method.build((options.channels,))
        settings = TrainSettings(
            batch_size=options.batch_size,
            min_steps=1,
            max_epochs=options.rounds + 1,
            patience=options.rounds + 1,
        )
        table = torch.from_numpy(data.take(np.arange(len(data))))
        rounds = Rounds(model, list(table.split(options.batch_size)))
        train(method, model, data, VoxelCache.from_array(table[:65536].numpy()), settings, on_epoch=rounds)
    return rounds.summary()


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voxels", type=int, default=524_288, help="an epoch")
    parser.add_argument("--channels", type=int, default=46)
    parser.add_argument(
        "--latent", type=int, default=16, choices=sorted(NETS), help="which of the paper's nets"
    )
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--on-disk", action="store_true", help="voxels in the memory-mapped file")
    options = parser.parse_args(arguments)
    figures = {
        **vars(options),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **measure(options),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
