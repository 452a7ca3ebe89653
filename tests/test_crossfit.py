"""The stage `crossfit`: no network draws a mask that it has learned, and masks that drift away from the search are not taken."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import tiny

from mupvss.config.load import build, load_config
from mupvss.data.masks import IGNORE, read_label_image, write_palette_png
from mupvss.data.sample import Dataset, Sample
from mupvss.errors import ConfigError, DataError
from mupvss.files import read_json
from mupvss.model.checkpoint import load_tensors, save_tensors
from mupvss.predict.run import FinishedRun
from mupvss.segmentation.build import load_segmenter
from mupvss.stages import crossfit
from mupvss.stages.crossfit import parts_of
from mupvss.stages.run import outdated, run_all, run_alone, run_one, stages_below
from mupvss.stages.run_folder import Run, _plain, fingerprint, pictures_of
from mupvss.stages.segment import segment_inputs

OPTIONS = {"crossfit.folds": 2, "affinity.kind": "none", "baseline": False, "segment.presence": 1.0}
STAGES = ("train", "seeds", "affinity", "masks")


def samples(*tags):
    return [Sample(f"{i:02}", f"{i:02}.png", frozenset(own), open_image=None) for i, own in enumerate(tags)]


def test_every_part_has_its_share_of_every_class():
    pictures = samples(*[{"cat"}] * 9, *[{"dog", "cat"}] * 4, *[{"fish"}] * 2, *[set()] * 3)
    dataset = Dataset(("cat", "dog", "fish"), pictures)
    for count in (2, 3):
        parts = parts_of(dataset, count)
        assert set(parts) == set(range(1, count + 1))
        for tags in ({"cat"}, {"dog", "cat"}, {"fish"}, set()):
            having = Counter(part for part, sample in zip(parts, pictures, strict=True) if sample.tags == tags)
            assert max(having.values()) - min(having.get(part, 0) for part in range(1, count + 1)) <= 1
    turned = Dataset(dataset.classes, pictures[::-1])
    assert parts_of(turned, 2)[::-1] == parts_of(dataset, 2), "a picture's part depends on the order of the list"
    with pytest.raises(DataError, match="needs at least 6 pictures, and there are 5"):
        parts_of(Dataset(("cat",), pictures[:5]), 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run up to its pseudo-masks."""
    run = Run(tiny(OPTIONS), tmp_path_factory.mktemp("run"))
    for stage in STAGES:
        run_one(run, stage)
    return run


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made.out, tmp_path / "run")
    return Run(made.config, tmp_path / "run")


@pytest.fixture(scope="module")
def crossed(made, tmp_path_factory):
    """The same with its new masks."""
    out = tmp_path_factory.mktemp("crossed") / "run"
    shutil.copytree(made.out, out)
    run_one(Run(made.config, out), "crossfit")
    return Run(made.config, out)


@pytest.fixture
def done(crossed, tmp_path):
    shutil.copytree(crossed.out, tmp_path / "run")
    return Run(crossed.config, tmp_path / "run")


def with_options(run, **options):
    return Run(tiny({**OPTIONS, **options}), run.out)


def test_no_network_draws_what_it_has_learned(run, monkeypatch):
    learned, drawn, real, opened = [], [], crossfit.fit, crossfit.SegmentationPredictor.open

    def fit(work, inputs, dataset, masks, folder, *rest):
        learned.append((folder.name, {sample.name for sample in dataset.samples}))
        assert masks == run.folder("masks")
        return real(work, inputs, dataset, masks, folder, *rest)

    def open_(checkpoint, **options):
        drawn.append((checkpoint.parent.name, len(list((run.folder("crossfit") / "drawn").glob("*.png")))))
        return opened(checkpoint, **options)

    monkeypatch.setattr(crossfit, "fit", fit)
    monkeypatch.setattr(crossfit.SegmentationPredictor, "open", open_)
    run_one(run, "crossfit")
    names = {path.stem for path in (run.folder("masks") / "full").glob("*.png")}
    (one, others), (two, rest) = learned
    assert (one, two, others & rest, others | rest) == ("1", "2", set(), names)
    assert [name for name, _ in drawn] == ["1", "2"]
    assert drawn[1][1] == len(names - others), "the first network has drawn other pictures than those that it had not learned"
    assert {path.stem for path in (run.folder("crossfit") / "full").glob("*.png")} == names


def test_the_network_learns_the_new_masks_and_the_run_shows_them(done):
    run = with_options(done, **{"crossfit.agreement": 0.0})
    run_one(run, "crossfit")
    name = next((run.folder("masks") / "full").glob("*.png")).stem
    drawn, sure = (read_label_image(run.folder("crossfit") / part / f"{name}.png") for part in ("drawn", "drawn-confidence"))
    full, labels = (read_label_image(run.folder("crossfit") / part / f"{name}.png") for part in ("full", "labels"))
    np.testing.assert_array_equal(full, drawn)
    np.testing.assert_array_equal(labels, np.where(sure < 153, IGNORE, drawn))
    assert FinishedRun(run.out).mask(name) == run.folder("crossfit") / "full" / f"{name}.png"
    for part in ("labels", "confidence"):  # what the network does not need, it does not read
        for path in (run.folder("masks") / part).glob("*.png"):
            path.unlink()
    run_one(run, "segment")
    figures = read_json(run.folder("crossfit") / "metrics.json")
    assert figures["kept"] == 0
    assert 0 <= figures["miou"] <= 100
    assert figures["miou_before"] == pytest.approx(read_json(run.folder("masks") / "metrics.json")["miou"])


