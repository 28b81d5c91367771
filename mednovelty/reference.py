"""What the model makes of the normals: everything a scorer may compare with.

Parts, ``(N, .)`` float32 each, of N normals y; sigma is a standard deviation:

``input``                 y itself
``latent_mean``           mean of q(z|y)
``latent_sigma``          sigma of q(z|y)
``reconstruction_mean``   mean of p(x | E q(z|y))
``reconstruction_sigma``  sigma of p(x | E q(z|y))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Independent

from mednovelty.errors import SettingsError
from mednovelty.neighbours.bhattacharyya import ExactBhattacharyya
from mednovelty.neighbours.choice import Chosen
from mednovelty.neighbours.density import ExactDensity
from mednovelty.plugins import plugin
from mednovelty.protocols import Autoencoder

ENCODE_ROWS = 1 << 15

Key = tuple[str, str]
"""A search: its kind (``neighbours.choice.KINDS``), and the part or space it is among."""

Space = Literal["latent", "reconstruction"]
"""Where normals are Gaussians: ``<space>_mean`` and ``<space>_sigma``."""


class Reference:
    """The normals as one model sees them; built once, then frozen.

    Args:
        parts: Name to ``(N, D)`` float32; the module's docstring lists them.
        neighbours: The plug-in, an exact one, for Euclidean searches that were not chosen.
        drawn_from: How many training voxels the N were drawn from.
        chosen: How searches are answered, where that was chosen by measuring; others are exact.
    """

    def __init__(
        self,
        parts: Mapping[str, Tensor],
        neighbours: str,
        drawn_from: int,
        chosen: Mapping[Key, Chosen] | None = None,
    ) -> None:
        sizes = {name: len(part) for name, part in parts.items()}
        if len(set(sizes.values())) > 1:
            raise SettingsError(f"the reference's parts must be of one length, got {sizes}")
        self.parts = dict(parts)
        self.neighbours = neighbours
        self.drawn_from = drawn_from
        self.chosen = dict(chosen or {})
        self._searchers: dict[Key, Any] = {key: choice.searcher for key, choice in self.chosen.items()}

    @classmethod
    def of(
        cls,
        model: Autoencoder,
        normals: Tensor,
        wanted: Iterable[str],
        *,
        neighbours: str = "exact",
        drawn_from: int | None = None,
    ) -> Reference:
        """Return what a model makes of ``(N, C)`` normals, keeping only the parts that are wanted.

        Raises:
            SettingsError: There is no such part.
        """
        wanted = set(wanted)
        known = part_widths(0, 0)
        unknown = sorted(wanted - set(known))
        if unknown:
            raise SettingsError(f"no part of a reference is called {unknown[0]!r}; known: {', '.join(known)}")
        with torch.no_grad():
            blocks = [_parts_of(model, rows, wanted) for rows in normals.split(ENCODE_ROWS)]
        parts = {name: torch.cat([block[name] for block in blocks]).float() for name in blocks[0]}
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
        return self._searcher("euclidean", part).search(queries, k)

    def nearest_gaussian(self, space: Space, mean: Tensor, sigma: Tensor) -> Tensor:
        """Return ``(B,)`` Bhattacharyya distances, in nats, to the nearest normal's Gaussian.

        Args:
            space: Where.
            mean: ``(B, D)``.
            sigma: ``(B, D)`` standard deviations.

        Raises:
            SettingsError: The reference was built without that space's parts.
        """
        return self._searcher("bhattacharyya", space).search(mean, sigma, 1)[0][:, 0]

    def log_density(self, space: Space, points: Tensor) -> Tensor:
        """Return ``(B,)`` log of the mean, over the normals, of their Gaussians' densities at points.

        Args:
            space: Where.
            points: ``(B, D)``.

        Raises:
            SettingsError: The reference was built without that space's parts.
        """
        return self._searcher("density", space).log_density(points)

    def vectors(self, key: Key) -> tuple[Tensor, ...]:
        """Return what a search is among: one part, or a space's means and sigmas.

        Raises:
            SettingsError: The reference was built without it.
        """
        kind, place = key
        names = (place,) if kind == "euclidean" else (f"{place}_mean", f"{place}_sigma")
        return tuple(self._part(name) for name in names)

    def _searcher(self, kind: str, place: str) -> Any:
        key = (kind, place)
        if key not in self._searchers:
            exact = {"bhattacharyya": ExactBhattacharyya, "density": ExactDensity}
            make = exact[kind] if kind in exact else plugin("neighbours", self.neighbours)
            self._searchers[key] = make(*self.vectors(key))
        return self._searchers[key]

    def _part(self, name: str) -> Tensor:
        if name not in self.parts:
            raise SettingsError(
                f"the reference holds {', '.join(self.parts) or 'nothing'}, but not {name!r}; "
                "fit with the scores that need it"
            )
        return self.parts[name]


def sigma_of(distribution: Independent) -> Tensor:
    """Return standard deviations, of the shape of the mean.

    ``distribution.stddev`` is the root of a square: two passes over the array, and a range half as wide.
    """
    return distribution.base_dist.stddev


def part_widths(channels: int, latent: int) -> dict[str, int]:
    """Return how wide each part of a reference is, by name."""
    return {
        "input": channels,
        "latent_mean": latent,
        "latent_sigma": latent,
        "reconstruction_mean": channels,
        "reconstruction_sigma": channels,
    }


def bytes_a_voxel(wanted: Iterable[str], channels: int, latent: int) -> int:
    """Return what one voxel costs in a reference with these parts."""
    widths = part_widths(channels, latent)
    return 4 * sum(widths[part] for part in set(wanted))


def latent_size(model: Autoencoder) -> int:
    """Return Z."""
    if hasattr(model, "prior"):
        return int(model.prior.event_shape[0])
    return int(model.latents)  # type: ignore[attr-defined]


def device_of(model: Any) -> torch.device:
    """Return where a model is."""
    if hasattr(model, "prior"):
        return model.prior.mean.device
    # What has no weights is its buffers.
    return next(chain(model.parameters(), model.buffers())).device


def _parts_of(model: Autoencoder, rows: Tensor, wanted: set[str]) -> dict[str, Tensor]:
    parts = {"input": rows}
    if wanted - {"input"}:
        posterior = model.encode(rows)
        parts["latent_mean"] = posterior.mean
        if "latent_sigma" in wanted:
            parts["latent_sigma"] = sigma_of(posterior)
    if wanted & {"reconstruction_mean", "reconstruction_sigma"}:
        likelihood = model.decode(parts["latent_mean"])
        parts["reconstruction_mean"] = likelihood.mean
        if "reconstruction_sigma" in wanted:
            parts["reconstruction_sigma"] = sigma_of(likelihood)
    return {name: part for name, part in parts.items() if name in wanted}
