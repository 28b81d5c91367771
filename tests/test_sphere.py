import json
import re
from dataclasses import replace

import numpy as np
import pytest
from cohorts import FAST_TOML, tiny_cohort
from small_images import detector_of, scan_of
from typer.testing import CliRunner
from without_pages import typed

from mednovelty.cli import app
from mednovelty.errors import SettingsError
from mednovelty.reference import Reference
from mednovelty.report.sphere import Cloud, check_drawable, clouds, draw_sphere, sphere_page, thirds


def test_thirds_by_hand():
    # Blocks of 2, 2 and 4: averages 3, 0, 4 and -1, 2, 2.
    latents = np.array([[1.0, 5, 0, 0, 4, 4, 8, 0], [-2, 0, 4, 0, 2, 2, 2, 2], [0] * 8])
    np.testing.assert_allclose(thirds(latents), [[0.6, 0, 0.8], [-1 / 3, 2 / 3, 2 / 3], [0, 0, 0]])
    with pytest.raises(SettingsError, match="at least 3 latents, there are 2"):
        thirds(np.ones((4, 2)))


def test_blocks_are_those_of_the_paper():
    marked = np.zeros((1, 256))
    marked[0, 170:] = 1  # The first two blocks have 85, the last 86.
    assert thirds(marked).tolist() == [[0, 0, 1]]


def with_latents(detector):
    """Return a detector whose reference holds the latents of made-up normals."""
    import torch

    shape = detector.shape
    normals = torch.randn(30, int(np.prod(shape)), generator=torch.Generator().manual_seed(0))
    reference = Reference.of(detector.model, normals, ["latent_mean"])
    return replace(detector, fitted=replace(detector.fitted, reference=reference))


def test_normals_and_samples_become_clouds(caplog):
    detector = with_latents(detector_of("slices"))
    small = scan_of(5)
    found = clouds(detector, [small, "not_there.nii.gz", scan_of(6)])
    assert [cloud.name for cloud in found] == ["normals", small.id, scan_of(6).id]
    assert len(found[0].points) == 30
    assert 3 < len(found[1].points) <= 500
    for cloud in found:
        np.testing.assert_allclose(np.linalg.norm(cloud.points, axis=1), 1)
    prepared, _ = detector.prepare(small)
    view = detector.view
    import torch

    x = torch.from_numpy(view.cut(prepared, 0, view.count(prepared))).flatten(1)
    np.testing.assert_allclose(found[1].points, thirds(detector.model.encode(x).mean.numpy()), atol=1e-4)
    assert "not_there.nii.gz" in caplog.text


def test_without_latents_there_is_nothing_to_draw():
    detector = detector_of("slices")
    bare = replace(detector, fitted=replace(detector.fitted, reference=Reference({}, "exact", 0)))
    with pytest.raises(
        SettingsError, match=r"no latent means to draw; fit with a score .* hyperspherical_knn"
    ):
        check_drawable(bare)


def test_the_page_needs_nothing_else_and_escapes_names(tmp_path):
    given = [Cloud("normals", np.eye(3)), Cloud("<b>sub-</script>", -np.eye(3)[:2])]
    picture, page = draw_sphere(given, tmp_path)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    text = page.read_text()
    assert text == sphere_page(given)
    assert "<b>" not in text
    assert text.count("</script>") == 1
    assert "http" not in text
    told = json.loads(re.search(r"const clouds = (\[.*\]);", text)[1])
    assert [cloud["points"] for cloud in told] == [np.eye(3).tolist(), (-np.eye(3)[:2]).tolist()]
    assert len({cloud["colour"] for cloud in told}) == 2
    assert "normals (3)" in text


def test_from_the_command_line(tmp_path):
    cohort = tiny_cohort()
    (tmp_path / "fast.toml").write_text(FAST_TOML)

    def run(*words, code=0):
        result = CliRunner().invoke(app, typed(words))
        assert result.exit_code == code, result.stderr
        return result

    def fitted(name, scores):
        run("fit", cohort.controls, "-o", tmp_path / name, "--settings", tmp_path / "fast.toml",
            "--scores", scores, "--set", "method=hyperspherical", "--set", "method_settings={}")  # fmt: skip

    fitted("model", "hyperspherical_knn")
    run("score", tmp_path / "model", cohort.patients, "-o", tmp_path / "out", "-d", "cpu", "--plot-sphere")
    assert {"sphere.png", "sphere.html"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert "sub-p01 (" in (tmp_path / "out" / "sphere.html").read_text()
    fitted("other", "reconstruction_error")
    refused = run("score", tmp_path / "other", cohort.patients, "-o", tmp_path / "no", "-d", "cpu",
                  "--plot-sphere", code=2)  # fmt: skip
    assert "no latent means to draw" in refused.stderr
    assert not (tmp_path / "no").exists()
