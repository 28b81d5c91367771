"""Scenes as text: ids that exist, files that are there, thresholds that flag what was flagged, odd names."""

import gzip
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_scans import BOX, GRIDS, PEAK, SMALLEST_P, save, write_scored

from mednovelty.errors import OutputError
from mednovelty.slicer_command import show_scored
from mednovelty.viewers.colours import SEGMENTS, colour_table, map_colours
from mednovelty.viewers.levels import level_of, surprise
from mednovelty.viewers.scan_scene import MOST_SEGMENTS, merged
from mednovelty.viewers.scene import Foreground, Scene, Shown, Views, mrml
from mednovelty.viewers.seg_nrrd import Segment, write_seg_nrrd
from mednovelty.viewers.slicer import write_scenes


@pytest.fixture
def written(tmp_path):
    return write_scored(tmp_path / "out", GRIDS["LAS-oblique-anisotropic"])


def statuses(out):
    return [one.status for one in write_scenes(out)]


def nodes(scene):
    return {node.get("id"): node for node in ElementTree.parse(scene).getroot()}


def references(node):
    parts = [part.split(":") for part in (node.get("references") or "").split(";") if part]
    return {role: ids.split() for role, ids in parts}


def by_score(scene):
    found = {}
    for node in nodes(scene).values():
        if node.tag == "Volume" and "MedNovelty.Score" in node.get("attributes"):
            found[re.search(r"MedNovelty.Score:([^;]*);", node.get("attributes"))[1]] = node
    return found


def display_of(scene, score):
    all_nodes = nodes(scene)
    return all_nodes[references(by_score(scene)[score])["display"][0]]


def test_ids_exist_files_are_there_and_numbers_are_numbers(written):
    assert statuses(written.out) == ["done"]
    all_nodes = nodes(written.scene)
    assert len(all_nodes) == len(list(ElementTree.parse(written.scene).getroot()))
    files = set()
    for node in all_nodes.values():
        for ids in references(node).values():
            assert set(ids) <= set(all_nodes)
        for attribute in ("colorNodeID", "activeVolumeID", "secondaryVolumeID"):
            if node.get(attribute) not in (None, "vtkMRMLColorTableNodeGrey"):
                assert node.get(attribute) in all_nodes
        if node.get("fileName"):
            assert "/" not in unquote(node.get("fileName"))
            files.add(unquote(node.get("fileName")))
        if node.tag == "VolumeDisplay":
            assert node.get("autoWindowLevel") == "0"
            assert float(node.get("window")) > 0
    assert all((written.folder / name).is_file() for name in files)
    assert files == {
        "sub-01_novelty.ctbl",
        "sub-01_desc-background.nii.gz",
        "sub-01_desc-elbo_pvalue.nii.gz",
        "sub-01_desc-raw_b0_novelty.nii.gz",
        "sub-01_desc-elbo_dseg.seg.nrrd",
    }


def test_the_scores_that_were_asked_for_come_first_and_baselines_last(written):
    write_scenes(written.out)
    assert list(by_score(written.scene)) == ["elbo", "raw_b0"]
    shown = [node for node in nodes(written.scene).values() if node.tag == "SliceComposite"]
    elbo = by_score(written.scene)["elbo"].get("id")
    assert [references(node)["foregroundVolume"] for node in shown] == [[elbo]] * 3


def test_what_is_shown_is_what_was_flagged(written):
    write_scenes(written.out)
    display = display_of(written.scene, "elbo")
    values = np.asarray(nib.load(written.path("desc-elbo_pvalue.nii.gz")).dataobj)
    above = values >= np.float64(display.get("lowerThreshold"))
    np.testing.assert_array_equal(
        above & (values <= float(display.get("upperThreshold"))), written.labels > 0
    )
    high = float(display.get("level")) + float(display.get("window")) / 2
    assert high == pytest.approx(-np.log10(SMALLEST_P))


