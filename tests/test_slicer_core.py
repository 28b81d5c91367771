"""Scenes in 3D Slicer's own libraries: nothing is complained of, and everything lies where nibabel says."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scored_scans import BOX, GRIDS, PEAK, SHAPE, write_scored

from mednovelty.viewers.colours import map_colours
from mednovelty.viewers.module_files import SOURCE
from mednovelty.viewers.slicer import write_scenes

# Another package is called slicer, too; this one brings slicer_core along.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("slicer_core") is None,
    reason="slicer-core is not installed: pip install 'mednovelty[slicer-test]'",
)
PROBE = Path(__file__).with_name("slicer_probe.py")
N = 160


def probed(scene, points, folder, **more):
    """Return what 3D Slicer's libraries tell of a scene; fail on whatever they complain of."""
    folder.mkdir(exist_ok=True)
    request = folder / "request.json"
    request.write_text(json.dumps({"points": np.asarray(points).tolist(), "size": N, **more}))
    done = subprocess.run(
        [sys.executable, PROBE, scene, request, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "connected 1" in done.stdout
    assert done.stderr.strip() == ""
    return json.loads((folder / "told.json").read_text())


@pytest.fixture(scope="module", params=GRIDS)
def loaded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    written = write_scored(folder / "out", GRIDS[request.param])
    assert [one.status for one in write_scenes(written.out)] == ["done"]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1).reshape(-1, 3)
    told = probed(written.scene, [written.mm(one) for one in index], folder / "probe")
    return written, index, told, folder / "probe"


def test_values_at_world_positions_are_those_of_nibabel(loaded):
    written, index, told, _ = loaded
    expected = {"background": written.background, "elbo": written.surprise, "raw_b0": written.raw[::-1]}
    for name, volume in told["volumes"].items():
        key = next(key for key in expected if key in name)
        data = expected.pop(key).astype(np.float32)
        np.testing.assert_array_equal(volume["values"], data[tuple(index.T)].astype(float))
    assert not expected


def test_the_segment_lies_on_its_voxels_and_is_named(loaded):
    written, index, told, _ = loaded
    (segmentation,) = told["segmentations"].values()
    (segment,) = segmentation["segments"]
    np.testing.assert_array_equal(segment["inside"], written.labels[tuple(index.T)] == 1)
    volume_ml = written.labels.sum() * abs(np.linalg.det(written.affine)) / 1000
    assert segment["name"] == f"cluster 1: {volume_ml:.3g} ml"
    assert segment["id"] == "cluster-1"
    assert (segmentation["visible"], segmentation["outline"], segmentation["fill"]) == (1, True, False)


def test_nodes_refer_to_each_other_as_meant(loaded):
    written, _, told, _ = loaded
    volumes = {v["attributes"].get("MedNovelty.Score", "background"): v for v in told["volumes"].values()}
    elbo, background = volumes["elbo"], volumes["background"]
    for view in ("Red", "Green", "Yellow"):
        assert told["composites"][view] == {
            "background": background["id"],
            "foreground": elbo["id"],
            "opacity": 0.7,
            "compositing": 0,
            "linked": 1,
        }
    lowest = float(written.surprise[BOX].min())
    assert elbo["threshold"][:2] == [1, lowest]
    # A hair below the highest value would hide it.
    assert elbo["threshold"][2] >= 5
    assert (elbo["auto"], elbo["interpolate"]) == (0, 0)
    low, high = elbo["level"] - elbo["window"] / 2, elbo["level"] + elbo["window"] / 2
    assert (low, high) == pytest.approx((lowest, 5))
    assert np.rint(255 * np.array(elbo["first_colour"])).tolist() == [*map_colours()[0].tolist(), 255]
    assert np.rint(255 * np.array(elbo["last_colour"])).tolist() == [*map_colours()[-1].tolist(), 255]
    assert background["colours"] == "vtkMRMLColorTableNodeGrey"
    assert (background["auto"], background["threshold"][0]) == (0, 0)
    legends = {one["volume"]: one for one in told["legends"]}
    assert set(legends) == {v["id"] for key, v in volumes.items() if key != "background"}
    assert legends[elbo["id"]]["of"] == elbo["displays"][0]
    assert legends[elbo["id"]]["title"] == "-log10 p"


@pytest.mark.parametrize("view", ["Red", "Green", "Yellow"])
def test_a_rendered_view_is_the_picture_of_the_data(loaded, view):
    written, _, told, folder = loaded
    found = np.load(folder / f"{view}.npy").astype(float)
    volumes = {v["attributes"].get("MedNovelty.Score", "background"): v for v in told["volumes"].values()}
    expected, certain = drawn(written, view, volumes["background"])
    assert certain.mean() > 0.5
    assert np.abs(found - expected)[certain].max() <= 3
    coloured = np.ptp(found, axis=-1) > 20
    # The views meet in the peak, so that each shows the cluster.
    assert coloured.sum() > 20


def drawn(written, view, background):
    """Return the picture of a view, drawn from the arrays, and which of its pixels are certain."""
    corners = np.stack(np.meshgrid(*([-0.5, n - 0.5] for n in SHAPE)), -1).reshape(-1, 3)
    placed = np.array([written.mm(one) for one in corners])
    extent = (placed.max(axis=0) - placed.min(axis=0)).max()
    middle, cut = written.mm((np.array(SHAPE) - 1) / 2), written.mm(PEAK)
    # Radiological: right is on the left; in the sagittal view anterior is.
    across, up, through = {"Red": (0, 1, 2), "Green": (0, 2, 1), "Yellow": (1, 2, 0)}[view]
    rows, columns = np.mgrid[:N, :N]
    mm = np.empty((N, N, 3))
    mm[..., across] = middle[across] - (columns * extent / N - extent / 2)
    mm[..., up] = middle[up] + ((N - 1 - rows) * extent / N - extent / 2)
    mm[..., through] = cut[through]
    index = (mm - written.affine[:3, 3]) @ np.linalg.inv(written.affine[:3, :3]).T
    inside = ((index > 0.1) & (index < np.array(SHAPE) - 1.1)).all(axis=-1)
    outside = ((index < -1.1) | (index > np.array(SHAPE) + 0.1)).any(axis=-1)
    # Where two voxels are equally near, either may be shown.
    certain = outside | (inside & (np.abs(index % 1 - 0.5) > 0.02).all(axis=-1))
    value = 100 + index @ [30, 11, 17]
    low = background["level"] - background["window"] / 2
    grey = np.clip((value - low) / background["window"] * 255, 0, 255)
    picture = np.repeat(np.where(inside, grey, 0)[..., None], 3, axis=-1)
    nearest = np.clip(np.rint(index).astype(int), 0, np.array(SHAPE) - 1)
    surprise = written.surprise[tuple(np.moveaxis(nearest, -1, 0))].astype(float)
    lowest = float(written.surprise[BOX].min())
    shown = inside & (surprise >= lowest)
    shade = np.clip((surprise - lowest) / (5 - lowest) * 255, 0, 255).astype(int)
    picture[shown] = 0.3 * picture[shown] + 0.7 * map_colours()[shade[shown]]
    return picture, certain


def test_names_that_want_to_be_something_else_stay_names(tmp_path):
    written = write_scored(tmp_path / 'a "b" <c> & %41 é', GRIDS["LAS"], id="sub-01")
    write_scenes(written.out)
    told = probed(written.scene, [written.mm(PEAK)], tmp_path / "probe")
    assert any(volume["values"] == [5.0] for volume in told["volumes"].values())


def test_the_module_changes_layers_thresholds_and_cuts(tmp_path):
    written = write_scored(tmp_path / "out", GRIDS["oblique"])
    write_scenes(written.out)
    point = written.mm(PEAK).tolist()
    asked = {"module": str(SOURCE / "MedNovelty"), "score": "raw_b0", "lower": 2.5, "jump": point}
    told = probed(written.scene, [point], tmp_path / "probe", **asked)
    assert told["layers"]["maps"] == ["elbo", "raw_b0"]
    assert (told["layers"]["before"], told["layers"]["after"]) == ("elbo", "raw_b0")
    assert told["layers"]["none"] == []
    # The outlines of another score's clusters go with its map.
    assert told["layers"]["outlined"] == {"elbo": 0}
    assert told["layers"]["threshold"][0] == 2.5
    cut = [told["layers"]["cut"][view] for view in ("Yellow", "Green", "Red")]
    assert cut == pytest.approx(point)
