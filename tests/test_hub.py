"""Networks saved, shared and loaded again through huggingface_hub's mixin, without a network connection."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import TINY_VIT, info_of, network_of
from huggingface_hub import HfApi, ModelCard
from PIL import Image

from mupvss import load
from mupvss.cli.main import main
from mupvss.config.load import save_config
from mupvss.config.run import RunConfig
from mupvss.errors import CheckpointError
from mupvss.methods.mupvss import MupvssSearch
from mupvss.options import SOURCES, SearchConfig, ViTSegment
from mupvss.predict.hub import KINDS
from mupvss.predict.predictor import Predictor
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.segmentation.build import SegmenterInfo, build_segmenter

CLASSES = ("cat", "dog")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))


def classifier():
    torch.manual_seed(0)
    search, own = SearchConfig(scales=(1.0, 2.0), gamma=0.5), MupvssSearch(decision="zero")
    return Predictor(network_of(classes=2), info_of(CLASSES), search, own, 0.3, "cpu")


def segmenter():
    torch.manual_seed(0)
    network = build_segmenter(ViTSegment(), TINY_VIT, 2, None)
    return SegmentationPredictor(network, SegmenterInfo(CLASSES, TINY_VIT, ViTSegment()), scales=(0.5,), crf="none", device="cpu")


@pytest.mark.parametrize("make", [classifier, segmenter])
def test_saved_and_loaded_again(make, tmp_path):
    predictor = make()
    predictor.save_pretrained(tmp_path / "m")
    for other in (type(predictor).from_pretrained(tmp_path / "m", device="cpu"), load(tmp_path / "m", "cpu")):
        assert type(other) is type(predictor)
        assert other.settings() == predictor.settings()
        assert np.array_equal(other(PICTURE, ["dog"]).labels, predictor(PICTURE, ["dog"]).labels)


def test_each_kind_refuses_the_other(tmp_path):
    classifier().save_pretrained(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"use Predictor\.from_pretrained"):
        SegmentationPredictor.from_pretrained(tmp_path / "m")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="save_pretrained wrote"):
        Predictor.from_pretrained(tmp_path / "empty")


def test_offline_gives_a_clear_message(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="Offline"):
        Predictor.from_pretrained("nobody/nothing", local_files_only=True)


def test_the_card_is_written_from_the_run(tmp_path, capsys):
    run = tmp_path / "my-animals"
    classifier().save_checkpoint(run / "train" / "model.safetensors")
    save_config(run / "train" / "config.toml", RunConfig(model=TINY_VIT))
    (run / "metrics.json").write_text(json.dumps({"seeds/miou": 61.25, "seeds/threshold": 0.4, "val/miou": 44.0}))
    words = ["--licence", "cc-by-4.0", "--data", "Pictures of our own animals."]
    assert main(["share", str(run), str(tmp_path / "out"), *words]) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.pipeline_tag == "image-segmentation"
    for part in ("# my-animals", "1 cat, 2 dog", "Pictures of our own animals.", "chosen without masks | 61.2 |", "| 44.0 |"):
        assert part in card.text
    assert "Drawn scenes" in _card(tmp_path, run)
    assert "None were measured" in _card(tmp_path, None)


def test_a_card_of_an_earlier_network_does_not_stay(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    classifier().save_checkpoint(run / "train" / "model.safetensors")
    save_config(run / "train" / "config.toml", RunConfig(model=TINY_VIT))
    assert main(["share", str(run), str(out), "--licence", "mit"]) == 0
    assert main(["share", str(run), str(out), "--licence", "cc-by-4.0"]) == 0
    assert ModelCard.load(out / "README.md").data.license == "cc-by-4.0"
    assert ModelCard.load(out / "README.earlier-1.md").data.license == "mit", "someone may have added to it"
    assert main(["share", str(run), str(out), "--licence", "cc-by-4.0"]) == 0
    assert not (out / "README.earlier-2.md").exists(), "the same card again"
    (out / "README.md").write_text("My own words.")
    assert main(["share", str(run), str(out)]) == 0
    assert (out / "README.md").read_text() == "My own words."


def _card(tmp_path, run):
    predictor = classifier()
    predictor.run = run
    return predictor.generate_model_card().text


def test_the_card_knows_every_source():
    assert set(KINDS) == set(SOURCES)


def test_push_sends_what_was_saved(tmp_path, monkeypatch):
    sent = {}

    def upload(self, *, folder_path, repo_id, **options):
        sent[repo_id] = sorted(p.name for p in __import__("pathlib").Path(folder_path).iterdir())
        return "https://huggingface.co/me/animals/commit/1"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    segmenter().push_to_hub("me/animals")
    assert sent == {"me/animals": ["README.md", "config.json", "model.safetensors"]}
