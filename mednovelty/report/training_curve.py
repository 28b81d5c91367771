"""A training's curve in a page: held-out and training loss, and which epoch was kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mednovelty.curve import TrainingRecord
from mednovelty.live_curve import ends_of
from mednovelty.report.charts import Chart, Series, chart_svg

if TYPE_CHECKING:
    from markupsafe import Markup


def curve_chart(record: TrainingRecord, summary: Mapping[str, Any] | None = None) -> Markup:
    """Return the curve of at least one epoch.

    Args:
        record: Epoch 0 first.
        summary: What the method says of its model; where it tells the linear model beside it, so does the
            chart.
    """
    losses, best = record.losses, record.best
    trained = [(row.epoch, row.train_loss) for row in record.rows if row.train_loss is not None]
    low, high = ends_of([*losses, *(loss for _, loss in trained)])
    series = [
        Series("training", [epoch for epoch, _ in trained], [loss for _, loss in trained], 1, dashed=True),
        Series("held out", range(len(losses)), losses, 0),
        Series(f"epoch {best.epoch}, kept", [best.epoch], [losses[best.epoch]], 2, "points"),
    ]
    linear = _linear(record, summary or {})
    if linear is not None:
        low, high = min(low, linear), max(high, linear)
        ends = [0, max(len(losses) - 1, 1)]
        series.append(Series("probabilistic PCA, a linear model", ends, [linear, linear], 6, dashed=True))
    # The ends of the axis must not lie on the line.
    room = 0.04 * (high - low)
    chart = Chart(
        alt=f"Loss over {len(losses) - 1} epochs: held out {losses[0]:.4g} at the start, "
        f"{losses[best.epoch]:.4g} in epoch {best.epoch}, which was kept, {losses[-1]:.4g} at the end",
        x_label="epoch",
        y_label="loss (nats)" if _in_nats(record) else "loss",
        series=[one for one in series if len(one.x)],
        x_range=(0, max(len(losses) - 1, 1)),
        y_range=(low - room, high + room),
    )
    return chart_svg(chart)


def _in_nats(record: TrainingRecord) -> bool:
    return "elbo" in record.rows[0].validation


def _linear(record: TrainingRecord, summary: Mapping[str, Any]) -> float | None:
    """Return the loss of the linear model, where it and the curve are of one unit."""
    pca = summary.get("pca")
    return -float(pca) if _in_nats(record) and isinstance(pca, int | float) else None


__all__ = ["curve_chart"]
