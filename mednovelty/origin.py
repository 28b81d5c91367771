"""The detector that another's training starts from: whether its weights fit, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mednovelty.errors import SettingsError
from mednovelty.fitting import FitSettings, make_candidates, make_view
from mednovelty.gathering import SeenScan
from mednovelty.initial_weights import InitialWeights

if TYPE_CHECKING:
    from mednovelty.detector import Detector

PREPROCESSING = ("preprocessors", "preprocessor_settings", "normalise_within", "view")
"""Settings that decide what a network sees, besides those of the view."""
SHOWN = 12
"""Digits of a hash where it is told a second time."""


@dataclass(frozen=True)
class Origin:
    """A detector whose weights another's training started from.

    Attributes:
        sha256: Of that detector.
        scans: What it had seen, and what the detector that it started from itself had seen, and so on.
    """

    sha256: str
    scans: tuple[SeenScan, ...] = ()

    @classmethod
    def of(cls, detector: Detector) -> Origin:
        """Return a detector as an origin; one that was never saved has the hash that saving would give it."""
        from mednovelty.model_folder import sha256_of

        earlier = () if detector.origin is None else detector.origin.scans
        sha256 = detector.sha256 or sha256_of(detector)
        return cls(sha256, tuple(dict.fromkeys((*detector.scans, *earlier))))

    @property
    def words(self) -> str:
        """How many scans it saw, and which it knew more of than that they were taken to be healthy."""
        roles = [scan.role for scan in self.scans]
        told = (
            f"started from {self.sha256}, which saw {len(roles)} scans, {roles.count('training')} to train on"
        )
        known = [scan.id for scan in self.scans if scan.annotation]
        return told + (f"; annotated were {', '.join(known)}" if known else "")

    def held_out_after_all(self, scans: Sequence[SeenScan]) -> list[str]:
        """Return notes on scans that are held out here and were trained on there, by their hashes."""
        trained = {scan.sha256: scan.id for scan in self.scans if scan.role == "training" and scan.sha256}
        return [
            f"{scan.id}: is held out to validate on, and {self.sha256[:SHOWN]}, which training started from, "
            f"was trained on it (as {trained[scan.sha256]}): validation losses are too good"
            for scan in scans
            if scan.role == "validation" and scan.sha256 in trained
        ]


@dataclass(frozen=True, eq=False)
class Start:
    """A detector to start from, once it was found to fit.

    Attributes:
        origin: What is told of it.
        weights: What it has learnt.
        detector: Itself.
        notes: In which ways it saw its scans otherwise.
    """

    origin: Origin
    weights: InitialWeights
    detector: Detector
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        init: Detector | str | Path | None,
        settings: FitSettings,
        recipe: str,
        *,
        shape: Sequence[int] | None = None,
        contrasts: Sequence[str] | None = None,
    ) -> Start | None:
        """Return where a training starts; None where nothing was given.

        Args:
            init: A detector or its folder.
            settings: Of the training.
            recipe: Of the training.
            shape: Of its samples; None: follows from the contrasts, or is not known yet.
            contrasts: Of its scans; None: not known yet, or they have none.

        Raises:
            DetectorError: There is no detector in the folder, or it is damaged.
            SettingsError: Its weights are none that this training could start from.
        """
        if init is None:
            return None
        if isinstance(init, str | Path):
            from mednovelty.detector import Detector

            init = Detector.load(init)
        origin = Origin.of(init)
        _check(init, _name(init, origin.sha256), settings, recipe, shape, contrasts)
        tensors = {name: value.detach() for name, value in init.model.state_dict().items()}
        return cls(
            origin,
            InitialWeights(origin.sha256, tensors, origin.words),
            init,
            _told_of_views(origin, init, settings),
        )

    def check_gathered(self, contrasts: Sequence[str]) -> None:
        """Raise where scans, once read, have other contrasts: those in memory do not tell before."""
        if tuple(contrasts) != self.detector.contrasts:
            raise _refusal(_name(self.detector, self.origin.sha256), "contrasts", self.detector.contrasts,
                           contrasts)  # fmt: skip

    def told(self, scans: Sequence[SeenScan]) -> tuple[str, ...]:
        """Return notes for a detector that started here and has seen some scans."""
        return (self.origin.words, *self.notes, *self.origin.held_out_after_all(scans))


def _told_of_views(origin: Origin, init: Detector, settings: FitSettings) -> tuple[str, ...]:
    """Return a note where what the network saw was made in another way."""
    names = [name for name in PREPROCESSING if getattr(init.settings, name) != getattr(settings, name)]
    views = [getattr(make_view(each), "settings", None) for each in (init.settings, settings)]
    names += ["view_settings"] if views[0] != views[1] else []
    if not names:
        return ()
    return (
        f"{origin.sha256[:SHOWN]}, which training started from, has other {' and '.join(names)}: its network "
        "has learnt from samples that look otherwise",
    )


def _name(detector: Detector, sha256: str) -> str:
    return f"init: the {detector.settings.method} detector {sha256[:SHOWN]}"


def _refusal(name: str, what: str, there: Any, here: Any) -> SettingsError:
    words = [", ".join(map(str, value)) if not isinstance(value, str) else value for value in (there, here)]
    return SettingsError(
        f"{name} has another {what} ({words[0] or 'none'} there, {words[1] or 'none'} here), so that its "
        f"weights are no start for this training; start from a detector with the same {what}, or from none",
        code=f"init.{what.split()[-1]}",
    )


def _check(
    detector: Detector,
    name: str,
    settings: FitSettings,
    recipe: str,
    shape: Sequence[int] | None,
    contrasts: Sequence[str] | None,
) -> None:
    """Raise where a detector's weights are no start."""
    for what, there, here in (
        ("method", detector.settings.method, settings.method),
        ("recipe", detector.recipe, recipe),
    ):
        if there != here:
            raise _refusal(name, what, there, here)
    if next(detector.model.parameters(), None) is None:
        raise SettingsError(
            f"{name} has no trained weights: its model is fitted at once, without steps; start from none",
            code="init.weights",
        )
    if contrasts is not None and tuple(contrasts) != detector.contrasts:
        raise _refusal(name, "contrasts", detector.contrasts, contrasts)
    if shape is None and (detector.contrasts or detector.scheme is not None):
        shape = make_view(settings).shape(detector.shape[0])
    if shape is not None and tuple(shape) != detector.shape:
        raise _refusal(name, "shape", detector.shape, shape)
    _check_networks(detector, name, settings)


def _check_networks(detector: Detector, name: str, settings: FitSettings) -> None:
    """Raise where the network of one of the candidates has other tensors."""
    methods = make_candidates(settings)
    for number, method in enumerate(methods):
        with torch.device("meta"):  # No memory is taken.
            sketch = method.build(detector.shape)
        of = f" of candidates.{number}" if len(methods) > 1 else ""
        keeps = tuple(getattr(method, "keeps_own", ()))
        for words in _differences(detector.model.state_dict(), sketch.state_dict(), keeps):
            raise SettingsError(
                f"{name} has another network than that{of}: {words}; give the same settings of the method "
                "(they stand in its detector.json), or start from no detector",
                code="init.network",
            )


def _differences(
    there: Mapping[str, Tensor], here: Mapping[str, Tensor], keeps: tuple[str, ...]
) -> Iterator[str]:
    for key in {**here, **there}:
        if key.startswith(keeps):
            continue
        shown = [f"{tuple(state[key].shape)}" if key in state else "missing" for state in (there, here)]
        if shown[0] != shown[1]:
            yield f"{key} is {shown[0]} there and {shown[1]} here"


__all__ = ["Origin", "Start"]
