"""What does a step of training in hyperspherical coordinates cost, beside one in Cartesian ones?

    python -m mednovelty.benchmarks.coordinate_cost --latent 200 --steps 40

Steps of the two are taken in turn, so that whatever else the machine does meets both alike, and their medians
are compared. Ascarate et al. 2026 tell 32 % an epoch at 200 latents. What the coordinates gain is told by
``bench ood``. Prints JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch

from mednovelty.benchmarks.arguments import add_options, parser_of
from mednovelty.methods.hyperspherical import PAPER_TRAINING, HypersphericalMethod, HypersphericalSettings
from mednovelty.seeds import generator
from mednovelty.voxel_cache import VoxelCache

SHAPE = (1, 28, 28)
PAPERS = {"latent": 200, "coordinates_cost_percent": 32}
FIRST = 3
"""Steps that are not counted: they allocate."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured.

    Args:
        latent: Z.
        network: ``residual``, the paper's, or ``dense``.
        steps: Of either kind.
        seed: Of everything random.
        device: Where to train.
    """

    latent: int = 200
    network: Literal["residual", "dense"] = "residual"
    steps: int = 100
    seed: int = 0
    device: str = "cpu"

    def settings(self, coordinates: Literal["cartesian", "hyperspherical"]) -> HypersphericalSettings:
        """Return the settings of a model."""
        return HypersphericalSettings(
            output="sigmoid",
            network=self.network,
            hidden=(512, 256),
            latent=self.latent,
            coordinates=coordinates,
        )


def cost(options: Options) -> dict[str, Any]:
    """Return the median seconds of a training step with either kind of coordinates, taken in turn."""
    x = torch.rand(PAPER_TRAINING.batch_size, 28 * 28, generator=generator(options.seed, "cost"))
    x = x.to(options.device)
    steppers = {
        "cartesian": _Stepper(options.settings("cartesian"), x, options),
        "hyperspherical": _Stepper(options.settings("hyperspherical"), x, options),
    }
    taken: dict[str, list[float]] = {name: [] for name in steppers}
    for step in range(options.steps + FIRST):
        for name, stepper in steppers.items():
            seconds = stepper.step()
            if step >= FIRST:
                taken[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return {
        "latent": options.latent,
        "seconds_a_step": medians,
        "coordinates_cost_percent": 100 * (medians["hyperspherical"] / medians["cartesian"] - 1),
        "paper": PAPERS,
    }


class _Stepper:
    """Takes training steps of one model on one batch, and times them."""

    def __init__(self, settings: HypersphericalSettings, x: torch.Tensor, options: Options) -> None:
        self.method, self.x = HypersphericalMethod(settings), x
        self.model = self.method.build(SHAPE)
        self.method.start(
            self.model, VoxelCache.from_array(x.cpu().numpy()), generator(options.seed, "start")
        )
        self.model.to(options.device)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=PAPER_TRAINING.learning_rate, fused=True
        )
        self.noise = generator(options.seed, "noise", device=options.device)

    def step(self) -> float:
        """Take a step, and return its seconds."""
        started = time.perf_counter()
        loss = self.method.loss(self.model, self.x, 2, self.noise)["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        loss.item()  # Waits for the device.
        return time.perf_counter() - started


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the numbers."""
    default = Options()
    parser = parser_of(__doc__)
    add_options(parser, default, ("latent", "steps", "seed", "device"))
    parser.add_argument("--network", choices=("residual", "dense"), default=default.network)
    result = cost(Options(**vars(parser.parse_args(argv))))
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    main()
