import json

import torch

from mednovelty.batch import Batch
from mednovelty.benchmarks.score_cost import bare_fully_stochastic, main, random_model, sharing_scorers


def test_a_small_run_prints_its_figures(capsys):
    main(["--voxels", "300", "--batch-voxels", "100", "--channels", "9", "--latent", "8", "--rounds", "2"])
    figures = json.loads(capsys.readouterr().out)
    cost = figures["microseconds_a_voxel"]
    assert {"negative_elbo_min", "fully_stochastic_error", "vae_regularizer", "together", "bare"} < set(cost)
    assert not {"nearest_normal", "latent_density", "input_density", "raw_b0"} & set(cost)
    assert cost[figures["dearest"]] == max(cost[name] for name in sharing_scorers(random_model(9, 8)))
    assert figures["together_over_dearest"] > 0


def test_the_bare_loop_computes_the_score_it_is_compared_with():
    model, x = random_model(9, 8), torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, noise=torch.randn(3, 8), decoder_noise=torch.randn(3, 9))
    score = sharing_scorers(model)["fully_stochastic_error"].score(batch)
    torch.testing.assert_close(bare_fully_stochastic(model, batch), score)
