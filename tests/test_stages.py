"""The whole job on a few tiny scenes: folders, keys, skipping, the Predictor, and the report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from helpers import at_write, tiny
from PIL import Image

from mupvss import load
from mupvss.cli.main import main
from mupvss.config.load import load_config, save_config
from mupvss.data.masks import read_label_image
from mupvss.data.sample import Dataset, Sample
from mupvss.data.sources import load_dataset
from mupvss.errors import DataError
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.predict.load import load_classifier
from mupvss.runtime.device import own_cores
from mupvss.runtime.memory import gpu_memory
from mupvss.stages.report import _warnings
from mupvss.stages.run import STAGES, print_headline, run_all
from mupvss.stages.run_folder import WARNED, Run, dataset_identity, gather_metrics

pytestmark = pytest.mark.slow

KEYS = (
    "seeds/miou", "seeds/miou_oracle", "seeds/search_refined_oracle", "seeds/attention_refined_oracle",
    "cam/oracle", "cam/spread_oracle", "masks/miou", "masks/miou_oracle", "masks/affinity_miou", "val/miou", "val/miou_single",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = Run(tiny({"train.image_steps": 160, "crossfit.folds": 2}), tmp_path_factory.mktemp("run"))
    run_all(run)
    return run


def test_every_fixed_key(finished):
    metrics = json.loads((finished.out / "metrics.json").read_text())
    for key in KEYS:
        assert 0 <= metrics[key] <= 100
    for stage in STAGES:
        assert metrics[f"{stage}/seconds"] >= 0
        assert metrics[f"{stage}/peak_mb"] > 0
        tomllib.loads((finished.out / stage / "config.toml").read_text())
        json.loads((finished.out / stage / "metrics.json").read_text())
    assert metrics["seeds/miou"] <= metrics["seeds/miou_oracle"] + 1e-9


def test_the_masks_as_they_lie_there_say_what_the_histogram_said(finished):
    """The palette PNGs, scored as any folder would be."""
    dataset = load_dataset(finished.config.data, "seeds")
    matrix = np.zeros((len(dataset.classes) + 1,) * 2, np.int64)
    for sample in dataset.samples:
        labels = read_label_image(finished.out / "seeds" / "masks" / f"{sample.name}.png")
        matrix += confusion_matrix(labels, sample.open_mask(), len(matrix))
    metrics = json.loads((finished.out / "metrics.json").read_text())
    assert scores(matrix).miou == pytest.approx(metrics["seeds/miou"], abs=1e-6)


def test_warnings_of_every_stage_are_on_the_page_and_said_again(finished, capsys):
    """What the dense CRF takes away belongs beside what the threshold leaves open."""
    paths = {stage: finished.folder(stage) / "metrics.json" for stage in WARNED}
    before = {stage: path.read_text() for stage, path in paths.items()}
    assert all("warnings" in json.loads(before[stage]) for stage in ("seeds", "masks", "val"))
    try:
        for stage, path in paths.items():
            path.write_text(json.dumps(json.loads(before[stage]) | {"warnings": [f"a doubt <of> {stage}"]}))
        print_headline(finished, gather_metrics(finished))
        page = _warnings({stage: json.loads(path.read_text()) for stage, path in paths.items()})
    finally:
        for stage, path in paths.items():
            path.write_text(before[stage])
    out = capsys.readouterr().err
    for stage in WARNED:
        assert f"! a doubt <of> {stage}" in out
        assert f"a doubt &lt;of&gt; {stage}" in page


def test_config_comes_back_as_it_was(finished):
    assert load_config(finished.out / "train" / "config.toml") == finished.config


def test_nothing_is_done_twice_and_changes_are(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.out.rglob("*") if path.suffix in (".safetensors", ".npz")}
    run_all(finished)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert capsys.readouterr().err.count("up to date") == len(STAGES)
    run_all(Run(finished.config.model_copy(update={"workers": 1, "snapshots": 1, "device": "cpu"}), finished.out))
    assert capsys.readouterr().err.count("up to date") == len(STAGES) - 1, "the page shows the config"
    changed = finished.config.model_copy(update={"search": finished.config.search.model_copy(update={"scales": (1.0,)})})
    run_all(Run(changed, finished.out))
    assert capsys.readouterr().err.count("up to date") == 2  # only the trainings do not depend on the search
    trained = finished.out / "train" / "model.safetensors"
    assert trained.stat().st_mtime_ns == before[trained]
    kept = finished.out / "seeds.earlier"
    assert load_config(kept / "config.toml") == finished.config
    assert any(kept.rglob("*.npz"))
    assert not any("earlier" in key for key in gather_metrics(finished))


def test_the_memory_of_the_gpu_that_was_used(monkeypatch):
    """Whichever of several it was."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert gpu_memory() == {}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda gpu: (0, 3 * 1024**2)[gpu])
    assert gpu_memory() == {"gpu_peak_mb": 3.0}