def test_what_is_not_calibrated_shows_its_highest_hundredth_and_says_so(written):
    write_scenes(written.out)
    display, volume = display_of(written.scene, "raw_b0"), by_score(written.scene)["raw_b0"]
    values = written.raw[::-1][written.mask]
    assert float(display.get("lowerThreshold")) == np.float32(np.quantile(values, 0.99))
    assert "highest 1 %" in volume.get("name")
    assert volume.get("description") == "not calibrated: the highest 1 % of this scan, whatever they are"


def test_legends_stand_in_the_corner_beside_the_head(written):
    write_scenes(written.out)
    legends = [node for node in nodes(written.scene).values() if node.tag == "ColorLegendDisplay"]
    assert len(legends) == 2
    for node in legends:
        (across, up), (width, height) = (map(float, node.get(key).split()) for key in ("position", "size"))
        # Shares of the view, from the left and from below; the letters stand to the left of the bar.
        assert across >= 0.95
        assert width <= 0.1
        assert up + height <= 0.25


def test_the_background_goes_from_black_to_white_inside_the_mask(written):
    write_scenes(written.out)
    (display,) = (
        n for n in nodes(written.scene).values() if n.get("colorNodeID") == "vtkMRMLColorTableNodeGrey"
    )
    low, high = np.percentile(written.background[written.mask], [1, 99.5])
    assert float(display.get("window")) == pytest.approx(high - low)
    assert float(display.get("level")) == pytest.approx((high + low) / 2)


def test_the_views_meet_in_the_peak(written):
    write_scenes(written.out)
    x, y, z = written.mm(PEAK)
    found = {view: np.array(nodes(written.scene)[f"vtkMRMLSliceNode{view}"].get("sliceToRAS").split(), float)
             for view in ("Red", "Green", "Yellow")}  # fmt: skip
    assert found["Red"][11] == pytest.approx(z)
    assert found["Green"][7] == pytest.approx(y)
    assert found["Yellow"][3] == pytest.approx(x)
    for matrix in found.values():
        turn = matrix.reshape(4, 4)[:3, :3]
        np.testing.assert_array_equal(turn @ turn.T, np.eye(3))


def test_each_view_shows_the_whole_scan(written):
    write_scenes(written.out)
    corners = [[-0.5 if low else size - 0.5 for low, size in zip(lows, written.mask.shape, strict=True)]
               for lows in np.ndindex(2, 2, 2)]  # fmt: skip
    longest = np.ptp(nib.affines.apply_affine(written.affine, corners), axis=0).max()
    for view in ("Red", "Green", "Yellow"):
        shown = nodes(written.scene)[f"vtkMRMLSliceNode{view}"].get("fieldOfView").split()
        assert [float(side) for side in shown[:2]] == pytest.approx([longest, longest])


def test_without_a_segmentation_a_p_is_shown_that_is_no_decision(tmp_path):
    written = write_scored(tmp_path / "out", GRIDS["RAS"], segmented=False)
    write_scenes(written.out)
    assert float(display_of(written.scene, "elbo").get("lowerThreshold")) == 3.0
    volume = by_score(written.scene)["elbo"]
    assert volume.get("description") == "not segmented; shown: p <= 0.001, no decision"
    assert not list(written.folder.glob("*.seg.nrrd"))
    # No cluster to cut at: the highest voxel.
    assert cut_of(written.scene) == pytest.approx(written.mm(PEAK))


def cut_of(scene):
    rows = {view: nodes(scene)[f"vtkMRMLSliceNode{view}"].get("sliceToRAS").split()
            for view in ("Red", "Green", "Yellow")}  # fmt: skip
    return [float(rows[view][at]) for view, at in (("Yellow", 3), ("Green", 7), ("Red", 11))]


def shown_first(scene):
    found = {references(n)["foregroundVolume"][0] for n in nodes(scene).values() if n.tag == "SliceComposite"}
    (id,) = found
    return next(score for score, node in by_score(scene).items() if node.get("id") == id)


