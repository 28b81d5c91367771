"""What detectors trained on some families of anomalies find of others: a table, and the same as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""By what a detector was trained on, rows of ``family``, ``auroc`` and ``ap``, as its summary tells them."""
CHANCE = 0.5


def blindness_table(found: Found) -> str:
    """Return the table, tab-separated: a row for each detector and family.

    Examples:
        >>> rows = [{"family": "texture", "auroc": 0.5, "ap": 0.02, "trained_on": False}]
        >>> [line.split() for line in blindness_table({"hyperintense": rows}).splitlines()]
        [['trained_on', 'family', 'auroc', 'ap'], ['hyperintense', 'texture', '0.5000', '0.0200']]
    """
    lines = ["trained_on\tfamily\tauroc\tap"]
    for trained, rows in found.items():
        lines += [f"{trained}\t{row['family']}\t{row['auroc']:.4f}\t{row['ap']:.4f}" for row in rows]
    return "\n".join(lines) + "\n"


def blindness_figure(found: Found) -> Figure:
    """Return a picture: a row for each detector, a column for each family, the AUROC of voxels in each cell.

    Below chance is shown as chance: such a detector is blind, and its map must not be turned round.
    """
    from matplotlib.figure import Figure

    detectors = list(found)
    families = list(dict.fromkeys(row["family"] for rows in found.values() for row in rows))
    values = {(name, row["family"]): row["auroc"] for name, rows in found.items() for row in rows}
    figure = Figure(figsize=(2.2 + 0.72 * len(families), 1.9 + 0.42 * len(detectors)), layout="constrained")
    axes = figure.subplots()
    shades = [[max(values.get((one, other), CHANCE), CHANCE) for other in families] for one in detectors]
    image = axes.imshow(shades, vmin=CHANCE, vmax=1, cmap="viridis", aspect="auto")
    for i, one in enumerate(detectors):
        for j, other in enumerate(families):
            if (one, other) in values:
                colour = "black" if shades[i][j] > 0.8 else "white"
                axes.text(
                    j, i, f"{values[one, other]:.2f}", ha="center", va="center", fontsize=8, color=colour
                )
    axes.set_xticks(range(len(families)), families, rotation=45, ha="right")
    axes.set_yticks(range(len(detectors)), detectors)
    axes.set_xlabel("planted in held-out samples")
    axes.set_ylabel("trained on")
    figure.colorbar(image, ax=axes, label="AUROC of voxels")
    return figure


__all__ = ["Found", "blindness_figure", "blindness_table"]
