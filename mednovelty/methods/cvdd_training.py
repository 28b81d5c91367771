"""Learning context vectors from bags, and judging bags by contexts that never saw them.

The optimisation is that of the released code: Adam, its rate a tenth after two fifths of the epochs, the
gradient's norm clipped, alpha annealed (``cvdd.alpha_in``), contexts started by k-means++ and normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mednovelty.errors import SettingsError
from mednovelty.methods.cvdd import ContextVectors, Judgement, alpha_in, initialised
from mednovelty.methods.cvdd_settings import ContextSettings
from mednovelty.nn.attention import padded
from mednovelty.seeds import generator, stream_seed

STARTING_MEMBERS = 1 << 14
"""Of all bags together, among which centroids are looked for."""


def fit_contexts(bags: Sequence[Tensor], settings: ContextSettings, seed: int) -> ContextVectors:
    """Return attention and contexts learnt from bags of normals, frozen.

    Args:
        bags: ``(n_i, d)`` float32, each with at least one member.
        settings: Of the network and its training.
        seed: Same seed, same bags: same bits.

    Raises:
        SettingsError: There is no bag, or there are fewer members in all than contexts.
    """
    check_bags(bags, settings)
    network = initialised(bags[0].shape[1], settings, generator(seed, "cvdd attention"))
    with torch.no_grad():
        network.contexts.copy_(starting_contexts(bags, settings, seed))
    adam = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    with torch.enable_grad():
        for epoch in range(settings.epochs):
            late = 5 * epoch >= 2 * settings.epochs
            adam.param_groups[0]["lr"] = settings.learning_rate * (0.1 if late else 1.0)
            order = generator(seed, "cvdd order", epoch)
            for chosen in torch.randperm(len(bags), generator=order).split(settings.batch):
                members, present = padded([bags[i] for i in chosen.tolist()])
                loss = network.objective(members, present, alpha_in(epoch, settings), settings)
                adam.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
                adam.step()
    return network.eval().requires_grad_(False)


def check_bags(bags: Sequence[Tensor], settings: ContextSettings) -> None:
    """Raise ``SettingsError`` where contexts cannot be learnt from these bags."""
    members = sum(len(bag) for bag in bags)
    if not bags or members < settings.contexts:
        raise SettingsError(
            f"{settings.contexts} contexts cannot be learnt from {len(bags)} bags of {members} members in all"
        )


def starting_contexts(bags: Sequence[Tensor], settings: ContextSettings, seed: int) -> Tensor:
    """Return ``(r, d)`` unit vectors: centroids, k-means started by k-means++, of mean bags or of members."""
    from sklearn.cluster import KMeans

    points = torch.stack([bag.mean(0) for bag in bags])
    # Bags that are alike, as reports of the same words, are fewer points than they are bags.
    if settings.start == "members" or len(points.unique(dim=0)) < settings.contexts:
        points = torch.cat(list(bags))
        drawn = torch.randperm(len(points), generator=generator(seed, "cvdd members"))
        points = points[drawn[:STARTING_MEMBERS]]
    random = stream_seed(seed, "cvdd k-means") % 2**32
    found = KMeans(settings.contexts, init="k-means++", n_init=10, random_state=random)
    centroids = found.fit(normalize(points, dim=1).double().numpy()).cluster_centers_
    return normalize(torch.from_numpy(centroids), dim=1).float()


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Contexts of all bags, and contexts learnt without each part of them.

    Attributes:
        whole: Learnt from all.
        parts: Learnt without one part each; none where there is a single bag.
        part_of: ``(n,)`` int64, the part of each bag.
        normals: ``(n, r)`` float64, contextual scores of each bag, by contexts that never saw it.
    """

    whole: ContextVectors
    parts: tuple[ContextVectors, ...]
    part_of: Tensor
    normals: Tensor

    def judged(self, blocks: Callable[[], Iterable[Tensor]]) -> Verdict:
        """Return what is found of a bag that no context has seen.

        Args:
            blocks: Gives the bag's ``(n, d)`` members, block by block, whenever it is called.
        """
        own = torch.stack([part.judged(blocks()).contextual for part in self.parts]) if self.parts else None
        return Verdict.of(self.whole.judged(blocks()), own, self)


@dataclass(frozen=True, eq=False)
class Verdict:
    """A bag's scores among those of normals.

    With n normals no p-value is below 1 / (n + 1), and it is that of cross-conformal prediction: the bag and
    each normal are compared as judged by the same contexts, which have seen neither.

    Attributes:
        judgement: By contexts learnt from all normals.
        p_value: Share of normals, the bag itself among them, that are at least as novel overall.
        contextual_p_values: ``(r,)``, the same within each context. Contexts learnt from other bags are
            others: each is that which lies nearest to the context of the whole.
        normals: n.
    """

    judgement: Judgement
    p_value: float
    contextual_p_values: tuple[float, ...]
    normals: int

    @classmethod
    def of(cls, judgement: Judgement, by_parts: Tensor | None, fitted: CrossFitted) -> Verdict:
        """Return it from ``(F, r)`` contextual scores of the bag by the contexts of each part."""
        n, contexts = len(fitted.normals), len(judgement.contextual)
        if by_parts is None or not n:
            return cls(judgement, 1.0, (1.0,) * contexts, 0)
        own = by_parts[fitted.part_of]
        overall = (fitted.normals.mean(1) >= own.mean(1)).sum().item()
        each = (fitted.normals >= own).sum(0)
        return cls(judgement, (1 + overall) / (n + 1), tuple(((1 + each) / (n + 1)).tolist()), n)


def cross_fitted(
    bags: Sequence[Tensor],
    settings: ContextSettings,
    seed: int,
    blocks: Callable[[int], Iterable[Tensor]] | None = None,
) -> CrossFitted:
    """Return contexts of all bags and of all but each part, and what the latter find of what they never saw.

    Args:
        bags: ``(n_i, d)`` members to learn from.
        settings: Of the contexts.
        seed: Of everything random.
        blocks: Gives all members of the bag of a number, where ``bags`` holds a part of them; None: the bag.

    Raises:
        SettingsError: As ``fit_contexts``.
    """
    whole = fit_contexts(bags, settings, seed)
    count = min(settings.folds, len(bags)) if len(bags) > 1 else 0
    part_of = torch.arange(len(bags)) % max(count, 1)
    parts = []
    normals = torch.zeros(len(bags) if count else 0, settings.contexts, dtype=torch.float64)
    for number in range(count):
        rest = [bag for bag, part in zip(bags, part_of.tolist(), strict=True) if part != number]
        parts.append(in_order_of(fit_contexts(rest, settings, seed), whole))
        for i in (part_of == number).nonzero().flatten().tolist():
            normals[i] = parts[-1].judged([bags[i]] if blocks is None else blocks(i)).contextual
    return CrossFitted(whole, tuple(parts), part_of if count else part_of[:0], normals)


@torch.no_grad()
def in_order_of(network: ContextVectors, whole: ContextVectors) -> ContextVectors:
    """Return a network with its heads in the order of another's, each beside the context most alike."""
    from scipy.optimize import linear_sum_assignment

    alike = normalize(whole.contexts, dim=1) @ normalize(network.contexts, dim=1).T
    _, order = linear_sum_assignment(-alike.numpy())
    network.contexts.copy_(network.contexts[order])
    network.attention.outer.copy_(network.attention.outer[:, order])
    return network


__all__ = ["CrossFitted", "Verdict", "cross_fitted", "fit_contexts", "in_order_of", "starting_contexts"]
