"""The fused nearest-neighbour kernel on a CUDA card, beside ``torch.cdist`` and the card's matrix products.

    python -m mednovelty.benchmarks.gpu_neighbours [--vectors 1000000] [--queries 1000000]

Needs torch, numpy and triton. Each shape is timed with CUDA events after a warm-up; ``cdist`` goes through
the queries in parts whose distances fit into memory. Rates count 2 B N D operations for all of them: the
bound of a kernel whose products are of float32 is the card's float32 rate, not TF32's. A part of the answers
is held against float64. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mednovelty.neighbours.exact import centre_of
from mednovelty.neighbours.fused import FusedNeighbours, Tiling, fits

DISTANCES_A_PART = 1 << 31
CHECKED = 512

TILINGS = (
    Tiling(),
    Tiling(queries=128, vectors=128, warps=8),
    Tiling(queries=64, vectors=256, warps=8),
    Tiling(precision="tf32x3"),
    Tiling(queries=128, vectors=128, warps=8, precision="tf32x3"),
    Tiling(queries=64, vectors=256, warps=8, stages=3, precision="tf32x3"),
)


def milliseconds(work: Callable[[], Any], rounds: int) -> float:
    """Return the median time of some work on the card."""
    work()
    times = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


def by_cdist(queries: Tensor, vectors: Tensor) -> Tensor:
    """Return the nearest by ``torch.cdist(...).min(1)``, a part of the queries at a time."""
    rows = max(1, DISTANCES_A_PART // len(vectors))
    return torch.cat([torch.cdist(part, vectors).min(1).indices for part in queries.split(rows)])


def by_matmul(queries: Tensor, vectors: Tensor) -> None:
    """Multiply the same shapes and keep nothing: what the card's own products take."""
    rows = max(1, DISTANCES_A_PART // len(vectors))
    room = torch.empty(min(rows, len(queries)), len(vectors), device=queries.device)
    for part in queries.split(rows):
        torch.mm(part, vectors.T, out=room[: len(part)])


def wrong(found: Tensor, queries: Tensor, vectors: Tensor) -> float:
    """Return the share of some queries for which float64 finds a vector nearer by a millionth."""
    some = queries[:CHECKED].double()
    right = torch.stack([(q - vectors.double()).square().sum(1).min() for q in some])
    ours = (some - vectors[found[:CHECKED]].double()).square().sum(1)
    return (ours > right * (1 + 1e-6)).double().mean().item()


def measure(dimensions: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one number of dimensions."""
    generator = torch.Generator(device="cuda").manual_seed(0)
    vectors = torch.randn(options.vectors, dimensions, device="cuda", generator=generator)
    queries = torch.randn(options.queries, dimensions, device="cuda", generator=generator)
    operations = 2.0 * len(vectors) * len(queries) * dimensions

    def row(work: Callable[..., Any], *arguments: Tensor) -> dict[str, Any]:
        time = milliseconds(lambda: work(*arguments), options.rounds)
        return {"ms": round(time, 2), "tflops": round(operations / time / 1e9, 2)}

    rows = {"cdist": row(by_cdist, queries, vectors)}
    rows["cdist"]["wrong"] = wrong(by_cdist(queries[:CHECKED], vectors), queries, vectors)
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        rows[f"matmul, {'float32' if precision == 'highest' else 'TF32'}"] = row(by_matmul, queries, vectors)
    torch.set_float32_matmul_precision("highest")
    for tiling in TILINGS:
        search = FusedNeighbours(vectors, tiling)
        centred = queries - centre_of(vectors)
        name = f"fused {tiling.precision} {tiling.queries}x{tiling.vectors} {tiling.warps} warps"
        try:
            rows[name] = row(search.nearest, centred)
        except Exception as error:  # A tiling may ask for more than a card has.
            rows[name] = {"failed": " ".join(str(error).split())[:200]}
            continue
        rows[name]["wrong"] = wrong(search.nearest(centred), queries, vectors)
        rows[name]["times_faster_than_cdist"] = round(rows["cdist"]["ms"] / rows[name]["ms"], 2)
    return rows


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[46, 16])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available() or not fits(torch.device("cuda")):
        raise SystemExit("gpu_neighbours: needs a CUDA card, and torch and triton that can use it")
    result: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    result |= {"vectors": options.vectors, "queries": options.queries}
    for dimensions in options.dimensions:
        result[f"{dimensions} dimensions"] = measure(dimensions, options)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    main()
