"""Regions of an atlas, on other voxels than the scan's; names in the tables that are about."""

import nibabel as nib
import numpy as np
import pytest

from mednovelty.errors import ScanError
from mednovelty.segment.atlas import Atlas, Atlases, read_atlas, read_names, with_regions
from mednovelty.segment.clusters import describe, labelled

# The scan: 2 x 2 x 3 mm, x to the left. The atlas: 1 mm, x to the right, from (-20, -10, 0) on.
SCAN = np.array([[-2.0, 0, 0, 0], [0, 2, 0, -10], [0, 0, 3, 0], [0, 0, 0, 1]])
ATLAS = np.array([[1.0, 0, 0, -20], [0, 1, 0, -10], [0, 0, 1, 0], [0, 0, 0, 1]])


def atlas():
    labels = np.zeros((30, 20, 15), np.int64)
    labels[:18] = 4  # x from -20.5 to -2.5.
    labels[18:26] = 17  # To 5.5.
    return Atlas(labels, ATLAS, {17: "Hippocampus"})


def test_a_point_is_in_the_region_of_the_nearest_voxel():
    points = np.array(
        [[-20, -10, 0], [-2.6, 0, 3.4], [-2.4, 0, 3.4], [5.4, 9.4, 14.4], [5.6, 9, 14], [-21, 0, 0]]
    )
    assert atlas().at(points).tolist() == [4, 4, 17, 17, 0, 0]
    assert [atlas().name_of(region) for region in (17, 4, 0)] == ["Hippocampus", "4", "outside"]


def test_a_cluster_tells_the_shares_of_its_regions_in_the_world():
    flagged = np.zeros((6, 5, 4), bool)
    flagged[0:5, 2, 1] = True  # x = 0, -2, -4, -6, -8.
    flagged[0, 4, 3] = True  # (0, -2, 9).
    labels, _ = labelled(flagged, 6)
    clusters = describe(labels, np.ones(flagged.shape), None, SCAN)
    found = with_regions(clusters, labels, SCAN, atlas())
    assert [one.regions for one in found] == [(("4", 0.6), ("Hippocampus", 0.4)), (("Hippocampus", 1.0),)]
    assert [one.voxels for one in found] == [5, 1]


def test_what_no_region_covers_is_outside():
    flagged = np.ones((2, 2, 2), bool)
    labels, _ = labelled(flagged, 6)
    far = SCAN.copy()
    far[:3, 3] = 500
    (found,) = with_regions(describe(labels, np.ones((2, 2, 2)), None, far), labels, far, atlas())
    assert found.regions == (("outside", 1.0),)


@pytest.mark.parametrize(
    "text",
    [
        "index\tname\tabbreviation\n4\tVentricle\tV\n17\tHippocampus\tHC\n",
        "name\tindex\nVentricle\t4\nHippocampus\t17\n",
        "# FreeSurfer\n4   Ventricle  120 18 134 0\n\n17  Hippocampus  220 216 20 0\n",
        '# ITK-SNAP\n 4  255 0 0  1 1 1  "Ventricle"\n 17  0 255 0  1 1 1  "Hippocampus"\n',
        "4,Ventricle\n17,Hippocampus\n",
    ],
)
def test_names_are_read_as_they_are_written(tmp_path, text):
    (tmp_path / "names.txt").write_text(text)
    assert read_names(tmp_path / "names.txt") == {4: "Ventricle", 17: "Hippocampus"}


def test_names_may_have_blanks_and_no_control_characters(tmp_path):
    (tmp_path / "names.tsv").write_text("index\tname\n4\tLateral ventricle\x1b\n")
    assert read_names(tmp_path / "names.tsv") == {4: "Lateral ventricle\\x1b"}


@pytest.mark.parametrize("text", ["4\tVentricle\nseventeen\tHippocampus\n", "4\tVentricle\n17\n"])
def test_a_line_without_number_and_name_is_told(tmp_path, text):
    (tmp_path / "names.tsv").write_text(text)
    with pytest.raises(ScanError, match=r"names\.tsv, line 2: needs a region's number and its name"):
        read_names(tmp_path / "names.tsv")


def save(path, data, affine=ATLAS):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nib.Nifti1Image(data, affine)
    made.set_qform(affine, 1)
    made.set_sform(affine, 1)
    nib.save(made, path)
    return path


LABELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def test_an_image_and_the_names_beside_it_are_an_atlas(tmp_path):
    path = save(tmp_path / "aparc.nii.gz", LABELS)
    assert read_atlas(path).names == {}
    (tmp_path / "lut.txt").write_text("5 Insula 0 0 0 0\n")
    (tmp_path / "README.txt").write_text("about it\n")
    assert read_atlas(path).names == {5: "Insula"}
    (tmp_path / "aparc.tsv").write_text("index\tname\n5\tCuneus\n")
    found = read_atlas(path)
    assert found.names == {5: "Cuneus"}
    assert found.at(np.array([[-20.0, -9, 1]])).tolist() == [5]
    assert Atlases(path).of("sub-01").source == "aparc.nii.gz"


@pytest.mark.parametrize(("value", "told"), [(0.5, "0 to 23.5"), (-1, "-1 to 22"), (np.nan, "nan to nan")])
def test_an_atlas_has_whole_numbers(tmp_path, value, told):
    path = save(tmp_path / "a.nii.gz", (LABELS + value).astype(np.float32))
    with pytest.raises(
        ScanError, match=r"a\.nii\.gz: an atlas has a whole number from 0 on in each voxel"
    ) as caught:
        read_atlas(path)
    assert caught.value.code == "atlas.values"


def test_scans_of_a_folder_have_atlases_by_id(tmp_path):
    save(tmp_path / "sub-01" / "sub-01_space-T1w_desc-aparc_dseg.nii.gz", LABELS)
    save(tmp_path / "sub-02.nii.gz", LABELS * 2)
    save(tmp_path / "sub-03_T1w.nii.gz", LABELS)
    atlases = Atlases(tmp_path)
    assert atlases.of("sub-01").labels.max() == 23
    assert atlases.of("sub-02").labels.max() == 46
    assert atlases.of("sub-03") is None
    assert atlases.of("sub-0") is None
    save(tmp_path / "other" / "sub-02_dseg.nii.gz", LABELS)
    with pytest.raises(ScanError, match="sub-02 has two atlases, .*; keep one"):
        Atlases(tmp_path).of("sub-02")


def test_an_empty_folder_is_no_atlas(tmp_path):
    with pytest.raises(ScanError, match="no image is there that could be an atlas"):
        Atlases(tmp_path)
