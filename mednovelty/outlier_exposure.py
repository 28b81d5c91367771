"""Normal samples whose batches are mixed with outliers: outlier exposure.

Ruff, "Deep One-Class Learning", 2021, section 2.3.3: a method that learns from labelled anomalies is shown
samples from anywhere else, such as photographs, as many in each batch as normal ones. The released code of
hypersphere classification does so; that of FCDD replaces each sample with a probability of .5.

An epoch goes through the normals once. Outliers are drawn without replacement until all were seen, in an
order of their own in each epoch; all that is told of a table but its batches is told of its normals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.errors import SettingsError
from mednovelty.voxel_cache import VoxelCache


class Exposed(VoxelCache):
    """A table of normals whose batches have outliers in them.

    Args:
        own: The normals, and whatever is labelled among them; nothing is copied.
        outliers: Rows as wide as those, each with its label.
        share: Of a batch, how much are outliers, between 0 and 1.
        repeated: Whether these are no outliers, but rows of ``own`` that are to be seen more often.

    Attributes:
        own: As given.
        outliers: As given.

    Raises:
        SettingsError: Rows of other widths.
    """

    def __init__(
        self, own: VoxelCache, outliers: VoxelCache, share: float = 0.5, *, repeated: bool = False
    ) -> None:
        super().__init__(own.channels, shape=own.shape)
        if outliers.channels != own.channels:
            raise SettingsError(
                f"outliers have {outliers.channels} values a sample, and normals {own.channels}"
            )
        self._table, self._on_disk = own._read(), own._on_disk
        self._rows, self._before, self.scans = own._rows, own._before, own.scans
        self.places = own.places
        self.acquisition = own.acquisition
        self.own, self.outliers, self.share, self.repeated = own, outliers, share, repeated

    @property
    def n_outliers(self) -> int:
        """How many outliers there are; rows that are repeated are none."""
        return 0 if self.repeated or self.outliers is None else len(self.outliers)

    def batches(self, batch_size: int, generator: Generator, *, limit: int | None = None) -> Iterator[Tensor]:
        """Yield ``(b, C)`` batches of normals, each once and in random order, with outliers after them.

        Args:
            batch_size: The largest batch, outliers included; at least 2.
            generator: Decides the order, on the CPU.
            limit: Stop after about this many normals.
        """
        most = min(max(round(self.share * batch_size), 1), batch_size - 1)
        per_normal = most / (batch_size - most)
        draw, due = _Drawn(self.outliers, generator), 0.0
        for normals in super().batches(batch_size - most, generator, limit=limit):
            due += per_normal * len(normals)
            some = min(max(round(due), 1), most)
            due -= some
            yield torch.cat([normals, draw(some)])

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON types that tell this table from another, and its outliers from others."""
        assert self.outliers is not None
        return super().fingerprint() | {"outliers": self.outliers.fingerprint(), "share": self.share}


def with_more_labelled(rows: VoxelCache, share: float) -> VoxelCache:
    """Return rows that end with a label, their anomalies repeated until they are a share of each batch.

    Args:
        rows: Labelled; without an anomaly they are returned as they are.
        share: Between 0 and 1.
    """
    places = np.flatnonzero(rows.array()[:, -1] < 0)
    if not len(places):
        return rows
    table = VoxelCache(rows.channels, shape=rows.shape)
    table.append("labelled anomalies", rows.take(places))
    return Exposed(rows, table, share, repeated=True)


def count_abnormal(rows: VoxelCache, values: int) -> int:
    """Return how many rows end with the label -1.

    Args:
        rows: Outliers that these are mixed with are not counted.
        values: Of a sample; wider rows end with a label.
    """
    if rows.channels <= values:
        return 0
    return sum(int((block[:, -1] < 0).sum()) for block in rows.blocks())


def can_choose(training: VoxelCache, validation: VoxelCache, values: int) -> bool:
    """Return whether held-out samples have anomalies, or none are trained on: arguments as above."""
    if count_abnormal(validation, values):
        return True
    return not training.n_outliers and not count_abnormal(training, values)


UNJUDGED = "no held-out sample is an anomaly, so the last epoch was kept, not one chosen by normals alone"


class _Drawn:
    """Rows of a table in random order, from the start again when all were drawn."""

    def __init__(self, table: VoxelCache | None, generator: Generator) -> None:
        assert table is not None
        self._table, self._generator = table, generator
        self._left = torch.empty(0, dtype=torch.long)

    def __call__(self, count: int) -> Tensor:
        """Return ``(count, C)`` rows."""
        while len(self._left) < count:
            again = torch.randperm(len(self._table), generator=self._generator)
            self._left = torch.cat([self._left, again])
        chosen, self._left = self._left[:count], self._left[count:]
        return torch.from_numpy(self._table.take(chosen.numpy()))


__all__ = ["UNJUDGED", "Exposed", "can_choose", "count_abnormal", "with_more_labelled"]
