"""Decisions in the studio are used by the next run, and nothing that does not depend on them is done again."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import red_and_blue, tiny
from PIL import Image

from mupvss.cli.main import main
from mupvss.data.decisions import Decisions, State, with_decisions
from mupvss.data.folder import load_folder
from mupvss.data.masks import write_palette_png
from mupvss.data.readable import readable
from mupvss.errors import DataError
from mupvss.files import file_state, read_json
from mupvss.options import FolderData
from mupvss.stages.run import STAGES, run_one, tell_time_left
from mupvss.stages.run_folder import STUDIO, Run, known_by
from mupvss.training.segmenter import _samples


@pytest.fixture
def folder(tmp_path):
    """Six pictures of red and blue blocks with a table of tags."""
    red_and_blue(tmp_path, "b{}.png", 40, 48)
    return tmp_path


def load(folder, **options):
    return load_folder(FolderData(root=folder / "pictures", tags=folder / "tags.csv", **options), "train")


def decide(folder, name, status="accepted", tags=("blue",), mask=None):
    origin = str(folder / "pictures" / f"{name}.png")
    before, state = State("open", ("blue",), False), State(status, tags, mask is not None)
    Decisions(folder / STUDIO).write(name, before, state, mask, file_state(origin))


def test_decisions_become_tags_and_masks(folder):
    dataset = load(folder)
    assert with_decisions(dataset, folder / STUDIO) is dataset
    decide(folder, "b0", mask=np.ones((40, 48), np.uint8))
    decide(folder, "b1", "open", tags=("red", "blue"))
    decide(folder, "b2", "rejected", mask=np.ones((40, 48), np.uint8))
    decide(folder, "b4", "open")  # nothing but looked at
    found = {sample.name: sample for sample in with_decisions(dataset, folder / STUDIO).samples}
    assert (found["b0"].given_mask() == 1).all()
    assert found["b1"].tags == {"red", "blue"}
    assert found["b1"].given_mask is None
    assert (found["b2"].rejected, found["b2"].given_mask) == (True, None)
    assert found["b4"] == dataset.samples[4]
    said = with_decisions(dataset, folder / STUDIO).notes[-1]
    assert said == "decided in the studio: 1 masks, other tags for 1 pictures, 1 pictures rejected"


def test_a_decision_about_another_picture_of_that_name_does_not_count(folder):
    decide(folder, "b0", mask=np.ones((40, 48), np.uint8))
    Image.new("RGB", (48, 40), "red").save(folder / "pictures" / "b0.png")
    dataset = load(folder)
    left = with_decisions(dataset, folder / STUDIO)
    assert left.samples is dataset.samples
    assert left.notes[-1].endswith("not used: 1")


def test_masks_mean_the_same_when_classes_come_and_go(folder):
    origin = str(folder / "pictures" / "b0.png")
    before, state, mask = State("open", ("blue",), False), State("accepted", ("blue",), True), np.full((40, 48), 1, np.uint8)
    Decisions(folder / STUDIO, ("blue", "red")).write("b0", before, state, mask, file_state(origin))
    more = load(folder, classes=("amber", "blue", "red"))
    assert (with_decisions(more, folder / STUDIO).samples[0].given_mask() == 2).all()
    less = load(folder, classes=("red",))
    assert (with_decisions(less, folder / STUDIO).samples[0].given_mask() == 255).all()


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"status": "x", "tags": [], "painted": false}'])
def test_a_damaged_decision_is_none(folder, content):
    decide(folder, "b0", "rejected")
    (folder / STUDIO / "state" / "b0.json").write_text(content)
    assert [sample.rejected for sample in with_decisions(load(folder), folder / STUDIO).samples] == [False] * 6


def test_only_what_depends_on_decisions_is_done_again(folder):
    config = tiny({"data.source": "folder", "data.root": folder / "pictures", "data.tags": folder / "tags.csv"})

    def known():
        dataset = with_decisions(load(folder), folder / STUDIO)
        return {name: known_by(stage, config, dataset, []) for name, stage in STAGES.items()}

    before = known()
    decide(folder, "b0", mask=np.ones((40, 48), np.uint8))
    painted = known()
    assert [name for name in before if before[name] != painted[name]] == ["crossfit", "segment"]
    decide(folder, "b0", "open", tags=("blue", "red"))
    assert all(before[name] != entry for name, entry in known().items())


def test_the_segmentation_network_learns_from_given_masks(folder):
    for i in range(6):
        write_palette_png(folder / "masks" / "labels" / f"b{i}.png", np.zeros((40, 48), np.uint8))
        write_palette_png(folder / "masks" / "confidence" / f"b{i}.png", np.zeros((40, 48), np.uint8))
    decide(folder, "b0", mask=np.full((40, 48), 2, np.uint8))
    decide(folder, "b1", "rejected")
    found = _samples(with_decisions(load(folder), folder / STUDIO), folder / "masks")
    assert len(found) == 5
    assert (found[0].open_labels() == 2).all()
    assert found[0].open_confidence is None, "certain throughout"
    assert (found[1].open_labels() == 0).all()


def test_files_are_checked_once_and_all_bad_ones_are_listed(folder, monkeypatch):
    for name, content in (("b1", b"no picture"), ("b3", b"")):
        (folder / "pictures" / f"{name}.png").write_bytes(content)
    write_palette_png(folder / "true" / "b0.png", np.ones((40, 48), np.uint8))
    write_palette_png(folder / "true" / "b2.png", np.ones((9, 9), np.uint8))
    dataset, memory = load(folder, masks=str(folder / "true")), folder / "run" / "pictures.json"
    with pytest.raises(DataError, match=r"3 of 6 pictures cannot be used.*:\n.*b1.png.*\n.*b2.png: is 9x9.*\n.*b3.png.*empty"):
        readable(dataset, "stop", memory)
    monkeypatch.setattr("mupvss.data.readable.check_image", None)  # whatever was checked is not looked at again
    left = readable(dataset, "skip", memory)
    assert [sample.name for sample in left.samples] == ["b0", "b2", "b4", "b5"]
    assert [sample.open_mask is not None for sample in left.samples] == [True, False, False, False]
    assert "pictures that cannot be read, left out: 2" in left.notes[-2]
    assert "masks that cannot be used, left out: 1" in left.notes[-1]


def test_true_masks_of_0_and_255_are_no_truth(folder):
    mask = np.zeros((40, 48), np.uint8)
    mask[10:20] = 255
    for i in range(2):
        write_palette_png(folder / "true" / f"b{i}.png", mask)
    with pytest.raises(DataError, match=r"none of the 2 true masks of tagged pictures .* Are these masks of 0 and 255"):
        readable(load(folder, masks=str(folder / "true")), "skip", folder / "pictures.json")


@pytest.mark.slow
def test_a_bad_picture_is_found_before_the_training(folder, capsys):
    (folder / "pictures" / "b3.png").write_bytes((folder / "pictures" / "b2.png").read_bytes()[:200])
    config = {"data.source": "folder", "data.root": folder / "pictures", "data.tags": folder / "tags.csv"}
    with pytest.raises(DataError, match=r"b3.png: cannot be read"):
        run_one(Run(tiny(config), folder / "run"), "train")
    assert not (folder / "run" / "train").exists()
    run_one(Run(tiny({**config, "data.unreadable": "skip"}), folder / "run"), "train")
    assert (folder / "run" / "train" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_preview_changes_nothing(folder):
    own = {"data.source": "folder", "data.root": folder / "pictures", "data.tags": folder / "tags.csv"}
    config = {**own, "train.image_steps": 64}
    for name, preview in (("plain", 0), ("looked", 32)):
        run_one(Run(tiny({**config, "preview": preview}), folder / name), "train")
    plain, looked = ((folder / name / "train" / "model.safetensors").read_bytes() for name in ("plain", "looked"))
    assert plain == looked
    assert not (folder / "looked" / "train" / "preview.safetensors").exists()
    assert len(list((folder / "looked" / "preview" / "masks").glob("*.png"))) == 6
    assert (folder / "looked" / "preview" / "index.html").read_text().count("<img") == 6
    assert not (folder / "plain" / "preview").exists()


@pytest.mark.slow
def test_a_corrected_run_learns_again(folder, capsys):
    config = tiny({"data.source": "folder", "data.root": folder / "pictures", "data.tags": folder / "tags.csv"})
    run = Run(config, folder / "run")
    for stage in ("train", "seeds", "affinity", "masks", "segment"):
        run_one(run, stage)
    decide(folder, "b0", mask=np.ones((40, 48), np.uint8))
    (folder / STUDIO).rename(folder / "run" / STUDIO)
    capsys.readouterr()
    for stage in ("train", "seeds", "affinity", "masks", "segment"):
        run_one(run, stage)
    said = capsys.readouterr().err
    assert said.count("up to date") == 4
    assert "segment: 1 of the masks are those that people accepted or painted" in said
    assert read_json(folder / "run" / "segment" / "stage.json")["fingerprint"]


def test_the_time_left_follows_the_clock(capsys):
    left = {"train": 600.0, "seeds": 120.0, "segment": 600.0}
    tell_time_left(left, "train", 1200.0)
    assert left == {"seeds": 240.0, "segment": 1200.0}
    assert "about 24 min left in all" in capsys.readouterr().err
    tell_time_left(left, "report", 1.0)
    tell_time_left(left, "seeds", 1.0)
    assert left == {"segment": 1200.0}


def test_status_of_the_command(folder, capsys):
    (folder / "pictures" / "b3.png").write_bytes(b"")
    (folder / "c.toml").write_text(f'[data]\nsource = "folder"\nroot = "{folder}/pictures"\ntags = "{folder}/tags.csv"\n')
    assert main(["train", str(folder / "c.toml"), "--out", str(folder / "run"), "--model.weights", ""]) == 1
    assert "b3.png: cannot be read as a picture (the file is empty)" in capsys.readouterr().err
