"""How fast neighbours are found, and how surely; beside scikit-learn and faiss.

    python -m mednovelty.benchmarks.neighbour_search MODEL CONTROLS PATIENT [--rounds 3] [--hnsw]

The reference is every voxel of the scans that the detector was trained on, the held-out sample is drawn from
its validation scans, and the queries are all voxels of the patient in random order: the approximate searches
answer all, brute force the first 16,384, scikit-learn and the slow exact forms the first 2,000. All run in
one process, in turn, round by round. Given are median microseconds a query, by the clock and of processor
time: other programs on the machine lengthen the first, and less so the second. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mednovelty.detector import Detector
from mednovelty.io.read_scan import read_scan
from mednovelty.io.scan_folder import scan_folder
from mednovelty.neighbours.bhattacharyya import ExactBhattacharyya
from mednovelty.neighbours.choice import LARGEST_SAMPLE, choose
from mednovelty.neighbours.density import ExactDensity
from mednovelty.neighbours.exact import ExactNeighbours
from mednovelty.neighbours.faiss import FaissFlat

ENCODE_ROWS = 1 << 15
BATCH = 1 << 14
Answer = Callable[[slice], Tensor]


@dataclass
class Table:
    """Answers to the same questions, timed in turn.

    Args:
        truth: What the exact search answers, of all queries or of the first.
        rounds: How often each is timed.
    """

    truth: Tensor
    rounds: int
    answers: dict[str, tuple[Answer, slice]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, answer: Answer, part: slice, **known: Any) -> None:
        """Take one more search, which answers a part of the questions."""
        self.answers[name], self.rows[name] = (answer, part), known

    def measure(self) -> dict[str, dict[str, Any]]:
        """Return microseconds a query, and recall or error against the truth, of each."""
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in self.answers}
        for _ in range(self.rounds):
            for name, (answer, part) in self.answers.items():
                start, started = perf_counter(), process_time()
                found = answer(part)
                seconds[name].append((perf_counter() - start, process_time() - started))
                known = min(len(found), len(self.truth))
                compared = self.compare(found[:known], self.truth[:known])
                self.rows[name] |= {"queries": len(found), **compared}
        for name, row in self.rows.items():
            for column, times in zip(
                ("us_a_query", "cpu_us_a_query"), zip(*seconds[name], strict=True), strict=True
            ):
                row[column] = round(statistics.median(times) / row["queries"] * 1e6, 2)
        return self.rows

    def compare(self, found: Tensor, truth: Tensor) -> dict[str, float]:
        """Return the recall at 1."""
        # scikit-learn rounds otherwise: within a millionth it is the same neighbour.
        return {"recall": round((found <= truth * (1 + 1e-6) + 1e-12).double().mean().item(), 5)}


class DensityTable(Table):
    """Log densities instead of distances."""

    def compare(self, found: Tensor, truth: Tensor) -> dict[str, float]:
        """Return errors in nats."""
        error = (found - truth).double().abs()
        return {"mean_error_nats": error.mean().item(), "max_error_nats": error.max().item()}


def euclidean(data: dict[str, Tensor], options: argparse.Namespace) -> dict[str, Any]:
    """Return the table of Euclidean neighbours in input space."""
    vectors, queries = data["reference_input"], data["patient_input"]
    every, batch, few = slice(None), slice(0, BATCH), slice(0, options.few)
    flat, flat_seconds = timed(FaissFlat, vectors)
    exact, exact_seconds = timed(ExactNeighbours, vectors)
    table = Table(exact.search(queries, 1)[0][:, 0], options.rounds)
    table.add("faiss flat", searching(flat, queries), batch, build_seconds=flat_seconds)
    table.add("exact", searching(exact, queries), batch, build_seconds=exact_seconds)
    for name in ("auto", "faiss_ivf", *(["faiss_hnsw"] if options.hnsw else [])):
        chosen, seconds = timed(choose, "euclidean", (vectors,), (data["sample_input"],), name=name)
        known = {"build_seconds": seconds, "record": chosen.record}
        table.add(name, searching(chosen.searcher, queries), every, **known)
    for algorithm in ("kd_tree", "ball_tree", "brute"):
        theirs, seconds = timed(sklearn_neighbours, vectors, algorithm)
        table.add(f"scikit-learn {algorithm}", theirs(queries), few, build_seconds=seconds)
    return table.measure()


def bhattacharyya(data: dict[str, Tensor], options: argparse.Namespace) -> dict[str, Any]:
    """Return the table of Bhattacharyya neighbours among the latents."""
    parts = (data["reference_mean"], data["reference_sigma"])
    mean, sigma, few = data["patient_mean"], data["patient_sigma"], slice(0, options.few)
    chosen, seconds = timed(choose, "bhattacharyya", parts, (data["sample_mean"], data["sample_sigma"]))
    exact, fast = ExactBhattacharyya(*parts), chosen.searcher
    table = Table(exact.search(mean[few], sigma[few])[0][:, 0], options.rounds)
    table.add("exact", lambda part: exact.search(mean[part], sigma[part])[0][:, 0], few)
    known = {"build_seconds": seconds, "record": chosen.record}
    table.add("auto", lambda part: fast.search(mean[part], sigma[part])[0][:, 0], few, **known)
    table.add("auto, a batch", lambda part: fast.search(mean[part], sigma[part])[0][:, 0], slice(0, BATCH))
    return table.measure()


def density(data: dict[str, Tensor], options: argparse.Namespace) -> dict[str, Any]:
    """Return the table of latent densities."""
    parts = (data["reference_mean"], data["reference_sigma"])
    points, few = data["patient_mean"], slice(0, options.few)
    chosen, seconds = timed(choose, "density", parts, (data["sample_mean"],))
    exact, fast = ExactDensity(*parts), chosen.searcher
    table = DensityTable(exact.log_density(points[few]), options.rounds)
    table.add("exact", lambda part: exact.log_density(points[part]), few)
    known = {"build_seconds": seconds, "record": chosen.record}
    table.add("auto", lambda part: fast.log_density(points[part]), few, **known)
    table.add("auto, a batch", lambda part: fast.log_density(points[part]), slice(0, BATCH))
    return table.measure()


def searching(searcher: Any, queries: Tensor) -> Answer:
    """Return what answers a part of the queries with squared distances."""
    return lambda part: searcher.search(queries[part], 1)[0][:, 0]


def sklearn_neighbours(vectors: Tensor, algorithm: str) -> Callable[[Tensor], Answer]:
    """Return scikit-learn's search as ``searching`` has it, built, on both cores."""
    from sklearn.neighbors import NearestNeighbors

    built = NearestNeighbors(n_neighbors=1, algorithm=algorithm, n_jobs=-1).fit(vectors.numpy())

    def ask(queries: Tensor) -> Answer:
        return lambda part: (
            torch.from_numpy(built.kneighbors(queries[part].numpy())[0][:, 0]).float().square()
        )

    return ask


