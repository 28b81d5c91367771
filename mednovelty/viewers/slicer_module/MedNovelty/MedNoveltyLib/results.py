"""What the program left behind: scenes, and tables of clusters."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

SCENE, CLUSTERS = "_scene.mrml", "_clusters.tsv"


@dataclass(frozen=True)
class ScanResult:
    """One scored scan.

    Attributes:
        id: Of the scan.
        scene: What 3D Slicer loads.
    """

    id: str
    scene: Path

    def clusters(self, score: str) -> Path:
        """Return the table of a score's clusters, which may be absent."""
        return self.scene.with_name(f"{self.id}_desc-{score}{CLUSTERS}")


@dataclass(frozen=True)
class Cluster:
    """A line of the table.

    Attributes:
        number: In the label image.
        volume_ml: Its volume.
        peak_mm: Of its peak, RAS.
        maximum: Its highest score.
        p_peak: p of the peak; NaN where it is not known.
        p_cluster: Share of calibration scans with one as large; NaN where it is not known.
        region: Of an atlas; may be empty.
    """

    number: int
    volume_ml: float
    peak_mm: tuple[float, float, float]
    maximum: float
    p_peak: float
    p_cluster: float
    region: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """What a table shows."""
        place = ", ".join(f"{value:.1f}" for value in self.peak_mm)
        known = [f"{value:.2g}" if math.isfinite(value) else "" for value in (self.p_peak, self.p_cluster)]
        return (str(self.number), f"{self.volume_ml:.3g}", place, *known, self.region)


COLUMNS = ("Cluster", "ml", "Peak (R, A, S)", "p", "p of its size", "Region")


def find_results(output: str | Path) -> list[ScanResult]:
    """Return the scans of an output folder that have a scene, by id; none of no folder."""
    if not str(output):
        return []
    found = [ScanResult(path.name[: -len(SCENE)], path) for path in Path(output).rglob(f"*{SCENE}")]
    return sorted(found, key=lambda one: (one.id, str(one.scene)))


def read_clusters(path: str | Path) -> list[Cluster]:
    """Return the clusters of a table; none where there is no table.

    Raises:
        ValueError: It is no such table; names the file.
    """
    path = Path(path)
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    try:
        return [_cluster(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no table of clusters ({error!r})") from error


def _cluster(row: dict[str, str]) -> Cluster:
    x, y, z = (float(row[f"peak_{axis}_mm"]) for axis in "xyz")
    region = row.get("region") or ""
    return Cluster(
        int(row["cluster"]),
        float(row["volume_mm3"]) / 1000,
        (x, y, z),
        _number(row["max"]),
        _number(row["p_peak"]),
        _number(row["p_cluster"]),
        "" if region == "n/a" else region,
    )


def _number(text: str) -> float:
    return math.nan if text == "n/a" else float(text)
