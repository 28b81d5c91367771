"""How low and how fast the optimising scores go, beside one SciPy call a voxel.

    python -m mednovelty.benchmarks.optimising_scores detector/ patient_dwi.nii.gz --voxels 1000

SciPy's L-BFGS-B minimises the same misfit in float64 from the same start, the encoder's mean, with its own
numerical gradients, one voxel after another, on one thread. Two versions of it: ``torch`` asks the model for
each value, as a caller of this library would; ``numpy`` is the decoder written out in NumPy, the fastest
that SciPy can get here, and serves for the minima. Ours are float32, evaluated once more in float64 where
they end. SciPy's voxels and ours take turns, so that other work on the machine slows both. Prints JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor

from mednovelty.batch import Batch
from mednovelty.detector import Detector
from mednovelty.io.read_scan import read_scan
from mednovelty.methods.generated_scores import BOUND
from mednovelty.methods.vae import VAE
from mednovelty.nn.misfits import Misfit, NegativeLogLikelihood
from mednovelty.plugins import plugin

SCORES = (
    "closest_generated",
    "closest_generated_bounded",
    "highest_generated_likelihood",
    "highest_generated_likelihood_bounded",
)
CLOSE = 1e-4
"""Relative difference of two minima that counts as the same."""

Value = Callable[[np.ndarray, np.ndarray], float]


def in_numpy(model: VAE, *, likelihood: bool) -> Value:
    """Return the misfit of one voxel's latents, float64, written out without torch."""
    layers = [(layer.weight.double().numpy(), layer.bias.double().numpy()) for layer in model.decoder.hidden]
    heads = model.decoder.heads.weight.double().numpy(), model.decoder.heads.bias.double().numpy()
    spread, shift = model.spread.double().numpy(), model.shift.double().numpy()
    channels, constant = model.channels, 0.5 * model.channels * math.log(2 * math.pi)
    outputs = 2 * channels if likelihood else channels
    weight, bias = (part[:outputs] for part in heads)

    def value(z: np.ndarray, x: np.ndarray) -> float:
        for layer, offset in layers:
            z = np.maximum(layer @ z + offset, 0)
        out = weight @ z + bias
        residual = x - (out[:channels] * spread + shift)
        if not likelihood:
            return float(residual @ residual)
        log_sigma = np.clip(out[channels:], *model.limits) + np.log(spread)
        u = residual * np.exp(-log_sigma)
        return float(0.5 * (u @ u) + log_sigma.sum() + constant)

    return value


def in_torch(misfit: Misfit) -> Value:
    """Return the same, asking the model."""

    def value(z: np.ndarray, x: np.ndarray) -> float:
        return misfit.value(torch.from_numpy(z)[None], torch.from_numpy(x)[None]).item()

    return value


def by_scipy(value: Value, x: np.ndarray, start: np.ndarray, bound: float) -> tuple[float, float]:
    """Return one voxel's minimum and the seconds it took."""
    bounds = [(-bound, bound)] * len(start) if bound < math.inf else None
    began = time.perf_counter()
    found = scipy_minimize(value, start, args=(x,), method="L-BFGS-B", bounds=bounds)
    return float(found.fun), time.perf_counter() - began


def compare(name: str, model: VAE, x: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one score."""
    scorer = plugin("scorers", name)(model)
    bound = BOUND if scorer.bounded else math.inf
    exact = copy.deepcopy(model).double()
    misfit = scorer.misfit(exact)
    starts = model.encode(x).mean.double().clamp(-bound, bound).numpy()
    fast = in_numpy(exact, likelihood=scorer.misfit is NegativeLogLikelihood)
    asking, rows = in_torch(misfit), x.double().numpy()
    scorer.minimum(Batch(x[:32]))  # Warms up.
    theirs, numpy_s, torch_s, ours_s = [], [], [], []
    for block in np.array_split(np.arange(len(x)), options.rounds):
        began = time.perf_counter()
        found = scorer.minimum(Batch(x))
        ours_s.append((time.perf_counter() - began) / len(x))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # One voxel is too little for two.
        for voxel in block:
            least, seconds = by_scipy(fast, rows[voxel], starts[voxel], bound)
            theirs.append(least)
            numpy_s.append(seconds)
        for voxel in block[: math.ceil(options.torch_voxels / options.rounds)]:
            torch_s.append(by_scipy(asking, rows[voxel], starts[voxel], bound)[1])
        torch.set_num_threads(threads)
    ours = misfit.value(found.z.double(), x.double()).numpy()
    difference = (ours - np.array(theirs)) / np.abs(theirs)
    return {
        "as_low_or_lower": round(float(np.mean(difference <= CLOSE)), 4),
        "lower": round(float(np.mean(difference < -CLOSE)), 4),
        "mean_minimum": float(ours.mean()),
        "mean_minimum_scipy": float(np.mean(theirs)),
        "converged": round(found.converged.double().mean().item(), 4),
        "us_per_voxel": round(1e6 * statistics.median(ours_s), 1),
        "scipy_ms_per_voxel": _milliseconds(torch_s),
        "scipy_numpy_ms_per_voxel": _milliseconds(numpy_s),
        "times_faster": round(statistics.median(torch_s) / statistics.median(ours_s)),
        "times_faster_than_numpy": round(statistics.median(numpy_s) / statistics.median(ours_s)),
    }


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return {
        "median": round(1e3 * statistics.median(seconds), 2),
        "mean": round(1e3 * statistics.fmean(seconds), 2),
    }


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detector", type=Path)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--voxels", type=int, default=1000, help="drawn from the scan's mask")
    parser.add_argument("--torch-voxels", type=int, default=60, help="of which SciPy asks torch too")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="time each score on all voxels of the scan")
    options = parser.parse_args(arguments)
    detector = Detector.load(options.detector)
    voxels = torch.from_numpy(np.ascontiguousarray(detector.prepare(read_scan(options.scan))[0].voxels()))
    order = torch.randperm(len(voxels), generator=torch.Generator().manual_seed(options.seed))
    x = voxels[order[: options.voxels]]
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for name in SCORES:
        figures[name] = compare(name, detector.model, x, options)
        if options.whole:
            began = time.perf_counter()
            for part in voxels.split(detector.settings.batch_voxels):
                plugin("scorers", name)(detector.model).score(Batch(part))
            figures[name]["seconds_whole_scan"] = round(time.perf_counter() - began, 1)
    figures["voxels_whole_scan"] = len(voxels)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