@pytest.mark.parametrize("axis", range(3))
def test_what_tells_voxels_apart_is_shown_before_what_tells_slices_apart(tmp_path, axis):
    written = write_scored(
        tmp_path / "out", GRIDS["LAS-oblique-anisotropic"], score="map", segmented=False, calibrated=False
    )
    slices = np.indices(written.raw.shape)[axis] * written.mask
    save(written.path("desc-all_novelty.nii.gz"), slices, written.affine, np.float32)
    told = json.loads(written.path("desc-map_novelty.json").read_text())
    told["Score"]["name"] = "all"
    written.path("desc-all_novelty.json").write_text(json.dumps(told))
    assert statuses(written.out) == ["done"]
    assert list(by_score(written.scene)) == ["map", "all", "raw_b0"]
    (written.out / "run.json").write_text(json.dumps({"Scores": ["all", "map"]}))
    written.scene.unlink()
    assert statuses(written.out) == ["done"]
    assert list(by_score(written.scene)) == ["all", "map", "raw_b0"]
    assert shown_first(written.scene) == "map"
    assert cut_of(written.scene) == pytest.approx(written.mm(PEAK))
    # Alone it is shown, and cut in the middle of its highest slice.
    for path in written.folder.glob("*desc-map_novelty*"):
        path.unlink()
    assert statuses(written.out) == ["done"]
    assert shown_first(written.scene) == "all"
    voxel = np.linalg.solve(written.affine, [*cut_of(written.scene), 1])[:3]
    last, middle = np.array(written.mask.shape) - 2, (np.array(written.mask.shape) - 1) / 2
    assert voxel[axis] == pytest.approx(last[axis])
    assert np.abs(np.delete(voxel - middle, axis)).max() <= 0.51


def test_what_was_segmented_is_shown_first_even_if_it_tells_slices_apart(tmp_path):
    written = write_scored(tmp_path / "out", GRIDS["RAS"], score="b", calibrated=False)
    other = json.loads(written.path("desc-b_novelty.json").read_text())
    other["Score"]["name"] = "a"
    written.path("desc-a_novelty.json").write_text(json.dumps(other))
    save(written.path("desc-a_novelty.nii.gz"), written.raw, written.affine, np.float32)
    slices = np.broadcast_to(np.arange(written.raw.shape[2]), written.raw.shape) * written.mask
    save(written.path("desc-b_novelty.nii.gz"), slices, written.affine, np.float32)
    assert statuses(written.out) == ["done"]
    assert shown_first(written.scene) == "b"


def test_a_scene_is_written_again_only_when_what_it_shows_has_changed(written):
    assert statuses(written.out) == ["done"]
    before = {path.name: path.read_bytes() for path in written.folder.iterdir()}
    assert statuses(written.out) == ["up to date"]
    written.path("desc-elbo_dseg.seg.nrrd").unlink()
    assert statuses(written.out) == ["done"]
    assert before == {path.name: path.read_bytes() for path in written.folder.iterdir()}
    sidecar = written.path("desc-elbo_mask.json")
    told = json.loads(sidecar.read_text())
    told["Threshold"] |= {"Rule": "p", "P": 0.25, "FlaggedP": 0.25, "Words": "p <= 0.25"}
    sidecar.write_text(json.dumps(told))
    assert statuses(written.out) == ["done"]
    lower = float(display_of(written.scene, "elbo").get("lowerThreshold"))
    assert lower == np.float32(-np.log10(0.25))


def test_a_segmentation_that_is_gone_leaves_no_segments(written):
    write_scenes(written.out)
    written.path("desc-elbo_mask.json").unlink()
    assert statuses(written.out) == ["done"]
    assert not written.path("desc-elbo_dseg.seg.nrrd").exists()
    assert "Segmentation" not in {node.tag for node in nodes(written.scene).values()}


