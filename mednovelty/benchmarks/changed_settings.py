"""What of a cell's settings is not the protocol's own: that of its TOML file for that method and data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mednovelty.benchmarks.cell_files import Record
from mednovelty.benchmarks.plan import Plan

ALL = ("images", "test_images")
"""Settings whose 0 means all there are."""


class Change(NamedTuple):
    """A setting, by the path of its name, that is another than the protocol's."""

    name: str
    ours: Any
    protocols: Any

    @property
    def words(self) -> str:
        """As ``epochs=1 (6)``, the protocol's in brackets."""
        return f"{self.name}={_said(self.name, self.ours)} ({_said(self.name, self.protocols)})"


def changes(plan: Plan, record: Record) -> tuple[Change, ...]:
    """Return the settings of a cell that are not the protocol's own, in their order.

    What a sweep or an oracle varies is left out: the variant has it. A setting that the protocol no longer
    has counts as changed; one that the record, of an older version, lacks does not.

    Args:
        plan: Of the protocol.
        record: Of the cell.
    """
    cell = record.cell
    own = _flat(plan.settings_for(cell.dataset, cell.method, {}))
    varied = {part.partition("=")[0].strip() for part in cell.variant.split(",")}
    return tuple(
        Change(name, value, own.get(name))
        for name, value in _flat(record.settings).items()
        if name not in varied and (name not in own or own[name] != value)
    )


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    # As a record has it, which went through JSON: lists for tuples.
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def _said(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name in ALL and value == 0:
        return "all"
    return value if isinstance(value, str) and value else json.dumps(value, default=str)


__all__ = ["Change", "changes"]
