"""A detector of synthetic lesions: rows, planting, losses by hand, the held-out family, what it finds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from anomaly_hosts import diffusion, gradients
from sklearn.metrics import average_precision_score, roc_auc_score

from mednovelty.abnormality import prior_section
from mednovelty.anomalies.geometry import smooth_fields
from mednovelty.batch import Batch
from mednovelty.errors import SettingsError
from mednovelty.methods.synthetic_lesions import SyntheticLesionsMethod, SyntheticLesionsSettings
from mednovelty.methods.synthetic_lesions_augmentation import moved, shaded
from mednovelty.methods.synthetic_lesions_model import Rows
from mednovelty.methods.synthetic_lesions_scores import SyntheticLesionsMap, SyntheticLesionsScore
from mednovelty.methods.synthetic_lesions_settings import COUNTERPARTS, counterpart
from mednovelty.nn.augmentation import Augmentation
from mednovelty.plugins import names, plugin
from mednovelty.testing.contracts import METHOD_CHECKS, SCORER_CHECKS
from mednovelty.train import TrainSettings, train
from mednovelty.voxel_cache import Acquisition, VoxelCache

SLICE, WINDOW, VOXEL = (2, 22, 27), (1, 16, 17, 18), (16,)
SPACING = {SLICE: (3.0, 2.0), WINDOW: (4.0, 3.0, 2.5)}


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def ball(space):
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in space], indexing="ij")
    return sum(axis.square() for axis in axes) <= 0.9


def images(n, shape=SLICE, seed=0):
    """Return ``(n, D)`` smooth tissue of mean 3 in an ellipsoid, 0 around it; of voxels, diffusion."""
    if shape == VOXEL:
        return diffusion((), n, gradients(14)).images
    count = n * shape[0]
    spacing = torch.tensor(SPACING[shape]).expand(count, -1)
    fields = smooth_fields(shape[1:], spacing, torch.full((count,), 5.0), draws(seed))
    return ((3 + 0.5 * fields.view(n, *shape)) * ball(shape[1:])).flatten(1)


def rows_of(n, shape=SLICE, seed=0, labels=0.0, truth=None):
    """Return rows as gathering makes them: sample, distances, truth, label."""
    parts = [images(n, shape, seed)]
    parts += [torch.tensor(SPACING[shape]).expand(n, -1)] if shape in SPACING else []
    parts += [] if truth is None else [truth.flatten(1).float()]
    return torch.cat([*parts, torch.full((n, 1), labels)], 1)


def table(rows, shape=SLICE):
    cache = VoxelCache(rows.shape[1], shape=shape)
    cache.append("scan", rows.numpy())
    if shape == VOXEL:
        scheme = gradients(14)
        cache.acquisition = Acquisition(
            tuple(scheme.bvalues_s_per_mm2.tolist()),
            (1.0,) * 16,
            tuple(map(tuple, scheme.directions.tolist())),
        )
    return cache


def method_of(**settings):
    return SyntheticLesionsMethod(SyntheticLesionsSettings(**{"width": 3, "hidden": (9,)} | settings))


def started(method, shape=SLICE):
    model = method.build(shape)
    method.start(model, table(rows_of(12, shape), shape), draws(1))
    return model


VARIANTS = [
    ({}, SLICE),
    ({"anomalies": "hyperintense,texture", "loss": "hypersphere", "outputs": 5}, SLICE),
    ({"network": "fcdd"}, SLICE),
    ({"anomalies": ("foreign",)}, WINDOW),
    ({}, VOXEL),
    ({"loss": "hypersphere", "anomalies": "s0", "outputs": 4}, VOXEL),
]


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("settings", "shape"), VARIANTS)
def test_method_contract(settings, shape, check):
    check(method_of(**settings), table(images(24, shape), shape), table(images(9, shape, 1), shape))


@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [SyntheticLesionsMap, SyntheticLesionsScore])
@pytest.mark.parametrize("shape", [SLICE, WINDOW])
def test_scorer_contract(kind, shape, check):
    model = started(method_of(), shape).eval().requires_grad_(False)
    check(kind(model), Batch, images(4, shape))


def test_rows_are_taken_apart_by_their_width():
    model, x = started(method_of()), images(3)
    truth = torch.rand(3, *SLICE[1:], generator=draws()) < 0.3
    full = model.split(rows_of(3, labels=-1.0, truth=truth))
    torch.testing.assert_close(full.images.flatten(1), x)
    assert torch.equal(full.truth, truth)
    assert torch.equal(full.mask, ball(SLICE[1:]).expand(3, -1, -1))
    assert full.spacing_mm.tolist() == [[3.0, 2.0]] * 3
    assert full.labels.tolist() == [-1.0] * 3
    bare = model.split(x)
    assert bare.spacing_mm.tolist() == [[1.0, 1.0]] * 3
    assert not bare.truth.any()
    # Of an anomaly whose place is not known, all tissue is.
    assert torch.equal(model.split(rows_of(3, labels=-1.0)).truth, full.mask)
    with pytest.raises(SettingsError, match="rows of 1190 values: a sample of shape"):
        model.split(torch.cat([x, torch.zeros(3, 2)], 1))


def planted(method, model, rows, seed=3):
    every = torch.ones(len(rows.images), dtype=torch.bool)
    return method.with_planted(model, rows, every, model.settings.split().training, draws(seed))


def test_what_is_planted_stays_in_the_tissue_and_within_what_training_samples_show():
    method = method_of(anomalies="hyperintense", anomaly_settings={"hyperintense": {"strength_sd": [40, 50]}})
    model = started(method)
    rows = model.split(rows_of(12))
    made = planted(method, model, rows)
    changed = (made.images != rows.images).any(1)
    assert changed.flatten(1).any(1).all()
    assert not (changed & ~rows.mask).any()
    assert (made.truth <= rows.mask).all()
    highest = rows.images.amax((0, 2, 3))
    torch.testing.assert_close(made.images.amax((0, 2, 3)), highest)
    # The same in what shows less than the background's 0: tissue is never brought to it.
    assert (made.images.amin((0, 2, 3)) == 0).all()
    assert (made.images.transpose(0, 1)[:, rows.mask].amin(1) > 0).all()


def test_the_size_of_what_is_planted_is_in_mm():
    tree = {"hyperintense": {"shapes": {"kinds": ["ellipsoid"], "diameter_mm": [12, 12], "most": 1}}}
    method = method_of(anomalies="hyperintense", anomaly_settings=tree)
    model = started(method)
    rows = model.split(rows_of(40))
    fine = rows._replace(spacing_mm=rows.spacing_mm / 2)
    middle = planted(method, model, rows).truth.flatten(1).sum(1).float().median()
    larger = planted(method, model, fine).truth.flatten(1).sum(1).float().median()
    assert 2.5 < larger / middle < 5  # Four times the pixels, where the tissue does not cut them off.
    assert middle == pytest.approx(math.pi * 6**2 / 6, rel=0.35)


def test_the_cross_entropy_by_hand():
    method = method_of(weight=7.0, mirrored=False)
    model = started(method)
    rows = model.split(rows_of(4))
    truth = torch.rand(rows.mask.shape, generator=draws()) < 0.2
    losses = method.losses(model.eval(), rows.images, truth)
    logits = model.logits(rows.images).double()
    p = torch.sigmoid(logits)
    expected = torch.where(truth, -7 * torch.log(p), -torch.log(1 - p))
    torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-5)
    # Told without the weight: at even odds among weighted voxels one in eight is an anomaly's.
    odds = model.lesion_map(images(4))
    torch.testing.assert_close(odds.double(), logits - math.log(7))


@pytest.mark.parametrize(("shape", "axes"), [(SLICE, (0,)), (SLICE, (1,)), (WINDOW, (0, 2)), (SLICE, (2,))])
def test_maps_are_means_of_samples_and_their_mirror_images(shape, axes):
    settings = {"augmentation": Augmentation(mirror_axes=axes), "weight": 1.0}
    model = started(method_of(**settings), shape).eval()
    x = images(3, shape)
    seen = x.unflatten(1, shape)
    ways = [seen, *(seen.flip(2 + axis) for axis in axes if axis < len(shape) - 1)]
    alone = [model.logits(way) for way in ways]
    back = [alone[0], *(one.flip(1 + axis) for one, axis in zip(alone[1:], axes, strict=False))]
    found = model.lesion_map(x)
    torch.testing.assert_close(found, torch.stack(back).mean(0))
    # Who mirrors a scan finds the map mirrored, which the network alone does not see to.
    if len(axes) == 1 and len(ways) == 2:
        turned = model.lesion_map(ways[1].flatten(1)).flip(1 + axes[0])
        torch.testing.assert_close(turned, found)
        assert (back[1] - back[0]).abs().max() > 1e-3


def test_half_precision_is_of_training_alone():
    full, half = (started(method_of(training_precision=kind)) for kind in ("float32", "bfloat16"))
    half.load_state_dict(full.state_dict())
    x = images(3)
    assert torch.equal(full.eval().lesion_map(x), half.eval().lesion_map(x))
    losses = []
    for model in (full, half):
        method = method_of()
        loss = method.losses(model.train(), x.unflatten(1, SLICE), x.unflatten(1, SLICE)[:, 0] > 3).mean()
        loss.backward()
        losses.append(loss.detach())
        assert {value.grad.dtype for value in model.parameters()} == {torch.float32}
    assert losses[0].dtype == losses[1].dtype == torch.float32
    assert losses[0] != losses[1]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=0.02)


def test_brought_to_the_origin_by_the_same_cross_entropy():
    method = method_of(loss="hypersphere", outputs=3)
    model = started(method).eval()
    rows = model.split(rows_of(4))
    phi = model.network(model.seen(rows.images)).double()
    h = (phi.square().sum(1) + 1).sqrt() - 1
    truth = torch.rand(rows.mask.shape, generator=draws()) < 0.2
    expected = torch.where(truth, -torch.log(1 - torch.exp(-h)), h)
    losses = method.losses(model, rows.images, truth).double()
    far = h > 0.01  # Nearer to the origin the logarithm of a distance is that of what was added to it.
    assert far.double().mean() > 0.8
    torch.testing.assert_close(losses[far], expected[far], rtol=1e-3, atol=1e-4)


def test_annotated_anomalies_are_trained_on_as_they_are_and_choose_nothing():
    method = method_of(clean=0.0, augmentation=Augmentation((), 0.0, (1.0, 1.0), (1.0, 1.0), 0.0))
    model = started(method)
    truth = ball(SLICE[1:]).expand(4, -1, -1) & (torch.arange(27) < 9)
    seen = []
    method.losses = lambda model, images, truth: seen.append((images, truth)) or images.sum((1, 2, 3))
    method.loss(model, rows_of(4, labels=-1.0, truth=truth), 1, draws())
    torch.testing.assert_close(seen[0][0].flatten(1), images(4))
    assert torch.equal(seen[0][1], truth)
    both = torch.cat([rows_of(5, seed=4), rows_of(4, labels=-1.0)])
    told = method.validate(model, [both], draws(2))
    assert told == method.validate(model, [rows_of(5, seed=4)], draws(2))
    with pytest.raises(SettingsError, match="all held-out samples are anomalies"):
        method.validate(model, [rows_of(4, labels=-1.0)], draws(2))


def test_a_share_of_the_samples_stays_clean():
    method = method_of(clean=0.75)
    model, shares = started(method), []
    method.losses = lambda model, images, truth: shares.append(truth.flatten(1).any(1)) or images.sum(1)
    for seed in range(20):
        method.loss(model, rows_of(16), 1, draws(seed))
    assert 0.15 < torch.cat(shares).float().mean() < 0.33


def test_validation_is_one_minus_the_average_precision_on_the_held_out_family():
    method = method_of(anomalies="texture", held_out="hyperintense")
    model = started(method).eval()
    told = method.validate(model, [rows_of(5)], draws(2))
    rows = model.split(rows_of(5))
    every = torch.ones(5, dtype=torch.bool)
    made = method.with_planted(model, rows, every, model.settings.split().validation, draws(2))
    assert list(model.settings.split().validation.families) == ["hyperintense"]
    values = torch.cat([model.logits(x)[rows.mask] for x in (rows.images, made.images)]).detach()
    truth = torch.cat([torch.zeros_like(made.truth), made.truth])[rows.mask.repeat(2, 1, 1)]
    assert told["loss"] == pytest.approx(1 - average_precision_score(truth, values), rel=1e-6)
    assert told["auroc"] == pytest.approx(roc_auc_score(truth, values), rel=1e-6)


def test_samples_are_mirrored_with_their_masks_and_truth():
    model = started(method_of(augmentation=Augmentation((0, 1), 0.0, (1.0, 1.0))))
    x = torch.zeros(40, *SLICE)
    x[:, :, 3:9, 4:20] = torch.rand(40, 2, 6, 16, generator=draws()) + 1
    x[:, :, 5, 6] = 9.0
    rows = Rows(x, (x != 0).any(1), torch.ones(40, 2), x[:, 0] == 9.0, torch.zeros(40))
    turned = moved(model, rows, draws(1))
    assert torch.equal(turned.mask, (turned.images != 0).any(1))
    assert torch.equal(turned.truth, turned.images[:, 0] == 9.0)
    places = {tuple(place[1:]) for place in turned.truth.nonzero().tolist()}
    assert places == {(5, 6), (16, 6), (5, 20), (16, 20)}
    fewer = moved(started(method_of(augmentation=Augmentation((1,), 0.0, (1.0, 1.0)))), rows, draws(1))
    assert {tuple(place[1:]) for place in fewer.truth.nonzero().tolist()} == {(5, 6), (5, 20)}


def test_noise_leaves_the_background_alone():
    model = started(method_of(augmentation=Augmentation((), 0.0, (1.0, 1.0), (0.5, 0.5), 0.2)))
    rows = model.split(rows_of(6))
    changed = shaded(model, rows, draws())
    outside = ~rows.mask[:, None].expand_as(changed)
    assert (changed[outside] == 0).all()
    assert 0.005 < (changed - 0.5 * rows.images)[~outside].std() < 0.2


@pytest.mark.parametrize("needs", ["images", "diffusion"])
def test_every_family_has_a_counterpart_of_its_kind(needs):
    kinds = {name: plugin("anomalies", name).needs for name in names("anomalies")}
    for name, kind in kinds.items():
        if kind == needs:
            other = counterpart((name,), needs)
            assert kinds[other] == needs
            assert other != name
            assert name in COUNTERPARTS
    with pytest.raises(SettingsError, match="none is left to validate on"):
        counterpart(tuple(name for name, kind in kinds.items() if kind == needs), needs)


def test_what_is_held_out_goes_the_way_of_what_is_trained_on():
    def signs(**settings):
        found = SyntheticLesionsSettings(**settings).resolved(images=True, gradients=False)
        return found.split().validation.families["lesions"].signs

    assert signs(anomalies="hyperintense") == (1,)
    assert signs(anomalies="hypointense") == (-1,)
    assert signs(anomalies="contrast") == ()
    assert signs(anomalies="hyperintense", anomaly_settings={"hyperintense": {"signs": [1, -1]}}) == (1, -1)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (
            {"anomalies": "exchange"},
            (True, False),
            "exchange are of diffusion, and these samples are of images",
        ),
        (
            {"anomalies": "texture"},
            (False, True),
            "texture are of images, and these samples are of diffusion",
        ),
        ({}, (False, False), "voxels without gradients"),
        ({"network": "mlp"}, (True, False), "voxels have an mlp"),
        ({"network": "unet"}, (False, True), "voxels have an mlp"),
        ({"inputs": "maps"}, (True, False), "maps of diffusion signals"),
        ({"anomalies": "texture", "held_out": "texture"}, (True, False), "both trained on and held out"),
    ],
)
def test_what_does_not_fit_the_samples_is_refused(settings, kind, message):
    images, gradients = kind
    with pytest.raises(SettingsError, match=message):
        SyntheticLesionsSettings(**settings).resolved(images=images, gradients=gradients)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clean": 1.0}, "nothing would be planted"),
        ({"weight": 0.0}, "weight=0.0"),
        ({"hidden": ()}, "1 to"),
        ({"network": "vgg"}, "network='vgg'"),
        ({"width": 0}, "width=0"),
        ({"anomalies": "texture,texture"}, "named twice"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        SyntheticLesionsSettings(**settings)


def test_small_images_and_unknown_acquisitions_are_refused():
    with pytest.raises(SettingsError, match="12 x 30 are too small"):
        method_of().build((1, 12, 30))
    with pytest.raises(SettingsError, match="training_precision=bfloat16 is for slices"):
        method_of(training_precision="bfloat16").build(WINDOW)
    method = method_of()
    voxels = VoxelCache.from_array(images(30, VOXEL).numpy())
    with pytest.raises(SettingsError, match="b-values and directions of these voxels"):
        method.start(method.build(VOXEL), voxels, draws())
    with pytest.raises(SettingsError, match="all training samples are labelled anomalies"):
        method.start(method.build(SLICE), table(rows_of(4, labels=-1.0)), draws())
    with pytest.raises(SettingsError, match="numbers from 2 to 2"):
        method.start(method.build(SLICE), table(rows_of(4, labels=2.0)), draws())


def trained(method, shape, epochs, batch=16):
    model = method.build(shape)
    settings = TrainSettings(batch_size=batch, max_epochs=epochs, learning_rate=3e-3, gradient_clip=10.0)
    count = 2000 if shape == VOXEL else 96
    train(method, model, table(rows_of(count, shape), shape), table(rows_of(20, shape, 9), shape), settings)
    return model


def test_it_finds_bright_blobs_and_says_that_it_is_blind_to_dark_ones():
    method = method_of(anomalies="hyperintense", width=6)
    model = trained(method, SLICE, 6)
    said = method.assess(model, table(rows_of(8)), table(rows_of(24, seed=7)), draws(5))
    assert not said["collapsed"], said["verdict"]
    found = {row["family"]: row for row in said["found"]}
    assert found["hyperintense"]["trained_on"]
    assert not found["hypointense"]["trained_on"]
    assert found["hyperintense"]["auroc"] > 0.8
    assert found["hypointense"]["auroc"] < 0.6
    assert "exchange" not in found
    assert "brighter" in said["prior"]["words"]
    assert said["prior"]["held_out"]["words"].startswith("lesions: ")
    x = rows_of(3, seed=11)
    rows = model.split(x)
    made = planted(method, model, rows)
    maps = model.lesion_map(made.images.flatten(1))
    assert maps[made.truth].mean() > maps[rows.mask & ~made.truth].mean() + 0.3
    score = SyntheticLesionsScore(model).score(Batch(made.images.flatten(1)))
    torch.testing.assert_close(score, maps.flatten(1).exp().mean(1).log())


def test_it_finds_exchanged_diffusion_in_voxels():
    method = method_of(anomalies="exchange", hidden=(32,))
    model = trained(method, VOXEL, 8, batch=256)
    said = method.assess(
        model, table(rows_of(8, VOXEL), VOXEL), table(rows_of(500, VOXEL, 3), VOXEL), draws(5)
    )
    found = {row["family"]: row for row in said["found"]}
    assert found["exchange"]["auroc"] > 0.7
    assert set(found) == {"exchange", "free_water", "anisotropy_loss", "fibre_loss", "diffusivity", "s0"}


def test_a_network_that_learnt_nothing_says_so():
    method = method_of()
    model = started(method).eval()
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    said = method.assess(model, table(rows_of(8)), table(rows_of(8, seed=7)), draws(5))
    assert said["collapsed"]
    assert "does not even find what it was trained on" in said["verdict"]


def test_lesion_shapes_are_taken_by_families_that_have_shapes(tmp_path):
    import nibabel as nib

    mask = np.zeros((20, 21, 22), np.uint8)
    mask[4:9, 5:12, 6:15] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "sub-1_mask.nii.gz")
    method = method_of(anomalies="hyperintense,confetti", lesion_shapes=str(tmp_path))
    model = started(method)
    families = model.settings.split().training.families
    assert families["hyperintense"].shapes.kinds == ("outline",)
    made = planted(method, model, model.split(rows_of(8)))
    assert made.truth.any()
    blob = {"hyperintense": {"shapes": {"kinds": ["blob"]}}}
    other = method_of(anomalies="hyperintense,noise", lesion_shapes=str(tmp_path), anomaly_settings=blob)
    assert other.build(SLICE).settings.split().training.families["hyperintense"].shapes.kinds == ("blob",)
    (said,) = prior_section({"prior": method.assess(
        model, table(rows_of(8)), table(rows_of(4, seed=7)), draws(5))["prior"]})[2:3]  # fmt: skip
    assert "1 to 3 shapes of 8.4 to 33.8 mm (outlines of real lesions" in said
    assert "lesions are 1 outlines of 17 to 17 mm, turned, warped and scaled by 0.5 to 2, 8.4 to 33.8" in said


def test_lesion_shapes_that_nothing_would_take_are_refused(tmp_path):
    blob = {"hyperintense": {"shapes": {"kinds": ["blob"]}}}
    for asked in ({"anomalies": "confetti,lesions"}, {"anomalies": "hyperintense", "anomaly_settings": blob}):
        method = method_of(lesion_shapes=str(tmp_path), **asked)
        with pytest.raises(SettingsError, match="would not take them: leave --lesion-shapes out, or choose"):
            method.for_samples(images=True, gradients=False)
    voxels = method_of(lesion_shapes=str(tmp_path), anomalies="exchange")
    with pytest.raises(SettingsError, match="single voxels, which have none: leave --lesion-shapes out"):
        voxels.for_samples(images=False, gradients=True)


def test_outlines_of_other_sizes_than_asked_for_are_refused_before_any_scan_is_read(tmp_path):
    import nibabel as nib

    mask = np.zeros((20, 21, 22), np.uint8)
    mask[4:9, 5:12, 6:15] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "sub-1_mask.nii.gz")
    small = {"hyperintense": {"shapes": {"diameter_mm": [2.0, 7.0]}}}
    method = method_of(anomalies="hyperintense", lesion_shapes=str(tmp_path), anomaly_settings=small)
    with pytest.raises(
        SettingsError, match=r"asks for 2 to 7 mm, and 1 outlines .* have 8.4 to 33.8 mm; ask"
    ):
        method.check_ready(method.build(SLICE))


def test_a_model_is_the_same_whatever_others_have_drawn():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model = method_of().build(SLICE)
    assert torch.equal(torch.get_rng_state(), before)
    convolutions = [weight for weight in model.parameters() if weight.dim() > 1]
    assert len(convolutions) > 15
    assert not any(weight.any() for weight in convolutions)
    assert replace(model.settings, width=4) != model.settings


def test_what_the_network_sees_has_mean_0_and_deviation_1_in_the_tissue():
    model = started(method_of())
    rows = model.split(rows_of(12))
    for channel in range(2):
        values = rows.images[:, channel][rows.mask]
        assert model.centre[channel].item() == pytest.approx(values.mean().item(), rel=1e-4)
        assert model.spread[channel].item() == pytest.approx(values.std(correction=0).item(), rel=1e-3)
        assert model.low[channel] == values.min()
        assert model.high[channel] == values.max()
    seen = model.seen(rows.images).transpose(0, 1)[:, rows.mask]
    torch.testing.assert_close(seen.std(1), torch.ones(2), rtol=1e-3, atol=1e-3)
    assert seen.mean(1).abs().max() < 1e-3
