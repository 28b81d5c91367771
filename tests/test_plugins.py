"""Plug-ins and equations by name; the errors' words."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mednovelty import papers, plugins
from mednovelty.errors import SettingsError, UnknownPluginError
from mednovelty.plugins import GROUPS, available, import_all, names, plugin


def test_every_group_has_built_ins():
    assert {group: bool(names(group)) for group in GROUPS} == dict.fromkeys(GROUPS, True)


def test_every_plug_in_can_be_loaded_and_is_documented():
    for group in GROUPS:
        for info in available(group):
            kind = plugin(group, info.name)
            assert kind.__doc__, info
            assert info.address == f"{kind.__module__}:{kind.__qualname__}"


def test_every_method_of_ours_has_its_sources():
    ours = {info.name for info in available("methods") if info.address.startswith("mednovelty.")}
    assert set(papers.METHODS) == ours
    assert all(papers.METHODS.values())
    assert {key for keys in papers.METHODS.values() for key in keys} <= set(papers.PAPERS)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(
        UnknownPluginError, match="no scorer is called 'latent_euclidian'; did you mean 'latent_euc"
    ):
        plugin("scorers", "latent_euclidian")
    with pytest.raises(UnknownPluginError, match="no view is called 'xyz'; known: patch, slice, voxel"):
        plugin("views", "xyz")
    with pytest.raises(
        UnknownPluginError, match="no plug-in group is called 'scores'; did you mean 'scorers'"
    ):
        names("scores")


def test_one_equation_has_one_home():
    def first(): ...
    def second(): ...

    mark = papers.equation("vasilev2018", "Eq. (test)")
    try:
        assert mark(first) is first
        assert mark(first) is first
        with pytest.raises(ValueError, match=r"already lives at .*first, so not at .*second"):
            mark(second)
        assert papers.where("vasilev2018", "Eq. (test)").endswith("first")
    finally:
        papers._HOMES.pop(("vasilev2018", "Eq. (test)"))
    with pytest.raises(KeyError, match="add it there first"):
        papers.equation("nobody1900", "Eq. (1)")


def test_where_suggests():
    import_all()
    with pytest.raises(
        SettingsError, match=re.escape("no code carries vasilev2018 'Eq.(3)'; did you mean 'Eq. (3)'")
    ):
        papers.where("vasilev2018", "Eq.(3)")
    with pytest.raises(SettingsError, match="no paper is called 'vasilev'; did you mean 'vasilev2018'"):
        papers.where("vasilev", "Eq. (3)")


STRANGER = '''
"""A package that mednovelty has never heard of."""

import hashlib

import numpy as np

from mednovelty.scan import Grid


class Loudness:
    """Mean of the normalised signal."""

    level, needs, reference_parts, unit = "sample", (), (), "normalised signal"

    def score(self, batch):
        """Return (B,) means."""
        return batch.x.mean(1)


class Halve:
    """Halves the signal."""

    def __call__(self, scan):
        """Return the scan at half its signal."""
        return scan.scaled(0.5)

    def state(self):
        """Return nothing: there is nothing to keep."""
        return {}


class NumpyReader:
    """Reads (I, J, K, C) arrays that NumPy has saved."""

    suffixes = (".npy",)

    @staticmethod
    def open(path, settings):
        """Return the array as an open image."""
        return NumpySource(path)


class NumpySource:
    def __init__(self, path):
        self.path, self.name, self.warnings = path, path.name, []
        self.data = np.load(path, allow_pickle=False)
        self.grid = Grid(self.data.shape[:3], np.diag([8.0, 8.0, 10.0, 1.0]))
        self.ndim, self.n_channels, self.dtype = 4, self.data.shape[3], self.data.dtype
        self.slope, self.inter = 1.0, 0.0
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def volumes(self):
        for c in range(self.n_channels):
            yield np.asfortranarray(self.data[..., c])
'''
POINTS = """
[mednovelty.scorers]
loudness = stranger:Loudness

[mednovelty.preprocessors]
halve = stranger:Halve

[mednovelty.readers]
numpy = stranger:NumpyReader
"""


def test_a_strangers_plug_ins_come_through_the_same_door(tmp_path):
    # A process of its own: an installed package is there from the start.
    (tmp_path / "stranger.py").write_text(STRANGER)
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    code = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(Path(__file__).parent)!r}]
from dataclasses import replace
from pathlib import Path
import nibabel as nib, numpy as np, mednovelty as mn
from cohorts import FAST, tiny_cohort
from mednovelty.plugins import available
assert [i.distribution for i in available("scorers") if i.name == "loudness"] == ["stranger"]
cohort = tiny_cohort()
for image in cohort.controls.rglob("*.nii.gz"):
    np.save(str(image).replace(".nii.gz", ".npy"), np.asarray(nib.load(image).dataobj))
    image.unlink()
scans = mn.scan_folder(cohort.controls)
assert [files.image.suffix for files in scans] == [".npy"] * 3
settings = replace(FAST, preprocessors=("halve",), scores=("loudness",))
detector = mn.Detector.fit(scans, settings=settings).save(Path({str(tmp_path)!r}) / "model")
detector = mn.Detector.load(Path({str(tmp_path)!r}) / "model")
assert [name for name, _ in detector.preprocessing][:3] == ["gradient_scheme", "halve", "mean_intensity"]
print(detector.score(mn.read_scan(scans[0]))["loudness"].values.mean())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1, abs=0.1)


def test_what_is_installed_meanwhile_is_found_and_what_goes_is_not(tmp_path, monkeypatch):
    site, info = tmp_path / "site", tmp_path / "site" / "stranger-1.0.dist-info"
    moments = itertools.count(1)

    def changed():
        # Clocks of file systems are coarse: two changes of this test may be of the same moment.
        os.utime(site, (next(moments), next(moments)))

    def install():
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(POINTS)
        changed()

    site.mkdir()
    (site / "stranger.py").write_text(STRANGER)
    changed()
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    before = names("scorers")
    assert "loudness" not in before
    install()
    assert set(names("scorers")) - set(before) == {"loudness"}
    assert [found.distribution for found in available("scorers") if found.name == "loudness"] == ["stranger"]
    assert plugin("scorers", "loudness").unit == "normalised signal"
    sys.modules.pop("stranger")
    shutil.rmtree(info)
    changed()
    assert names("scorers") == before
    # A folder that is looked through no more.
    install()
    assert "loudness" in names("scorers")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(site)])
    assert names("scorers") == before


def test_packages_are_looked_through_once(monkeypatch):
    looked = []
    real = plugins.entry_points
    monkeypatch.setattr(plugins, "entry_points", lambda **words: looked.append(words) or real(**words))
    plugins._found.cache_clear()
    assert names("views") == ["patch", "slice", "voxel"]
    for name in names("views"):
        plugin("views", name)
    assert looked == [{"group": "mednovelty.views"}]
