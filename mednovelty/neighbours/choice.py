"""Which search for which reference: chosen by measured recall, recorded, and made again from the record.

Three kinds of question, by the parts of the reference that they look at and what they are asked with:

================== ================== =================== ==============================================
kind               parts              sample              the searcher answers
================== ================== =================== ==============================================
``euclidean``      ``(vectors,)``     ``(queries,)``      ``search(queries, k) -> distances, indices``
``bhattacharyya``  ``(mean, sigma)``  ``(mean, sigma)``   ``search(mean, sigma, k) -> distances, indices``
``density``        ``(mean, sigma)``  ``(points,)``       ``log_density(points) -> (B,)``
================== ================== =================== ==============================================

When fitting, with a sample of held-out normals (at least 1,078 for a target of 0.995, better thousands; half
of them tune the search, the others say how good it is):

    chosen = choose("euclidean", (vectors,), (held_out,), name="auto", seed=seed)
    chosen.searcher.search(queries, 1)
    chosen.record      # JSON types, for the detector's record
    chosen.state       # {name: tensor}, to be kept beside the reference's parts; often empty

When reading a detector:

    searcher = restore((vectors,), record, state)     # ValueError where record or state is damaged

which answers to the bit as the one that was chosen, on the same machine. Parts that lie on another device
than the CPU are searched exactly and there, whatever the record says: what is approximate runs on the CPU.

``auto`` compares costs, counted in distances and not in seconds, so that the choice is the same on every
run: inverted lists with as few lists visited as reach the target, or an exact search where that is cheaper.
HNSW is never chosen by itself: its graph is built by one thread (see ``faiss_hnsw``), in a minute or more for
600,000 vectors, and is no faster to search in many dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mednovelty.errors import SettingsError
from mednovelty.neighbours.bhattacharyya import ExactBhattacharyya
from mednovelty.neighbours.density import ExactDensity
from mednovelty.neighbours.fast_bhattacharyya import BRUTE_COST, FastBhattacharyya
from mednovelty.neighbours.fast_density import FastDensity
from mednovelty.neighbours.quality import HeldOut, needed_recall
from mednovelty.plugins import plugin
from mednovelty.seeds import generator

KINDS = ("euclidean", "bhattacharyya", "density")
TARGET = 0.995
APPROXIMATE = "inverted_lists"
"""The plug-in that ``auto`` weighs against exact search."""
SMALL = 4096
"""Up to this many normals, nothing is tried but exact search."""
LARGEST_SAMPLE = {"euclidean": 4096, "bhattacharyya": 1024, "density": 1024}
"""More held-out normals than these are drawn from: their exact answers take the time."""
EXACT_COST = {"euclidean": 1.0, "bhattacharyya": BRUTE_COST, "density": 2.0}

Parts = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Chosen:
    """A search, and all it takes to make it again.

    Attributes:
        searcher: Answers the questions of its kind.
        record: JSON types: ``kind``, ``name``, ``asked``, ``why``, ``target``, ``settings`` and ``quality``,
            which is None for an exact search.
        state: Tensors by name; empty for an exact search.
    """

    searcher: Any
    record: dict[str, Any]
    state: dict[str, Tensor]


def choose(  # noqa: PLR0913 - what, on what, and by keyword how
    kind: str,
    parts: Parts,
    sample: Parts | None,
    *,
    name: str = "auto",
    target: float = TARGET,
    seed: int = 0,
    k: int = 1,
) -> Chosen:
    """Return the search for some parts of a reference.

    Args:
        kind: One of ``KINDS``.
        parts: ``(N, D)`` each; see the table above.
        sample: ``(n, D)`` each, of normals that are not in the reference; None: there are none.
        name: ``auto`` or a plug-in of group ``neighbours``. The other two kinds know exact and approximate
            only: they are exact where the plug-in is.
        target: Recall to reach; for densities the share of log densities within 0.01 nats.
        seed: Of clustering, and of drawing from the sample; same seed, same data, same machine: same bits.
        k: How many nearest a Euclidean search will be asked for; recall is measured over them.

    Raises:
        SettingsError: No such kind, or a target that is no share.
        UnknownPluginError: No such plug-in.
    """
    if kind not in KINDS:
        raise SettingsError(f"no kind of search is called {kind!r}; known: {', '.join(KINDS)}")
    if not 0 < target <= 1:
        raise SettingsError(f"recall to reach must lie above 0 and at most 1, got {target}")
    exactly, why = _exactly(name, parts, sample, target, kind)
    if exactly:
        return _exact(kind, parts, name, target, why)
    assert sample is not None
    family = _family(kind, APPROXIMATE if name == "auto" else name)
    tuning, checking = _halves(sample, LARGEST_SAMPLE[kind], seed)
    k = min(k, len(parts[0]))
    searcher, tuned = _tuned(kind, family, parts, _with_answers(kind, parts, tuning, k), target, seed)
    cost, brute = tuned.cost, EXACT_COST[kind] * len(parts[0])
    # Not by the sample that it was tuned on, which flatters.
    quality = tuned
    if tuned.recall >= target:
        quality = _measured(kind, searcher, parts, _with_answers(kind, parts, checking, k))
    if quality.recall < target:
        return _exact(kind, parts, name, target, f"{family[0]} reached {quality.recall:.4f} only")
    if name == "auto" and cost >= brute:
        why = f"{family[0]} would cost {cost:.0f} distances a query, exact search {brute:.0f}"
        return _exact(kind, parts, name, target, why)
    record = _record(kind, family[0], name, target, f"{cost:.0f} distances a query, exact search {brute:.0f}")
    record |= {"settings": searcher.settings(), "quality": asdict(quality)}
    return Chosen(searcher, record, searcher.state())


def restore(parts: Parts, record: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    """Return the search of a record and its state.

    Args:
        parts: As they were given to ``choose``, on any device.
        record: ``Chosen.record``.
        state: ``Chosen.state``.

    Raises:
        ValueError: Record and state are damaged, or do not fit each other or the parts.
        UnknownPluginError: The record names a plug-in that is not installed.
    """
    kind, name, settings = (record.get(key) for key in ("kind", "name", "settings"))
    if kind not in KINDS or not isinstance(name, str) or not isinstance(settings, Mapping):
        raise ValueError(f"no record of a search: kind {kind!r}, name {name!r}, settings {settings!r}")
    _, family = _family(kind, name)
    if not is_approximate(family):
        if settings or state:
            raise ValueError(f"{name} is exact and takes neither settings nor state")
        return _exact_search(kind, parts, name)
    if parts[0].device.type != "cpu":
        return _exact_search(kind, parts, "auto")
    return family.restored(parts[0] if kind == "euclidean" else parts, settings, state)


def exact_name(device: torch.device) -> str:
    """Return the plug-in that searches exactly on a device: the fused kernel on CUDA, torch elsewhere."""
    return "fused" if device.type == "cuda" else "exact"


def is_approximate(family: type) -> bool:
    """Return whether a class of searches is approximate: such a one can be tuned to a recall."""
    return hasattr(family, "tuned")


def _exactly(name: str, parts: Parts, sample: Parts | None, target: float, kind: str) -> tuple[bool, str]:
    """Return whether only an exact search comes into question, and why."""
    if name != "auto" and not is_approximate(plugin("neighbours", name)):
        return True, f"{name} was asked for"
    if parts[0].device.type != "cpu":
        return True, f"the reference lies on {parts[0].device.type}"
    if name == "auto" and len(parts[0]) <= SMALL:
        return True, f"{len(parts[0])} normals are few"
    count = 0 if sample is None else len(sample[0])
    if needed_recall(target, min(count // 2, LARGEST_SAMPLE[kind])) > 1:
        return True, f"{count} held-out normals are too few to show a recall of {target}"
    return False, ""


def _family(kind: str, name: str) -> tuple[str, Any]:
    """Return name and class of a kind's search."""
    if kind == "euclidean":
        return name, plugin("neighbours", name)
    fast = name == "fast" or (name != "exact" and is_approximate(plugin("neighbours", name)))
    exact, approximate = {
        "bhattacharyya": (ExactBhattacharyya, FastBhattacharyya),
        "density": (ExactDensity, FastDensity),
    }[kind]
    return ("fast", approximate) if fast else ("exact", exact)


