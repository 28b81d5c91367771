"""Scores that add terms of different units: each is normalised by what it is on held-out normals.

A term t becomes ``(t - mean) / spread``, mean and standard deviation over held-out normals. They are kept in
the detector, so that a sample alone gets the score that it gets in a batch. (The released code of Mesarcik et
al. 2021 takes smallest and largest of the test set, by which a score depends on what is scored beside it.)

A scorer with terms names them in ``terms``, a ``ClassVar``; has ``terms_of(batch)``, which gives ``(B,)`` by
name as they are before normalisation; and takes ``constants``, a ``Constants``. One whose terms depend on a
number of neighbours also has ``terms_by_k(batch, ks)``, which gives the same for each of some K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mednovelty.plugins import plugin


@dataclass(frozen=True, slots=True)
class Scale:
    """How a term is normalised: it becomes ``(t - mean) / spread``."""

    mean: float = 0.0
    spread: float = 1.0

    def __call__(self, term: Tensor) -> Tensor:
        """Return the normalised term, of the same shape."""
        return (term - self.mean) / self.spread


Constants = Mapping[str, Scale]
"""By term."""


def scale_of(values: Tensor) -> Scale:
    """Return mean and standard deviation of ``(n,)`` values; a spread of 1 where they are all the same."""
    wide = values.double()
    mean, spread = wide.mean().item(), wide.std(correction=0).item()
    return Scale(mean, spread if spread > 1e-12 * max(abs(mean), 1.0) else 1.0)


@torch.no_grad()
def measured_constants(
    scorers: Mapping[str, Any], make: Callable[[Tensor], Any], normals: Iterable[Tensor], ks: Sequence[int]
) -> dict[int, dict[str, dict[str, Scale]]]:
    """Return, for each of some numbers of neighbours, the constants of those scorers that have terms.

    Args:
        scorers: By name, each made for the largest K.
        make: Gives a ``Batch`` of samples.
        normals: Held-out normals, ``(b, D)`` at a time; none of them is in the reference.
        ks: For which K. A scorer whose terms depend on none has the same constants for all.
    """
    scorers = {name: scorer for name, scorer in scorers.items() if hasattr(scorer, "terms")}
    found: dict[tuple[int, str, str], list[Tensor]] = {}
    for x in normals if scorers else ():
        batch = make(x)
        for name, scorer in scorers.items():
            for k, terms in terms_by_k(scorer, batch, ks).items():
                for term, values in terms.items():
                    found.setdefault((k, name, term), []).append(values.cpu())
    measured: dict[int, dict[str, dict[str, Scale]]] = {k: {} for k in ks} if scorers else {}
    for (k, name, term), blocks in found.items():
        measured[k].setdefault(name, {})[term] = scale_of(torch.cat(blocks))
    return measured


def terms_by_k(scorer: Any, batch: Any, ks: Sequence[int]) -> dict[int, dict[str, Tensor]]:
    """Return ``(B,)`` by K and term, before normalisation."""
    if hasattr(scorer, "terms_by_k"):
        return dict(scorer.terms_by_k(batch, ks))
    return dict.fromkeys(ks, scorer.terms_of(batch))


def with_terms(names: Iterable[str]) -> list[str]:
    """Return those scores, by name, that have terms to be normalised."""
    return [name for name in names if hasattr(plugin("scorers", name), "terms")]


__all__ = ["Constants", "Scale", "measured_constants", "scale_of", "terms_by_k", "with_terms"]
