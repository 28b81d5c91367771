"""Every family of anomalies keeps its promises; mixtures, settings, held-out families."""

from dataclasses import replace

import pytest
import torch
from anomaly_hosts import SLICES, SPACINGS, VOLUMES, diffusion, drawn, gradients, images

from mednovelty.anomalies.host import Anomaly, Gradients, Host
from mednovelty.anomalies.mixture import Mixture, spelled, split
from mednovelty.errors import SettingsError, UnknownPluginError
from mednovelty.plugins import names, plugin
from mednovelty.testing.anomaly_contracts import ANOMALY_CHECKS

FAMILIES = {name: plugin("anomalies", name)() for name in names("anomalies")}
OF_IMAGES = [name for name, family in FAMILIES.items() if family.needs == "images"]
OF_DIFFUSION = [name for name, family in FAMILIES.items() if family.needs == "diffusion"]


def test_all_families_are_there():
    assert {"hyperintense", "hypointense", "contrast", "texture", "foreign", "poisson", "deformation",
            "noise", "blur", "inversion", "confetti", "lesions"} == set(OF_IMAGES)  # fmt: skip
    assert set(OF_DIFFUSION) == {
        "exchange",
        "free_water",
        "anisotropy_loss",
        "fibre_loss",
        "diffusivity",
        "s0",
    }
    assert all(isinstance(family, Anomaly) for family in FAMILIES.values())


