"""Fitted contexts as tensors, to be kept in a detector's folder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.methods.cvdd import ContextVectors
from mednovelty.methods.cvdd_settings import ContextSettings
from mednovelty.methods.cvdd_training import CrossFitted


class KeptContexts(nn.Module):
    """Fitted contexts as buffers, whose sizes follow from the settings; steps of a VAE do not move them.

    Args:
        width: d, of a bag's members.
        settings: Of the contexts.
        most: As many normals have room.
    """

    inner: Tensor
    outer: Tensor
    vectors: Tensor
    normals: Tensor
    part_of: Tensor
    counts: Tensor

    def __init__(self, width: int, settings: ContextSettings, most: int) -> None:
        super().__init__()
        self.width, self.settings = width, settings
        networks, heads = 1 + settings.folds, settings.contexts
        self.register_buffer("inner", torch.zeros(networks, width, settings.attention))
        self.register_buffer("outer", torch.zeros(networks, settings.attention, heads))
        self.register_buffer("vectors", torch.zeros(networks, heads, width))
        self.register_buffer("normals", torch.zeros(most, heads, dtype=torch.float64))
        self.register_buffer("part_of", torch.zeros(most, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))

    @torch.no_grad()
    def keep(self, fitted: CrossFitted) -> None:
        """Copy what was fitted into the buffers."""
        for i, network in enumerate((fitted.whole, *fitted.parts)):
            self.inner[i], self.outer[i] = network.attention.inner, network.attention.outer
            self.vectors[i] = network.contexts
        n = len(fitted.normals)
        self.normals[:n], self.part_of[:n] = fitted.normals, fitted.part_of
        self.counts.copy_(torch.tensor([1 + len(fitted.parts), n]))

    def fitted(self) -> CrossFitted:
        """Return what was kept, on the processor.

        Raises:
            SettingsError: Nothing was.
        """
        networks, n = self.counts.tolist()
        if not 1 <= networks <= len(self.vectors) or not 0 <= n <= len(self.normals):
            raise SettingsError(f"no contexts were learnt: {networks} networks and {n} normals are kept")
        whole, *parts = (self._network(i) for i in range(networks))
        part_of = self.part_of[:n].cpu()
        if n and not 0 <= int(part_of.min()) <= int(part_of.max()) < len(parts):
            raise SettingsError(f"contexts: normals belong to parts that are not there, of {len(parts)}")
        return CrossFitted(whole, tuple(parts), part_of, self.normals[:n].cpu())

    def _network(self, i: int) -> ContextVectors:
        network = ContextVectors(self.width, self.settings)
        with torch.no_grad():
            network.attention.inner.copy_(self.inner[i])
            network.attention.outer.copy_(self.outer[i])
            network.contexts.copy_(self.vectors[i])
        return network.requires_grad_(False)


__all__ = ["KeptContexts"]
