"""What a cell's method was shown that no label-free one is: known anomalies, outliers, classes, the test."""

from __future__ import annotations

from mednovelty.benchmarks.cell_files import Record
from mednovelty.benchmarks.plan import Plan
from mednovelty.benchmarks.published import Published

KNOWN = "semi-supervised"
OUTLIERS = "outliers"
CLASSES = "class labels"
TEST = "labels of the test"


def shown(plan: Plan, record: Record) -> str:
    """Return what a method was shown, in words; empty where it was shown no label and no outlier.

    Args:
        plan: Of the protocol: it says which methods learn from known anomalies and from classes, if there
            are any; those of a set may be told beside methods that cannot use them.
        record: Of a cell of the method: it says what there was.
    """
    method = record.cell.method
    found = [KNOWN] if record.told.get("known_anomalies") and method in plan.learn_from_anomalies else []
    found += [OUTLIERS] if record.told.get("outliers") else []
    found += [CLASSES] if record.settings.get("labels") and method in plan.learn_from_classes else []
    found += [TEST] if method in plan.peeking else []
    return ", ".join(found)


def paper_was_shown(plan: Plan, row: Published) -> bool:
    """Return whether the paper's row is of a method that was shown labels or outliers.

    Args:
        plan: Of the protocol.
        row: Of the paper.
    """
    # Of sets out of distribution, those beside are the test.
    exposed = row.method in plan.beside and not plan.outside
    return bool(row.shown) or exposed or row.method in (*plan.peeking, *plan.learn_from_anomalies)


__all__ = ["paper_was_shown", "shown"]
