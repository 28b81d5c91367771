"""Context vector data description: what bags of vectors have in common, seen in several contexts.

Ruff, "Deep One-Class Learning", 2021, section 3.2. A bag H has members h_1 .. h_l in R^d: the words of a
report, or the latents of a scan's voxels. r heads of self-attention, and a context vector for each:

    A = softmax(tanh(H W1) W2)                                   weights of the members    Eq. (3.2)
    m_k = sum_t a_kt h_t                                         the bag as head k sees it Eq. (3.3)
    d(u, v) = (1 - cos(u, v)) / 2                                                          Eq. (3.6)
    min mean_i sum_k sigma_k d(c_k, m_k) + penalty ||C'C - I||^2                           Eq. (3.9)
    sigma = softmax_k(-alpha d(c_k, m_k))                        alpha rises from 0        Eq. (3.11)
    s_k = d(c_k, m_k)                                            contextual score          Eq. (3.12)
    s = mean_k s_k                                               overall score             Eq. (3.13)

The released code lets padding take part in the softmax and in the sum, so that a bag's score depends on the
longest bag beside it; here padding has no weight. It also has the mean over the r x r entries for Eq. (3.8),
r^2 times less than the thesis: ``penalty_is="mean"``.

Since the weights of a head sum to 1, a score is a mean over members that can be told member by member:

    s_k = sum_t a_kt (1 - <c_k, h_t> / (|c_k| |m_k|)) / 2
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize

from mednovelty.methods.cvdd_settings import ContextSettings
from mednovelty.nn.attention import SelfAttention
from mednovelty.papers import equation

STAGES = {"logarithmic": (0.0, 1e-4, 1e-3, 1e-2, 1e-1), "soft": (0.0,) * 5, "hard": (0.0, *(100.0,) * 4)}
"""alpha in each fifth of the training; the first explores all contexts alike."""


@equation("ruff2021_thesis", "Eq. (3.6)")
def cosine_distance(u: Tensor, v: Tensor) -> Tensor:
    """Return half of one minus the cosine between vectors of the last axis, in 0 to 1."""
    return 0.5 * (1 - (normalize(u, dim=-1) * normalize(v, dim=-1)).sum(-1))


@equation("ruff2021_thesis", "Eq. (3.11)")
def context_weights(distances: Tensor, alpha: float) -> Tensor:
    """Return ``(B, r)`` weights that sum to 1: all alike at alpha 0, the nearest alone at infinity."""
    return (-alpha * distances).softmax(dim=-1)


@equation("ruff2021_thesis", "Eq. (3.8)")
def orthogonality(contexts: Tensor) -> Tensor:
    """Return how far from orthonormal context vectors are.

    ``||C'C - I||_F^2`` of ``(r, d)`` contexts; 0 exactly where they are orthonormal.
    """
    gram = contexts @ contexts.T
    return (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()


def alpha_in(epoch: int, settings: ContextSettings) -> float:
    """Return alpha in an epoch, counted from 0, as annealed over the fifths of the training."""
    return STAGES[settings.annealing][min(5 * epoch // settings.epochs, 4)]


class ContextVectors(nn.Module):
    """Self-attention and a context vector for each of its heads.

    Args:
        width: d, of a bag's members.
        settings: How many contexts, and how wide the attention is.
    """

    def __init__(self, width: int, settings: ContextSettings) -> None:
        super().__init__()
        self.attention = SelfAttention(width, settings.attention, settings.contexts)
        self.contexts = nn.Parameter(torch.zeros(settings.contexts, width))

    @equation("ruff2021_thesis", "Eq. (3.3)")
    def embed(self, members: Tensor, present: Tensor) -> Tensor:
        """Return each bag as its heads see it, ``(B, r, d)``; arguments as of ``SelfAttention``."""
        return self.attention(members, present).transpose(1, 2) @ members

    @equation("ruff2021_thesis", "Eq. (3.12)")
    def distances(self, members: Tensor, present: Tensor) -> Tensor:
        """Return the contextual scores of each bag, ``(B, r)`` in 0 to 1."""
        return cosine_distance(self.embed(members, present), self.contexts)

    @equation("ruff2021_thesis", "Eq. (3.9)")
    def objective(self, members: Tensor, present: Tensor, alpha: float, settings: ContextSettings) -> Tensor:
        """Return what is minimised: weighted distances, averaged over bags, and the penalty."""
        distances = self.distances(members, present)
        weighted = (context_weights(distances, alpha) * distances).sum(1).mean()
        penalty = orthogonality(self.contexts)
        if settings.penalty_is == "mean":
            penalty = penalty / len(self.contexts) ** 2
        return weighted + settings.penalty * penalty

    @torch.no_grad()
    def judged(self, blocks: Iterable[Tensor]) -> Judgement:
        """Return what is found of one bag, however large; it is gone through once, block by block.

        Args:
            blocks: ``(n, d)`` members at a time.
        """
        pooled = _Pooled(len(self.contexts), self.contexts.shape[1])
        unit = normalize(self.contexts.double(), dim=1).cpu()
        logits, aligned = [], []
        for members in blocks:
            logits.append(self.attention.logits(members).cpu())
            pooled.add(logits[-1].double(), members.double().cpu())
            aligned.append((members.double().cpu() @ unit.T).float())
        embedded = pooled.mean
        attention = torch.cat([(part - pooled.log_sum).exp() for part in logits])
        length = embedded.norm(dim=1).clamp_min(1e-12)
        shares = attention * (1 - torch.cat(aligned) / length) / 2
        return Judgement(cosine_distance(embedded, unit), attention.float(), shares.float())


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is found of one bag of n members.

    Attributes:
        contextual: ``(r,)`` float64, ``s_k``.
        attention: ``(n, r)``, the members' weights; each head's sum to 1.
        shares: ``(n, r)``, what each member adds to each contextual score; negative where it lies along it.
    """

    contextual: Tensor
    attention: Tensor
    shares: Tensor

    @property
    @equation("ruff2021_thesis", "Eq. (3.13)")
    def overall(self) -> float:
        """Return the mean of the contextual scores."""
        return self.contextual.mean().item()

    @property
    def nearest(self) -> float:
        """Return the smallest contextual score: of the context in which the bag is the most normal."""
        return self.contextual.min().item()


class _Pooled:
    """Means weighted by a softmax whose members come block by block."""

    def __init__(self, heads: int, width: int) -> None:
        self._highest = torch.full((heads,), -torch.inf, dtype=torch.float64)
        self._total = torch.zeros(heads, dtype=torch.float64)
        self._sums = torch.zeros(heads, width, dtype=torch.float64)

    def add(self, logits: Tensor, members: Tensor) -> None:
        """Take in ``(n, r)`` logits and ``(n, d)`` members."""
        highest = torch.maximum(self._highest, logits.amax(0))
        weights, before = (logits - highest).exp(), (self._highest - highest).exp()
        self._total = self._total * before + weights.sum(0)
        self._sums = self._sums * before[:, None] + weights.T @ members
        self._highest = highest

    @property
    def mean(self) -> Tensor:
        return self._sums / self._total[:, None]

    @property
    def log_sum(self) -> Tensor:
        return self._highest + self._total.log()


def initialised(width: int, settings: ContextSettings, generator: Generator) -> ContextVectors:
    """Return a network whose attention is drawn; its contexts are still to be set."""
    network = ContextVectors(width, settings)
    network.attention.initialise(generator)
    return network


__all__ = [
    "ContextVectors",
    "Judgement",
    "alpha_in",
    "context_weights",
    "cosine_distance",
    "initialised",
    "orthogonality",
]
