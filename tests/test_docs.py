"""The documentation: its tutorial is run as written, every command and option it names exists, and the site builds."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from helpers import PAPER, TINY, as_tables
from helpers import words as typed
from PIL import Image

from mupvss.cli.main import COMMANDS, main
from mupvss.config.load import load_config, overlay, rows_of
from mupvss.data.masks import write_palette_png
from mupvss.data.tags import write_tags
from mupvss.export.formats import FORMATS
from mupvss.options import Section

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
SMALL = {"run": typed({key: value for key, value in TINY.items() if not key.startswith(("data.", "affinity."))} | {"limit": 12})}
"""What makes a command of the tutorial quick; everything else is run as written."""


def commands(page):
    """The `mupvss ...` lines of a page's shell blocks, joined where a backslash ends them."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("#")[0].split("&&"):
                if part.strip().startswith("mupvss "):
                    yield [found for word in shlex.split(part)[1:] for found in braces(word)]


def braces(word):
    """What a shell makes of a{b,c}d."""
    parts = [part.split(",") for part in re.split(r"[{}]", word)]
    return ["".join(choice) for choice in itertools.product(*parts)] if "{" in word else [word]


def test_the_first_ten_minutes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = []
    for words in commands(ROOT / "docs" / "first-ten-minutes.md"):
        words = ["40" if word == "300" else word for word in words]  # fewer pictures are drawn, and predicted
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
            if word.startswith("configs/"):
                assert (ROOT / word.split(":")[0]).is_file(), word
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


NAMES = 8
"""Pictures of every split in the trees below."""
NEEDS_INTERNET = ("data download",)
SERVES = ("studio",)
"""Until it is stopped; tests/studio drives it in a browser."""
SHORT = {key: value for key, value in PAPER.items() if not key.endswith("channels")}
"""What makes a training on a VOC tree quick."""
NARROW = {key: value for key, value in PAPER.items() if key.endswith("channels")}
EXTRA = {
    "run voc-animals": SHORT,
    "run configs/voc.toml": SHORT | NARROW,
    "run voc": SHORT | NARROW,
    "run configs/coco.toml": SHORT | NARROW,
    "run mine.toml": {key: value for key, value in TINY.items() if not key.startswith("data.")}
    | {"model.weights": "", "search.scales": [1.0]},
}