def test_the_report_shows_the_maps_that_became_masks(finished):
    joined = finished.config.model_copy(
        update={"search": finished.config.search.model_copy(update={"maps": "search_and_cam_refined"})}
    )
    run_all(Run(joined, finished.out))
    page = (finished.out / "report" / "index.html").read_text()
    assert page.count("<th>search and classifier together") == 1
    assert "<th>search × attention, refined" not in page
    run_all(finished)
    assert "<th>search × attention, refined" in (finished.out / "report" / "index.html").read_text()


def test_copied_pictures_are_the_same_and_edited_ones_are_not(tmp_path):
    def identity(folder):
        return dataset_identity(Dataset(("dog",), [Sample("a", str(folder / "a.jpg"), frozenset({"dog"}), Image.Image)]))[1][0][2]

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one" / "a.jpg", quality=95)
    shutil.copy(tmp_path / "one" / "a.jpg", tmp_path / "two" / "a.jpg")
    os.utime(tmp_path / "two" / "a.jpg", (1, 1))
    assert identity(tmp_path / "one") == identity(tmp_path / "two")
    pixels[90:110, 140:160] ^= 64
    Image.fromarray(pixels).save(tmp_path / "two" / "a.jpg", quality=95)
    assert identity(tmp_path / "one") != identity(tmp_path / "two")
    (tmp_path / "two" / "a.jpg").unlink()
    assert identity(tmp_path / "two") is None


def test_a_lost_seed_file_is_made_again(finished):
    run_all(finished)
    (finished.out / "seeds" / "metrics.json").unlink()
    lost = next((finished.out / "seeds" / "maps" / "attended_search_refined").glob("*.npz"))
    whole = lost.read_bytes()
    lost.unlink()
    run_all(finished)
    assert lost.read_bytes() == whole


def test_predictor_equals_the_stage(finished):
    run_all(finished)
    predictor = load_classifier(finished.out)
    for sample in load_dataset(finished.config.data, "seeds").samples:
        prediction = predictor(sample.open_image(), sorted(sample.tags))
        with Image.open(finished.out / "seeds" / "masks" / f"{sample.name}.png") as mask:
            # The seeds were stored as float16: a pixel may lie on the other side of the threshold.
            assert np.mean(np.array(mask) == prediction.labels) > 0.99
        assert prediction.labels.shape == prediction.confidence.shape == (32, 32)
        assert set(prediction.scores) == set(predictor.classes)


def test_segmentation_network_answers_without_tags(finished):
    run_all(finished)
    assert type(load(finished.out, classifier=True)).__name__ == "Predictor"
    with pytest.raises(ValueError, match="a classifier was asked for"):
        load(finished.out / "segment" / "model.safetensors", classifier=True)
    predictor = load(finished.out)
    masks = finished.out / "val" / "masks"
    for sample in load_dataset(finished.config.data, "val").samples:
        prediction = predictor(sample.open_image())
        with Image.open(masks / f"{sample.name}.png") as mask:
            assert np.array_equal(np.array(mask), prediction.labels)
    assert load(finished.out / "segment" / "model.safetensors").classes == predictor.classes


