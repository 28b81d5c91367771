"""A moving average of weights, for validation to judge and to keep in place of the last step's.

    average_0 = the start
    average_n = decay * average_(n-1) + (1 - decay) * weights_n        after each step n

It is torch's (``torch.optim.swa_utils.get_ema_multi_avg_fn``), over all that a model keeps: its weights, and
its buffers, such as the running statistics of batch norms. Whole numbers are counts and indices, whose mean
is none; they are the model's. ``AveragedModel`` is not used: it is a copy, and what a method finds out or
measures on the model while it validates, such as a radius, would be lost to the model that is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average so far; what it is made of is its start.

    Args:
        tensors: The model's ``state_dict`` at the start, or an average that was kept.
        decay: Between 0 and 1: 0.99 remembers about 100 steps.

    Attributes:
        tensors: By the names of the model's ``state_dict``.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self.tensors = _copied(tensors)
        self._update = get_ema_multi_avg_fn(decay)

    def add(self, model: nn.Module) -> None:
        """Take a step's weights into the average."""
        now = model.state_dict()
        averaged = [name for name, value in self.tensors.items() if value.is_floating_point()]
        self._update([self.tensors[name] for name in averaged], [now[name] for name in averaged], None)
        for name in self.tensors.keys() - set(averaged):
            self.tensors[name].copy_(now[name])

    @contextmanager
    def within(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights, and its own again afterwards.

        What is written into the model meanwhile stays, in the model and in the average.
        """
        own = _copied(model.state_dict())
        model.load_state_dict(self.tensors)
        try:
            yield
        finally:
            for name, value in model.state_dict().items():
                if not torch.equal(value, self.tensors[name]):
                    self.tensors[name].copy_(value)
                    own[name] = value.clone()
            model.load_state_dict(own)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


__all__ = ["WeightAverage"]
