"""What the README says is so."""

import re
from pathlib import Path

from mednovelty.discovery import TABLE_BEGIN, TABLE_END, with_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_equations_is_up_to_date():
    assert TABLE_BEGIN in README
    assert TABLE_END in README
    assert with_table(README) == README, "run `python -m mednovelty.discovery README.md`"


def test_every_file_it_links_to_is_there():
    links = [link for link in re.findall(r"\]\(([\w./:-]+)\)", README) if not link.startswith("http")]
    assert {"docs/map.png", "mednovelty/methods/vae_scores.py"} <= set(links)
    assert not [link for link in links if not (ROOT / link).is_file()]


def test_every_command_it_names_exists():
    from typer.main import get_command

    from mednovelty.cli import app

    known = "check|fit|calibrate|score|threshold|combine|evaluate|list|where|doctor|demo"
    named = set(re.findall(rf"mednovelty ({known})\b", README))
    assert named >= set(known.split("|")) - {"demo"}
    assert named <= set(get_command(app).commands)


def test_make_targets_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target
