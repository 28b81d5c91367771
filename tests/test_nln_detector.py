"""A detector with nearest latent neighbours: other K and alpha when scoring, records old and damaged."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_autoencoders import SMALL, voxels

import mednovelty as mn
from mednovelty.batch import Batch
from mednovelty.calibration import Scale, measured_constants
from mednovelty.detector import Detector
from mednovelty.errors import DetectorError, SettingsError
from mednovelty.io.read_scan import ReadOptions
from mednovelty.methods.nearest_latent import NearestLatentNeighbours, NLNMap, NLNResidual
from mednovelty.model_folder import fit_settings
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.outputs import settings_of, settings_sha256
from mednovelty.plugins import plugin
from mednovelty.score_names import describe_score
from mednovelty.store import RECORD

SCORES = ["latent_euclidean", "nearest_latent_neighbours", "nln_residual", "nln_consistency"]
X = voxels(30, seed=2)


def fitted(**settings):
    tree = {
        "method": "ae_con",
        "method_settings": SMALL,
        "train": {"batch_size": 128, "max_epochs": 2},
        "scores": SCORES,
        **settings,
    }
    return mn.fit_voxels(voxels(), scans=np.arange(600) // 150, settings=fit_settings(tree, where="here"))


@pytest.fixture(scope="module")
def detector():
    return fitted()


def edited(detector, folder, change):
    """Save a detector, change its record by hand, and say where it is."""
    detector.save(folder)
    record = json.loads((folder / RECORD).read_text())
    change(record)
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def by_hand(detector, name, k, alpha):
    """The score from its terms for exactly that many neighbours."""
    scorer = plugin("scorers", name)(detector.model, detector.reference, NLNSettings(k=k))
    terms = {
        term: values.double().numpy() for term, values in scorer.terms_of(Batch(torch.tensor(X))).items()
    }
    scales = detector.fitted.constants_by_k[k][name]
    error, distance = ((terms[t] - scales[t].mean) / scales[t].spread for t in ("error", "distance"))
    return alpha * error + (1 - alpha) * distance


@pytest.mark.parametrize("name", SCORES[1:])
def test_k_and_alpha_can_be_changed_when_scoring(detector, name):
    changes = (
        ({}, 2, 0.8),
        ({"alpha": 0.5}, 2, 0.5),
        ({"k": 1}, 1, 0.8),
        ({"k": 5, "alpha": 1}, 5, 1),
        ({"k": 10}, 10, 0.8),
    )
    found = []
    for tree, k, alpha in changes:
        changed = detector.with_scoring({"nln": tree})
        assert (changed.settings.nln.k, changed.settings.nln.alpha) == (k, alpha)
        scores = changed.score_voxels(X, name)[name]
        np.testing.assert_allclose(scores, by_hand(detector, name, k, alpha), rtol=1e-4, atol=1e-4)
        assert not any(np.allclose(scores, other) for other in found)
        found.append(scores)


def test_constants_of_a_k_are_those_of_scorers_with_that_k(detector):
    held_out = torch.tensor(voxels(200, seed=3)).split(64)
    kinds = (NearestLatentNeighbours, NLNResidual)

    def measured(k, ks):
        scorers = {
            kind.__name__: kind(detector.model, detector.reference, NLNSettings(k=k)) for kind in kinds
        }
        return measured_constants(scorers, Batch, held_out, ks)

    together = measured(10, (1, 3, 10))
    for k in (1, 3, 10):
        alone = measured(k, (k,))[k]
        for name, terms in together[k].items():
            for term, scale in terms.items():
                assert asdict(scale) == pytest.approx(asdict(alone[name][term]), rel=1e-5)
    assert together[1] != together[3]


class NoNeighbours:
    """A scorer whose terms depend on no K."""

    terms = ("only",)

    def terms_of(self, batch):
        return {"only": batch[:, 0]}


def test_terms_without_neighbours_have_the_same_constants_for_all():
    found = measured_constants({"s": NoNeighbours()}, lambda x: x, [torch.tensor([[1.0], [5.0]])], (2, 3))
    assert found == {2: {"s": {"only": Scale(3.0, 2.0)}}, 3: {"s": {"only": Scale(3.0, 2.0)}}}
    assert measured_constants({"s": object()}, lambda x: x, [torch.zeros(2, 1)], (2,)) == {}


def test_a_k_asked_for_when_fitting_is_among_those_to_choose_from():
    detector = fitted(nln={"k": 4}, scores=["nearest_latent_neighbours"])
    assert sorted(detector.fitted.constants_by_k) == [1, 2, 3, 4, 5, 10]
    search = detector.reference.chosen["euclidean", "latent_mean"].record
    assert search["quality"] is None or search["quality"]["k"] == 10


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"k": 4},
            r"^here: nln.k=4: .* constants for K = 1, 2, 3, 5, 10; take one of these, or fit with nln.k=4",
        ),
        ({"k": True}, "here: nln.k: must be a number, got true"),
        ({"k": 0}, "nln.k must lie between 1 and 1000, got 0"),
        ({"tune": True}, "here: nln.tune is decided when fitting"),
        ({"reverse": True}, "here: nln.reverse is decided when fitting"),
        ({"kay": 3}, r"no setting is called 'nln\.kay'"),
    ],
)
def test_what_scoring_cannot_change_is_refused(detector, tree, words):
    with pytest.raises(SettingsError, match=words):
        detector.with_scoring({"nln": tree}, where="here")


def test_other_settings_make_other_maps(detector):
    options = ReadOptions()
    told = settings_of(detector, options)["scoring"]["nln"]
    assert told == {"k": 2, "alpha": 0.8, "reverse": False}
    changed = {
        settings_sha256(detector.with_scoring({"nln": tree}), options)
        for tree in ({}, {"k": 1}, {"alpha": 0.5}, {"k": 2})
    }
    assert len(changed) == 3


@pytest.mark.parametrize("k", [2, 5])
def test_a_changed_detector_is_kept_with_all_constants(detector, tmp_path, k):
    changed = detector.with_scoring({"nln": {"k": k, "alpha": 0.3}})
    changed.save(tmp_path)
    record = json.loads((tmp_path / RECORD).read_text())
    assert sorted(map(int, record["constants_by_k"])) == [one for one in (1, 2, 3, 5, 10) if one != k]
    again = Detector.load(tmp_path)
    assert again.fitted.constants_by_k == detector.fitted.constants_by_k
    for name, scores in changed.score_voxels(X).items():
        np.testing.assert_array_equal(again.score_voxels(X)[name], scores)
    back = again.with_scoring({"nln": {"k": 2, "alpha": 0.8}})
    for name, scores in detector.score_voxels(X).items():
        np.testing.assert_array_equal(back.score_voxels(X)[name], scores)


def test_a_record_of_before_scores_as_it_did_and_has_its_own_k_only(detector, tmp_path):
    """Constants without K, as they were written at first."""
    folder = edited(detector, tmp_path, lambda record: record.pop("constants_by_k"))
    old = Detector.load(folder)
    for name, scores in detector.score_voxels(X).items():
        np.testing.assert_array_equal(old.score_voxels(X)[name], scores)
    assert old.with_scoring({"nln": {"alpha": 0.5, "k": 2}}).settings.nln.alpha == 0.5
    with pytest.raises(SettingsError, match="constants for K = 2; take one of these"):
        old.with_scoring({"nln": {"k": 1}})


def test_a_record_from_before_there_were_nearest_latent_neighbours(tmp_path):
    detector = fitted(scores=["latent_euclidean"])

    def aged(record):
        for name in ("constants", "constants_by_k"):
            del record[name]
        del record["settings"]["nln"]

    old = Detector.load(edited(detector, tmp_path, aged))
    assert old.settings.nln == NLNSettings()
    expected = detector.score_voxels(X)["latent_euclidean"]
    np.testing.assert_array_equal(old.score_voxels(X)["latent_euclidean"], expected)
    with pytest.raises(
        SettingsError, match=r"nearest_latent_neighbours: normalises its terms by .*does not tell"
    ):
        old.score_voxels(X, "nearest_latent_neighbours")
    with pytest.raises(SettingsError, match=r"nln.k=3: this detector has constants for K = none"):
        old.with_scoring({"nln": {"k": 3}})


def test_without_constants_the_other_scores_are_still_to_be_had(detector, tmp_path):
    def without(record):
        record["constants"], record["constants_by_k"] = {}, {}

    old = Detector.load(edited(detector, tmp_path, without))
    expected = detector.score_voxels(X, "latent_euclidean")["latent_euclidean"]
    np.testing.assert_array_equal(old.score_voxels(X, "latent_euclidean")["latent_euclidean"], expected)
    with pytest.raises(SettingsError, match="nln_residual: normalises its terms by"):
        old.score_voxels(X, "nln_residual")


def test_more_neighbours_than_normals_in_a_record_are_refused_at_once(detector, tmp_path):
    def beyond(record):
        record["settings"]["nln"]["k"] = 500

    with pytest.raises(DetectorError, match=r"settings.nln.k is 500, but the reference holds 450 normals"):
        Detector.load(edited(detector, tmp_path, beyond))


def test_a_map_tells_that_0_is_the_mean_of_normals_and_not_nothing():
    told = describe_score("nln_map")
    assert "0 is the mean of held-out normals" in told["description"]
    assert "values may be negative, outside 0 stands for no score" in told["unit"] == NLNMap.unit
    assert "from the mean of held-out normals" in describe_score("nln_residual")["unit"]


def test_alpha_alone_needs_no_constants(detector):
    changed = detector.with_scoring({"nln": {"alpha": 0.0}})
    assert changed.constants is detector.constants
    assert replace(changed.settings, nln=detector.settings.nln) == detector.settings
