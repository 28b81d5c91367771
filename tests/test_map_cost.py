import json

import pytest
import torch

from mednovelty.batch import Batch
from mednovelty.benchmarks.map_cost import PaperNet, bare_passes, main
from mednovelty.methods.input_gradients import InputGradients


def test_a_small_run_prints_its_figures(capsys):
    main(["--batch", "2", "--rounds", "1"])
    figures = json.loads(capsys.readouterr().out)
    cost = figures["milliseconds_a_batch"]
    assert {"kl_gradient", "combi", "elbo_gradient", "kl_gradient_smooth", "together", "bare"} < set(cost)
    assert not {"combi_additive", "negative_elbo"} & set(cost)
    assert figures["dearest"] in cost
    assert figures["together_over_bare"] > 0


@pytest.mark.parametrize(("contrasts", "size"), [(1, 64), (2, 80)])
def test_the_bare_passes_compute_what_the_scores_are_made_of(contrasts, size):
    net = PaperNet(contrasts, size)
    x = torch.randn(2, net.channels, generator=torch.Generator().manual_seed(0))
    gradients = InputGradients(net, Batch(x))
    by_kl, by_misfit = bare_passes(net, x)
    torch.testing.assert_close(by_kl, gradients.kl, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(by_misfit, gradients.rec, rtol=1e-4, atol=1e-5)
    assert gradients.kl.abs().max() > 1e-4