def timed(make: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[Any, float]:
    """Return what is made of some arguments, and in how many seconds."""
    start = perf_counter()
    made = make(*arguments, **keywords)
    return made, round(perf_counter() - start, 2)


def gathered(options: argparse.Namespace) -> dict[str, Tensor]:
    """Return voxels and posteriors of reference, sample and patient, the patient's voxels in random order."""
    detector = Detector.load(options.model)
    files = {file.id: file for file in scan_folder(options.controls)}
    roles = {scan.id: scan.role for scan in detector.scans}
    random = np.random.default_rng(0)

    def voxels(role: str) -> np.ndarray:
        scans = [read_scan(files[name]) for name in sorted(files) if roles[name] == role]
        return np.concatenate([detector.prepare(scan)[0].voxels() for scan in scans])

    sample = random.permutation(voxels("validation"))[: max(LARGEST_SAMPLE.values())]
    patient = random.permutation(detector.prepare(read_scan(options.patient))[0].voxels())
    data = {}
    for of, x in (("reference", voxels("training")), ("sample", sample), ("patient", patient)):
        data[f"{of}_input"] = torch.from_numpy(np.ascontiguousarray(x))
        with torch.no_grad():
            posteriors = [detector.model.encode(rows) for rows in data[f"{of}_input"].split(ENCODE_ROWS)]
        data[f"{of}_mean"] = torch.cat([posterior.mean for posterior in posteriors])
        data[f"{of}_sigma"] = torch.cat([posterior.stddev for posterior in posteriors])
    return data


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("controls", type=Path)
    parser.add_argument("patient", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few", type=int, default=2000, help="queries for what is slow")
    parser.add_argument("--hnsw", action="store_true", help="also faiss's HNSW: minutes to build")
    options = parser.parse_args(arguments)
    data = gathered(options)
    result: dict[str, Any] = {name: len(data[f"{name}_input"]) for name in ("reference", "sample", "patient")}
    result |= {"channels": data["patient_input"].shape[1], "latents": data["patient_mean"].shape[1]}
    result |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for table in (euclidean, bhattacharyya, density):
        result[table.__name__] = table(data, options)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    main()
