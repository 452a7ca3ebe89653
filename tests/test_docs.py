"""The documentation: its tutorial is run as written, every command and option it names exists, and the site builds."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY
from helpers import words as typed

from mupvss.cli.main import COMMANDS, main
from mupvss.export.formats import FORMATS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
SMALL = {"run": typed({key: value for key, value in TINY.items() if not key.startswith(("data.", "affinity."))} | {"limit": 12})}
"""What makes a command of the tutorial quick; everything else is run as written."""


def commands(page):
    """The `mupvss ...` lines of a page's shell blocks, joined where a backslash ends them."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("mupvss "):
                yield shlex.split(line, comments=True)[1:]


def test_the_first_ten_minutes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = []
    for words in commands(ROOT / "docs" / "index.md"):
        assert main([*words, *SMALL.get(words[0], [])]) == 0, capsys.readouterr().err
        done.append(words[0])
    assert done == ["data", "init", "data", "run", "predict"]
    assert (tmp_path / "try" / "run" / "report" / "index.html").is_file()
    assert len(list((tmp_path / "try" / "run" / "masks" / "full").glob("*.png"))) == 12
    assert (tmp_path / "try" / "masks" / "coco.json").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_and_files_that_are_named_exist(page):
    for words in commands(page):
        assert words[0] in COMMANDS, words
        for word in words:
            if word.startswith("configs/") and "{" not in word:
                assert (ROOT / word).is_file(), word
        if "--formats" in words:
            listed = words[words.index("--formats") + 1 :]
            assert set(listed) <= set(FORMATS) | {w for w in listed if w.startswith("-")}
    for path in re.findall(
        r"`((?:mupvss|configs|benchmarks|experiments|tests)/[\w/.-]+\.\w+)`", page.read_text(encoding="utf-8")
    ):
        assert (ROOT / path).is_file(), path


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra 'docs'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    found = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "search_maps" in (tmp_path / "site" / "reference" / "index.html").read_text()
