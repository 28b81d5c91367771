"""Reports: words, vectors given and learnt, the detector on disk, and the command line."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from mednovelty.cli import app
from mednovelty.errors import DetectorError, ScanError, SettingsError
from mednovelty.methods.cvdd_settings import ContextSettings
from mednovelty.words.detector import ReportDetector, ReportSettings
from mednovelty.words.reading import Report, read_report, report_files, words_of
from mednovelty.words.vectors import ppmi, read_vectors, trained_vectors

QUICK = ReportSettings(ContextSettings(contexts=2, attention=6, epochs=15, folds=3), width=4)
NORMAL = ["ventricles", "normal", "sulci", "symmetric", "midline", "preserved"]
NOVEL = ["mass", "edema", "necrotic"]


def vectors_file(path, header=""):
    random = np.random.default_rng(0)
    lines = []
    for words, centre in ((NORMAL, (3, 0, 0, 1)), (NOVEL, (0, 0, -4, 1))):
        for word in words:
            numbers = np.array(centre) + 0.3 * random.normal(size=4)
            lines.append(" ".join([word, *(f"{x:.4f}" for x in numbers)]))
    path.write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_reports(folder, n, words, seed=0):
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(n):
        text = " ".join(random.choice(words, 4 + i % 3))
        (folder / f"r{seed}{i}.txt").write_text(f"{text.capitalize()}; 3 mm.\n", encoding="utf-8")
    return folder


def run(*words):
    with pytest.raises(SystemExit) as ended:
        app([str(word) for word in words])
    return ended.value.code or 0


QUICKLY = [
    f"method_settings.contexts.{name}={value}"
    for name, value in (("contexts", 2), ("attention", 6), ("epochs", 15), ("folds", 3))
]
SET = [word for setting in QUICKLY for word in ("--set", setting)]


@pytest.fixture
def fitted(tmp_path):
    reports = write_reports(tmp_path / "normal", 8, NORMAL)
    vectors = vectors_file(tmp_path / "v.txt")
    words = ("-q", "fit", *sorted(reports.glob("*.txt")), "-o", tmp_path / "model", "--method", "cvdd",
             "--embeddings", vectors, *SET)  # fmt: skip
    assert run(*words) == 0
    return tmp_path


def test_reports_are_fitted_and_scored(fitted):
    patients = write_reports(fitted / "patients", 3, NOVEL, seed=1)
    write_reports(patients, 3, NORMAL, seed=2)
    assert run("-q", "score", fitted / "model", patients, "-o", fitted / "out") == 0
    rows = list(csv.DictReader((fitted / "out" / "cohort.tsv").open(), delimiter="\t"))
    overall = {row["id"]: float(row["overall"]) for row in rows}
    assert sorted(overall) == ["r10", "r11", "r12", "r20", "r21", "r22"]
    assert min(overall[f"r1{i}"] for i in range(3)) > max(overall[f"r2{i}"] for i in range(3))
    p_values = {row["id"]: float(row["p_value"]) for row in rows}
    assert [p_values[f"r1{i}"] for i in range(3)] == pytest.approx([1 / 9] * 3)
    told = json.loads((fitted / "out" / "reports.json").read_text())["reports"]["r10"]
    assert [word["word"] for word in told["words"]] == list(words_of((patients / "r10.txt").read_text()))[:-1]
    assert told["unknown_words"] == ["mm"]
    attention = np.array([word["attention"] for word in told["words"]])
    np.testing.assert_allclose(attention.sum(0), 1, rtol=1e-5)
    shares = np.array([word["share"] for word in told["words"]])
    np.testing.assert_allclose(shares.sum(0), [c["score"] for c in told["contexts"]], rtol=1e-4, atol=1e-6)
    assert told["overall"] == pytest.approx(shares.sum(0).mean(), rel=1e-4)


def test_a_detector_scores_again_to_the_bit(fitted):
    detector = ReportDetector.load(fitted / "model")
    assert detector.vectors.source == "the file v.txt"
    assert len(detector.reports) == 8
    reports = [read_report(path) for path in sorted((fitted / "normal").glob("*.txt"))]
    again = ReportDetector.fit(reports, embeddings=fitted / "v.txt", settings=detector.settings)
    report = Report("new", ("mass", "normal"))
    assert again.score(report) == detector.score(report)


def test_bad_reports_are_told_and_the_others_scored(fitted):
    bad = write_reports(fitted / "bad", 1, NORMAL, seed=3)
    (bad / "latin.txt").write_bytes("Größe".encode("latin-1"))
    (bad / "empty.txt").write_text("12 3.\n")
    (bad / "foreign.txt").write_text("zzz qqq")
    assert run("-q", "score", fitted / "model", bad, "-o", fitted / "out") == 6
    told = json.loads((fitted / "out" / "reports.json").read_text())
    assert list(told["reports"]) == ["r30"]
    codes = {failure["id"]: failure["code"] for failure in told["failures"]}
    assert codes == {"latin": "report.encoding", "empty": "report.empty", "foreign": "report.unknown_words"}
    messages = {failure["id"]: failure["message"] for failure in told["failures"]}
    assert messages["latin"].startswith("latin.txt: not UTF-8 text: ")


def test_a_damaged_detector_is_refused(fitted):
    path = fitted / "model" / "contexts.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DetectorError, match=r"contexts\.safetensors: damaged"):
        ReportDetector.load(fitted / "model")
    record = fitted / "model" / "reports.json"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": "0"'))
    with pytest.raises(DetectorError, match="not the record of a detector of reports: 1 validation error"):
        ReportDetector.load(fitted / "model")


def test_what_stands_is_not_replaced_unasked(fitted, capsys):
    words = ("fit", fitted / "normal", "-o", fitted / "model", "--embeddings", fitted / "v.txt", *SET)
    assert run("-q", *words, "--method", "cvdd") == 5
    assert "a detector is there already" in capsys.readouterr().err
    assert run("-q", *words) == 2
    assert "reports are for --method cvdd" in capsys.readouterr().err
    assert run("-q", *words, "--method", "cvdd", "--overwrite") == 0


def test_scans_take_no_word_vectors(tmp_path, capsys):
    (tmp_path / "scans").mkdir()
    words = ("fit", tmp_path / "scans", "-o", tmp_path / "m", "--embeddings", tmp_path / "v.txt")
    assert run("-q", *words) == 2
    assert "--embeddings: word vectors are for reports" in capsys.readouterr().err
    assert run("-q", "fit", tmp_path / "a.txt", tmp_path / "b.nii.gz", "-o", tmp_path / "m") == 2
    assert "2 paths, of which not all are reports" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        ("--masks", "nowhere"), ("--labels", "nowhere.tsv"), ("--outliers", "nowhere"), ("--fold", "1"),
        ("--recipe", "slices"), ("--contrasts", "FLAIR"), ("--brain-masks", "nowhere"), ("--resume",),
    ],
)  # fmt: skip
def test_what_is_of_scans_is_refused_to_fit_reports(tmp_path, capsys, option):
    reports = write_reports(tmp_path / "normal", 3, NORMAL)
    assert run("-q", "fit", reports, "-o", tmp_path / "m", "--method", "cvdd", *option) == 2
    assert f"{option[0]}: of scans, and these are reports (*.txt)" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_what_is_of_scans_is_refused_to_score_reports(fitted, capsys):
    words = ("-q", "score", fitted / "model", fitted / "normal", "-o", fitted / "out")
    assert run(*words, "--brain-masks", "nowhere", "--set", "score.x=1", "--dry-run") == 2
    assert "--set, --brain-masks, --dry-run: of scans" in capsys.readouterr().err
    assert not (fitted / "out").exists()


@pytest.mark.parametrize("option", [("--latent", "8"), ("--set", "train.max_epochs=3")])
def test_settings_of_scans_are_said_to_be_none_of_reports(tmp_path, capsys, option):
    reports = write_reports(tmp_path / "normal", 3, NORMAL)
    assert run("-q", "fit", reports, "-o", tmp_path / "m", "--method", "cvdd", *option) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "Reports have other settings than scans: method and seed, and method_settings with contexts," in said
    )


def test_copies_of_a_report_are_used_once(tmp_path, capsys):
    reports = write_reports(tmp_path / "normal", 6, NORMAL)
    (reports / "z.txt").write_bytes((reports / "r00.txt").read_bytes())
    words = ("-q", "fit", reports, "-o", tmp_path / "m", "--method", "cvdd", *SET)
    assert run(*words, "--embeddings", vectors_file(tmp_path / "v.txt")) == 6
    assert "z.txt: the same file, byte for byte, as r00.txt; it is used once" in capsys.readouterr().err
    assert len(ReportDetector.load(tmp_path / "m").reports) == 6


def test_reports_are_explained_by_their_attention(fitted, capsys):
    assert run("-q", "explain", fitted / "model", fitted / "normal", "-o", fitted / "out") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is a detector of reports, which attention explains: `mednovelty score` writes each word's" in said


def test_a_report_of_unknown_words_is_told_in_table_and_log(fitted, capsys):
    odd = write_reports(fitted / "odd", 1, NORMAL, seed=4)
    (odd / "foreign.txt").write_text("mass zzz qqq yyy")
    assert run("-q", "score", fitted / "model", odd, "-o", fitted / "out") == 0
    rows = list(csv.DictReader((fitted / "out" / "cohort.tsv").open(), delimiter="\t"))
    shares = {row["id"]: float(row["share_known"]) for row in rows}
    assert shares == {"foreign": 0.25, "r40": pytest.approx(0.8)}
    said = " ".join(capsys.readouterr().err.split())
    assert "foreign: only 25 % of its words have a vector" in said
    assert "r40: only" not in said


def test_vectors_without_a_direction_are_none(tmp_path, capsys, recwarn):
    reports = write_reports(tmp_path / "normal", 6, NORMAL)
    words = ("-q", "fit", reports, "-o", tmp_path / "m", "--method", "cvdd", *SET, "--embeddings")
    zero, alike, some = (tmp_path / f"{name}.txt" for name in ("zero", "alike", "some"))
    zero.write_text("".join(f"{word} 0 0 0\n" for word in NORMAL))
    alike.write_text("".join(f"{word} 1 2 3\n" for word in NORMAL))
    some.write_text(vectors_file(tmp_path / "v.txt").read_text() + "mm 0 0 0 0\n")
    assert run(*words, zero) == 3
    assert "the vectors of all 6 words are 0" in " ".join(capsys.readouterr().err.split())
    assert run(*words, alike) == 2
    assert "2 contexts cannot be learnt from 1 different word vectors" in capsys.readouterr().err
    assert not [warning for warning in recwarn if "ConvergenceWarning" in str(warning.category)]
    assert run(*words, some) == 0
    assert "mm" not in ReportDetector.load(tmp_path / "m").vectors.words


def test_which_paths_are_reports(tmp_path):
    folder = write_reports(tmp_path / "some", 2, NORMAL)
    files = sorted(folder.glob("*.txt"))
    assert report_files([folder]) == report_files(files) == files
    assert report_files([tmp_path / "none.toml"]) == []
    (folder / "sub-01_dwi.nii.gz").touch()
    assert report_files([folder]) == []


def test_words_are_those_of_the_text():
    assert words_of("Größe: T2-bright, 3mm; l\u2019IRM X\n") == ("größe", "t", "bright", "mm", "l'irm", "x")


def test_vectors_are_read_with_and_without_a_header(tmp_path):
    plain = read_vectors(vectors_file(tmp_path / "a.txt"), (), 100)
    headed = read_vectors(vectors_file(tmp_path / "b.txt", header="9 4\n"), (), 100)
    assert plain.words == headed.words == (*NORMAL, *NOVEL)
    assert torch.equal(plain.vectors, headed.vectors)
    few = read_vectors(tmp_path / "a.txt", {"edema", "absent"}, 2)
    assert few.words == ("ventricles", "normal", "edema")
    torch.testing.assert_close(few.vectors[2], plain.vectors[plain.place["edema"]])
    mixed = tmp_path / "c.txt"
    mixed.write_text("The 1 2\nthe 3 4\nat home 5 6\nlast 7 8")
    found = read_vectors(mixed, (), 100)
    assert found.words == ("the", "last")
    assert found.vectors.tolist() == [[1, 2], [7, 8]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a 1 2\nb 1\n", r"v\.txt: line 2 has 1 numbers, where the first has 2"),
        (b"a 1 2\nb 1 2 3\n", r"v\.txt: line 2 has 3 numbers"),
        (b"a 1 x\n", r"v\.txt: line 1: a word must be followed by finite numbers alone"),
        (b"a 1 inf\n", r"v\.txt: line 1: a word must be followed by finite"),
        (b"\xff\xfe 1 2\n", r"v\.txt: line 1 is not UTF-8"),
        (b"9 4\n", r"v\.txt: there is no word with numbers in it"),
        (b"x" * (1 << 19), r"v\.txt: line 1 is longer than"),
    ],
)
def test_what_are_no_vectors_is_told(tmp_path, text, words):
    (tmp_path / "v.txt").write_bytes(text)
    with pytest.raises(ScanError, match=words):
        read_vectors(tmp_path / "v.txt", (), 100)


def test_mutual_information_by_hand():
    # a b a: with a window of 1, a and b are near twice each way, so that p(c) = 1/2 for both.
    found = ppmi([[0, 1, 0]], 2, 1)
    np.testing.assert_allclose(found, [[0, math.log(2)], [math.log(2), 0]])
    # Word 2 is near 0 once: row 0 has 1 of its 3 there, and p(2) = 1 / (3^0.75 + 2^0.75 + 1).
    found = ppmi([[0, 1, 0, 2]], 3, 1)
    share = 1 / (3**0.75 + 2**0.75 + 1)
    assert found[0, 2] == pytest.approx(math.log((1 / 3) / share))


def test_words_used_alike_get_vectors_alike():
    random = np.random.default_rng(0)
    reports = []
    for _ in range(60):
        colour, animal = random.choice(["red", "blue"]), random.choice(["dog", "cat"])
        reports.append(["the", colour, "paint", "and", "a", animal, "barks", "loud"])
    found = trained_vectors(reports, width=3, window=1, fewest=2)
    unit = torch.nn.functional.normalize(found.vectors, dim=1)
    alike = lambda a, b: (unit[found.place[a]] @ unit[found.place[b]]).item()  # noqa: E731
    assert alike("red", "blue") > 0.9
    assert alike("dog", "cat") > 0.9
    assert alike("red", "dog") < 0.8
    assert torch.equal(trained_vectors(reports, width=3, window=1, fewest=2).vectors, found.vectors)


def test_too_few_words_are_told():
    with pytest.raises(SettingsError, match="2 words occur at least 2 times in 2 reports"):
        trained_vectors([["a", "b", "a"], ["b", "c"]], width=3, window=2, fewest=2)


def test_reports_of_one_name_are_refused():
    twice = [Report("r1", ("mass",)), Report("r1", ("edema",))]
    with pytest.raises(ScanError, match=r"r1\.txt: 1 names occur more than once"):
        ReportDetector.fit(twice, settings=QUICK)
