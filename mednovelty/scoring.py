"""Samples in, scores out: several scorers over many batches, sharing what they can."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mednovelty.batch import Batch, antithetic_noise, sample_shape
from mednovelty.calibration import Constants
from mednovelty.capabilities import asked_by, check_model
from mednovelty.errors import SettingsError
from mednovelty.memory_ladder import Ladder, on_processor
from mednovelty.methods.input_gradients import NoisyCopies
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.nn.precision import Precision, check_precision, in_precision
from mednovelty.nn.smoothing import Smoothing
from mednovelty.plugins import plugin
from mednovelty.protocols import Autoencoder, Scorer
from mednovelty.reference import Reference, device_of, latent_size
from mednovelty.score_names import (
    LOCALISATION,
    describe_score,
    needs_signal,
    reference_parts,
    resolve_names,
    score_groups,
)
from mednovelty.seeds import generator

Block = tuple[np.ndarray, np.ndarray | None]
"""``(b, C)`` preprocessed samples, and the same as measured or None."""

Tell = Callable[[str, Mapping[str, Tensor]], Any]
"""Takes a score's name and ``(b,)`` bool by name: what it has to say of each sample besides."""

Predict = Callable[..., dict[str, Tensor]]
"""Takes ``(B, D)`` preprocessed samples, and the same as measured or None; returns scores by name."""

