"""The module for 3D Slicer: its files, and what it does apart from windows, against the real command line."""

import ast
import importlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from calibrated_models import SCORES, calibrated_model, run
from cohorts import tiny_cohort
from PIL import Image
from scored_scans import GRIDS, PEAK, write_scored

import mednovelty
from mednovelty.viewers.icon import ICON_PIXELS, icon
from mednovelty.viewers.levels import surprise
from mednovelty.viewers.module_files import SOURCE, module_files
from mednovelty.viewers.slicer import write_scenes

MODULE = SOURCE / "MedNovelty"
FILES = {
    "CMakeLists.txt",
    "MedNovelty/CMakeLists.txt",
    "MedNovelty/MedNovelty.py",
    "MedNovelty/Resources/Icons/MedNovelty.png",
    "MedNovelty/Testing/CMakeLists.txt",
    "MedNovelty/Testing/Python/CMakeLists.txt",
    *(
        f"MedNovelty/MedNoveltyLib/{name}.py"
        for name in ("__init__", "layers", "panel", "process", "program", "results")
    ),
}


@pytest.fixture(scope="module")
def lib():
    """The module's plain parts, imported as 3D Slicer does: from its folder, without mednovelty's name."""
    sys.path.insert(0, str(MODULE))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        names = ("program", "process", "results", "layers")
        yield type("Lib", (), {name: importlib.import_module(f"MedNoveltyLib.{name}") for name in names})
    finally:
        sys.path.remove(str(MODULE))
        sys.dont_write_bytecode = before


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A program that is called mednovelty."""
    path = tmp_path_factory.mktemp("bin") / "mednovelty"
    root = Path(mednovelty.__file__).parents[1]
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -m mednovelty "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return calibrated_model(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="module")
def environment(lib):
    return lib.process.environment({**os.environ, "OMP_NUM_THREADS": "1"})


def patient():
    return min(tiny_cohort().patients.rglob("sub-p01*_dwi.nii.gz"))


def followed(run, progress, until=lambda line: False, limit_s=240):
    """Poll a run to its end as the module's timer does; cancel it at a line. Return lines and exit code."""
    lines, end = [], time.monotonic() + limit_s
    while time.monotonic() < end:
        said, code = run.poll()
        for line in said:
            progress.take(line)
            if until(line):
                run.cancel()
        lines += said
        if code is not None:
            return lines, code
        time.sleep(0.05)
    raise AssertionError(f"still running: {lines[-5:]}")


# Its files.


def test_the_module_is_copied_out_and_named_as_the_template_wants(tmp_path):
    said = json.loads(run("slicer-module", tmp_path / "new", "--json").stdout)
    extension = tmp_path / "new" / "MedNovelty"
    assert said["module"] == str(extension / "MedNovelty" / "MedNovelty.py")
    copied = {str(path.relative_to(extension)) for path in extension.rglob("*") if path.is_file()}
    assert copied == FILES == {str(path.relative_to(SOURCE)) for path in module_files()}
    text = run("slicer-module", tmp_path / "new", code=5).stderr
    assert "MedNovelty: is there already; pass --overwrite to replace its files" in text
    (extension / "MedNovelty" / "MedNovelty.py").write_text("")
    run("slicer-module", tmp_path / "new", "--overwrite")
    assert (extension / "MedNovelty" / "MedNovelty.py").read_text() == (MODULE / "MedNovelty.py").read_text()


def test_what_cmake_lists_is_there_and_all_that_is_there():
    text = (MODULE / "CMakeLists.txt").read_text()
    listed = re.search(r"set\(MODULE_PYTHON_SCRIPTS\s+([^)]*)\)", text)[1]
    names = {name.replace("${MODULE_NAME}", "MedNovelty") for name in listed.split()}
    assert names == {name.removeprefix("MedNovelty/") for name in FILES if name.endswith(".py")}
    resources = re.search(r"set\(MODULE_PYTHON_RESOURCES\s+([^)]*)\)", text)[1].split()
    names = {f"MedNovelty/{name.replace('${MODULE_NAME}', 'MedNovelty')}" for name in resources}
    assert names == {name for name in FILES if "/Resources/" in name}
    assert "add_subdirectory(Testing)" in text
    assert "add_subdirectory(Python)" in (MODULE / "Testing" / "CMakeLists.txt").read_text()
    extension = (SOURCE / "CMakeLists.txt").read_text()
    assert "project(MedNovelty)" in extension
    assert "add_subdirectory(MedNovelty)" in extension