@pytest.mark.parametrize("check", ANOMALY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("space", [SLICES, VOLUMES], ids=["slices", "volumes"])
@pytest.mark.parametrize("name", OF_IMAGES)
def test_contract_of_families_of_images(name, space, check):
    check(FAMILIES[name], images(space))


@pytest.mark.parametrize("check", ANOMALY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("space", [(), VOLUMES], ids=["voxels", "volumes"])
@pytest.mark.parametrize("name", OF_DIFFUSION)
def test_contract_of_families_of_diffusion(name, space, check):
    check(FAMILIES[name], diffusion(space, n=3 if space else 40))


def test_families_refuse_samples_of_another_kind():
    with pytest.raises(SettingsError, match="Noise: are planted in slices, windows and volumes, not in samp"):
        FAMILIES["noise"].plant(diffusion(()), drawn())
    with pytest.raises(
        SettingsError, match="Exchange: are planted in diffusion samples whose b-values are k"
    ):
        FAMILIES["exchange"].plant(images(), drawn())


def test_a_host_says_what_does_not_fit():
    host = images()
    with pytest.raises(SettingsError, match=r"need a mask \(6, 23, 31\) of bool, got \(6, 23\)"):
        Host(host.images, host.mask[..., 0], (1.0, 1.0))
    with pytest.raises(
        SettingsError, match=r"samples of 2 axes need \(2,\) or \(6, 2\) spacings above 0, got"
    ):
        Host(host.images, host.mask, (1.0,))
    with pytest.raises(SettingsError, match="samples of 2 channels cannot have 16 b-values"):
        replace(host, gradients=gradients())
    with pytest.raises(
        SettingsError, match=r"4 b-values need \(4, 3\) directions and \(4,\) divisors, got \(3"
    ):
        Gradients(torch.zeros(4), torch.zeros(3, 3))
    with pytest.raises(SettingsError, match="there is no volume at b = 0 to compare signals with"):
        gradients(b0s=0)


def test_settings_come_as_trees_and_are_checked():
    one = Mixture.of("noise", {"noise": {"strength_sd": [2, 2], "shapes": {"most": 1}}}).families["noise"]
    assert (one.strength_sd, one.shapes.most, one.shapes.kinds) == (
        (2.0, 2.0),
        1,
        ("field", "blob", "border"),
    )
    for tree, said in (
        ({"strength": [1, 2]}, "no setting is called 'strength'; did you mean 'strength_sd'"),
        ({"strength_sd": [2, 1]}, "strength_sd must be two rising numbers from 0.01 to 100, got 2.0 and 1.0"),
        ({"shapes": {"kinds": ["star"]}}, "Input should be 'field'"),
        ({"shapes": {"most": 0}}, "most must be between 1 and 100, got 0"),
        (
            {"shapes": {"diameter_mm": [0, 5]}},
            "diameter_mm must be two rising numbers from 0.1 to 500, got 0",
        ),
    ):
        with pytest.raises(SettingsError, match=said):
            Mixture.of("noise", {"noise": tree})
    with pytest.raises(SettingsError, match=r"strength must be two rising numbers from 0\.01"):
        Mixture.of("deformation", {"deformation": {"strength": [0.5, 1.5]}})
    with pytest.raises(SettingsError, match="settings of texture, which is not among noise"):
        Mixture.of("noise", {"texture": {}})


def test_a_mixture_gives_each_sample_one_family_by_weight():
    host = images((9, 11), n=400, channels=1)
    mixture = Mixture.of("hyperintense,hypointense", weights={"hypointense": 3})
    assert mixture.shares == {"hyperintense": 0.25, "hypointense": 0.75}
    made = mixture.plant(host, drawn())
    change = (made.images - host.images).flatten(1)
    assert not ((change > 0).any(1) & (change < 0).any(1)).any()
    darker = (change < 0).any(1)
    assert 0.7 < darker.float().mean() < 0.8
    assert torch.equal(made.truth, made.profile > 0.5)
    assert made.truth.flatten(1).any(1).float().mean() > 0.95


def test_a_mixture_takes_foreign_tissue_from_the_whole_batch():
    n = 30
    host = images((9, 11), n=n, channels=1)
    marked = replace(host, images=torch.arange(n).float()[:, None, None, None].expand(n, 1, 9, 11).clone())
    mixture = Mixture.of("foreign,inversion", {"foreign": {"share": [1, 1]}})
    made = mixture.plant(marked, drawn())
    whole = made.images[:, 0][made.profile == 1]
    own = marked.images[:, 0][made.profile == 1]
    assert len(whole) > 100
    assert torch.equal(whole.round(), whole)  # Each a sample's number: another one's, or its own inverted.
    assert ((whole != own).float().mean()) > 0.3


def test_mixtures_say_what_they_plant():
    prior = Mixture.of("noise, blur").describe()
    assert "noise (50 %): 1 to 3 shapes of 4 to 40 mm" in prior.words
    assert "with soft edges of 1 to 4 mm" in prior.words
    poisson = Mixture.of("poisson").describe()
    assert "soft edges" not in poisson.words
    assert "edge_mm" not in poisson.ranges["poisson"]["shapes"]
    assert "white noise of 0.3 to 1.5 standard deviations" in prior.words
    assert prior.ranges["blur"]["sigma_mm"] == (2.0, 6.0)
    assert prior.ranges["noise"]["share"] == 0.5
    assert prior.ranges["noise"]["shapes"]["diameter_mm"] == (4.0, 40.0)


def test_words_of_contrasts_tell_their_directions():
    def words(name, **tree):
        return Mixture.of(name, {name: tree} if tree else None).describe().words

    assert "0.5 to 3 standard deviations of the tissue brighter" in words("hyperintense")
    assert "darker" in words("hypointense")
    assert "brighter or darker" in words("contrast")
    assert "channel 0: brighter; channel 1: darker" in words("hyperintense", signs=[1, -1])
    assert "channel 0: darker; channel 1: unchanged" in words("hypointense", signs=[1, 0])
    assert "channel 0: brighter; channel 1: darker by 0.5 of it" in words("hyperintense", signs=[1, -0.5])


def test_mixtures_refuse_what_cannot_be_mixed():
    with pytest.raises(
        SettingsError, match=r"two kinds of samples cannot be mixed: noise \(images\), s0 \(diff"
    ):
        Mixture.of("noise,s0")
    with pytest.raises(SettingsError, match="a weight is given to blur, which is not among noise"):
        Mixture.of("noise", weights={"blur": 1})
    with pytest.raises(SettingsError, match="weights of families must be above 0, got"):
        Mixture.of("noise", weights={"noise": 0})
    with pytest.raises(SettingsError, match="noise is named twice"):
        spelled("noise,NOISE")
    with pytest.raises(SettingsError, match="no family of anomalies is named; see mednovelty list anomalies"):
        spelled(" , ")
    with pytest.raises(
        UnknownPluginError, match="no family of anomalies is called 'nois'; did you mean 'noise'"
    ):
        Mixture.of("nois")


def test_families_to_validate_on_are_others_than_those_trained_on():
    parts = split("hyperintense,texture", "deformation", {"texture": {"grain_mm": [1, 1]}}, {"texture": 2.0})
    assert list(parts.training.families) == ["hyperintense", "texture"]
    assert list(parts.validation.families) == ["deformation"]
    assert parts.training.families["texture"].grain_mm == (1.0, 1.0)
    assert parts.training.shares["texture"] == pytest.approx(2 / 3)
    with pytest.raises(SettingsError, match="anisotropy_loss is both trained on and held out for validation"):
        split("exchange,anisotropy-loss", "anisotropy_loss")
    with pytest.raises(SettingsError, match="the held-out family must be of the same samples"):
        split("noise", "s0")
    with pytest.raises(SettingsError, match="settings of blur, which is neither trained on nor held out"):
        split("noise", "texture", {"blur": {}})


def test_half_precision_and_spacings_of_each_sample():
    host = images()
    half = replace(host, images=host.images.half())
    made = FAMILIES["hyperintense"].plant(half, drawn())
    assert made.images.dtype == torch.float16
    each = replace(host, spacing_mm=torch.tensor(SPACINGS[2]).expand(6, 2))
    assert torch.equal(
        FAMILIES["blur"].plant(host, drawn()).images, FAMILIES["blur"].plant(each, drawn()).images
    )