def _with_answers(kind: str, parts: Parts, sample: Parts, k: int) -> Any:
    """Return a sample for a kind's search to be measured on; Euclidean ones want to be told the answers."""
    if kind != "euclidean":
        return sample
    return HeldOut.of(_exact_search(kind, parts, "auto"), sample[0], k)


def _tuned(
    kind: str, family: tuple[str, Any], parts: Parts, sample: Any, target: float, seed: int
) -> tuple[Any, Any]:
    if kind == "euclidean":
        return family[1].tuned(parts[0], sample, target, seed)
    return family[1].tuned(parts, sample if kind == "bhattacharyya" else sample[0], target, seed)


def _measured(kind: str, searcher: Any, parts: Parts, sample: Any) -> Any:
    """Return what a sample says of a search that was not tuned on it."""
    if kind == "euclidean":
        return searcher.measured(sample)
    exact = _exact_search(kind, parts, "auto")
    if kind == "bhattacharyya":
        return searcher.measured(sample, exact.search(*sample)[0][:, 0])
    return searcher.measured(sample[0], exact.log_density(sample[0]))


def _exact(kind: str, parts: Parts, asked: str, target: float, why: str) -> Chosen:
    name = asked
    if asked == "auto" or is_approximate(plugin("neighbours", asked)):
        name = exact_name(parts[0].device)
    if kind != "euclidean":
        name = "exact"
    record = _record(kind, name, asked, target, why) | {"settings": {}, "quality": None}
    return Chosen(_exact_search(kind, parts, name), record, {})


def _exact_search(kind: str, parts: Parts, name: str) -> Any:
    if kind == "bhattacharyya":
        return ExactBhattacharyya(*parts)
    if kind == "density":
        return ExactDensity(*parts)
    device = parts[0].device
    return plugin("neighbours", name if device.type == "cpu" and name != "auto" else exact_name(device))(
        *parts
    )


def _record(kind: str, name: str, asked: str, target: float, why: str) -> dict[str, Any]:
    return {"kind": kind, "name": name, "asked": asked, "target": target, "why": why}


def _halves(sample: Parts, most: int, seed: int) -> tuple[Parts, Parts]:
    """Return two samples of the same size, at most ``most``, that share nothing."""
    count = min(len(sample[0]) // 2, most)
    rows = torch.randperm(len(sample[0]), generator=generator(seed, "neighbours", "sample"))
    halves = rows[:count].sort().values, rows[count : 2 * count].sort().values
    return tuple(part[halves[0]] for part in sample), tuple(part[halves[1]] for part in sample)
