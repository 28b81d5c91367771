"""Folders that maps must not go to, and folders that two runs must not share."""

import errno
import fcntl
import json
import logging
import os
import shutil
from dataclasses import replace

import pytest
import structural_images
from cohorts import tiny_cohort, tiny_detector
from typer.testing import CliRunner

from mednovelty.cli import app
from mednovelty.cohort import CohortSettings, score_cohort
from mednovelty.errors import OutputError
from mednovelty.io.scan_folder import scan_folder
from mednovelty.output_folder import BIDSIGNORE, refuse_traps, sole_writer, write_folder_facts


@pytest.fixture
def patients(tmp_path):
    return shutil.copytree(tiny_cohort().patients, tmp_path / "patients")


def listing(folder):
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))


def score(scans, out):
    settings = CohortSettings("vae_regularizer", baselines=False)
    return score_cohort(tiny_detector()[0], scans, out, settings=settings)


@pytest.mark.parametrize("out", ["", "sub-p01", "sub-p01/dwi", "../link"])
def test_maps_never_go_where_scans_are_read(patients, out):
    (patients.parent / "link").symlink_to(patients)
    before = listing(patients)
    with pytest.raises(OutputError, match="is a folder that scans are read from"):
        score(scan_folder(patients), patients / out)
    assert listing(patients) == before


def test_a_scans_maps_never_go_beside_it(patients):
    # One subject's folder is asked for: its maps would go to the subject's folder below OUT, the same.
    image = patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz"
    for asked in (patients / "sub-p01", image):
        with pytest.raises(
            OutputError, match=r"sub-p01/dwi: is a folder that scans are read from; .*than .*patients for"
        ):
            score(scan_folder(asked), patients)


def test_given_masks_are_read_from_their_folder(patients, tmp_path):
    scans = scan_folder(patients, brain_masks=tiny_cohort().brains)
    with pytest.raises(OutputError, match="is a folder that scans are read from"):
        refuse_traps(tiny_cohort().brains, scans)
    refuse_traps(tmp_path / "out", scans)


def test_the_folder_that_a_linked_scan_lies_in_is_read_from(patients, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    image = patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz"
    image.rename(store / "content.nii.gz")
    image.symlink_to(store / "content.nii.gz")
    with pytest.raises(OutputError, match="store: is a folder that scans are read from"):
        refuse_traps(store, scan_folder(patients))


def test_every_contrast_is_read_from_its_folder(tmp_path):
    manifest = contrasts_in_two_folders(tmp_path)
    scans = scan_folder(manifest)
    for name in ("flair/sub-01", "t1", "t1/sub-01"):
        with pytest.raises(OutputError, match=f"{name}: is a folder that scans are read from"):
            refuse_traps(tmp_path / name, scans)
    refuse_traps(tmp_path / "t2", scans)


def test_no_detector_goes_where_a_contrast_is_read(tmp_path):
    manifest, output = contrasts_in_two_folders(tmp_path), tmp_path / "t1" / "sub-01"
    words = ["fit", manifest, "-o", output, "--recipe", "slices"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 5, result.output
    assert "t1/sub-01: is a folder that scans are read from" in result.stderr
    assert os.listdir(output) == ["second.nii.gz"]


def contrasts_in_two_folders(root):
    """Write FLAIR and T1w of a subject into folders of their own; return the manifest."""
    structural_images.save(root / "flair" / "sub-01" / "first.nii.gz")
    structural_images.save(root / "t1" / "sub-01" / "second.nii.gz")
    text = """
    [dataset]
    name = "two folders"
    licence = "none"
    [files]
    root = "."
    [files.contrasts]
    FLAIR = "flair/{id}/first.nii.gz"
    T1w = "t1/{id}/second.nii.gz"
    """
    (root / "both.toml").write_text(text)
    return root / "both.toml"


def test_links_that_lead_in_a_circle_are_one_scans_failure(patients, tmp_path):
    image = patients / "sub-p01" / "dwi" / "sub-p01_dwi.nii.gz"
    image.unlink()
    image.symlink_to(image)
    result = score(scan_folder(patients), tmp_path / "out")
    assert [(o.id, o.status, o.code) for o in result.outcomes] == [
        ("sub-p01", "failed", "file.link"),
        ("sub-p02", "done", ""),
    ]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OutputError, match="loop: cannot be written"):
        score(scan_folder(patients), loop)


def test_a_detectors_folder_is_refused(patients, tmp_path):
    model = shutil.copytree(tiny_detector()[1], tmp_path / "model")
    before = listing(model)
    with pytest.raises(OutputError, match=r"model: is a detector's folder, it holds detector\.json"):
        score(scan_folder(patients), model)
    assert listing(model) == before


OURS = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "mednovelty"}]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dataset_description.json", json.dumps({"Name": "a study", "BIDSVersion": "1.10.0"})),
        ("dataset_description.json", json.dumps({**OURS, "GeneratedBy": [{"Name": "fMRIPrep"}]})),
        ("dataset_description.json", json.dumps({**OURS, "GeneratedBy": [{"Name": "fMRIPrep"},
                                                                         {"Name": "mednovelty"}]})),
        ("dataset_description.json", json.dumps({**OURS, "GeneratedBy": "mednovelty"})),
        ("dataset_description.json", json.dumps({**OURS, "DatasetType": "raw"})),
        ("dataset_description.json", "[]"),
        ("dataset_description.json", "not JSON"),
        ("dataset_description.json", "[" * 100_000),
        (".bidsignore", "sub-99\n"),
    ],
)  # fmt: skip
def test_somebody_elses_data_set_is_refused(patients, tmp_path, name, text):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(text)
    with pytest.raises(OutputError, match=f"{name}: was not written by mednovelty; choose a folder"):
        score(scan_folder(patients), out)
    assert os.listdir(out) == [name]
    assert (out / name).read_text() == text


def test_our_own_folder_is_gone_on_with_and_lines_added_stay(patients, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_folder_facts(out)
    assert (out / ".bidsignore").read_text() == BIDSIGNORE
    (out / ".bidsignore").write_text("notes.txt\nrun.json\n")
    refuse_traps(out, scan_folder(patients))
    write_folder_facts(out)
    assert (out / ".bidsignore").read_text() == BIDSIGNORE + "notes.txt\n"


def test_two_runs_do_not_share_a_folder(patients, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".mednovelty.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run is writing here"):
            score(scan_folder(patients), out)
    # The record is the other run's to write.
    assert not (out / "run.json").exists()


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append((record.levelname, record.getMessage()))
    log = logging.getLogger("mednovelty")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    log.addHandler(handler)
    try:
        with sole_writer(tmp_path / "out"):
            assert (tmp_path / "out" / "logs").is_dir()
    finally:
        log.removeHandler(handler)
    ((level, words),) = said
    assert level == "WARNING"
    assert "cannot be locked (No locks available)" in words


def test_what_cannot_be_a_folder_is_said_at_once(patients, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out: cannot be written"):
        score(scan_folder(patients), tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said_at_once(patients, tmp_path):
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(OutputError, match="cannot be written"):
        score(scan_folder(patients), tmp_path / "out")


def test_traps_are_looked_for_over_all_scans(patients, tmp_path):
    scans = scan_folder(patients)
    elsewhere = replace(scans[1], mask=tmp_path / "masks" / "sub-p02_mask.nii.gz")
    with pytest.raises(OutputError, match="masks: is a folder that scans are read from"):
        refuse_traps(tmp_path / "masks", replace(scans, scans=(scans[0], elsewhere)))
