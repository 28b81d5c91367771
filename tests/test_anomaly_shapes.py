"""Where anomalies lie: sizes in mm whatever the voxels, soft edges, tissue borders, real outlines."""

import hashlib
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from anomaly_hosts import drawn, images
from scipy.ndimage import label

from mednovelty.abnormality import prior_section
from mednovelty.anomalies import shapes
from mednovelty.anomalies.geometry import offsets_mm, one_voxel, rotations, sampled, smooth_fields, soft
from mednovelty.anomalies.host import Host
from mednovelty.anomalies.mixture import Mixture
from mednovelty.anomalies.outlines import outlines_of, read_outlines
from mednovelty.anomalies.shapes import Shapes, tissue_borders
from mednovelty.errors import ScanError, SettingsError

SPACES = {2: ((61, 47), (1.0, 1.6)), 3: ((29, 23, 17), (1.0, 1.5, 2.2))}


def everywhere(axes, n=40, outlines=None):
    space, spacing = SPACES[axes]
    mask = torch.ones(n, *space, dtype=torch.bool)
    return Host(torch.zeros(n, 1, *space), mask, spacing, outlines=outlines)


def diameters(profile, spacing):
    axes = len(spacing)
    volume = (profile > 0.5).flatten(1).sum(1) * math.prod(spacing)
    return (4 * volume / math.pi).sqrt() if axes == 2 else (6 * volume / math.pi) ** (1 / 3)


def inner(profile):
    """Of samples whose shape does not touch the border of the image."""
    sides = [profile.select(axis, end) for axis in range(1, profile.dim()) for end in (0, -1)]
    return ~torch.stack([side.flatten(1).any(1) for side in sides]).any(0)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_ball_has_its_radius_in_mm_along_every_axis(monkeypatch, axes):
    monkeypatch.setattr(shapes, "ELONGATION", 1.0)
    host = everywhere(axes)
    profile = Shapes(("ellipsoid",), (12.0, 12.0), (0.01, 0.01), most=1).draw(host, drawn())
    found = profile[inner(profile)] > 0.5
    assert len(found) > 5
    assert diameters(found.float(), host.spacing_mm[0].tolist()).mean() == pytest.approx(12, rel=0.03)
    for axis, spacing in enumerate(host.spacing_mm[0].tolist(), start=1):
        others = [other for other in range(1, axes + 1) if other != axis]
        extent = found.amax(others).sum(1) * spacing
        assert (extent - 12).abs().max() <= spacing


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(("kind", "slack"), [("ellipsoid", 0.06), ("blob", 0.1)])
def test_sizes_are_diameters_of_the_ball_of_the_same_volume(kind, slack, axes):
    host = everywhere(axes)
    profile = Shapes((kind,), (10.0, 10.0), (0.5, 0.5), most=1).draw(host, drawn())
    found = diameters(profile[inner(profile)], host.spacing_mm[0].tolist())
    assert len(found) > 5
    assert found.median() == pytest.approx(10, rel=slack)


@pytest.mark.parametrize("axes", [2, 3])
def test_islands_of_a_field_fill_what_so_many_balls_would(axes):
    host = everywhere(axes, n=12)
    spacing = host.spacing_mm[0].tolist()
    profile = Shapes(("field",), (9.0, 9.0), (0.5, 0.5), most=1).draw(host, drawn())
    assert diameters(profile, spacing).tolist() == pytest.approx([9.0] * 12, rel=0.02)
    islands = [label(sample)[1] for sample in (profile > 0.5).numpy()]
    assert 1 <= np.mean(islands) < 5  # Not specks.


def test_islands_are_never_most_of_the_tissue():
    host = images((15, 17), n=8)
    profile = Shapes(("field",), (300.0, 300.0)).draw(host, drawn())
    share = (profile > 0.5).flatten(1).sum(1) / host.mask.flatten(1).sum(1)
    assert share.max() <= shapes.LARGEST_SHARE + 0.01


def test_edges_are_as_wide_as_asked_for(monkeypatch):
    distance = torch.tensor([[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]])
    assert soft(distance, torch.tensor([4.0])).tolist() == [
        [0.0, 0.0, 3 / 16 - 2 / 64, 0.5, 1 - (3 / 16 - 2 / 64), 1.0, 1.0]
    ]
    monkeypatch.setattr(shapes, "ELONGATION", 1.0)
    for edge in (2.0, 6.0):
        profile = Shapes(("ellipsoid",), (20.0, 20.0), (edge, edge), 1).draw(everywhere(2), drawn())
        profile = profile[inner(profile)]
        assert len(profile) > 3
        # A ring of that width around a circle of 20 mm.
        ring_mm2 = ((profile > 0) & (profile < 1)).flatten(1).sum(1) * 1.6
        assert ring_mm2.tolist() == pytest.approx([math.pi * 20 * edge] * len(profile), rel=0.15)