def test_pseudo_masks_on_disk(finished):
    run_all(finished)
    for sample in load_dataset(finished.config.data, "seeds").samples:
        full, labels, confidence = (
            np.array(Image.open(finished.out / "masks" / kind / f"{sample.name}.png"))
            for kind in ("full", "labels", "confidence")
        )
        assert full.shape == labels.shape == confidence.shape == (32, 32)
        assert set(np.unique(full)) <= {0, *(i for i, name in enumerate(finished_classes(finished), 1) if name in sample.tags)}
        sure = labels != 255
        assert np.array_equal(labels[sure], full[sure])
        assert confidence.min() > 255 / 8


def finished_classes(finished):
    return load_dataset(finished.config.data, "seeds").classes


def test_predictor_in_a_new_process_gives_the_same(finished, tmp_path):
    picture = tmp_path / "x.png"
    load_dataset(finished.config.data, "seeds").samples[0].open_image().save(picture)
    here = load(finished.out)(picture, ["fish"]).confidence
    script = (
        "import sys, numpy as np, torch; torch.set_num_threads(int(sys.argv[4])); torch.set_float32_matmul_precision('highest');"
        "from mupvss import load; np.save(sys.argv[3], load(sys.argv[1])(sys.argv[2], ['fish']).confidence)"
    )
    given = [str(finished.out), str(picture), str(tmp_path / "y.npy"), str(own_cores())]
    subprocess.run([sys.executable, "-c", script, *given], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), here)


def test_predictor_refuses_what_it_does_not_know(finished, tmp_path):
    predictor = load(finished.out / "train" / "model.safetensors")
    with pytest.raises(ValueError, match="unknown tag 'dragon'"):
        predictor(Image.new("RGB", (32, 32)), ["dragon"])
    with pytest.raises(ValueError, match="expected an array"):
        predictor(np.zeros((32, 32, 2), np.uint8))
    assert predictor(np.zeros((40, 33, 3), np.uint8), []).labels.shape == (40, 33)


def test_report_is_one_file_with_pictures(finished):
    page = (finished.out / "report" / "index.html").read_text()
    assert page.count("<img") > 20
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<svg" in page
    assert "oracle" in page


def test_resumable_after_a_failure_halfway(tmp_path, monkeypatch):
    seeds = []

    def full_disk(name, count):
        if ".npz" in name and len(seeds.append(name) or seeds) == 10:
            raise OSError(28, "No space left on device", "x.npz")

    at_write(monkeypatch, full_disk)
    save_config(tmp_path / "c.toml", tiny({"baseline": False}))
    assert main(["run", str(tmp_path / "c.toml"), "--out", str(tmp_path / "r")]) == 1
    assert (tmp_path / "r" / "train" / "model.safetensors").is_file()
    assert main(["run", str(tmp_path / "c.toml"), "--out", str(tmp_path / "r")]) == 0
    assert not list((tmp_path / "r").rglob("*.part*"))


def test_a_folder_of_other_files_is_not_emptied(tiny_run, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "thesis.doc").write_text("years of work")
    with pytest.raises(DataError, match="files that no stage wrote"):
        run_all(Run(tiny_run, tmp_path))
    assert (tmp_path / "train" / "thesis.doc").read_text() == "years of work"


def test_a_baseline_that_is_not_asked_for_any_more(finished, tmp_path, capsys):
    """Its figures would stand beside those of other settings; asked for again, it is there again."""
    run = Run(finished.config.model_copy(update={"baseline": False}), tmp_path / "run")
    shutil.copytree(finished.out, run.out)
    assert not any(key.startswith("cam") for key in run_all(run))
    assert (run.out / "cam.earlier").is_dir()
    capsys.readouterr()
    metrics = run_all(Run(finished.config, run.out))
    assert metrics["cam/oracle"] == json.loads((finished.out / "metrics.json").read_text())["cam/oracle"]
    assert capsys.readouterr().err.count("is used again") >= 2
