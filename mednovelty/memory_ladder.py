"""When a device's memory runs out: smaller batches, down to one sample, and then the processor.

Only ``torch.OutOfMemoryError`` makes a step, and every step is logged and told. A step that was made stays
made for the rest of a scan.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger("mednovelty")

Score = Callable[..., Mapping[str, Tensor]]
"""Takes tensors of B rows, or None in their place, and returns tensors of B rows by name."""


class Ladder:
    """Scores batches, in parts where they do not fit into memory.

    Args:
        score: Scores a batch. No row's scores may depend on another row.
        on_processor: Makes what does the same on the processor; None: there is no such step.
        name: What is scored, for messages.
        told: Told each step in words.
    """

    def __init__(
        self,
        score: Score,
        *,
        on_processor: Callable[[], Score] | None = None,
        name: str = "scoring",
        told: Callable[[str], Any] = lambda words: None,
    ) -> None:
        self._score, self._on_processor = score, on_processor
        self._name, self._told = name, told
        self._most: int | None = None

    def __call__(self, *rows: Tensor | None) -> dict[str, Tensor]:
        """Return scores by name, ``(B, ...)``, of tensors with B rows; the first is no None.

        Raises:
            torch.OutOfMemoryError: A single sample does not fit, and there is no step left.
        """
        assert rows[0] is not None
        count, done = len(rows[0]), 0
        parts: list[Mapping[str, Tensor]] = []
        while done < count or not parts:
            stop = min(done + (self._most or count), count)
            found = self._attempt([None if tensor is None else tensor[done:stop] for tensor in rows])
            # Outside of the handler: the error holds on to everything that its frames hold.
            if found is None:
                self._step_down(stop - done)
            else:
                parts.append(found)
                done = stop
        if len(parts) == 1:
            return dict(parts[0])
        # Parts may lie on two devices, when the last step was made between them.
        return {
            name: torch.cat([part[name].to(last.device) for part in parts])
            for name, last in parts[-1].items()
        }

    def _attempt(self, part: list[Tensor | None]) -> Mapping[str, Tensor] | None:
        """Return the scores of a part; None where memory ran out and there is a step left."""
        try:
            return self._score(*part)
        except torch.OutOfMemoryError:
            assert part[0] is not None
            if len(part[0]) <= 1 and self._on_processor is None:
                raise
            return None

    def _step_down(self, rows: int) -> None:
        if rows > 1:
            self._most = rows // 2
            how = f"{rows} samples at a time are too many; going on with {self._most}"
        else:
            assert self._on_processor is not None
            # What was made for the device goes before anything else is made.
            make, self._on_processor, self._most = self._on_processor, None, None
            del self._score
            self._score = make()
            how = "a single sample is too large; the processor scores the rest, in float32"
        report(f"{self._name}: out of memory: {how}", self._told)
        torch.cuda.empty_cache()


def report(words: str, told: Callable[[str], Any]) -> None:
    """Log a step as a warning and tell it."""
    log.warning("%s", words)
    told(words)


def on_processor(model: Any) -> Any:
    """Return a copy of a model on the processor; no memory of its device is taken.

    Args:
        model: An ``nn.Module``, whose tensors are parameters and buffers, or else anything that a deep copy
            brings along.
    """
    if not isinstance(model, nn.Module):
        return deepcopy(model)
    # Whatever a deep copy finds in its memo it does not copy.
    memo: dict[int, Any] = {id(tensor): tensor.detach().cpu().clone() for tensor in model.buffers()}
    for weight in model.parameters():
        memo[id(weight)] = nn.Parameter(weight.detach().cpu().clone(), requires_grad=weight.requires_grad)
    return deepcopy(model, memo)


__all__ = ["Ladder", "on_processor", "report"]
