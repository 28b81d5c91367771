"""Bhattacharyya distances by hand and by sampling; the nearest by brute force; the fast form's recall."""

import math

import pytest
import torch
from clouds import gaussians
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.neighbours import bhattacharyya, fast_bhattacharyya
from mednovelty.neighbours.bhattacharyya import ExactBhattacharyya, bhattacharyya_distances
from mednovelty.neighbours.fast_bhattacharyya import FastBhattacharyya


def brute(mean, sigma, means, sigmas):
    """All (B, N) distances, in float64, as METHODS has them."""
    v1, v2 = sigma.double().square()[:, None], sigmas.double().square()
    v = (v1 + v2) / 2
    apart = (mean.double()[:, None] - means.double()).square() / v / 8
    return (apart + (v.log() - v1.log() / 2 - v2.log() / 2) / 2).sum(-1)


def test_by_hand():
    # mu 1 and 4, v 4 and 16 (sigma 2 and 4): vbar 10, 9 / 80 + ln(10 / 8) / 2;
    # second dimension mu 0 and 0, v 1 and 1/4: ln((5/8) / (1/2)) / 2.
    exact = ExactBhattacharyya(torch.tensor([[4.0, 0.0]]), torch.tensor([[4.0, 0.5]]))
    distances, indices = exact.search(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0]]))
    assert distances.item() == pytest.approx(9 / 80 + math.log(10 / 8) / 2 + math.log(1.25) / 2, rel=1e-6)
    assert indices.tolist() == [[0]]


def test_it_is_minus_the_log_of_the_overlap():
    # -ln E_p sqrt(q / p), the definition, by drawing from p.
    p, q = (torch.distributions.Normal(*pair) for pair in ((0.3, 0.7), (1.1, 1.6)))
    x = p.sample((400_000,)) if torch.manual_seed(0) else None
    drawn = -((q.log_prob(x) - p.log_prob(x)) / 2).exp().mean().log()
    parts = [torch.tensor([[value]]) for value in (0.3, 0.7, 1.1, 1.6)]
    ours = bhattacharyya_distances(*parts, torch.tensor([[0]]))[0]
    assert ours.item() == pytest.approx(drawn.item(), rel=0.01)


