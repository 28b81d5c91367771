"""What an explanation is: a number for each input of a sample, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Relevance:
    """How much each input of some samples has to do with their scores.

    Attributes:
        values: ``(B, C, *space)``, ``(B, C)`` of voxels. Of a rule that conserves in the score's unit, and
            they add up to the score; of SmoothGrad in the score's unit per unit of x.
        score: ``(B,)``, what is explained; of a score that is a map, its sum.
        constant: ``(B,)``: the part of the score that no input has to do with, as the height of a kernel.
        rule: In words, how the values were found.
        conserves: Whether the rule promises that values and constant add up to the score.
    """

    values: Tensor
    score: Tensor
    constant: Tensor
    rule: str
    conserves: bool

    @property
    def unassigned(self) -> Tensor:
        """``(B,)``: what is missing in the sum of values and constant, such as what biases have kept."""
        return self.score - self.constant - self.values.flatten(1).sum(1)


__all__ = ["Relevance"]
