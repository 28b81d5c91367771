"""What the model makes of the normals: everything a scorer may compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from mednovelty.errors import SettingsError
from mednovelty.plugins import plugin
from mednovelty.protocols import Neighbours, ProbabilisticAutoencoder

ENCODE_ROWS = 1 << 15


class Reference:
    """The normals as one model sees them; built once, then frozen.

    Args:
        parts: Name to ``(N, D)`` float32: ``input`` (the samples), ``latent_mean`` (E q(z|y)).
        neighbours: The plug-in that searches them.
        drawn_from: How many training voxels the N were drawn from.
    """

    def __init__(self, parts: Mapping[str, Tensor], neighbours: str, drawn_from: int) -> None:
        sizes = {name: len(part) for name, part in parts.items()}
        if len(set(sizes.values())) > 1:
            raise SettingsError(f"the reference's parts must be of one length, got {sizes}")
        self.parts = dict(parts)
        self.neighbours = neighbours
        self.drawn_from = drawn_from
        self._indices: dict[str, Neighbours] = {}

    @classmethod
    def of(
        cls,
        model: ProbabilisticAutoencoder,
        normals: Tensor,
        wanted: Iterable[str],
        *,
        neighbours: str = "exact",
        drawn_from: int | None = None,
    ) -> Reference:
        """Return what a model makes of ``(N, C)`` normals, keeping only the parts that are wanted."""
        wanted = set(wanted)
        unknown = sorted(wanted - {"input", "latent_mean"})
        if unknown:
            raise SettingsError(f"no part of a reference is called {unknown[0]!r}; known: input, latent_mean")
        parts: dict[str, Tensor] = {}
        if "input" in wanted:
            parts["input"] = normals
        if "latent_mean" in wanted:
            with torch.no_grad():
                means = [model.encode(rows).mean for rows in normals.split(ENCODE_ROWS)]
            parts["latent_mean"] = torch.cat(means)
        return cls(parts, neighbours, len(normals) if drawn_from is None else drawn_from)

    def __len__(self) -> int:
        return len(next(iter(self.parts.values()), ()))

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())

    def nearest(self, part: str, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` squared distances to the nearest normals in one part, and their indices.

        Raises:
            SettingsError: The reference was built without that part.
        """
        if part not in self.parts:
            raise SettingsError(
                f"the reference holds {', '.join(self.parts) or 'nothing'}, but not {part!r}; "
                "fit with the scores that need it"
            )
        if part not in self._indices:
            self._indices[part] = plugin("neighbours", self.neighbours)(self.parts[part])
        return self._indices[part].search(queries, k)


def bytes_a_voxel(wanted: Iterable[str], channels: int, latent: int) -> int:
    """Return what one voxel costs in a reference with these parts."""
    width = {"input": channels, "latent_mean": latent}
    return 4 * sum(width[part] for part in set(wanted))