def test_classes_that_drift_away_keep_their_pseudo_masks(run, monkeypatch):
    """One class is drawn elsewhere: its pictures keep all three files; the others get the new masks."""
    real = crossfit.draw
    pictures = pictures_of(run, "seeds")
    tags = {sample.name: sample.tags for sample in pictures.samples}
    lost = Counter(tag for own in tags.values() for tag in own).most_common()[-1][0]
    number = 1 + pictures.classes.index(lost)

    def draw(work, parts, part):
        real(work, parts, part)
        for name in tags:
            path, truth = work.folder / "drawn" / f"{name}.png", read_label_image(run.folder("masks") / "full" / f"{name}.png")
            if path.is_file():
                write_palette_png(path, np.where(truth == number, 0, truth).astype(np.uint8))

    monkeypatch.setattr(crossfit, "draw", draw)
    figures = run_one(run, "crossfit")
    assert figures["agreement"][lost] == 0
    assert figures["kept"] == sum(lost in own for own in tags.values()) > 0
    assert f"draw the masks of {lost} (0 %) elsewhere" in figures["warnings"][0]
    for name, own in tags.items():
        same = [
            np.array_equal(*(read_label_image(run.folder(stage) / part / f"{name}.png") for stage in ("masks", "crossfit")))
            for part in ("full", "labels", "confidence")
        ]
        assert all(same) or lost not in own
    pairs = [[read_label_image(run.folder(stage) / "full" / f"{name}.png") for stage in ("masks", "crossfit")] for name in tags]
    assert figures["changed_percent"] == pytest.approx(100 * np.mean([one != other for one, other in pairs]))


def test_the_network_does_not_learn_before_there_are_new_masks(run):
    with pytest.raises(DataError, match="run the stage 'crossfit' first"):
        run_one(run, "segment")


def test_the_test_options_train_nothing_again(done, monkeypatch, capsys):
    monkeypatch.setattr(crossfit, "fit", lambda *arguments: pytest.fail("a network is trained again"))
    run_one(with_options(done, **{"segment.crf": "none"}), "crossfit")
    assert "takes over what the change does not concern (networks)" in capsys.readouterr().err.replace("\n", " ")


def test_networks_learn_soft_labels(run):
    learned = []
    for loss in ("cross_entropy", "collision"):
        run_one(with_options(run, **{"crossfit.folds": 0, "segment.loss": loss}), "segment")
        figures = read_json(run.folder("segment") / "metrics.json")
        assert np.isfinite(figures["pixels"])
        learned.append(load_segmenter(run.checkpoint("segment"))[0].state_dict())
    assert any(not torch.equal(one, two) for one, two in zip(*(own.values() for own in learned), strict=True))
    ours = [_plain(segment_inputs(tiny({"segment.loss": loss}))) for loss in ("cross_entropy", "collision")]
    assert [("loss" in own["segment"]) for own in ours] == [False, True], "finished networks would be trained again"


def test_a_stage_alone_names_the_earlier_results_that_it_uses(done, capsys):
    assert stages_below("segment", done.config) == ["train", "seeds", "affinity", "masks", "crossfit"]
    assert outdated(done, "segment") == []
    run_alone(done, "crossfit")
    assert "uses the results of" not in capsys.readouterr().err
    other = with_options(done, **{"masks.crf_steps": 5})
    assert outdated(other, "segment") == ["masks", "crossfit"], "what an outdated stage was made into is outdated too"
    run_one(other, "masks")
    assert outdated(other, "segment") == ["crossfit"]
    run_alone(other, "segment")
    said = " ".join(capsys.readouterr().err.split())
    assert "segment uses the results of crossfit, which was made with other settings or pictures" in said
    unread = with_options(done, **{"crossfit.folds": 0, "masks.crf_steps": 5})
    assert not outdated(unread, "segment"), "a stage is named that it does not read"


def test_without_folds_nothing_is_drawn_and_earlier_masks_are_set_aside(done):
    run = done
    off = with_options(run, **{"crossfit.folds": 0})
    with pytest.raises(ConfigError, match=r"set crossfit\.folds = 2"):
        run_one(off, "crossfit")
    run_one(off, "report")
    assert (run.folder("crossfit") / "metrics.json").is_file(), "a finished stage was set aside for nothing"
    name = next((run.folder("masks") / "full").glob("*.png")).stem
    run_all(off)
    assert not run.folder("crossfit").exists()
    assert (run.out / "crossfit.earlier" / "metrics.json").is_file()
    assert FinishedRun(run.out).mask(name) == run.folder("masks") / "full" / f"{name}.png"
    assert "crossfit/miou" not in read_json(run.out / "metrics.json")


def test_finished_networks_of_earlier_versions_stay_valid():
    """They were identified with `rounds`, the option that was removed."""
    inputs = segment_inputs(tiny({"crossfit.folds": 0}))
    assert _plain(inputs)["segment"]["rounds"] == 1
    assert "masks" not in _plain(inputs)
    assert fingerprint(inputs) != fingerprint(segment_inputs(tiny(OPTIONS)))


def test_rounds_of_self_training_are_refused_in_a_config_and_read_in_what_is_finished(crossed, tmp_path):
    asked = tmp_path / "asked.toml"
    asked.write_text("[segment]\nrounds = 2\n")
    with pytest.raises(ConfigError, match=r"segment\.rounds is 2.*removed.*crossfit\.folds = 2"):
        load_config(asked)
    assert load_config(asked, trusted=False) == build({})
    asked.write_text("[segment]\nrounds = 1\n")
    assert load_config(asked) == build({})
    path = crossed.folder("crossfit") / "networks" / "1" / "model.safetensors"
    tensors, header = load_tensors(path)
    header["segment"] = {**header["segment"], "rounds": 2}
    save_tensors(tmp_path / "old.safetensors", tensors, header)
    assert load_segmenter(tmp_path / "old.safetensors")[1].segment == load_segmenter(path)[1].segment
