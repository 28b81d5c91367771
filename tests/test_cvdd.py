"""Context vector data description: equations by hand, padding, order, annealing, learning, p-values."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.errors import SettingsError
from mednovelty.methods.cvdd import (
    ContextVectors,
    alpha_in,
    context_weights,
    cosine_distance,
    initialised,
    orthogonality,
)
from mednovelty.methods.cvdd_kept import KeptContexts
from mednovelty.methods.cvdd_settings import ContextSettings, CVDDSettings
from mednovelty.methods.cvdd_training import (
    CrossFitted,
    Verdict,
    cross_fitted,
    fit_contexts,
    in_order_of,
    starting_contexts,
)
from mednovelty.nn.attention import SelfAttention, padded
from mednovelty.seeds import generator

WIDTH = 5
SMALL = ContextSettings(contexts=3, attention=7, epochs=20, folds=4)


def bags(n=6, shift=0.0, seed=0):
    """Members of three themes, as many as differ from bag to bag."""
    random = torch.Generator().manual_seed(seed)
    themes = torch.eye(3, WIDTH)
    made = []
    for i in range(n):
        which = torch.randint(3, (9 + i,), generator=random)
        made.append(themes[which] + 0.2 * torch.randn(9 + i, WIDTH, generator=random) + shift)
    return made


def network(seed=0, settings=SMALL):
    made = initialised(WIDTH, settings, generator(seed, "test"))
    with torch.no_grad():
        drawn = torch.randn(made.contexts.shape, generator=generator(seed, "contexts"))
        made.contexts.copy_(drawn)
    return made.requires_grad_(False)


def test_attention_by_hand():
    # Members (1, 0), (0, 2); W1 = (1, 3)', W2 = (2, -1): logits 2 tanh(1), 2 tanh(6), minus half of them.
    attention = SelfAttention(2, 1, 2)
    with torch.no_grad():
        attention.inner.copy_(torch.tensor([[1.0], [3.0]]))
        attention.outer.copy_(torch.tensor([[2.0, -1.0]]))
    members, present = padded([torch.tensor([[1.0, 0.0], [0.0, 2.0]])])
    t1, t2 = math.tanh(1), math.tanh(6)
    first = math.exp(2 * t1) / (math.exp(2 * t1) + math.exp(2 * t2))
    second = math.exp(-t1) / (math.exp(-t1) + math.exp(-t2))
    expected = torch.tensor([[[first, second], [1 - first, 1 - second]]])
    torch.testing.assert_close(attention(members, present), expected)


def test_attention_sums_to_one_and_ignores_padding():
    made, own = network(), bags()
    members, present = padded(own)
    weights = made.attention(members, present)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(own), 3))
    assert (weights[~present] == 0).all()
    assert (~present).any()
    # Whatever stands where nothing is, and however long the longest bag is.
    garbage = torch.where(present[..., None], members, torch.tensor(1e3))
    torch.testing.assert_close(made.distances(garbage, present), made.distances(members, present))
    for i, bag in enumerate(own):
        torch.testing.assert_close(
            made.distances(*padded([bag])), made.distances(members, present)[i : i + 1]
        )


def test_the_order_of_members_does_not_matter():
    made, bag = network(), bags(1)[0]
    mixed = torch.randperm(len(bag), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(made.judged([bag]).contextual, made.judged([bag[mixed]]).contextual)
    torch.testing.assert_close(made.judged([bag]).attention[mixed], made.judged([bag[mixed]]).attention)


@given(st.integers(1, 7))
def test_blocks_change_nothing(size):
    made, bag = network(), bags(1, seed=3)[0] * 30  # Logits that differ much.
    whole, parts = made.judged([bag]), made.judged(bag.split(size))
    for name in ("contextual", "attention", "shares"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), rtol=1e-4, atol=1e-6)


def test_judged_is_what_is_trained_and_shares_add_up_to_it():
    made, bag = network(), bags(1, seed=2)[0]
    found = made.judged([bag[:4], bag[4:]])
    trained = made.distances(*padded([bag]))[0]
    torch.testing.assert_close(found.contextual.float(), trained)
    torch.testing.assert_close(found.shares.sum(0), trained)
    torch.testing.assert_close(found.attention.sum(0), torch.ones(3))
    assert found.overall == pytest.approx(trained.mean().item(), rel=1e-5)
    assert found.nearest == pytest.approx(trained.min().item(), rel=1e-5)


def test_cosine_distance_by_hand():
    u = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [3.0, 4.0]])
    v = torch.tensor([[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [10.0, 0.0]])
    torch.testing.assert_close(cosine_distance(u, v), torch.tensor([0.0, 0.5, 1.0, 0.2]))


def test_weights_of_contexts_are_alike_at_first_and_at_last_the_nearest_s():
    distances = torch.tensor([[0.3, 0.1, 0.6, 0.2]])
    torch.testing.assert_close(context_weights(distances, 0), torch.full((1, 4), 0.25))
    assert context_weights(distances, 1000.0)[0, 1] > 0.999
    # exp(-2 d) over its sum.
    expected = torch.tensor([math.exp(-0.6), math.exp(-0.2), math.exp(-1.2), math.exp(-0.4)])
    torch.testing.assert_close(context_weights(distances, 2.0)[0], expected / expected.sum())


def test_alpha_rises_by_fifths():
    settings = ContextSettings(epochs=100)
    at = (0, 19, 20, 39, 40, 60, 80, 99)
    assert [alpha_in(epoch, settings) for epoch in at] == [0, 0, 1e-4, 1e-4, 1e-3, 1e-2, 1e-1, 1e-1]
    assert {alpha_in(epoch, ContextSettings(epochs=7, annealing="soft")) for epoch in range(7)} == {0}
    hard = [alpha_in(epoch, ContextSettings(epochs=5, annealing="hard")) for epoch in range(5)]
    assert hard == [0, 100, 100, 100, 100]


def test_penalty_is_zero_exactly_where_contexts_are_orthonormal():
    turned, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)))
    assert orthogonality(turned[:3]) < 1e-10
    # C'C = ((4, 1), (1, 2)): 3^2 + 1 + 1 + 1^2.
    contexts = torch.tensor([[2.0, 0.0, 0.0], [0.5, math.sqrt(1.75), 0.0]])
    assert orthogonality(contexts).item() == pytest.approx(12)


def test_objective_by_hand():
    made, (members, present) = network(), padded(bags(4))
    distances = made.distances(members, present)
    weighted = (context_weights(distances, 3.0) * distances).sum(1).mean()
    penalty = orthogonality(made.contexts)
    for penalty_is, share in (("sum", 1.0), ("mean", 1 / 9)):
        settings = ContextSettings(penalty=0.7, penalty_is=penalty_is)
        found = made.objective(members, present, 3.0, settings)
        torch.testing.assert_close(found, weighted + 0.7 * share * penalty)


def test_contexts_start_at_themes():
    settings = ContextSettings(start="members")
    start = starting_contexts(bags(8), settings, 0)
    torch.testing.assert_close(start.norm(dim=1), torch.ones(3))
    alike = start @ torch.eye(3, WIDTH).T
    assert sorted(alike.argmax(1).tolist()) == [0, 1, 2]
    assert alike.max(1).values.min() > 0.9
    # Of mean bags as many centroids as there are bags are these themselves.
    few = bags(3)
    means = torch.nn.functional.normalize(torch.stack([bag.mean(0) for bag in few]), dim=1)
    start = starting_contexts(few, ContextSettings(start="bags"), 0)
    assert (cosine_distance(start[:, None], means[None]).min(1).values < 1e-6).all()


def test_learning_brings_normals_near_and_leaves_others_far():
    settings = ContextSettings(contexts=3, attention=7, epochs=60, start="members")
    normal = bags(12)
    fitted = fit_contexts(normal, settings, 0)
    before = network(settings=settings)
    held_out, novel = bags(5, seed=7), [-bag for bag in bags(5, seed=8)]
    mean = lambda net, some: sum(net.judged([bag]).overall for bag in some) / len(some)  # noqa: E731
    assert mean(fitted, normal) < mean(before, normal) / 2
    assert max(fitted.judged([b]).overall for b in held_out) < min(fitted.judged([b]).overall for b in novel)
    assert orthogonality(fitted.contexts) < 0.1
    again = fit_contexts(normal, settings, 0)
    assert all(torch.equal(p, q) for p, q in zip(fitted.parameters(), again.parameters(), strict=True))


def test_contexts_of_parts_never_saw_their_normals():
    own = bags(6)
    fitted = cross_fitted(own, SMALL, 3)
    assert (len(fitted.parts), fitted.part_of.tolist()) == (4, [0, 1, 2, 3, 0, 1])
    without = in_order_of(fit_contexts([own[i] for i in (0, 2, 3, 4)], SMALL, 3), fitted.whole)
    torch.testing.assert_close(fitted.normals[5], without.judged([own[5]]).contextual)
    torch.testing.assert_close(fitted.normals[1], without.judged([own[1]]).contextual)


def test_a_single_bag_has_nothing_to_be_compared_with():
    fitted = cross_fitted(bags(1), SMALL, 0)
    found = fitted.judged(lambda: bags(1, seed=4))
    assert (found.p_value, found.contextual_p_values, found.normals) == (1.0, (1.0, 1.0, 1.0), 0)


def test_p_values_by_hand():
    # Two parts; the bag scores 0.4 by the first's contexts, 0.2 by the second's.
    normals = torch.tensor([[0.5, 0.5], [0.1, 0.1], [0.3, 0.5], [0.1, 0.3]], dtype=torch.float64)
    fitted = CrossFitted(network(), (network(1), network(2)), torch.tensor([0, 1, 0, 1]), normals)
    by_parts = torch.tensor([[0.3, 0.5], [0.2, 0.2]], dtype=torch.float64)
    judgement = network(settings=ContextSettings(contexts=2, attention=7)).judged(bags(1))
    found = Verdict.of(judgement, by_parts, fitted)
    # Overall: 0.5 >= 0.4, 0.1 < 0.2, 0.4 >= 0.4, 0.2 >= 0.2.
    assert found.p_value == pytest.approx((1 + 3) / 5)
    # Context 1: 0.5 >= 0.3, 0.1 < 0.2, 0.3 >= 0.3, 0.1 < 0.2.
    # Context 2: 0.5 >= 0.5, 0.1 < 0.2, 0.5 >= 0.5, 0.3 >= 0.2.
    assert found.contextual_p_values == pytest.approx((3 / 5, 4 / 5))


def test_a_novel_bag_has_the_smallest_p_value_there_is():
    fitted = cross_fitted(bags(7), SMALL, 0)
    assert fitted.judged(lambda: [-bags(1)[0]]).p_value == pytest.approx(1 / 8)
    normal = [fitted.judged(lambda bag=bag: [bag]).p_value for bag in bags(8, seed=9)]
    assert sum(normal) / len(normal) > 2 / 8


def test_heads_in_another_order_are_brought_back():
    made, mixed = network(), ContextVectors(WIDTH, SMALL)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        mixed.attention.inner.copy_(made.attention.inner)
        mixed.attention.outer.copy_(made.attention.outer[:, order])
        mixed.contexts.copy_(made.contexts[order])
    bag = bags(1)
    torch.testing.assert_close(in_order_of(mixed, made).judged(bag).contextual, made.judged(bag).contextual)


def test_what_is_kept_is_what_was_fitted():
    fitted = cross_fitted(bags(6), SMALL, 0)
    kept = KeptContexts(WIDTH, SMALL, 9)
    with pytest.raises(SettingsError, match="no contexts were learnt"):
        kept.fitted()
    kept.keep(fitted)
    other = KeptContexts(WIDTH, SMALL, 9)
    other.load_state_dict(kept.state_dict())
    bag = bags(1, seed=5)
    one, two = fitted.judged(lambda: bag), other.fitted().judged(lambda: bag)
    assert torch.equal(one.judgement.contextual, two.judgement.contextual)
    assert (one.p_value, one.contextual_p_values, one.normals) == (two.p_value, two.contextual_p_values, 6)


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        (ContextSettings, {"contexts": 0}, "contexts must lie between 1 and 64, got 0"),
        (ContextSettings, {"folds": 1}, "folds must lie between 2 and 64, got 1"),
        (ContextSettings, {"penalty": -1.0}, "penalty must be 0 or a finite number above, got -1"),
        (ContextSettings, {"clip": 0.0}, "clip must be a finite number above 0, got 0"),
        (ContextSettings, {"annealing": "fast"}, "annealing='fast': one of logarithmic, soft, hard"),
        (CVDDSettings, {"bag": 0}, "bag must lie between 1 and 1048576, got 0"),
    ],
)
def test_wrong_settings_are_told(kind, wrong, words):
    with pytest.raises(SettingsError, match=words):
        kind(**wrong)


def test_too_few_members_are_told():
    with pytest.raises(SettingsError, match="3 contexts cannot be learnt from 1 bags of 2 members"):
        fit_contexts([torch.ones(2, WIDTH)], SMALL, 0)