def test_where_the_module_lies_is_told_as_3d_slicer_needs_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run("slicer-module", "mod").stderr
    assert f": add {tmp_path / 'mod' / 'MedNovelty' / 'MedNovelty'}, and start it again" in said
    assert json.loads(run("slicer-module", "mod", "--overwrite", "--json").stdout)["module"].startswith("/")


def test_the_icon_is_what_the_code_draws():
    with Image.open(MODULE / "Resources" / "Icons" / "MedNovelty.png") as picture:
        drawn = np.asarray(picture.convert("RGBA"))
    assert drawn.shape == (ICON_PIXELS, ICON_PIXELS, 4)
    # Colours of pixels that are not there do not count.
    there = icon()[..., 3:] > 0
    np.testing.assert_array_equal(drawn[..., 3:] > 0, there)
    assert np.abs(drawn.astype(int) - icon())[np.broadcast_to(there, drawn.shape)].max() <= 2


def test_the_four_classes_of_a_scripted_module():
    tree = ast.parse((MODULE / "MedNovelty.py").read_text(), feature_version=(3, 9))
    classes = {node.name: ast.unparse(node.bases[0]) for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes == {
        f"MedNovelty{kind}": f"ScriptedLoadableModule{kind}" for kind in ("", "Widget", "Logic", "Test")
    }


@pytest.mark.parametrize("path", sorted(MODULE.rglob("*.py")), ids=lambda path: path.name)
def test_it_neither_imports_mednovelty_nor_installs_anything(path):
    text = path.read_text()
    tree = ast.parse(text, feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        )
    }  # fmt: skip
    own = {"MedNoveltyLib", "slicer", "qt", "ctk", "numpy"}
    assert imported <= own | set(sys.stdlib_module_names)
    if path.name not in ("MedNovelty.py", "panel.py"):
        assert not imported & own
    for word in ("pip_install", "pip ", "ensurepip", "urlopen", "urlretrieve", "shell=True"):
        assert word not in text


