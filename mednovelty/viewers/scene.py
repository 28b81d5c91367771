"""A scene of 3D Slicer as text: which volumes lie over which, in which colours, from which value on.

MRML, the format of scenes, is XML with an element a node and its class, without ``vtkMRML`` and ``Node``,
as the tag (https://slicer.readthedocs.io/en/latest/developer_guide/mrml_overview.html). Files lie beside the
scene and are told by name, so that the folder can be moved. What is told here is all that 3D Slicer would
otherwise guess: windows from the data's range, no threshold, no foreground.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from mednovelty.text import printable

OPACITY = 0.7
_GREY = "vtkMRMLColorTableNodeGrey"
_COLOURS = "vtkMRMLColorTableNode1"
_FOUR_UP = 3
"""The layout of the three views and the 3-D one."""
_LEGEND_AT, _LEGEND_SIZE = "0.98 0.01", "0.06 0.22"
"""In the corner at the lower right, where a head seldom is; letters grow with the size."""
_LETTERS = (
    "font-family:Arial;font-size:{}px;color:rgba(255,255,255,1);text-shadow:1px -1px 2px rgba(0,0,0,1.0);"
)

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Shown:
    """One volume of a scene.

    Attributes:
        file: Its name, beside the scene.
        name: As 3D Slicer lists it.
        low: Value of the first colour.
        high: Value of the last one; above ``low``.
    """

    file: str
    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Foreground(Shown):
    """The map of one score.

    Attributes:
        score: Its name.
        lower: What is below is not shown.
        upper: What is above is not shown: at least the highest value.
        title: Over the legend of its colours.
        words: What the lower end is, in words.
        segments: Name of its ``.seg.nrrd``; None where nothing is segmented.
        digits: Behind the point, of the legend's numbers.
    """

    score: str
    lower: float
    upper: float
    title: str
    words: str
    segments: str | None = None
    digits: int = 1


@dataclass(frozen=True)
class Views:
    """Where the views cut.

    Attributes:
        cut_mm: The point in which the three meet, RAS+.
        centre_mm: Of the image, in the middle of each view.
        extent_mm: What each view shows along its longer side.
    """

    cut_mm: Point
    centre_mm: Point
    extent_mm: float


@dataclass(frozen=True)
class Scene:
    """What lies in a scene.

    Attributes:
        colours: Name of the colour table, beside the scene.
        background: The image below.
        foregrounds: A map a score.
        views: Where it is cut.
        active: Which of the foregrounds is shown first.
    """

    colours: str
    background: Shown
    foregrounds: Sequence[Foreground]
    views: Views
    active: int = 0


def mrml(scene: Scene, comment: str = "") -> str:
    """Return the scene as XML; ``comment`` stands in it for who writes it again."""
    if "--" in comment:
        raise ValueError(f"an XML comment must not hold two hyphens: {comment!r}")
    nodes = [*_colour_nodes(scene), *_background_nodes(scene.background)]
    for n, one in enumerate(scene.foregrounds):
        nodes += _foreground_nodes(n + 2, one)
    for n, one in enumerate(scene.foregrounds):
        nodes += _segmentation_nodes(n + 2, one, visible=n == scene.active)
    nodes += [*_view_nodes(scene), _selection(scene), _layout()]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', *([f"<!-- {comment} -->"] if comment else [])]
    return "\n".join([*lines, '<MRML version="Slicer5" userTags="">', *nodes, "</MRML>"]) + "\n"


def _node(tag: str, id: str, name: str, **attributes: str | float | int | bool | None) -> str:
    told = {"id": id, "name": name, **attributes}
    text = " ".join(f"{key}={_attribute(value)}" for key, value in told.items() if value is not None)
    return f" <{tag} {text}></{tag}>"


def _attribute(value: str | float | int | bool | None) -> str:
    if isinstance(value, bool):
        return f'"{str(value).lower()}"'
    # repr: with fewer digits a threshold would pass over the voxel that it is the value of.
    return quoteattr(printable(value) if isinstance(value, str) else repr(value))


def _references(**roles: str | Sequence[str]) -> str:
    ids = {role: [ids] if isinstance(ids, str) else ids for role, ids in roles.items()}
    return "".join(f"{role}:{' '.join(of)};" for role, of in ids.items())


def _own_attributes(told: Mapping[str, str]) -> str:
    """Return what scripts find nodes by: 3D Slicer keeps it with the node."""
    return "".join(f"MedNovelty.{key}:{quote(value, safe='')};" for key, value in told.items())


def _file(name: str) -> str:
    """Return a file's name as a scene tells it: URL-encoded."""
    return quote(name, safe="")


