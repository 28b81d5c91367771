"""Which map lies over the background, from which value on, and where the views cut.

Every function takes the scene, so that it works in 3D Slicer and in its libraries without the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ROLE, SCORE = "MedNovelty.Role", "MedNovelty.Score"
VIEWS = ("Red", "Green", "Yellow")


def nodes_of(scene: Any, name: str) -> list[Any]:
    """Return the nodes of a class."""
    # One by one: who owns the list that GetNodesByClass returns differs between versions.
    return [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]


def maps_in(scene: Any, ids: Sequence[str] | None = None) -> dict[str, Any]:
    """Return score to volume, of maps that scenes of mednovelty brought; of ``ids`` only, where given."""
    maps = {}
    for node in nodes_of(scene, "vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(ROLE) == "map" and (ids is None or node.GetID() in ids):
            maps[node.GetAttribute(SCORE)] = node
    return maps


def segmentations_in(scene: Any, ids: Sequence[str] | None = None) -> dict[str, Any]:
    """Return score to segmentation; see ``maps_in``."""
    found = {}
    for node in nodes_of(scene, "vtkMRMLSegmentationNode"):
        if node.GetAttribute(ROLE) == "clusters" and (ids is None or node.GetID() in ids):
            found[node.GetAttribute(SCORE)] = node
    return found


def shown_score(scene: Any) -> str:
    """Return the score that lies over the background of the first view; empty where none does."""
    for node in nodes_of(scene, "vtkMRMLSliceCompositeNode"):
        if node.GetLayoutName() == VIEWS[0] and node.GetForegroundVolumeID():
            volume = scene.GetNodeByID(node.GetForegroundVolumeID())
            return (volume.GetAttribute(SCORE) or "") if volume is not None else ""
    return ""


def show(scene: Any, volume: Any, segmentations: Sequence[Any] = ()) -> None:
    """Lay a map over the background of all views; of segmentations show that of its score alone."""
    for node in nodes_of(scene, "vtkMRMLSliceCompositeNode"):
        if node.GetLayoutName() in VIEWS:
            node.SetForegroundVolumeID(volume.GetID())
    for one in segmentations:
        same = one.GetAttribute(SCORE) == volume.GetAttribute(SCORE)
        if one.GetDisplayNode() is not None:
            one.GetDisplayNode().SetVisibility(1 if same else 0)


def threshold_of(volume: Any) -> tuple[float, float]:
    """Return from which value to which a map is shown."""
    display = volume.GetScalarVolumeDisplayNode()
    return display.GetLowerThreshold(), display.GetUpperThreshold()


def set_threshold(volume: Any, lower: float) -> None:
    """Show a map from a value on; its colours stay."""
    display = volume.GetScalarVolumeDisplayNode()
    display.AutoThresholdOff()
    display.ApplyThresholdOn()
    display.SetLowerThreshold(lower)


def jump(scene: Any, point_mm: Sequence[float]) -> None:
    """Cut all views at a point, RAS mm."""
    x, y, z = point_mm
    for node in nodes_of(scene, "vtkMRMLSliceNode"):
        node.JumpSliceByOffsetting(x, y, z)