def test_borders_are_where_tissue_changes_and_nowhere_else():
    images_ = torch.zeros(2, 1, 12, 14)
    images_[0, :, :, 7:] = 5
    mask = torch.ones(2, 12, 14, dtype=torch.bool)
    mask[:, :, :3] = False
    host = Host(images_, mask, (1.0, 2.0))
    weights = tissue_borders(host)
    assert weights[0].any(0).nonzero()[:, 0].tolist() == [6, 7]
    # A mask's own border is none; of an image that is flat all tissue is as good.
    assert torch.equal(weights[1] > 0, mask[1])
    middles = one_voxel(weights[:1].expand(50, -1, -1), drawn())
    assert set(middles[:, 1].tolist()) == {6.0, 7.0}


def test_voxels_are_drawn_by_weight():
    weights = torch.tensor([[1.0, 0.0, 3.0]]).expand(4000, 3)
    found = one_voxel(weights, drawn())[:, 0]
    assert not (found == 1).any()
    assert (found == 2).float().mean() == pytest.approx(0.75, abs=0.03)


def test_voxels_without_axes_are_the_mask():
    mask = torch.tensor([True, False, True])
    assert Shapes().draw(Host(torch.zeros(3, 4), mask), drawn()).tolist() == [1.0, 0.0, 1.0]


def test_rotations_are_rotations_and_go_everywhere():
    found = rotations(300, 3, drawn())
    assert torch.allclose(found @ found.mT, torch.eye(3).expand(300, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(found), torch.ones(300), atol=1e-5)
    assert found.mean(0).abs().max() < 0.15


def test_smooth_fields_are_as_smooth_as_asked_for_in_mm():
    spacing = torch.tensor([[1.0, 2.0]]).expand(200, 2)
    field = smooth_fields((64, 48), spacing, torch.full((200,), 3.0), drawn())
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.square().mean() == pytest.approx(1, abs=1e-4)
    # The covariance of smoothed white noise: exp(-d^2 / (4 sigma^2)).
    for axis, step in ((1, 1.0), (2, 2.0)):
        near = (field.narrow(axis, 0, 40) * field.narrow(axis, 4, 40)).mean()
        assert near == pytest.approx(math.exp(-((4 * step) ** 2) / 36), abs=0.03)


def test_places_outside_are_those_of_the_border():
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    places = torch.tensor([[0.0, 1.5, 2.0], [0.0, 2.0, 9.0]]).reshape(1, 2, 3, 1)
    assert sampled(image, places).flatten().tolist() == pytest.approx([0.0, 8.0, 11.0])


def test_offsets_are_in_mm():
    found = offsets_mm((3, 4), torch.tensor([[2.0, 0.5]]), torch.tensor([[1.0, 2.0]]))
    assert found[0, 0, :, 0].tolist() == [-2.0, 0.0, 2.0]
    assert found[0, 1, 0].tolist() == [-1.0, -0.5, 0.0, 0.5]


def bar(length=9, width=3, spacing=(2.0, 1.0, 1.5)):
    mask = np.zeros((14, 12, 10), bool)
    mask[2 : 2 + length, 4 : 4 + width, 3 : 3 + width] = True
    mask[0, 0, 0] = True  # A speck.
    return mask, spacing


def test_outlines_are_single_lesions_of_their_own_size():
    found = outlines_of([bar(), bar(3, 2)])
    assert len(found.each) == 2
    volume = 9 * 3 * 3 * 3.0
    assert found.each[0].diameter_mm == pytest.approx((6 * volume / math.pi) ** (1 / 3))
    assert (found.each[0].distance_mm > 0).sum() == 81
    assert len(found.each[0].inside) == 81
    assert found.sha256 != outlines_of([bar()]).sha256
    assert "2 outlines of 4 to 8 mm" in found.describe()
    with pytest.raises(SettingsError, match="no outline of a lesion"):
        outlines_of([(np.zeros((4, 5, 6), bool), (1, 1, 1))])


@pytest.mark.parametrize("axes", [2, 3])
def test_outlines_are_scaled_to_the_size_asked_for(axes):
    ball = np.sum(((np.indices((15, 13, 13)).T - [7, 6, 6]) * [1.0, 1.2, 1.2]) ** 2, -1).T <= 6.5**2
    host = everywhere(axes, outlines=outlines_of([(ball, (1.0, 1.2, 1.2))]))
    found = Shapes(("outline",), (11.0, 11.0), (0.5, 0.5), most=1).draw(host, drawn())
    sizes = diameters(found[inner(found)], host.spacing_mm[0].tolist())
    assert len(sizes) > 5
    if axes == 3:
        assert sizes.median() == pytest.approx(11, rel=0.12)
    else:  # Sections through any of its voxels: up to the whole ball.
        assert 5 < sizes.median() < 11.5
    assert sizes.max() < 14


def test_outlines_that_are_asked_for_must_be_there():
    with pytest.raises(
        SettingsError, match="asks for outlines of real lesions, and there are none: give --les"
    ):
        Shapes(("outline",)).draw(images(), drawn())


def test_outlines_are_read_from_a_folder_of_masks(tmp_path):
    mask, spacing = bar()
    affine = np.diag([*spacing, 1.0])
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / "sub-1_lesion_mask.nii.gz")
    nib.save(nib.Nifti1Image(0 * mask.astype(np.uint8), affine), tmp_path / "sub-2_lesion_mask.nii.gz")
    nib.save(nib.Nifti1Image(mask * 100.0, affine), tmp_path / "sub-1_FLAIR.nii.gz")
    found = read_outlines(tmp_path)
    assert [outline.spacing_mm for outline in found.each] == [spacing]
    own = hashlib.sha256((tmp_path / "sub-1_lesion_mask.nii.gz").read_bytes()).hexdigest()
    assert found.ranges()["masks"] == [own]
    (tmp_path / "sub-1_lesion_mask.nii.gz").unlink()
    with pytest.raises(ScanError, match="0 masks, and no lesion of 8 voxels or more"):
        read_outlines(tmp_path)
    with pytest.raises(ScanError, match="nowhere"):
        read_outlines(tmp_path / "nowhere")