@pytest.fixture
def computer(tmp_path, monkeypatch):
    """What someone has who follows the documentation: the configs, VOC and COCO in their folders, pictures with tags."""
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    lists = ROOT / "mupvss" / "data" / "lists" / "voc-animals"
    splits = {path.stem: path.read_text().split()[:NAMES] for path in lists.glob("*.txt")}
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name, split in {"train_aug": "trainaug", "train": "trainaug", "val": "val"}.items():
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(splits[split]) + "\n")

    def drawn(k):
        pixels, mask = rng.integers(0, 90, (40, 56, 3)), np.zeros((40, 56), np.uint8)
        pixels[8:30, 10:40, k % 3] += 150
        mask[8:30, 10:40] = 1
        return Image.fromarray(pixels.astype(np.uint8)), mask

    for k, name in enumerate(sorted(set(itertools.chain(*splits.values())))):
        image, mask = drawn(k)
        image.save(root / "JPEGImages" / f"{name}.jpg")
        write_palette_png(root / "SegmentationClassAug" / f"{name}.png", mask * (8, 12, 15)[k % 3])
        thing = f"<object><name>{('cat', 'dog', 'person')[k % 3]}</name><difficult>0</difficult></object>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{thing}</annotation>")
    for split in ("train2014", "val2014"):
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
        (tmp_path / "coco" / split).mkdir(parents=True)
        for k in range(NAMES):
            drawn(k)[0].save(tmp_path / "coco" / split / f"{k}.jpg")
            content["images"].append({"id": k, "file_name": f"{k}.jpg", "height": 40, "width": 56})
            outline = {"segmentation": [[10, 8, 40, 8, 40, 30, 10, 30]], "bbox": [10, 8, 30, 22], "area": 660, "iscrowd": 0}
            content["annotations"].append({"id": k, "image_id": k, "category_id": 1 + k % 2, **outline})
        (tmp_path / "coco" / "annotations").mkdir(exist_ok=True)
        (tmp_path / "coco" / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    tags = {}
    for folder, count in (("pictures", 12), ("new-pictures", 3)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            drawn(k)[0].save(tmp_path / folder / f"{k}.jpg")
            if folder == "pictures":
                tags[f"{k}.jpg"] = {("cat", "dog", "person")[k % 3]}
    write_tags(tmp_path / "tags.csv", tags)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for base in (tmp_path / "configs" / "comparisons").glob("voc*.toml"):  # `compare` takes no options of a run
        quick = as_tables(SHORT | {"train.image_steps": 4, "snapshots": 1})
        base.write_text(tomli_w.dumps(overlay(tomllib.loads(base.read_text()), quick)))
    for folder in ("DIR", "masks"):
        shutil.copytree(root / "SegmentationClassAug", tmp_path / folder)
    return tmp_path


@pytest.mark.parametrize("page", ["README", "docs/own-pictures", "docs/reproduce", "docs/scale"])
def test_every_command_works_outside(page, computer, capsys):
    """As written, in the order of the page, on trees in the real layouts; shorter only where it would train for hours."""
    ran = []
    for words in commands(ROOT / f"{page}.md"):
        line = " ".join(words)
        if line.startswith((*NEEDS_INTERNET, *SERVES)):
            continue
        if words[0] == "init":
            words = [*words, *(["--quick"] if "--quick" not in words else []), *(["--force"] if "init" in "".join(ran) else [])]
        if words[0] == "compare":
            line = line.replace("--seeds 0 1 2", "--seeds 0")
            words = shlex.split(line)
        matching = [extra for start, extra in EXTRA.items() if f"{line} ".startswith(f"{start} ")]
        words = [word for word in words if word != "res38_cls.pth"]
        for option in ("--affinity.weights", "--segment.weights"):
            words = [word for word in words if word != option]  # a file that one has from elsewhere
        assert main([*words, *(typed(matching[0]) if matching else [])]) == 0, (line, capsys.readouterr().err[-2000:])
        ran.append(line)
    assert len(ran) >= 1


def test_all_departures_from_the_printed_formulas_are_listed():
    """As the two configs say, and no other; each is part of a row in either direction."""
    base = ROOT / "configs" / "comparisons" / "voc-animals-screening.toml"
    printed = options_of(load_config(ROOT / "configs" / "methods" / "paper-literal.toml", base))
    ours = options_of(load_config(Path(f"{ROOT / 'configs' / 'printed-into-ours.toml'}:ours"), base))
    differing = {name for name in printed if printed[name] != ours[name]} - {"search.kinds"}
    section = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").split("## All departures")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in section.splitlines() if line.startswith("|")]
    listed = [name for row in rows for name in re.findall(r"`([a-z0-9_.]+)`", row)]
    assert sorted(listed) == sorted(differing)
    assert f"differ in {len(differing)} options" in section
    for table, other in (("printed-into-ours", ours), ("ours-into-printed", None)):
        path, changed = ROOT / "configs" / f"{table}.toml", set()
        reference = other or options_of(load_config(Path(f"{path}:printed"), base))
        for row in rows_of(path):
            found = options_of(load_config(Path(f"{path}:{row}"), base))
            changed |= {name for name in found if found[name] != reference[name]}
        assert changed == {name for name in differing if not name.startswith(("search.", "mupvss.search."))}, table


def options_of(config, above=""):
    found = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        found |= options_of(value, f"{above}{name}.") if isinstance(value, Section) else {f"{above}{name}": value}
    return found


def test_the_tables_are_those_of_the_records():
    command = [sys.executable, str(ROOT / "docs" / "write_tables.py"), "--check"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