def test_every_attribute_of_the_panel_that_the_widget_uses_is_set():
    widget = ast.parse((MODULE / "MedNovelty.py").read_text())
    used = {
        node.attr
        for node in ast.walk(widget)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.panel"
    }
    panel = ast.parse((MODULE / "MedNoveltyLib" / "panel.py").read_text())
    set_there = {
        node.attr
        for node in ast.walk(panel)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    methods = {node.name for node in ast.walk(panel) if isinstance(node, ast.FunctionDef)}
    assert used <= set_there | methods


# Against the command line.


@pytest.fixture(scope="module")
def scored(lib, program, model, tmp_path_factory):
    """What the module's commands do, in this process; below they are processes that fail or are cancelled."""
    out = tmp_path_factory.mktemp("module") / "out"
    request = lib.program.Request(
        str(program), str(model), str(patient()), str(out), scores=", ".join(SCORES), rule="p", level=0.01
    )
    progress, lines, code = lib.program.Progress(), [], None
    for command in request.commands():
        assert command[0] == str(program)
        result = run(*command[1:], pages=True)
        code = result.exit_code
        lines += result.stderr.splitlines()
    for line in lines:
        progress.take(line)
    return out, lines, code, progress


def test_a_scan_is_scored_and_segmented_at_the_level_asked_for(lib, scored):
    out, lines, code, progress = scored
    assert code == 0, lines
    assert lib.program.ending(code, progress.problems) == "done"
    assert progress.fraction == 0.99
    (result,) = lib.results.find_results(out)
    assert result.id == "sub-p01"
    for score in SCORES:
        told = json.loads(result.scene.with_name(f"sub-p01_desc-{score}_mask.json").read_text())
        assert (told["Threshold"]["Rule"], told["Threshold"]["P"]) == ("p", 0.01)
        rows = lib.results.read_clusters(result.clusters(score))
        assert len(rows) == told["Numbers"]["clusters"]
        # threshold renews what score has shown.
        level = surprise(told["Threshold"]["FlaggedP"] or 0.01)
        assert f'lowerThreshold="{level!r}"' in result.scene.read_text()
        assert f"_desc-{score}_pvalue.nii.gz" in result.scene.read_text()
    assert sum(line.startswith("scenes for 3D Slicer: 1 written") for line in lines) == 2


def test_what_is_wrong_is_told_in_words(lib, program, environment, tmp_path):
    request = lib.program.Request(str(program), str(tmp_path), str(patient()), str(tmp_path / "o"))
    going, progress = lib.process.Run(request.commands(), environment), lib.program.Progress()
    going.start()
    _, code = followed(going, progress)
    assert code == 4
    words = lib.program.ending(code, progress.problems)
    assert words.startswith("the detector cannot be used: ")
    assert str(tmp_path) in words


def test_a_cancelled_run_keeps_what_is_done_and_goes_on_from_there(
    lib, program, model, environment, tmp_path
):
    many = tmp_path / "many"
    for n in range(1, 41):
        folder = shutil.copytree(patient().parent, many / f"sub-{n:02}" / "dwi")
        for path in folder.iterdir():
            path.rename(path.with_name(path.name.replace("sub-p01", f"sub-{n:02}")))
    request = lib.program.Request(
        str(program), str(model), str(many), str(tmp_path / "out"), scores=SCORES[0]
    )
    going, progress = lib.process.Run(request.commands(), environment), lib.program.Progress(40)
    going.start()
    lines, code = followed(going, progress, until=lambda line: line.startswith("sub-01: done"))
    assert code == 143, lines
    assert going.cancelled
    assert lib.program.ending(code, progress.problems).startswith("stopped")
    sidecars = sorted((tmp_path / "out").rglob("*_novelty.json"))
    assert 1 <= len({path.parents[1].name for path in sidecars}) < 40
    for path in sidecars:
        nib.load(path.with_suffix("").with_suffix(".nii.gz")).get_fdata()
    assert not list((tmp_path / "out").rglob(".writing-*"))
    only = lib.program.Request(
        str(program), str(model), str(many / "sub-01"), str(tmp_path / "out"), scores=SCORES[0]
    )
    lines = []
    for command in only.commands():
        lines += run(*command[1:], pages=True).stderr.splitlines()
    assert any(line.startswith("sub-01: up to date") for line in lines)


# Apart.


def test_details_say_how_far_a_scan_is():
    import logging

    from mednovelty import console

    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append((record.levelname, record.getMessage()))
    console.start_logging(False, True)
    console.log.addHandler(handler)
    seconds = iter([0, 1, 3, 4, 61, 62])
    advance = console._Silence(lambda: next(seconds)).told
    for _ in range(5):
        advance("sub-01", 1000, 5000)
    console.log.removeHandler(handler)
    # After 3 s a detail, after 61 s for all.
    assert said == [
        ("DEBUG", "sub-01: 2,000 of 5,000 samples scored"),
        ("INFO", "sub-01: 4,000 of 5,000 samples scored"),
    ]


def test_progress_is_read_from_what_is_said(lib):
    progress = lib.program.Progress(2)
    fractions = []
    said = ("not calibrated", "sub-01: 1,000 of 4,000 samples scored", "sub-01: done ", "sub-02: up to date",
            "2 scored", "sub-02: 1 of 4 samples scored", "mednovelty: no space left", "")  # fmt: skip
    for line in said:
        progress.take(line)
        fractions.append(progress.fraction)
    assert fractions == [None, 0.125, 0.5, 0.99, 0.99, 0.99, 0.99, 0.99]
    assert progress.problems == ["no space left"]
    unknown = lib.program.Progress(None)
    unknown.take("sub-01: done ")
    assert unknown.fraction is None
    assert unknown.message == "sub-01: done"


def test_requests_that_cannot_be_run_say_why(lib, tmp_path):
    def words(**changed):
        asked = {"program": "m", "model": "model", "scan": str(tmp_path), "output": "out"} | changed
        with pytest.raises(lib.program.RequestError) as error:
            lib.program.Request(**asked).commands()
        return str(error.value)

    assert words(model=" ") == "choose a detector first"
    assert words(scan="") == "choose a scan first"
    assert words(output="") == "choose an output folder first"
    assert words(scan="/no/such") == "/no/such: there is no such file or folder"
    assert words(rule="p", level=0.7) == "a threshold lies between 0 and 0.5, got 0.7"
    assert words(rule="dice") == "there is no threshold 'dice'; fdr and p are known"
    with pytest.raises(lib.program.RequestError, match=r"holds no detector\.json; choose a folder that"):
        lib.program.Detector.read(tmp_path)
    with pytest.raises(lib.program.RequestError, match="/no/such: is no program that can be run"):
        lib.program.find_program("/no/such")
    with pytest.raises(lib.program.RequestError, match="was not found; install it apart from 3D Slicer"):
        lib.program.find_program("", path=str(tmp_path))


def test_the_program_is_found_by_setting_and_on_the_path(lib, program):
    assert lib.program.find_program(str(program)) == str(program)
    assert lib.program.find_program("", path=str(program.parent)) == str(program)


def test_a_detector_tells_its_calibrated_scores(lib, model):
    detector = lib.program.Detector.read(model)
    assert detector.contrasts == ()
    assert set(detector.calibrated) == set(SCORES)


def test_a_loaded_volume_is_saved_under_its_contrast(lib, tmp_path):
    detector = lib.program.Detector(tmp_path, ("FLAIR",), ())
    path = lib.program.file_to_score(detector, "My scan_1.nii", tmp_path)
    assert path == tmp_path / "sub-Myscan1nii" / "anat" / "sub-Myscan1nii_FLAIR.nii.gz"
    with pytest.raises(lib.program.RequestError, match="needs FLAIR, T1w of a subject"):
        lib.program.file_to_score(lib.program.Detector(tmp_path, ("FLAIR", "T1w"), ()), "a", tmp_path)
    with pytest.raises(lib.program.RequestError, match=r"4-D file, with \.bval and \.bvec beside it"):
        lib.program.file_to_score(lib.program.Detector(tmp_path, (), ()), "a", tmp_path)


def test_commands_stop_at_the_first_that_fails(lib):
    def python(code):
        return [sys.executable, "-c", f"import sys; {code}"]

    say = "sys.stderr.write('{}\\n')"
    going = lib.process.Run(
        [python(say.format("one")), python("sys.exit(3)"), python(say.format("three"))], dict(os.environ)
    )
    going.start()
    assert followed(going, lib.program.Progress()) == (["one"], 3)


def test_a_program_that_does_not_stop_is_ended(lib, monkeypatch):
    monkeypatch.setattr(lib.process, "GRACE_S", 0.2)
    deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('on', file=sys.stderr); "
    deaf += "time.sleep(60)"
    going = lib.process.Run([[sys.executable, "-u", "-c", deaf], ["never"]], dict(os.environ))
    going.start()
    _, code = followed(going, lib.program.Progress(), until=lambda line: line == "on")
    assert code == -9
    assert "memory" in lib.program.ending(code, [])
    assert lib.program.ending(-15, []) == "stopped"


def test_what_is_slicers_own_is_not_the_programs(lib, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/opt/Slicer/lib/Python")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/Slicer/lib")
    found = lib.process.environment()
    assert not {"PYTHONHOME", "LD_LIBRARY_PATH"} & set(found)
    assert found["PATH"] == os.environ["PATH"]
    # What 3D Slicer was started with is the user's.
    assert lib.process.environment({"LD_LIBRARY_PATH": "/mine"})["LD_LIBRARY_PATH"] == "/mine"


def test_clusters_are_read_as_they_were_written(lib, tmp_path):
    written = write_scored(tmp_path / "out", GRIDS["LAS-oblique-anisotropic"])
    write_scenes(written.out)
    (result,) = lib.results.find_results(written.out)
    (cluster,) = lib.results.read_clusters(result.clusters("elbo"))
    assert cluster.peak_mm == pytest.approx(tuple(written.mm(PEAK)))
    assert cluster.volume_ml == pytest.approx(24 * 1.5 * 2.5 * 3.5 / 1000)
    assert cluster.cells[0] == "1"
    assert cluster.cells[3:] == ("1e-05", "", "")
    assert lib.results.read_clusters(result.clusters("raw_b0")) == []
    assert lib.results.find_results("") == []
    result.clusters("elbo").write_text("cluster\n1\n")
    with pytest.raises(ValueError, match=r"_desc-elbo_clusters\.tsv: no table of clusters"):
        lib.results.read_clusters(result.clusters("elbo"))