T = TypeVar("T")


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
        smoothing: How widely maps of derivatives are smoothed.
        spacing_mm: Of the samples' axes, ``len(space)`` numbers; None where it is unknown.
        copies: The noisy copies over which some derivatives are averaged; their seed is ``seed``.
        signs: ``(C,)`` in which direction each contrast counts; none: all are 1.
        nln: Of the scores by nearest latent neighbours.
        knn: Over how many nearest normals ``hyperspherical_knn`` averages.
        constants: By score, those that its terms are normalised with; None: no term is normalised.
        precision: In what the layers of encoder and decoder compute.
        name: What is scored, for messages.
        told: Told in words what had to be done otherwise, as when a device's memory runs out.
    """

    model: Autoencoder
    reference: Reference
    draws: int
    seed: int
    batch_voxels: int
    is_b0: Tensor | None = None
    smoothing: Smoothing = field(default_factory=Smoothing)
    spacing_mm: tuple[float, ...] | None = None
    copies: NoisyCopies = field(default_factory=NoisyCopies)
    signs: tuple[float, ...] = ()
    nln: NLNSettings = field(default_factory=NLNSettings)
    knn: int = 3
    constants: Mapping[str, Constants] | None = None
    precision: Precision = "float32"
    name: str = "scoring"
    told: Callable[[str], Any] = lambda words: None

    def scorers(self, names: Sequence[str]) -> dict[str, Scorer]:
        """Return scorers by name.

        Each gets what it ``needs``, and of its ``options``, which have defaults, what is set here.

        Raises:
            UnknownPluginError: There is no scorer of that name.
            SettingsError: A scorer needs something that is not here.
        """
        self.check(names)
        model = in_precision(self.model, self.precision)
        parts = {"model": model, "reference": self.reference, "is_b0": self.is_b0}
        # A sample that is one voxel has no axis to smooth along, and needs no spacing.
        spacing_mm = self.spacing_mm if len(sample_shape(self.model)) > 1 else ()
        options: dict[str, Callable[[], Any]] = {
            "blur": lambda: self.smoothing.on(spacing_mm),
            "copies": lambda: replace(self.copies, seed=self.seed),
            "signs": lambda: self.signs,
            "nln": lambda: self.nln,
            "knn": lambda: self.knn,
        }
        made = {}
        for name in names:
            kind = plugin("scorers", name)
            taken = {option: options[option]() for option in getattr(kind, "options", ())}
            if self.constants is not None and hasattr(kind, "terms"):
                taken["constants"] = self.constants[name]
            made[name] = kind(**{need: parts[need] for need in kind.needs}, **taken)
        return made

    def check(self, names: Sequence[str]) -> None:
        """Look for what scorers need, before any is made.

        Raises:
            UnknownPluginError: There is no scorer of that name.
            SettingsError: A scorer needs something that is not here.
        """
        check_precision(self.precision, self.device, images=len(sample_shape(self.model)) > 1)
        known = {"model", "reference"} | ({"is_b0"} if self.is_b0 is not None else set())
        for name in names:
            kind = plugin("scorers", name)
            missing = [need for need in kind.needs if need not in known]
            if missing:
                raise SettingsError(
                    f"{name}: needs {', '.join(missing)}, which voxels without a scan do not have"
                )
            check_model(name, asked_by(kind), self.model)
            absent = sorted(set(kind.reference_parts) - set(self.reference.parts))
            if absent:
                raise SettingsError(
                    f"{name}: compares with normals in {absent[0]!r}, which this detector's reference does "
                    f"not hold; it holds {', '.join(self.reference.parts) or 'nothing'}. "
                    f"Fit with --scores {name}"
                )
            if self.constants is not None and hasattr(kind, "terms") and name not in self.constants:
                raise SettingsError(
                    f"{name}: normalises its terms by what they are on held-out normals, which this detector "
                    f"does not tell. Fit with --scores {name}"
                )

    def run(
        self,
        names: Sequence[str],
        cut: Callable[[int, int], Block],
        count: int,
        advance: Callable[[int], Any] = lambda n: None,
        tell: Tell = lambda name, facts: None,
    ) -> dict[str, np.ndarray]:
        """Return float32 scores by name: ``(count,)``, or ``(count, *space)`` of those of level voxel.

        A batch for which the memory of the model's device does not suffice is scored in parts, and at last
        by the processor; see ``memory_ladder``.

        Args:
            names: Which scores.
            cut: Gives samples ``start`` to ``stop``, ``(b, C)`` or ``(b, C, *space)``.
            count: How many samples there are.
            advance: Told after each batch how many samples were scored.
            tell: Told, batch by batch, what a score has to say besides: ``(b,)`` by name, such as which
                samples' minimisation has converged.
        """
        self.check(names)
        predict = Ladder(
            self._deferred(names, tell),
            on_processor=self.moving(lambda there: there._deferred(names, tell)),
            name=self.name,
            told=self.told,
        )
        space = sample_shape(self.model)[1:]
        of_voxels = {name: plugin("scorers", name).level == "voxel" for name in names}
        scores = {name: np.empty((count, *space) if of_voxels[name] else count, np.float32) for name in names}
        for start in range(0, count, self.batch_voxels):
            stop = min(start + self.batch_voxels, count)
            x, signal = cut(start, stop)
            found = predict(_tensor(x).flatten(1), None if signal is None else _tensor(signal))
            for name in names:
                scores[name][start:stop] = found[name].cpu().numpy()
            advance(stop - start)
        return scores

    def predictor(self, names: Sequence[str], tell: Tell = lambda name, facts: None) -> Predict:
        """Return what maps a batch to its scores by name; scorers and draws are made now, once.

        Its arguments are ``(B, D)`` preprocessed samples, and the same as measured or None; its values lie
        on the model's device.
        """
        scorers = self.scorers(names)
        device = self.device
        noise = self._noise().to(device)
        # As wide as a sample, and few scores want them: made once, by the first that asks.
        decoder_noise = cache(lambda: self._decoder_noise().to(device))
        order = sorted(scorers, key=lambda name: _turn(scorers[name]))

        def predict(x: Tensor, signal: Tensor | None = None) -> dict[str, Tensor]:
            batch = Batch(
                x.to(device),
                noise=noise,
                decoder_noise=decoder_noise,
                signal=None if signal is None else signal.to(device),
            )
            found = {name: scorers[name].score(batch) for name in order}
            if self.precision == "float16":
                self._refuse_overflow(found)
            facts = {n: scorers[n].facts(batch) for n in names if hasattr(scorers[n], "facts")}  # type: ignore[attr-defined]
            # Not before all is there: memory may run out, and the batch then comes again.
            for name, flags in facts.items():
                tell(name, flags)
            return {name: found[name] for name in names}

        return predict

    def batch(self, x: Tensor) -> Batch:
        """Return ``(B, D)`` samples on the model's device as a batch with this scoring's draws."""
        noise = self._noise().to(self.device)
        return Batch(x, noise=noise, decoder_noise=lambda: self._decoder_noise().to(self.device))

    def _refuse_overflow(self, found: Mapping[str, Tensor]) -> None:
        for name, scores in found.items():
            if not torch.isfinite(scores).all():
                raise SettingsError(
                    f"{self.name}: {name} is not finite: a number inside the network is beyond 65504, where "
                    "float16 ends; set maps.precision to bfloat16 or float32"
                )

    def _deferred(self, names: Sequence[str], tell: Tell) -> Predict:
        """Return what ``predictor`` returns, made at the first batch: also that may take too much memory."""
        made: list[Predict] = []

        def predict(x: Tensor, signal: Tensor | None = None) -> dict[str, Tensor]:
            if not made:
                made.append(self.predictor(names, tell))
            return made[0](x, signal)

        return predict

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    def moving(self, make: Callable[[Scoring], T]) -> Callable[[], T] | None:
        """Return what makes something on the processor; None where that is the device already.

        Args:
            make: Makes it of a scoring there: with copies of the model and of the reference, whose searches
                are exact.
        """
        if self.device.type == "cpu":
            return None
        return lambda: make(self._on_processor())

    def _on_processor(self) -> Scoring:
        parts = {name: part.cpu() for name, part in self.reference.parts.items()}
        reference = Reference(parts, "exact", self.reference.drawn_from)
        is_b0 = None if self.is_b0 is None else self.is_b0.cpu()
        return replace(
            self, model=on_processor(self.model), reference=reference, is_b0=is_b0, precision="float32"
        )

    def _noise(self) -> Tensor:
        return antithetic_noise(self.draws, latent_size(self.model), generator(self.seed, "score draws"))

    def _decoder_noise(self) -> Tensor:
        noise = antithetic_noise(self.draws, self.model.channels, generator(self.seed, "decoder draws"))
        # Out of step with the pairs of the latent draws: of a pair of pairs, the products of both would all
        # have one sign, and their mean twice the variance.
        return noise.roll(1, 0)


class Shares:
    """Of how many samples something that scores tell is true."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, tuple[int, int]]] = {}

    def add(self, score: str, facts: Mapping[str, Tensor]) -> None:
        """Take in ``(b,)`` bool of one more batch by name."""
        counts = self._counts.setdefault(score, {})
        for name, flags in facts.items():
            true, count = counts.get(name, (0, 0))
            counts[name] = true + int(flags.sum()), count + len(flags)

    def of(self, score: str) -> dict[str, float]:
        """Return the share of samples by name: ``{"converged": 0.996}``."""
        return {name: true / count for name, (true, count) in self._counts.get(score, {}).items() if count}


def _turn(scorer: Scorer) -> tuple[int, bool]:
    # What goes through most of the model with a graph comes first, and then what draws from the decoder: the
    # others take their passes over.
    return -getattr(scorer, "differentiates", 0), not getattr(scorer, "draws_from_decoder", False)


def _tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


__all__ = [
    "LOCALISATION",
    "Scoring",
    "Shares",
    "describe_score",
    "needs_signal",
    "reference_parts",
    "resolve_names",
    "score_groups",
]