def _colour_nodes(scene: Scene) -> Iterable[str]:
    storage = "vtkMRMLColorTableStorageNode1"
    yield _node("ColorTableStorage", storage, "novelty colours storage", fileName=_file(scene.colours),
                useCompression=1, readState=0, writeState=4)  # fmt: skip
    yield _node("ColorTable", _COLOURS, "novelty", attributes="Category:File;", type=14, numcolors=256,
                references=_references(storage=storage))  # fmt: skip


def _volume_nodes(n: int, one: Shown, displays: Sequence[str], **node: str) -> list[str]:
    """Return how a volume is stored and the volume itself, which names how it is displayed."""
    storage = f"vtkMRMLVolumeArchetypeStorageNode{n}"
    references = _references(display=displays, storage=storage)
    return [
        _node("VolumeArchetypeStorage", storage, f"{one.name} storage", fileName=_file(one.file),
              centerImage=0, UseOrientationFromFile=1),
        _node("Volume", f"vtkMRMLScalarVolumeNode{n}", one.name, references=references, **node),
    ]  # fmt: skip


def _display(n: int, one: Shown, colours: str, **threshold: float | int) -> str:
    # Without autoWindowLevel="0" 3D Slicer puts the data's range in place of the window that stands here.
    return _node("VolumeDisplay", f"vtkMRMLScalarVolumeDisplayNode{n}", f"{one.name} display",
                 colorNodeID=colours, window=one.high - one.low, level=(one.high + one.low) / 2,
                 autoWindowLevel=0, autoThreshold=0, **threshold)  # fmt: skip


def _background_nodes(background: Shown) -> list[str]:
    id = "vtkMRMLScalarVolumeDisplayNode1"
    own = _own_attributes({"Role": "background"})
    return [
        _display(1, background, _GREY, applyThreshold=0, interpolate=1),
        *_volume_nodes(1, background, [id], attributes=own),
    ]


def _foreground_nodes(n: int, one: Foreground) -> list[str]:
    display, legend = f"vtkMRMLScalarVolumeDisplayNode{n}", f"vtkMRMLColorLegendDisplayNode{n}"
    own = _own_attributes({"Role": "map", "Score": one.score})
    return [
        # Not interpolated: a voxel has a score, what lies between two has none.
        _display(n, one, _COLOURS, lowerThreshold=one.lower, upperThreshold=one.upper, applyThreshold=1,
                 interpolate=0),
        _node("ColorLegendDisplay", legend, f"{one.name} legend",
              references=_references(primaryDisplay=display), visibility=True, visibility2D=True,
              visibility3D=False, orientation="Vertical", position=_LEGEND_AT, size=_LEGEND_SIZE,
              titleText=one.title, labelFormat=f"%.{one.digits}f", maxNumberOfColors=256, numberOfLabels=5,
              titleTextProperty=_LETTERS.format(10), labelTextProperty=_LETTERS.format(10)),
        *_volume_nodes(n, one, [display, legend], attributes=own, description=one.words),
    ]  # fmt: skip


