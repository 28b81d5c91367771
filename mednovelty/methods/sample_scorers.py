"""What scorers of samples share: they hold a model, and some a reference; a ``Batch`` does the rest."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from mednovelty.capabilities import PROBABILISTIC, check_model
from mednovelty.protocols import Autoencoder
from mednovelty.reference import Reference


class SampleScorer:
    """Scores each sample by what a model makes of it.

    Args:
        model: Trained, in evaluation mode.

    Raises:
        SettingsError: The model does not have what the score ``asks`` for.
    """

    level: ClassVar[Literal["sample"]] = "sample"
    needs: ClassVar[tuple[str, ...]] = ("model",)
    asks: ClassVar[tuple[str, ...]] = PROBABILISTIC
    """What it asks of the model, see ``mednovelty.capabilities``; nothing where means are enough."""
    reference_parts: ClassVar[tuple[str, ...]] = ()
    draws_from_decoder: ClassVar[bool] = False
    """Whether it asks a batch for its ``decoder_noise``: then it is computed before those that do not."""

    def __init__(self, model: Any) -> None:
        check_model(type(self).__name__, self.asks, model)
        self.model = model


class ReferenceScorer(SampleScorer):
    """Scores each sample by what a model makes of it and of the normals.

    Args:
        model: Trained, in evaluation mode.
        reference: What that model makes of the normals; it holds at least ``reference_parts``.
    """

    needs: ClassVar[tuple[str, ...]] = ("model", "reference")

    def __init__(self, model: Autoencoder, reference: Reference) -> None:
        super().__init__(model)
        self.reference = reference
