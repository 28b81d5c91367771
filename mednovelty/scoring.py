"""Samples in, scores out: several scorers over many batches, sharing what they can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mednovelty.batch import Batch, antithetic_noise
from mednovelty.errors import SettingsError
from mednovelty.papers import homes
from mednovelty.plugins import plugin
from mednovelty.protocols import ProbabilisticAutoencoder, Scorer
from mednovelty.reference import Reference
from mednovelty.seeds import generator

Block = tuple[np.ndarray, np.ndarray | None]
"""``(b, C)`` preprocessed samples, and the same as measured or None."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """Everything that scoring needs besides the samples.

    Attributes:
        model: A trained model in evaluation mode.
        reference: The normals as that model sees them.
        draws: L, how many draws stochastic scores take.
        seed: Seeds those draws.
        batch_voxels: Samples a batch. It is recorded with every map, since the last bits of a matrix
            product depend on it.
        is_b0: ``(C,)`` bool, which channels are b=0; None where that is unknown.
    """

    model: ProbabilisticAutoencoder
    reference: Reference
    draws: int
    seed: int
    batch_voxels: int
    is_b0: Tensor | None = None

    def scorers(self, names: Sequence[str]) -> dict[str, Scorer]:
        """Return scorers by name.

        Raises:
            UnknownPluginError: There is no scorer of that name.
            SettingsError: A scorer needs something that is not here.
        """
        parts = {"model": self.model, "reference": self.reference, "is_b0": self.is_b0}
        made = {}
        for name in names:
            kind = plugin("scorers", name)
            missing = [need for need in kind.needs if parts.get(need) is None]
            if missing:
                raise SettingsError(
                    f"{name}: needs {', '.join(missing)}, which voxels without a scan do not have"
                )
            absent = sorted(set(kind.reference_parts) - set(self.reference.parts))
            if absent:
                raise SettingsError(
                    f"{name}: compares with normals in {absent[0]!r}, which this detector's reference does "
                    f"not hold; it holds {', '.join(self.reference.parts) or 'nothing'}. "
                    f"Fit with --scores {name}"
                )
            made[name] = kind(**{need: parts[need] for need in kind.needs})
        return made

    def run(
        self,
        names: Sequence[str],
        cut: Callable[[int, int], Block],
        count: int,
        advance: Callable[[int], Any] = lambda n: None,
    ) -> dict[str, np.ndarray]:
        """Return ``(count,)`` float32 scores by name.

        Args:
            names: Which scores.
            cut: Gives samples ``start`` to ``stop``.
            count: How many samples there are.
            advance: Told after each batch how many samples were scored.
        """
        scorers = self.scorers(names)
        scores = {name: np.empty(count, np.float32) for name in names}
        noise = self._noise()
        for start in range(0, count, self.batch_voxels):
            stop = min(start + self.batch_voxels, count)
            x, signal = cut(start, stop)
            batch = Batch(_tensor(x), noise=noise, signal=None if signal is None else _tensor(signal))
            for name, scorer in scorers.items():
                scores[name][start:stop] = scorer.score(batch).cpu().numpy()
            advance(stop - start)
        return scores

    def _noise(self) -> Tensor:
        (latent,) = self.model.prior.event_shape
        return antithetic_noise(self.draws, latent, generator(self.seed, "score draws"))


def needs_signal(names: Iterable[str]) -> bool:
    """Return whether any of these scores looks at the signal as measured."""
    return any("is_b0" in plugin("scorers", name).needs for name in names)


def reference_parts(names: Iterable[str]) -> set[str]:
    """Return which parts of a reference these scores compare with."""
    return {part for name in names for part in plugin("scorers", name).reference_parts}


def describe_score(name: str) -> Mapping[str, str]:
    """Return name, equation, paper and unit of a score, as sidecars tell them."""
    kind = plugin("scorers", name)
    address = f"{kind.__module__}:{kind.__qualname__}"
    paper, label = next((key for key, home in homes().items() if home == address), ("", ""))
    return {
        "name": name,
        "equation": label,
        "paper": paper,
        "unit": kind.unit,
        "direction": "higher is more novel",
        "description": (kind.__doc__ or "").strip().splitlines()[0],
    }


def _tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