def _segmentation_nodes(n: int, one: Foreground, *, visible: bool) -> list[str]:
    if one.segments is None:
        return []
    storage, display = f"vtkMRMLSegmentationStorageNode{n}", f"vtkMRMLSegmentationDisplayNode{n}"
    references = _references(
        display=display, storage=storage, referenceImageGeometryRef=f"vtkMRMLScalarVolumeNode{n}"
    )
    own = _own_attributes({"Role": "clusters", "Score": one.score})
    return [
        _node("SegmentationStorage", storage, f"clusters of {one.score} storage",
              fileName=_file(one.segments)),
        # Outlines alone: the map is to be seen inside.
        _node("SegmentationDisplay", display, f"clusters of {one.score} display", visibility=visible,
              visibility2D=True, visibility3D=True, Visibility2DFill=False, Visibility2DOutline=True),
        _node("Segmentation", f"vtkMRMLSegmentationNode{n}", f"clusters of {one.score}",
              references=references, attributes=own),
    ]  # fmt: skip


def _view_nodes(scene: Scene) -> Iterable[str]:
    """Yield the three views, each cut where the scene says, and what lies in them."""
    (x, y, z), (x0, y0, z0) = scene.views.cut_mm, scene.views.centre_mm
    planes = {
        "Red": ("Axial", "R", "0.952941 0.290196 0.2", (-1, 0, 0, x0, 0, 1, 0, y0, 0, 0, 1, z)),
        "Green": ("Coronal", "G", "0.431373 0.690196 0.294118", (-1, 0, 0, x0, 0, 0, 1, y, 0, 1, 0, z0)),
        "Yellow": ("Sagittal", "Y", "0.929412 0.835294 0.298039", (0, 0, -1, x, -1, 0, 0, y0, 0, 1, 0, z0)),
    }
    extent = repr(scene.views.extent_mm)
    for view, (orientation, label, colour, rows) in planes.items():
        matrix = " ".join(repr(float(value)) for value in (*rows, 0, 0, 0, 1))
        yield _node("Slice", f"vtkMRMLSliceNode{view}", view, singletonTag=view, layoutName=view,
                    layoutLabel=label, layoutColor=colour, orientation=orientation,
                    defaultOrientation=orientation, orientationReference=orientation, sliceToRAS=matrix,
                    orientationMatrixAxial="-1 0 0 0 1 0 0 0 1",
                    orientationMatrixSagittal="0 0 -1 -1 0 0 0 1 0",
                    orientationMatrixCoronal="-1 0 0 0 0 1 0 1 0", fieldOfView=f"{extent} {extent} 1",
                    dimensions="400 400 1", jumpMode=1, sliceSpacingMode=0)  # fmt: skip
    shown = _references(backgroundVolume="vtkMRMLScalarVolumeNode1", foregroundVolume=_active(scene))
    for view in planes:
        yield _node("SliceComposite", f"vtkMRMLSliceCompositeNode{view}", f"SliceComposite {view}",
                    singletonTag=view, layoutName=view, references=shown, compositing=0,
                    foregroundOpacity=OPACITY, labelOpacity=1, linkedControl=1, hotLinkedControl=1,
                    clipToBackgroundVolume=True, doPropagateVolumeSelection=1)  # fmt: skip


def _active(scene: Scene) -> str:
    return f"vtkMRMLScalarVolumeNode{scene.active + 2}"


def _selection(scene: Scene) -> str:
    return _node("Selection", "vtkMRMLSelectionNodeSingleton", "Selection", singletonTag="Singleton",
                 activeVolumeID="vtkMRMLScalarVolumeNode1", secondaryVolumeID=_active(scene))  # fmt: skip


def _layout() -> str:
    return _node("Layout", "vtkMRMLLayoutNodevtkMRMLLayoutNode", "Layout", singletonTag="vtkMRMLLayoutNode",
                 currentViewArrangement=_FOUR_UP)  # fmt: skip


__all__ = ["OPACITY", "Foreground", "Scene", "Shown", "Views", "mrml"]
