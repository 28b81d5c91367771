"""The weights of a trained detector, for another training to start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """What a detector's network has learnt.

    Attributes:
        sha256: Of the detector.
        tensors: Weights and buffers, by name.
        words: What is told of the detector.
    """

    sha256: str
    tensors: Mapping[str, Tensor]
    words: str = ""

    def put_into(self, model: nn.Module, keeps_own: Sequence[str] = ()) -> None:
        """Replace all weights and buffers of a model but those that it keeps.

        Args:
            model: Of the same tensors.
            keeps_own: Beginnings of names of what ``Method.start`` has measured and must not be replaced.
        """
        keeps = tuple(keeps_own)
        own = model.state_dict()
        model.load_state_dict(
            {name: own[name] if name.startswith(keeps) else self.tensors[name] for name in own}
        )


__all__ = ["InitialWeights"]
