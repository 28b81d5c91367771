"""Multi-head self-attention over a bag of vectors: each head weighs all members, by weights that sum to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from mednovelty.papers import equation


@equation("ruff2021_thesis", "Eq. (3.2)")
class SelfAttention(nn.Module):
    """Multi-head self-attention, ``A = softmax(tanh(H W1) W2)``, over the members of each bag; no biases.

    Args:
        width: d, of a member.
        hidden: d_a, of the layer between.
        heads: r.
    """

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.zeros(width, hidden))
        self.outer = nn.Parameter(torch.zeros(hidden, heads))

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """Draw both weights, uniform within one over the root of the inputs, as torch's linear layers do."""
        for weight in (self.inner, self.outer):
            drawn = torch.rand(weight.shape, generator=generator)
            weight.copy_((2 * drawn - 1) / math.sqrt(len(weight)))

    def logits(self, members: Tensor) -> Tensor:
        """Return ``(..., r)`` for ``(..., d)`` members; of one member they depend on no other."""
        return torch.tanh(members @ self.inner) @ self.outer

    def forward(self, members: Tensor, present: Tensor) -> Tensor:
        """Return ``(B, T, r)`` weights that sum to 1 over the members of each bag.

        Args:
            members: ``(B, T, d)``, bags padded to one length.
            present: ``(B, T)`` bool; what is not present gets the weight 0. Each bag has a member.
        """
        logits = self.logits(members).masked_fill(~present[..., None], -math.inf)
        return logits.softmax(dim=1)


def padded(bags: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return bags, ``(n_i, d)`` each, as ``(B, T, d)`` filled with zeros, and ``(B, T)`` bool: what is there.

    Examples:
        >>> members, present = padded([torch.ones(2, 3), torch.ones(1, 3)])
        >>> members.shape, present.tolist()
        (torch.Size([2, 2, 3]), [[True, True], [True, False]])
    """
    members = nn.utils.rnn.pad_sequence(list(bags), batch_first=True)
    sizes = torch.tensor([len(bag) for bag in bags], device=members.device)
    return members, torch.arange(members.shape[1], device=members.device) < sizes[:, None]


__all__ = ["SelfAttention", "padded"]
