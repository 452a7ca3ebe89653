"""docs/adding-a-method.md, done as it says: a method in a module of its own, and nothing changed elsewhere."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from helpers import TINY, as_tables, words
from PIL import Image

from mupvss import load
from mupvss.cli.main import main
from mupvss.data.sources import load_dataset
from mupvss.errors import ConfigError
from mupvss.predict.load import load_classifier
from mupvss.predict.run import FinishedRun

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "adding-a-method.md"
BASE = {key: value for key, value in TINY.items() if not key.startswith(("model.", "affinity.", "segment.size"))}
SMALL = {"model.patch_size": 8, "model.image_size": 32, "segment.channels": 0.03125, "segment.crop": 32, "baseline": False}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The folder with the page's two files, and a run of them; the module can be imported meanwhile."""
    folder = tmp_path_factory.mktemp("toy")
    code, config = (re.search(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1) for kind in ("python", "toml"))
    (folder / "toy_method.py").write_text(code)
    (folder / "toy.toml").write_text(config)
    (folder / "base.toml").write_text(tomli_w.dumps(as_tables(BASE)))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        run = ["run", str(folder / "toy.toml"), "--base", str(folder / "base.toml"), "--out", str(folder / "run"), *words(SMALL)]
        assert main(run) == 0
        yield folder
    sys.modules.pop("toy_method", None)


def test_every_stage(toy):
    metrics = json.loads((toy / "run" / "metrics.json").read_text())
    assert metrics["seeds/maps"] == "toy_refined"
    for key in ("seeds/miou", "seeds/toy_oracle", "masks/miou", "val/miou"):
        assert 0 <= metrics[key] <= 100
    log = [json.loads(line) for line in (toy / "run" / "train" / "log.jsonl").read_text().splitlines()]
    assert {"classification", "small", "loss"} <= log[-1].keys()
    assert log[-1]["loss"] == pytest.approx(log[-1]["classification"] + 0.1 * log[-1]["small"], rel=1e-4)
    page = (toy / "run" / "report" / "index.html").read_text()
    assert "toy, refined" in page
    config = FinishedRun(toy / "run").config()
    assert (config.method, config.model.width) == ("toy_method:TOY", 64)
    assert (config.options.small, config.search_options.power) == (0.1, 0.5)


def test_its_options_are_those_of_the_command_line(toy, capsys):
    command = ["train", str(toy / "toy.toml"), "--base", str(toy / "base.toml"), "--out", str(toy / "run"), *words(SMALL)]
    assert main(command) == 0
    assert "train: up to date" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command[:4], "--help-all"])
    said = capsys.readouterr().out
    for option in ("--toy.small", "--toy.search.power", "--model.width"):
        assert option in said
    assert "--mupvss" not in said
    assert "--model.drop-path" not in said


def test_compared_with_others_in_tables_and_pictures(toy, capsys):
    out = toy / "compare"
    others = ["vit-cam", "mupvss"]
    (toy / "wide.toml").write_text(tomli_w.dumps(as_tables({**BASE, "model.image_size": 32, "snapshots": 1})))
    small = "[model]\nbackbone = 'micro'\npatch_size = 8\n"
    for name in others:
        (toy / f"{name}.toml").write_text(f"method = '{name}'\n{small}")
    configs = [str(toy / f"{name}.toml") for name in (*others, "toy")]
    command = ["compare", *configs, "--base", str(toy / "wide.toml"), "--out", str(out), "--seeds", "0", "--curve", "3"]
    assert main([*command, "--pictures", "2"]) == 0
    rows = {(row["config"], row["maps"]) for row in csv.DictReader((out / "table.csv").open())}
    assert {("toy", "toy, refined"), ("toy", "toy")} <= rows
    for name in ("families", "maps", "masks"):
        with Image.open(out / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 100
    assert "toys: toy" in (toy / "run" / "report" / "index.html").read_text() or (out / "figures" / "families.png").is_file()


def test_predict_and_onnx(toy, capsys):
    pytest.importorskip("onnxruntime")
    picture = toy / "p.png"
    sample = load_dataset(FinishedRun(toy / "run").config().data, "seeds").samples[0]
    sample.open_image().save(picture)
    assert main(["predict", str(toy / "run"), str(picture), "--out", str(toy / "out"), "--classifier"]) == 0
    assert (toy / "out" / "masks" / "p.png").is_file()
    expected = load_classifier(toy / "run")(picture, sorted(sample.tags))
    assert main(["export", str(toy / "run"), str(toy / "c.onnx"), "--classifier"]) == 0
    found = load(toy / "c.onnx")(picture, sorted(sample.tags))
    assert found.scores == pytest.approx(expected.scores, abs=1e-4)
    assert np.mean(found.labels == expected.labels) > 0.98


def test_a_file_of_others_imports_nothing_unasked(toy):
    """In a new process, where nobody has imported the module."""
    code = "import sys; from mupvss import load; load(sys.argv[1], classifier=True); print('loaded')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(toy), *sys.path])}
    command = [sys.executable, "-c", code, str(toy / "run")]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "if you trust it, set MUPVSS_METHODS=toy_method" in refused.stderr
    environment["MUPVSS_METHODS"] = "toy_method"
    allowed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert allowed.stdout.strip() == "loaded"


def test_methods_that_are_not_there(tmp_path):
    from mupvss.config.load import build

    for name, message in (
        ("mupvs", "did you mean 'mupvss'"),
        ("nowhere:X", "cannot be imported"),
        ("json:loads", "expected a mupvss.methods.Method"),
    ):
        with pytest.raises(ConfigError, match=message):
            build({"method": name})
