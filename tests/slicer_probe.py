"""Run apart, with slicer-core: loads a scene as 3D Slicer does, tells its nodes, and renders its views.

    python slicer_probe.py SCENE REQUEST.json OUT

REQUEST holds ``points``: world positions (RAS mm) at which every volume and segmentation is sampled, and
``size``: pixels of a rendered view. OUT gets ``told.json`` and ``Red.npy``, ``Green.npy``, ``Yellow.npy``,
pictures ``(rows, columns, RGB)`` with the first row on top. What 3D Slicer has to complain of is on stderr.
"""

import json
import sys
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy


def main(scene_path, request_path, out):
    request, out = json.loads(Path(request_path).read_text()), Path(out)
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(window)
    scene = opened(scene_path)
    told = {
        "nodes": [node_of(scene.GetNthNode(n)) for n in range(scene.GetNumberOfNodes())],
        "volumes": {node.GetName(): volume_of(node, request["points"]) for node in volumes(scene)},
        "composites": {
            c.GetLayoutName(): composite_of(c) for c in all_of(scene, "vtkMRMLSliceCompositeNode")
        },
        "legends": [legend_of(one) for one in all_of(scene, "vtkMRMLColorLegendDisplayNode")],
        "segmentations": {
            one.GetName(): segmentation_of(one, request["points"])
            for one in all_of(scene, "vtkMRMLSegmentationNode")
        },
    }
    if "module" in request:
        told["layers"] = layers_of(scene, request)
    told["views"] = {view: rendered(scene, view, request["size"], out) for view in ("Red", "Green", "Yellow")}
    (out / "told.json").write_text(json.dumps(told))


def opened(path):
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    opened.kept = logic
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    # Of the module of colours, which the program loads and a bare scene does not.
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    scene.SetURL(str(path))
    scene.SetRootDirectory(str(Path(path).parent))
    print("connected", scene.Connect())
    return scene


def all_of(scene, name):
    found = scene.GetNodesByClass(name)
    return [found.GetItemAsObject(n) for n in range(found.GetNumberOfItems())]


def volumes(scene):
    return all_of(scene, "vtkMRMLScalarVolumeNode")


def node_of(node):
    return {"id": node.GetID(), "class": node.GetClassName(), "name": node.GetName()}


def matrix_of(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(matrix)
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def sampled(image, to_ijk, points):
    data = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    found = []
    for point in points:
        index = np.rint((to_ijk @ [*point, 1])[:3]).astype(int) - np.array(image.GetExtent()[::2])
        inside = (index >= 0).all() and (index < image.GetDimensions()).all()
        found.append(float(data[tuple(index[::-1])]) if inside else None)
    return found


def volume_of(node, points):
    display = node.GetScalarVolumeDisplayNode()
    colours = display.GetColorNode()
    return {
        "id": node.GetID(),
        "description": node.GetDescription(),
        "attributes": {name: node.GetAttribute(name) for name in node.GetAttributeNames()},
        "values": sampled(node.GetImageData(), matrix_of(node), points),
        "window": display.GetWindow(),
        "level": display.GetLevel(),
        "auto": display.GetAutoWindowLevel(),
        "threshold": [display.GetApplyThreshold(), display.GetLowerThreshold(), display.GetUpperThreshold()],
        "interpolate": display.GetInterpolate(),
        "colours": colours.GetID(),
        "last_colour": colours.GetLookupTable().GetTableValue(255),
        "first_colour": colours.GetLookupTable().GetTableValue(0),
        "displays": [node.GetNthDisplayNodeID(n) for n in range(node.GetNumberOfDisplayNodes())],
    }


def composite_of(node):
    return {
        "background": node.GetBackgroundVolumeID(),
        "foreground": node.GetForegroundVolumeID(),
        "opacity": node.GetForegroundOpacity(),
        "compositing": node.GetCompositing(),
        "linked": node.GetLinkedControl(),
    }


def legend_of(node):
    return {
        "title": node.GetTitleText(),
        "format": node.GetLabelFormat(),
        "visible": node.GetVisibility(),
        "of": node.GetPrimaryDisplayNode().GetID(),
        "volume": node.GetDisplayableNode().GetID(),
    }


def segmentation_of(node, points):
    segmentation, found = node.GetSegmentation(), []
    for n in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(n)
        image = segment.GetRepresentation("Binary labelmap")
        matrix = vtk.vtkMatrix4x4()
        image.GetWorldToImageMatrix(matrix)
        to_ijk = np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])
        # A shared labelmap holds all segments, each by its number.
        values = sampled(image, to_ijk, points)
        label = segment.GetLabelValue()
        told = {"name": segment.GetName(), "id": segmentation.GetNthSegmentID(n), "label": label}
        inside = [value == label for value in values]
        found.append({**told, "colour": segment.GetColor(), "inside": inside})
    display = node.GetDisplayNode()
    return {
        "segments": found,
        "visible": display.GetVisibility(),
        "fill": display.GetVisibility2DFill(),
        "outline": display.GetVisibility2DOutline(),
    }


def rendered(scene, view, size, out):
    """Render a view as the scene has it: neither moved nor fitted to the volume."""
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(scene)
    node = scene.GetNodeByID(f"vtkMRMLSliceNode{view}")
    logic.SetSliceNode(node)
    logic.SetSliceCompositeNode(scene.GetNodeByID(f"vtkMRMLSliceCompositeNode{view}"))
    node.SetDimensions(size, size, 1)
    logic.UpdatePipeline()
    producer = logic.GetImageDataConnection().GetProducer()
    producer.Update()
    image = producer.GetOutputDataObject(0)
    columns, rows, _ = image.GetDimensions()
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)
    np.save(out / f"{view}.npy", pixels[::-1, :, :3])
    xy_to_ras = node.GetXYToRAS()
    return [[xy_to_ras.GetElement(i, j) for j in range(4)] for i in range(4)]


def layers_of(scene, request):
    """Do what the module does to a scene, by its own functions."""
    sys.path.insert(0, request["module"])
    sys.dont_write_bytecode = True
    from MedNoveltyLib import layers

    maps, segmentations = layers.maps_in(scene), layers.segmentations_in(scene)
    before = layers.shown_score(scene)
    layers.show(scene, maps[request["score"]], list(segmentations.values()))
    layers.set_threshold(maps[request["score"]], request["lower"])
    layers.jump(scene, request["jump"])
    offsets = {}
    for view, row in (("Red", 2), ("Green", 1), ("Yellow", 0)):
        matrix = scene.GetNodeByID(f"vtkMRMLSliceNode{view}").GetSliceToRAS()
        offsets[view] = matrix.GetElement(row, 3)
    return {
        "before": before,
        "after": layers.shown_score(scene),
        "maps": sorted(maps),
        "outlined": {score: one.GetDisplayNode().GetVisibility() for score, one in segmentations.items()},
        "threshold": layers.threshold_of(maps[request["score"]]),
        "cut": offsets,
        "none": sorted(layers.maps_in(scene, [])),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