def test_a_scene_that_another_program_saved_is_left_alone(written):
    write_scenes(written.out)
    written.scene.write_text(re.sub("<!--.*-->\n", "", written.scene.read_text()))
    mine = written.scene.read_bytes()
    assert statuses(written.out) == ["changed"]
    assert written.scene.read_bytes() == mine


def test_a_scan_that_cannot_be_shown_stops_no_other(written):
    good = write_scored(written.out, GRIDS["RAS"], id="sub-02")
    save(written.path("desc-elbo_pvalue.nii.gz"), written.surprise[1:], written.affine, np.float32)
    save(written.path("desc-raw_b0_novelty.nii.gz"), written.surprise[2:], written.affine, np.float32)
    first, second = write_scenes(written.out)
    assert (first.status, second.status) == ("failed", "done")
    assert not written.scene.exists()
    assert good.scene.is_file()


def test_a_map_that_cannot_be_shown_is_left_out_and_named(written):
    whole = written.path("desc-elbo_pvalue.nii.gz").read_bytes()
    save(written.path("desc-elbo_pvalue.nii.gz"), written.surprise[1:], written.affine, np.float32)
    (one,) = write_scenes(written.out)
    assert one.status == "done"
    assert one.message.startswith("elbo is left out: sub-01_desc-elbo_pvalue.nii.gz")
    for shape in ("(10, 14, 9)", "(11, 14, 9)"):
        assert shape in one.message
    assert list(by_score(written.scene)) == ["raw_b0"]
    assert write_scenes(written.out) == [one]  # And is told again.
    assert show_scored(written.out) == 6
    written.path("desc-elbo_pvalue.nii.gz").write_bytes(whole)
    (one,) = write_scenes(written.out)
    assert (one.status, one.message) == ("done", "")
    assert sorted(by_score(written.scene)) == ["elbo", "raw_b0"]
    assert statuses(written.out) == ["up to date"]


def test_where_the_background_is_damaged_the_mask_lies_below(written):
    path = written.path("desc-background.nii.gz")
    path.write_bytes(path.read_bytes()[:300])
    (one,) = write_scenes(written.out)
    assert one.status == "done"
    assert one.message.startswith("the mask stands for the background: sub-01_desc-background.nii.gz")
    files = {node.get("fileName") for node in nodes(written.scene).values()}
    assert "sub-01_desc-brain_mask.nii.gz" in files
    assert "sub-01_desc-background.nii.gz" not in files
    assert sorted(by_score(written.scene)) == ["elbo", "raw_b0"]


HOSTILE = st.text(st.characters(codec="utf-8"), min_size=1)


@given(HOSTILE, HOSTILE)
def test_no_name_breaks_the_scene(name, words):
    shown = Shown(name, name, 0.0, 1.0)
    map_ = Foreground(name, name, 1.0, 2.5, name, 1.0, 2.5, words, words, name)
    text = mrml(Scene(name, shown, [map_], Views((0.0, 0.0, 0.0), (1.0, 2.0, 3.0), 100.0)), "mark")
    root = ElementTree.fromstring(text.encode())
    assert [node.tag for node in root].count("Volume") == 2
    files = [unquote(node.get("fileName")) for node in root if node.get("fileName")]
    # File names are as they are; what is shown is without control characters.
    assert files == [name] * 4


def test_numbers_keep_all_their_digits():
    # With nine digits this float32 would be told as 100.304367, below the voxel that has it.
    value = float(np.float32(100.30436706542969))
    map_ = Foreground("m", "m", value, value + 1, "s", value, value, "t", "w")
    text = mrml(Scene("c", Shown("b", "b", 0.0, 1.0), [map_], Views((0.0,) * 3, (0.0,) * 3, 1.0)))
    assert f'upperThreshold="{value!r}"' in text
    assert f'lowerThreshold="{value!r}"' in text


def no_scores():
    raise AssertionError("asked for")