def test_spacings_decide_how_many_voxels_a_lesion_has():
    coarse, fine = (
        Host(torch.zeros(40, 1, 40, 40), torch.ones(40, 40, 40, dtype=torch.bool), (step, step))
        for step in (2.0, 1.0)
    )
    shape = Shapes(("field",), (8.0, 8.0), (0.5, 0.5), 1)
    counts = [(shape.draw(host, drawn()) > 0.5).flatten(1).sum(1).float().mean() for host in (coarse, fine)]
    assert counts[1] / counts[0] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda mask: mask + 1000.0 * np.arange(mask.size).reshape(mask.shape),
         r"sub-1_FLAIR.*: holds 1,680 different values, from .*: a lesion mask holds 0, and 1 .* not scans"),
        (lambda mask: 0.7 * mask, "holds 2 different values, not all of them whole numbers, from 0 to 0.7"),
        (lambda mask: -1.0 * mask, "holds 2 different values, from -1 to 0"),
        (lambda mask: np.where(mask, np.nan, 0), "holds 2 different values, not all of them whole numbers"),
        (lambda mask: np.arange(mask.size).reshape(mask.shape) > 900,
         "a region fills 46 % of the image, more than a lesion does .33 %.*not of heads or brains"),
    ],
)  # fmt: skip
def test_images_that_are_no_lesion_masks_are_refused(made, said, tmp_path):
    mask, spacing = bar()
    image = nib.Nifti1Image(made(mask).astype(np.float32), np.diag([*spacing, 1.0]))
    nib.save(image, tmp_path / "sub-1_FLAIR.nii.gz")
    with pytest.raises(ScanError, match=said):
        read_outlines(tmp_path)


def test_numbered_lesions_are_a_mask(tmp_path):
    mask, spacing = bar()
    nib.save(nib.Nifti1Image(17.0 * mask, np.diag([*spacing, 1.0])), tmp_path / "clusters.nii.gz")
    assert len(read_outlines(tmp_path).each) == 1


def test_outlines_that_are_planted_are_told_with_the_sizes_that_they_can_have():
    outlines = outlines_of([bar(), bar(3, 2)])
    assert outlines.diameter_mm == pytest.approx((4.1, 7.73), abs=0.05)
    assert outlines.attainable_mm((4.0, 40.0)) == pytest.approx((4.0, 15.46), abs=0.05)
    assert outlines.attainable_mm((1.0, 9.0)) == pytest.approx((2.06, 9.0), abs=0.05)
    with pytest.raises(
        SettingsError, match=r"asks for 16 to 40 mm, and 2 outlines of 4 to 8 mm.* 15.5 mm; ask"
    ):
        outlines.attainable_mm((16.0, 40.0))
    prior = Mixture.of("noise", {"noise": {"shapes": {"kinds": ["outline"]}}}).describe(outlines)
    assert "1 to 3 shapes of 4 to 15.5 mm (outlines of real lesions, of which slices show" in prior.words
    assert "lesions are 2 outlines of 4 to 8 mm" in prior.words
    told = prior.ranges["noise"]
    assert told["shapes"]["diameter_mm"] == (4.0, 15.5)
    assert told["outlines"]["sha256"] == outlines.sha256
    assert told["outlines"]["count"] == 2
    assert any("not among them" in line for line in prior_section({"prior": vars_of(prior)}))
    # Beside other kinds, which have all sizes, those of outlines are told apart.
    both = Mixture.of("noise", {"noise": {"shapes": {"kinds": ["outline", "blob"]}}}).describe(outlines)
    assert "1 to 3 shapes of 4 to 40 mm" in both.words
    assert "4 to 15.5 mm where planted" in both.words
    assert not any("not among them" in line for line in prior_section({"prior": vars_of(
        Mixture.of("noise").describe(outlines))}))  # fmt: skip


def vars_of(prior):
    return {"words": prior.words, "ranges": prior.ranges}
