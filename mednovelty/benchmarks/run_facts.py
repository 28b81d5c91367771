"""What ``run.json`` tells of a run of a benchmark."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mednovelty.benchmarks.cell_files import Record, versions
from mednovelty.benchmarks.comparison import rows_of
from mednovelty.benchmarks.plan import Plan


def run_facts(
    plan: Plan,
    oracle: bool,
    records: Sequence[Record],
    failures: Sequence[tuple[str, str]],
    exit_code: int,
    *,
    swept: bool = False,
) -> dict[str, Any]:
    """Return what ``run.json`` tells; ``swept``: each variant is a row."""
    rows = [
        {
            **dict(zip(("dataset", "metric", "method", "score"), row.key, strict=True)),
            "paper_name": row.name,
            "variant": row.variant,
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
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        "cells": {record.cell.name: _cell_facts(record) for record in records},
        "failures": [{"cell": name, "message": message} for name, message in failures],
        "rows": rows,
        "exit_code": exit_code,
    }


def _cell_facts(record: Record) -> Mapping[str, Any]:
    return {"seconds": record.seconds, "device": record.device, "settings_sha256": record.settings_sha256,
            **record.told}  # fmt: skip


__all__ = ["run_facts"]