def test_levels_by_hand():
    fdr = {"Rule": "fdr", "FlaggedP": 0.01, "Words": "false discovery rate 0.05"}
    assert level_of(fdr, 1e-6, no_scores).lower == 2.0
    assert level_of(fdr, 1e-6, no_scores).short == "p <= 0.01"
    nothing = fdr | {"FlaggedP": 0.0, "Words": "nothing is flagged"}
    assert level_of(nothing, 1e-6, no_scores).words == "nothing is flagged; shown: p <= 0.001, no decision"
    # A p that was asked for is shown whether or not a voxel has it.
    assert level_of({"Rule": "p", "P": 0.1, "FlaggedP": 0.0}, 1e-6, no_scores).lower == 1.0
    # A map of 19 slices cannot have less than 1/20.
    assert level_of(None, 0.05, no_scores).lower == surprise(0.05)
    dice = level_of({"Rule": "dice", "Threshold": 7.5, "Words": "score >= 7.5"}, 1e-6, no_scores)
    assert (dice.map, dice.lower, dice.words) == ("novelty", 7.5, "score >= 7.5")
    values = np.arange(101.0)
    assert level_of(fdr, None, lambda: values).lower == 99
    assert level_of(None, None, lambda: values[:0]).words == "no voxel was scored"


@given(st.floats(np.float32(1e-6), 300, width=32))
def test_a_p_that_came_from_a_map_is_shown_again(value):
    p = float(10.0 ** -np.float64(value))
    if 0 < p < 1:
        assert surprise(p) == value


def test_the_colour_table_has_a_line_a_colour():
    lines = [line.split() for line in colour_table().splitlines() if not line.startswith("#")]
    assert [int(line[0]) for line in lines] == list(range(256))
    assert {line[5] for line in lines} == {"255"}
    luminance = map_colours().astype(float) @ [0.2126, 0.7152, 0.0722]
    # From dark to light, so that it is read without colour, too.
    assert (np.diff(luminance) >= -1).all()
    assert luminance[-1] - luminance[0] > 150
    assert len(set(SEGMENTS)) == 5


def nrrd_of(path):
    head, _, body = path.read_bytes().partition(b"\n\n")
    lines = head.decode().splitlines()
    assert lines[0] == "NRRD0005"
    fields = dict(line.split(": ", 1) for line in lines[1:] if ":=" not in line)
    keys = dict(line.split(":=", 1) for line in lines[1:] if ":=" in line)
    sizes = [int(size) for size in fields["sizes"].split()]
    dtype = {"unsigned char": "u1", "unsigned short": "<u2"}[fields["type"]]
    voxels = np.frombuffer(gzip.decompress(body), dtype).reshape(sizes, order="F")
    vectors = [
        [float(x) for x in v.split(",")] for v in re.findall(r"\(([^)]*)\)", fields["space directions"])
    ]
    origin = [float(x) for x in fields["space origin"].strip("()").split(",")]
    return fields, keys, voxels, np.array(vectors), np.array(origin)


@pytest.mark.parametrize("grid", GRIDS)
def test_segments_lie_in_lps_and_their_voxels_are_the_labels(tmp_path, grid):
    labels = np.zeros((5, 6, 7), np.int16)
    labels[1:3, 2, 3:6], labels[4, 5, 6], labels[0, 0, 0] = 1, 2, 3
    affine, path = GRIDS[grid], tmp_path / "x.seg.nrrd"
    write_seg_nrrd(path, labels, affine, [Segment(1, "a"), Segment(2, "b\n\\n=c")])
    fields, keys, voxels, vectors, origin = nrrd_of(path)
    assert fields["space"] == "left-posterior-superior"
    # The label that is no segment's is not written.
    np.testing.assert_array_equal(voxels, np.where(labels == 3, 0, labels))
    for index in ((0, 0, 0), (4, 5, 6), (1, 2, 3)):
        lps = origin + np.array(index) @ vectors
        np.testing.assert_allclose(lps * [-1, -1, 1], (affine @ [*index, 1])[:3], atol=1e-9)
    assert (keys["Segment0_Extent"], keys["Segment1_Extent"]) == ("1 2 2 2 3 5", "4 4 5 5 6 6")
    assert (keys["Segment1_Name"], keys["Segment1_LabelValue"]) == ("b/x0a/n=c", "2")
    assert keys["Segment0_Color"] != keys["Segment1_Color"]
    again = tmp_path / "y.seg.nrrd"
    write_seg_nrrd(again, labels, affine, [Segment(1, "a"), Segment(2, "b\n\\n=c")])
    assert again.read_bytes() == path.read_bytes()