@given(seed=st.integers(0, 50), n=st.integers(1, 40), b=st.integers(1, 20), width=st.integers(1, 7))
def test_exact_equals_brute_force(seed, n, b, width):
    means, sigmas = gaussians(n, width, seed)
    mean, sigma = gaussians(b, width, seed + 100)
    every, k = brute(mean, sigma, means, sigmas), min(n, 3)
    distances, indices = ExactBhattacharyya(means, sigmas).search(mean, sigma, k)
    torch.testing.assert_close(distances.double(), every.sort(1).values[:, :k], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(every.gather(1, indices), distances.double(), rtol=1e-4, atol=1e-6)
    # Symmetric: the distance of two Gaussians does not know which was asked for.
    back, _ = ExactBhattacharyya(mean, sigma).search(means, sigmas, b)
    torch.testing.assert_close(back.sum(), every.sum().float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("a_chunk", [1, 3, 31, 100])
@pytest.mark.parametrize("k", [1, 3, 31])
def test_chunks_change_nothing(monkeypatch, a_chunk, k):
    parts, asked = gaussians(31, 3, 0), gaussians(17, 3, 1)
    whole = ExactBhattacharyya(*parts).search(*asked, k)
    monkeypatch.setattr(bhattacharyya, "GAUSSIANS_A_CHUNK", a_chunk)
    monkeypatch.setitem(bhattacharyya.PAIRS_A_CHUNK, "cpu", 5 * a_chunk)
    cut = ExactBhattacharyya(*parts).search(*asked, k)
    assert torch.equal(whole[1], cut[1])
    assert torch.equal(whole[0], cut[0])


def test_memory_is_bounded_by_the_chunk(monkeypatch):
    sizes = []
    ranking = ExactBhattacharyya._ranking

    def watched(self, *arguments):
        found = ranking(self, *arguments)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(ExactBhattacharyya, "_ranking", watched)
    monkeypatch.setattr(bhattacharyya, "GAUSSIANS_A_CHUNK", 10)
    monkeypatch.setitem(bhattacharyya.PAIRS_A_CHUNK, "cpu", 50)
    ExactBhattacharyya(*gaussians(31, 3, 0)).search(*gaussians(17, 3, 1), 2)
    assert max(sizes) == 50
    assert sum(sizes) == 31 * 17


def test_of_equals_the_first_and_of_copies_zero():
    mean, sigma = gaussians(20, 3, 0)
    doubled = ExactBhattacharyya(torch.cat([mean, mean]), torch.cat([sigma, sigma]))
    distances, indices = doubled.search(mean, sigma, 2)
    assert distances.tolist() == [[0.0, 0.0]] * 20
    assert indices.tolist() == [[i, i + 20] for i in range(20)]


def test_extreme_sigmas_stay_finite_and_right():
    # The decoder's log sigma lies between -10 and 10: products over 784 dimensions would over- and underflow.
    random = torch.Generator().manual_seed(0)
    means, mean = torch.randn(9, 784, generator=random), torch.randn(4, 784, generator=random)
    sigmas = (20 * torch.rand(9, 784, generator=random) - 10).exp()
    sigma = (20 * torch.rand(4, 784, generator=random) - 10).exp()
    every = brute(mean, sigma, means, sigmas)
    distances, indices = ExactBhattacharyya(means, sigmas).search(mean, sigma, 1)
    assert torch.equal(indices[:, 0], every.argmin(1))
    torch.testing.assert_close(distances[:, 0].double(), every.amin(1), rtol=1e-4, atol=0)


def test_the_approximation_ranks_near_ones_as_the_distance():
    means, sigmas = gaussians(200, 4, 0, spread=0.05)
    near = means[:1] + 0.1 * sigmas[:1], sigmas[:1] * 1.05
    weights = near[1].square().reciprocal() / 8
    ranked = fast_bhattacharyya._approximated((near[0], weights, near[1].log()), (means, sigmas.log()))
    true = brute(*near, means, sigmas)
    few = true[0].argsort()[:5]
    torch.testing.assert_close(ranked[0, few].double(), true[0, few], rtol=0.1, atol=1e-4)


@pytest.mark.parametrize("target", [0.9, 0.99])
def test_the_fast_form_reaches_its_target_and_says_so(target):
    parts, sample = gaussians(3000, 5, 1), gaussians(700, 5, 2)
    fast, quality = FastBhattacharyya.tuned(parts, sample, target, 7)
    nearest = brute(*sample, *parts).amin(1)
    distances, indices = fast.search(*sample)
    hits = (distances[:, 0].double() <= nearest * (1 + 1e-5) + 1e-7).double().mean().item()
    assert quality.recall == pytest.approx(hits, abs=2 / 700)
    assert quality.recall >= target
    assert quality.share_compared < 0.7
    own = brute(*sample, *parts).gather(1, indices)
    torch.testing.assert_close(own[:, 0], distances[:, 0].double(), rtol=1e-4, atol=1e-6)


def test_fewer_probes_and_candidates_find_less():
    parts, sample = gaussians(3000, 5, 1), gaussians(700, 5, 2)
    nearest = ExactBhattacharyya(*parts).search(*sample)[0][:, 0]
    recalls = [
        FastBhattacharyya(*parts, p, c).measured(sample, nearest).recall
        for p, c in ((64, 64), (2, 64), (64, 1))
    ]
    assert recalls[0] > max(recalls[1:])


def test_the_fast_form_is_the_same_bits_again():
    parts, sample = gaussians(3000, 5, 1), gaussians(700, 5, 2)
    fast, _ = FastBhattacharyya.tuned(parts, sample, 0.99, 7)
    again, _ = FastBhattacharyya.tuned(parts, sample, 0.99, 7)
    kept = FastBhattacharyya.restored(parts, fast.settings(), fast.state())
    other = FastBhattacharyya(*parts, fast.probes, fast.candidates, seed=8)
    assert not torch.equal(other.lists.centroids, fast.lists.centroids)
    for index in (again, kept):
        assert index.settings() == fast.settings()
        for one, two in zip(fast.search(*sample, 3), index.search(*sample, 3), strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("chunk", [1 << 22, 500])
@pytest.mark.parametrize("k", [1, 4, 40])
def test_the_fast_form_falls_back_where_the_lists_are_short(monkeypatch, chunk, k):
    monkeypatch.setattr(fast_bhattacharyya, "ENTRIES_A_CHUNK", chunk)
    parts, asked = gaussians(40, 3, 0), gaussians(17, 3, 1)
    fast = FastBhattacharyya(*parts, probes=1, candidates=4)
    distances, indices = fast.search(*asked, k)
    assert distances.shape == indices.shape == (17, k)
    assert all(len(set(row.tolist())) == k for row in indices)
    every = brute(*asked, *parts)
    torch.testing.assert_close(every.gather(1, indices), distances.double(), rtol=1e-4, atol=1e-6)
    if k == 40:
        torch.testing.assert_close(distances.double(), every.sort(1).values, rtol=1e-4, atol=1e-6)


def test_damaged_states_are_refused():
    parts = gaussians(300, 3, 0)
    fast = FastBhattacharyya(*parts)
    with pytest.raises(ValueError, match="candidates must be a whole number from 1 to 512, got 1000"):
        FastBhattacharyya.restored(parts, fast.settings() | {"candidates": 1000}, fast.state())
    with pytest.raises(ValueError, match=r"tensor 'centroids' is \(\d+, 6\)"):
        FastBhattacharyya.restored(parts, fast.settings() | {"lists": 3, "probes": 2}, fast.state())
