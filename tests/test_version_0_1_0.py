"""What version 0.1.0 wrote still loads, answers as it did, and is not made again: a run, both kinds of checkpoint, ONNX, a
config.

The fixture holds a tiny run on six pictures, made by that version, with few different weights so that it is small, and what
that version answered with it.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from mupvss import load
from mupvss.cli.main import main
from mupvss.config.load import load_config
from mupvss.errors import UserError
from mupvss.files import read_json
from mupvss.methods.earlier import MAPS
from mupvss.predict.load import load_classifier
from mupvss.predict.run import FinishedRun
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.stages.earlier import renamed_figures

FIXTURE = Path(__file__).parent / "fixtures" / "version-0.1.0.tar.xz"
STAGES = ("train", "seeds", "affinity", "masks", "segment", "val")


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The folder it was made in."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predictors():
    yield "run", load("run", "cpu")
    yield "classifier", load_classifier(Path("run"), "cpu")
    yield "cnn", load("cnn/train/model.safetensors", "cpu")
    yield "classifier.onnx", load("classifier.onnx")


def test_every_network_answers_as_it_did(old):
    pytest.importorskip("onnxruntime")
    answers = read_json(old / "answers.json")
    for name, predictor in predictors():
        found = predictor("pictures/1.png", ["blue", "red"])
        assert found.scores == pytest.approx(answers[name]["scores"], abs=1e-3), name
        if name == "cnn":
            continue  # of a checkpoint alone, the search is today's
        means = {tag: float(values.mean()) for tag, values in found.probabilities.items()}
        assert means == pytest.approx(answers[name]["maps"], abs=0.03), name


def test_the_run_is_taken_over_and_nothing_is_made_again(old, capsys):
    before = {stage: (old / "run" / stage / "metrics.json").read_text() for stage in STAGES}
    figures = {stage: json.loads(text) for stage, text in before.items()}
    weights = {path: path.stat().st_mtime_ns for path in old.rglob("*.safetensors")}
    maps = {path: path.read_bytes() for path in (old / "run" / "seeds" / "maps").rglob("*.npz")}
    assert main(["run", "run/train/config.toml", "--out", "run"]) == 0
    said = capsys.readouterr().err
    for stage in STAGES:
        assert f"{stage}: taken over from version 0.1.0" in said
        assert f"{stage}: up to date" in said
    assert weights == {path: path.stat().st_mtime_ns for path in weights}
    for path, content in maps.items():
        assert (path.parents[1] / MAPS.get(path.parent.name, path.parent.name) / path.name).read_bytes() == content
    after = {stage: read_json(old / "run" / stage / "metrics.json") for stage in STAGES}
    assert after["seeds"]["maps"] == "attended_search_refined"
    kept = {key: value for key, value in renamed_figures(figures["seeds"]).items() if key != "maps"}
    assert kept == {key: after["seeds"][key] for key in kept}
    for stage in ("affinity", "masks", "segment"):
        assert after[stage] == figures[stage]
    assert after["val"] == figures["val"] | {"learned": True}, "it was tested on training pictures, and the report says so"
    assert main(["run", "run/train/config.toml", "--out", "run"]) == 0
    said = capsys.readouterr().err
    assert "taken over" not in said
    assert said.count("up to date") == len(STAGES) + 1


def test_taken_over_in_any_order(old, capsys):
    """A late stage first: when what it builds on is taken over afterwards, it stays finished."""
    weights = {path: path.stat().st_mtime_ns for path in old.rglob("*.safetensors")}
    for stage in ("segment", "masks", "run"):
        assert main([stage, "run/train/config.toml", "--out", "run"]) == 0
    assert weights == {path: path.stat().st_mtime_ns for path in weights}
    capsys.readouterr()
    assert main(["run", "run/train/config.toml", "--out", "run"]) == 0
    assert capsys.readouterr().err.count("up to date") == len(STAGES) + 1


def test_what_was_asked_otherwise_is_made_anew(old, capsys):
    """The same run asked for with other scales: the training stays, what builds on the search does not."""
    weights = {path: path.stat().st_mtime_ns for path in (old / "run" / "train").rglob("*.safetensors")}
    assert main(["seeds", "run/train/config.toml", "--out", "run", "--search.scales", "1.0"]) == 0
    said = capsys.readouterr().err
    assert said.count("train:") == said.count("train: taken over") == 1
    assert weights
    assert weights == {path: path.stat().st_mtime_ns for path in weights}
    assert "the old result is kept in" in said
    assert (old / "run" / "seeds.earlier").is_dir()


def test_the_config_says_what_it_said(old):
    config = load_config(old / "own.toml")
    assert (config.method, config.options.ccp, config.options.p2p_cross) == ("mupvss", 0.2, 0.25)
    assert (config.options.pem.blocks, config.workers) == ("late", 0)
    assert config.search.kinds == ("search_refined", "attended_search_refined", "attended_cam_refined")
    text = (old / "own.toml").read_text()
    (old / "own.toml").write_text(text.replace("[affinity.train]", "beta = 4.0\n[affinity.train]"))
    with pytest.raises(UserError, match=r"affinity\.beta is 4\.0, but this option was removed, and its value is always 8\.0"):
        load_config(old / "own.toml")


def test_a_run_that_no_stage_was_asked_of_is_read_as_it_is(old):
    """Studio, export and doctor only look."""
    run = FinishedRun(old / "run")
    assert run.maps == "attended_search_refined"
    assert run.seeds("0") is not None
    assert run.seed_mask("0") is not None
    assert run.pseudo_mask("0") is not None
    assert isinstance(load(old / "run"), SegmentationPredictor)
    assert load(old / "run").scales == (1.0,)
    assert main(["data", "doctor", str(old / "run")]) == 0


def test_upgrade_takes_over_a_run_in_place(old, capsys):
    """Stage by stage, with nothing computed; and says what would be made again when a picture has changed since."""
    weights = {path: path.stat().st_mtime_ns for path in old.rglob("*.safetensors")}
    assert main(["upgrade", "run"]) == 0
    said = capsys.readouterr().out
    for stage in STAGES:
        assert f"run/{stage}, made by 0.1.0: taken over" in said
    assert weights == {path: path.stat().st_mtime_ns for path in weights}
    assert main(["upgrade", "run"]) == 0
    assert capsys.readouterr().out.count(": up to date") == len(STAGES)
    picture = next((old / "pictures").glob("*.png"))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert main(["upgrade", "run"]) == 1
    assert capsys.readouterr().out.count("would be made again") == len(STAGES)
    assert main(["upgrade", "pictures", "run/train/config.toml", "run"]) == 1
    both = capsys.readouterr()
    assert "not the folder of a run" in both.err
    assert "is part of a run" in " ".join(both.err.split())
    assert both.out.count("would be made again") == len(STAGES)
    (old / "run" / "seeds" / "metrics.json").write_text("{")
    (old / "run" / "masks" / "stage.json").write_text("no")
    assert main(["upgrade", "run"]) == 1
    assert capsys.readouterr().out.count("cannot be checked") == 2


def test_upgrade_leaves_links_and_permissions(tmp_path):
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.write_text("[search]\nmaps = 'default'\n")
    real.chmod(0o600)
    link.symlink_to(real)
    assert main(["upgrade", str(link)]) == 0
    assert link.is_symlink()
    assert 'maps = "own"' in real.read_text()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_upgrade_rewrites_a_config_and_keeps_the_old_one(tmp_path, capsys):
    path = tmp_path / "own.toml"
    text = "# mine\n[model]\nmethod = 'cam'\n[search]\nmaps = 'default'\nflip = true\n"
    path.write_text(text)
    before = load_config(path)
    assert main(["upgrade", str(path)]) == 0
    assert "own.before-1.toml" in capsys.readouterr().out.replace("\n", "")
    assert (tmp_path / "own.before-1.toml").read_text() == text
    assert load_config(path) == before
    assert 'method = "vit-cam"' in path.read_text()
    assert "flip" not in path.read_text()
    assert main(["upgrade", str(path)]) == 0
    assert "up to date" in capsys.readouterr().out
    for wrong in ("[search]\nflip = false\n", "[train]\nlr = 'x'\n", "a = ", "[segment]\nrounds = 3\n"):
        path.write_text(wrong)
        assert main(["upgrade", str(path)]) == 1
        assert path.read_text() == wrong
    for wrong in ('rows = { a = "x" }', "[rows.a]\nabout = 'x'\n[rows.b.nonsense]\nx = 1\n"):
        path.write_text(wrong)
        assert main(["upgrade", str(path)]) == 1
        assert path.read_text() == wrong
    assert sorted(file.name for file in tmp_path.iterdir()) == ["own.before-1.toml", "own.toml"]
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbfseed = 3\n")
    assert load_config(tmp_path / "marked.toml").seed == 3
    path.write_text("[rows.a]\nabout = 'x'\n[rows.a.losses]\nccp = 0.0\n")
    assert main(["upgrade", str(path)]) == 0
    assert load_config(tmp_path / "own.toml:a").mupvss.ccp == 0
