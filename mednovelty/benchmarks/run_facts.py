"""What ``run.json`` tells of a run of a benchmark."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from mednovelty.benchmarks.cell_files import Record, versions
from mednovelty.benchmarks.changed_settings import Change, changes
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.table_rows import rows_of

PLACES = ("data", "output", "resume", "overwrite", "as_json")
"""What a command is told of where it reads and writes: no choice that a number depends on."""


def choices_of(request: Any) -> dict[str, Any]:
    """Return what a command chose, by option, of what numbers depend on; without folders."""
    chosen = {each.name: getattr(request, each.name) for each in fields(request) if each.name not in PLACES}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def run_facts(  # noqa: PLR0913 - all that a run is
    plan: Plan,
    oracle: bool,
    records: Sequence[Record],
    failures: Sequence[tuple[str, str]],
    exit_code: int,
    *,
    swept: bool = False,
    choices: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what ``run.json`` tells.

    Args:
        plan: Of the protocol.
        oracle: Whether labels chose.
        records: Of the cells that are done.
        failures: Names and messages of those that failed.
        exit_code: Of the command.
        swept: Whether each variant is a row.
        choices: Of the command, by option.
    """
    rows = [
        {
            **dict(zip(("dataset", "metric", "method", "score"), row.key, strict=True)),
            "paper_name": row.name,
            "variant": row.variant,
            "changed": _changed(row.changed),
            "seeds": row.seeds,
            "shown": row.shown,
            "incomplete": row.incomplete,
            "entries": {label: asdict(entry) | {"difference": entry.difference, "short": entry.short}
                        for label, entry in row.entries.items()},
        }
        for row in rows_of(plan, records, swept=swept)
    ]  # fmt: skip
    return {
        "benchmark": plan.name,
        "paper": plan.paper,
        "tables": plan.tables,
        "oracle": oracle,
        "choices": dict(choices or {}),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        "settings": _settings(plan, records),
        "cells": {record.cell.name: _cell_facts(record) for record in records},
        "failures": [{"cell": name, "message": message} for name, message in failures],
        "rows": rows,
        "exit_code": exit_code,
    }


def _settings(plan: Plan, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the settings of cells, once for all classes and seeds that have the same."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        cell = record.cell
        key = repr((cell.dataset, cell.method, cell.variant, record.settings))
        changed = _changed(changes(plan, record))
        told = {"dataset": cell.dataset, "method": cell.method, "variant": cell.variant,
                "settings": record.settings, "changed": changed, "cells": 0}  # fmt: skip
        found.setdefault(key, told)["cells"] += 1
    return list(found.values())


def _changed(found: Sequence[Change]) -> dict[str, dict[str, Any]]:
    return {change.name: {"ours": change.ours, "protocol": change.protocols} for change in found}


def _cell_facts(record: Record) -> Mapping[str, Any]:
    return {"seconds": record.seconds, "device": record.device, "settings_sha256": record.settings_sha256,
            **record.told}  # fmt: skip


__all__ = ["choices_of", "run_facts"]