def test_more_labels_than_a_byte_holds(tmp_path):
    labels = np.arange(300).reshape(10, 6, 5)
    write_seg_nrrd(tmp_path / "x.seg.nrrd", labels, np.eye(4), [Segment(7, "a"), Segment(299, "b")])
    fields, _, voxels, _, _ = nrrd_of(tmp_path / "x.seg.nrrd")
    assert (fields["type"], fields["endian"]) == ("unsigned short", "little")
    np.testing.assert_array_equal(voxels, np.where(np.isin(labels, (7, 299)), labels, 0))


def test_segments_without_voxels_are_refused(tmp_path):
    labels = np.zeros((2, 3, 4), int)
    with pytest.raises(OutputError, match=r"x\.seg\.nrrd: no voxel has the label 1 of 'a'"):
        write_seg_nrrd(tmp_path / "x.seg.nrrd", labels, np.eye(4), [Segment(1, "a")])
    with pytest.raises(OutputError, match=r"x\.seg\.nrrd: has no segment"):
        write_seg_nrrd(tmp_path / "x.seg.nrrd", labels, np.eye(4), [])
    assert not list(tmp_path.iterdir())


def test_hundreds_of_clusters_become_a_hundred_segments():
    labels = np.arange(1, 1 + 4 * 5 * 9).reshape(4, 5, 9)
    segments = [Segment(n, f"cluster {n}") for n in range(1, 181)]
    found, kept = merged(labels, segments)
    assert len(kept) == MOST_SEGMENTS == 100
    assert kept[-1] == Segment(100, "clusters 100 to 180, together")
    np.testing.assert_array_equal(found, np.minimum(labels, 100))
    same, few = merged(labels, segments[:100])
    assert same is labels
    assert few == segments[:100]


def test_a_region_is_in_the_name_of_a_segment(written):
    table = written.path("desc-elbo_clusters.tsv")
    head, row = table.read_text().splitlines()
    table.write_text(f"{head}\tregion\n{row}\tLeft-Thalamus\n")
    write_scenes(written.out)
    keys = nrrd_of(written.path("desc-elbo_dseg.seg.nrrd"))[1]
    assert keys["Segment0_Name"].endswith(" ml, Left-Thalamus")


def test_without_a_background_the_mask_lies_below(written):
    written.path("desc-background.nii.gz").unlink()
    assert statuses(written.out) == ["done"]
    files = {node.get("fileName") for node in nodes(written.scene).values()}
    assert "sub-01_desc-brain_mask.nii.gz" in files
    save(written.path("desc-background.nii.gz"), written.background, written.affine, np.float32)
    assert statuses(written.out) == ["done"]
    assert "sub-01_desc-background.nii.gz" in written.scene.read_text()


def test_a_damaged_table_is_told(written):
    written.path("desc-elbo_clusters.tsv").write_text("cluster\tvolume_mm3\npeak\t1\n")
    (one,) = write_scenes(written.out)
    assert one.status == "done"
    assert list(by_score(written.scene)) == ["raw_b0"]
    assert "elbo is left out: sub-01_desc-elbo_clusters.tsv: no table of clusters" in one.message
    assert "run mednovelty threshold again" in one.message


def test_where_the_box_is_not_symmetric():
    # Or a flip would not be seen.
    for at, n in zip(BOX, (11, 14, 9), strict=True):
        assert at.start + at.stop != n
    assert replace(Segment(1, "a"), name="b").name == "b"
