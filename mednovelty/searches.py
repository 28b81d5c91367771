"""Which searches the scores of a detector make, and how each is answered.

Nobody lists the searches: the scores are asked about some held-out voxels, and a reference that only listens
notes what they ask it. For each search the cheapest way that is good enough on just these queries is chosen
and its quality recorded (``neighbours.choice``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mednovelty.errors import DetectorError
from mednovelty.neighbours.choice import Chosen, choose, exact_name, restore
from mednovelty.plugins import plugin
from mednovelty.reference import Key, Reference
from mednovelty.scoring import Scoring

NUMBERS_A_BATCH = 1 << 21
"""All the sample at once where samples are voxels; few of slices and windows, whose passes take memory."""
DRAWS = 2
"""Of stochastic scores, while listening: what they are does not matter."""


class Questions(NamedTuple):
    """What scores ask one search."""

    queries: tuple[Tensor, ...]
    """Points, mean and sigma, or points of a density."""
    k: int
    """How many nearest are asked for at most."""


class _Listening(Reference):
    """Notes queries and answers 0."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(reference.parts, reference.neighbours, reference.drawn_from)
        self.heard: dict[Key, list[tuple[Tensor, ...]]] = {}
        self.most: dict[Key, int] = {}
        """How many neighbours were asked for at most."""

    def nearest(self, part: str, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Note the queries of a Euclidean search."""
        self._note(("euclidean", part), queries)
        self.expect(part, k)
        return queries.new_zeros(len(queries), k), torch.zeros(len(queries), k, dtype=torch.int64)

    def expect(self, part: str, k: int) -> None:
        """Note that as many neighbours will be asked for."""
        key = ("euclidean", part)
        self.most[key] = max(k, self.most.get(key, 1))

    def nearest_gaussian(self, space: Any, mean: Tensor, sigma: Tensor) -> Tensor:
        """Note the queries of a search among Gaussians."""
        self._note(("bhattacharyya", space), mean, sigma)
        return mean.new_zeros(len(mean))

    def log_density(self, space: Any, points: Tensor) -> Tensor:
        """Note the points of a density."""
        self._note(("density", space), points)
        return points.new_zeros(len(points))

    def _note(self, key: Key, *queries: Tensor) -> None:
        self.vectors(key)  # What is not there cannot be asked.
        self.heard.setdefault(key, []).append(tuple(query.detach().float().cpu() for query in queries))


def queries_of(
    reference: Reference, model: Any, scores: Iterable[str], sample: Tensor, **options: Any
) -> dict[Key, Questions]:
    """Return what the scores ask a reference about some samples.

    Args:
        reference: What would be asked.
        model: That it was made with.
        scores: By name; those that compare with no normals ask nothing, and are not run.
        sample: ``(n, C)`` preprocessed voxels.
        options: Of ``Scoring``, such as ``nln`` and ``knn``, which tell how many neighbours are looked for.
    """
    comparing = [name for name in scores if plugin("scorers", name).reference_parts]
    listening = _Listening(reference)
    rows = max(NUMBERS_A_BATCH // max(model.channels, 1), 1)
    nln = options.pop("nln", None)
    if nln is not None:
        # One neighbour asks what many ask; each that is found is decoded, and here none is found.
        options["nln"] = replace(nln, k=1)
        for name in comparing:
            if "nln" in getattr(plugin("scorers", name), "options", ()):
                listening.expect("latent_mean", nln.k)
    scoring = Scoring(model, listening, DRAWS, 0, rows, **options)
    voxels = sample.cpu().numpy()
    scoring.run(comparing, lambda start, stop: (voxels[start:stop], None), len(sample))
    return {
        key: Questions(
            tuple(torch.cat(parts) for parts in zip(*asked, strict=True)), listening.most.get(key, 1)
        )
        for key, asked in listening.heard.items()
    }


def with_chosen_searches(
    reference: Reference,
    model: Any,
    scores: Sequence[str],
    sample: Tensor,
    *,
    name: str,
    seed: int,
    **options: Any,
) -> Reference:
    """Return a reference whose searches are answered in the way that was chosen for each.

    Args:
        reference: Its parts are kept.
        model: That it was made with.
        scores: Which scores will ask.
        sample: ``(n, C)`` voxels that are not among the normals: quality is measured on them.
        name: A plug-in of group ``neighbours``, or ``auto``.
        seed: Of what is built.
        options: As for ``queries_of``.
    """
    asked = queries_of(reference, model, scores, sample, **options)
    chosen = {
        key: choose(key[0], reference.vectors(key), each.queries, name=name, seed=seed, k=each.k)
        for key, each in asked.items()
    }
    return Reference(reference.parts, reference.neighbours, reference.drawn_from, chosen)


def told_of(reference: Reference) -> dict[str, Any]:
    """Return how each kind of neighbours was searched, and how surely; what is not listed was exact."""
    told: dict[str, Any] = {"otherwise": {"Name": reference.neighbours}}
    for (kind, place), choice in reference.chosen.items():
        quality = choice.record["quality"]
        measured = {} if quality is None else {"Recall": quality["recall"], "Sample": quality["sample"]}
        if measured and quality.get("k", 1) > 1:
            measured["OfNearest"] = quality["k"]
        told[f"{kind} {place}"] = {"Name": choice.record["name"], **measured}
    return told


def moved(reference: Reference, device: torch.device) -> Reference:
    """Return a reference on a device; on any but the CPU its searches are exact there, and say so."""
    parts = {name: part.to(device) for name, part in reference.parts.items()}
    there = Reference(parts, reference.neighbours, reference.drawn_from)
    if device.type == "cpu" or not parts:
        return Reference(parts, reference.neighbours, reference.drawn_from, reference.chosen)
    chosen = {key: choose(key[0], there.vectors(key), None) for key in reference.chosen}
    return Reference(parts, exact_name(device), reference.drawn_from, chosen)


def states_of(reference: Reference) -> dict[str, Tensor]:
    """Return the tensors of all chosen searches, named ``kind/place/name``."""
    return {
        f"{kind}/{place}/{name}": tensor
        for (kind, place), choice in reference.chosen.items()
        for name, tensor in choice.state.items()
    }


def restored(
    reference: Reference, records: Iterable[Mapping[str, Any]], states: Mapping[str, Tensor]
) -> Reference:
    """Return a reference whose searches are those of some records.

    Args:
        reference: With its parts.
        records: What ``Chosen.record`` says, and the ``place`` of each.
        states: From ``states_of``.

    Raises:
        DetectorError: Records and states do not fit each other or the reference.
    """
    chosen: dict[Key, Chosen] = {}
    left = dict(states)
    for told in records:
        key = (told["kind"], told["place"])
        if key in chosen:
            raise DetectorError(f"reference.searches: {key[0]} among {key[1]} is told of twice")
        record = {name: value for name, value in told.items() if name != "place"}
        prefix = "/".join(key) + "/"
        state = {name.removeprefix(prefix): left.pop(name) for name in states if name.startswith(prefix)}
        chosen[key] = Chosen(restore(reference.vectors(key), record, state), record, state)
    if left:
        raise DetectorError(f"searches: no record tells of {next(iter(left))!r}")
    return Reference(reference.parts, reference.neighbours, reference.drawn_from, chosen)


__all__ = ["moved", "queries_of", "restored", "states_of", "told_of", "with_chosen_searches"]
