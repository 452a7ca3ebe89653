"""Pictures without a background: every pixel belongs to one of its picture's tags."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import TINY, tiny, words
from PIL import Image

import mupvss
from mupvss.cli.main import main
from mupvss.config.load import load_config
from mupvss.data.masks import read_label_image, write_palette_png
from mupvss.data.sample import Dataset, Sample
from mupvss.data.tags import write_tags
from mupvss.doctor.masks import mask_doubt
from mupvss.masks.pseudo import prepare_crf, pseudo_mask, refine_mask
from mupvss.model.checkpoint import read_header
from mupvss.options import MasksConfig, ViTSegment
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.search.seeds import Seeds, read_seeds, seed_path, write_seeds
from mupvss.search.threshold import NO_BACKGROUND
from mupvss.segmentation.build import SegmenterInfo, build_segmenter
from mupvss.stages.affinity import share_with_both
from mupvss.stages.run import run_one
from mupvss.stages.run_folder import Run
from mupvss.stages.scoring import TRIVIAL, _trivial, kappas

OWN = {"baseline": False, "model.weights": "", "search.scales": [1.0]}
SMALL = words({key: value for key, value in TINY.items() if not key.startswith(("data.", "affinity."))} | OWN)
LAND = ("field", "lake", "town")


@pytest.fixture
def halves():
    """A picture of two halves, and maps that fall off towards the border between them."""
    image = np.full((48, 64, 3), 30, np.uint8)
    image[:, 32:] = 220
    across = np.linspace(1, 0.2, 16, dtype=np.float32)
    maps = np.stack([np.tile(across, (12, 1)), np.tile(across[::-1], (12, 1))])
    return Seeds(np.array([2, 3], np.int16), maps, (48, 64), 4), image


@pytest.mark.parametrize("crf", ["none", "psa"])
def test_every_pixel_belongs_to_a_tag(halves, crf):
    seeds, image = halves
    config = MasksConfig(crf=crf, margin=0.25)
    refined, labels = pseudo_mask(seeds, image, NO_BACKGROUND, config)
    truth = np.where(np.arange(64) < 32, 2, 3)
    assert (refined.labels() == truth).mean() > 0.97
    assert not refined.probabilities[0].any()
    np.testing.assert_allclose(refined.probabilities.sum(0), 1, atol=1e-4)
    assert set(np.unique(labels)) <= {2, 3, 255}
    if crf == "none":  # the CRF moves what was unsure to the picture's edge
        unsure = (labels == 255).any(0)
        assert unsure[29:35].all()
        assert not unsure[:16].any()
        assert not unsure[48:].any()
    assert (pseudo_mask(seeds, image, 0.9, config)[0].labels() == 0).any(), "with a background the middle is below 0.9"


def test_one_tag_fills_the_picture_and_none_teaches_nothing(halves):
    seeds, image = halves
    one = Seeds(seeds.ids[:1], seeds.maps[:1], seeds.size, 4)
    prepare_crf(MasksConfig(crf="psa"), [0, 1, 2], NO_BACKGROUND)
    refined, labels = pseudo_mask(one, image, NO_BACKGROUND, MasksConfig(crf="psa"))
    assert (labels == 2).all()
    assert (refined.confidence() == 255).all()
    empty = Seeds(np.zeros(0, np.int16), np.zeros((0, 12, 16), np.float32), seeds.size, 4)
    refined, labels = pseudo_mask(empty, image, NO_BACKGROUND, MasksConfig())
    assert (labels == 255).all()
    assert not refined.labels().any()
    assert not refine_mask(empty, image, NO_BACKGROUND, MasksConfig()).labels().any()


def test_doubt_lies_between_the_tags(halves):
    seeds, _ = halves
    sharp = Seeds(seeds.ids, (seeds.maps > 0.6).astype(np.float32), seeds.size, 4)
    assert mask_doubt(0, sharp, NO_BACKGROUND).doubt == 0
    assert 0 < mask_doubt(0, seeds, NO_BACKGROUND).unsure < 0.5
    alike = Seeds(seeds.ids, np.stack([seeds.maps[0], 0.9 * seeds.maps[0]]), seeds.size, 4)
    assert mask_doubt(0, alike, NO_BACKGROUND).reach == 1, "a tag without a pixel"


def test_a_network_without_background_never_says_background(tmp_path, tiny_model):
    network = build_segmenter(ViTSegment(), tiny_model, 3, None)
    info = SegmenterInfo(LAND, tiny_model, ViTSegment(), background=False)
    SegmentationPredictor(network, info).save_checkpoint(tmp_path / "m.safetensors")
    image = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    for crf in ("none", "psa"):
        predictor = SegmentationPredictor.open(tmp_path / "m.safetensors", crf=crf, device="cpu")
        found = predictor(image)
        assert found.labels.min() > 0
        assert {LAND[i - 1] for i in np.unique(found.labels)} <= set(found.probabilities)
        two = predictor(image, ["lake", "field"])
        assert set(np.unique(two.labels)) <= {1, 2}
        assert set(two.probabilities) == {"field", "lake"}
        assert (predictor(image, ["town"]).labels == 3).all()
        assert not predictor(image, []).labels.any(), "with no tag nothing can be there"


@pytest.mark.parametrize("size", [0, 320])
def test_its_probabilities_are_numbers_up_to_the_rim(tiny_model, size):
    """Where they are enlarged, the outermost pixels lie beyond the centres of the last cells."""
    config = ViTSegment(size=size, scales=(1.0,))
    info = SegmenterInfo(LAND, tiny_model, config, background=False)
    predictor = SegmentationPredictor(build_segmenter(config, tiny_model, 3, None), info, crf="none", device="cpu")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))
    found = predictor.probabilities(picture)
    assert not found[0].any()
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)
    assert all(0 < score <= 1 for score in predictor(picture).scores.values())


def test_masks_to_compare_with():
    truth = np.zeros((4, 5), np.uint8)
    truth[:2], truth[3, 4] = 2, 255
    found = _trivial(truth, Sample("a", "a", frozenset({"field", "lake"}), lambda: Image.new("RGB", (5, 4))), LAND)
    assert len(found) == len(TRIVIAL)
    assert found[0, :, 0].tolist() == [9, 0, 10, 0]
    assert found[1, :, 2].tolist() == [9, 0, 10, 0]
    assert found.sum() == 2 * 19


@pytest.fixture(scope="module")
def land(tmp_path_factory):
    """Pictures of two or three strips, each strip a tag, with true masks, and the finished run."""
    root = tmp_path_factory.mktemp("land")
    (root / "pictures").mkdir()
    (root / "masks").mkdir()
    rng, tags = np.random.default_rng(0), {}
    for i in range(12):
        kinds = rng.permutation(3)[: 2 + i % 2]
        strip = np.minimum(np.arange(56) * len(kinds) // 56, len(kinds) - 1)
        ids = np.tile(kinds[strip], (40, 1))
        pixels = rng.integers(0, 60, (40, 56, 3)) + 180 * (ids[..., None] == np.arange(3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / "pictures" / f"{i}.jpg")
        write_palette_png(root / "masks" / f"{i}.png", (ids + 1).astype(np.uint8))
        tags[f"{i}.jpg"] = {LAND[k] for k in kinds}
    write_tags(root / "tags.csv", tags)
    arguments = [str(root / "pictures"), "--tags", str(root / "tags.csv"), "--out", str(root / "land.toml"), "--weights", ""]
    assert main(["init", *arguments, "--quick", "--background", "none"]) == 0
    assert main(["run", str(root / "land.toml"), "--out", str(root / "run"), "--data.masks", str(root / "masks"), *SMALL]) == 0
    return root


def test_search_and_classifier_are_compared_where_a_tag_is_the_highest(tmp_path):
    ids, rng = np.array([1, 2], np.int16), np.random.default_rng(0)
    where = rng.random((12, 16)) < 0.4
    first = np.stack([where, ~where]).astype(np.float32)
    moved = np.stack([np.roll(where, 5, 1), ~np.roll(where, 5, 1)]).astype(np.float32)
    for name, (search, classifier) in {"same": (first, first / 3), "other": (first, moved)}.items():
        samples = [
            Sample("p", "p", frozenset({"field", "lake"}), lambda: None),
            Sample("q", "q", frozenset({"town"}), lambda: None),
        ]
        for kind, maps in (("s", search), ("c", classifier)):
            write_seeds(seed_path(tmp_path / name, kind, "p"), Seeds(ids, maps, (48, 64), 4))
        found = kappas(Dataset(LAND, samples), tmp_path / name, ("s", "c"), background=False)
        assert set(found) == {"field", "lake"}, "a picture with one tag says nothing"
        assert min(found.values()) == pytest.approx(1) if name == "same" else max(found.values()) < 0.3


@pytest.mark.slow
def test_no_stage_makes_background(land):
    run = land / "run"
    for folder in ("seeds/masks", "masks/full", "masks/labels", "val/masks"):
        paths = sorted((run / folder).glob("*.png"))
        assert len(paths) == 12
        assert all(read_label_image(path).min() > 0 for path in paths), folder
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["seeds/threshold"] == figures["masks/threshold"] == NO_BACKGROUND
    assert figures["seeds/miou"] == figures["seeds/miou_oracle"]
    trivial = json.loads((run / "seeds" / "metrics.json").read_text())["trivial"]
    assert trivial[TRIVIAL[0]] == 0
    assert 0 < trivial[TRIVIAL[1]] < 60
    assert f"To compare with: {TRIVIAL[1]}" in (run / "report" / "index.html").read_text()
    assert read_header(run / "segment" / "model.safetensors")["background"] is False


@pytest.mark.slow
def test_both_networks_answer_without_background(land, tmp_path, capsys):
    picture = land / "pictures" / "0.jpg"
    for classifier in (False, True):
        predictor = mupvss.load(land / "run", device="cpu", classifier=classifier)
        assert predictor(picture, ["field", "town"]).labels.min() > 0
    assert mupvss.load(land / "run", device="cpu")(picture).labels.min() > 0
    assert main(["data", "doctor", str(land / "run"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "index.html").is_file()


@pytest.mark.slow
def test_the_choice_does_not_train_the_classifier_again(land, capsys):
    run = ["run", str(land / "land.toml"), "--out", str(land / "run"), "--data.masks", str(land / "masks"), *SMALL]
    capsys.readouterr()
    assert main([*run, "--data.background", "some"]) == 0
    said = capsys.readouterr().err
    assert "train: up to date" in said
    assert "seeds: up to date" not in said
    figures = json.loads((land / "run" / "metrics.json").read_text())
    assert figures["seeds/threshold"] > 0
    assert main(run) == 0


@pytest.mark.slow
def test_init_asks_whether_there_is_a_background(land, tmp_path, capsys):
    arguments = [str(land / "pictures"), "--tags", str(land / "tags.csv"), "--weights", "", "--quick"]
    assert main(["init", *arguments, "--out", str(tmp_path / "a.toml")]) == 0
    assert "does every pixel belong" in capsys.readouterr().out
    assert '# background = "none"' in (tmp_path / "a.toml").read_text()
    assert main(["init", *arguments, "--out", str(tmp_path / "b.toml"), "--background", "none"]) == 0
    assert "does every pixel belong" not in capsys.readouterr().out
    assert '\nbackground = "none"' in (tmp_path / "b.toml").read_text()
    # With pretrained weights a plain CAM is far ahead there (docs/domains.md); a network from scratch has not been compared.
    for weights, background, method in (("timm/x", "none", "vit-cam"), ("timm/x", "some", "mupvss"), ("", "none", "mupvss")):
        words = [
            "--out",
            str(tmp_path / "c.toml"),
            "--force",
            "--background",
            background,
            "--weights",
            weights,
            "--backbone",
            "dinov2-small",
        ]
        assert main(["init", *arguments, *words]) == 0
        config = load_config(tmp_path / "c.toml")
        assert config.method == method
        assert (config.search.maps == "cam_refined") == (method == "vit-cam")


def test_a_high_threshold_leaves_sure_objects(halves):
    seeds, image = halves
    for background, margin in ((0.8, 0.3), (0.9, 0.25)):
        _, labels = pseudo_mask(seeds, image, background, MasksConfig(crf="none", margin=margin))
        found = set(np.unique(labels))
        assert {0, 2, 3, 255} >= found >= {2, 3, 255}, "the maps go up to 1"


def test_affinity_is_learned_only_where_the_labels_show_two_things(tmp_path, capsys):
    run = Run(tiny({"search.threshold": "groups"}), tmp_path)
    run_one(run, "train")
    run_one(run, "seeds")
    for path in (tmp_path / "seeds" / "maps").glob("*/*.npz"):
        seeds = read_seeds(path)
        write_seeds(path, Seeds(seeds.ids, np.full_like(seeds.maps, 0.5), seeds.size, seeds.stride))  # sure of nothing
    assert run_one(run, "affinity")["learned"] is False
    assert "the maps are used as they are" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "affinity" / "model.safetensors").exists()
    metrics = run_one(run, "masks")
    assert metrics["threshold"] == json.loads((tmp_path / "seeds" / "metrics.json").read_text())["threshold"]
    assert not (tmp_path / "masks" / "maps").exists()
    assert len(list((tmp_path / "masks" / "full").glob("*.png"))) == 6


def test_how_many_pictures_show_two_things(tmp_path):
    samples = [Sample(f"{i}", f"{i}", frozenset({"field"} if i else ()), lambda: None) for i in range(4)]
    for i, ids in enumerate(([0, 1], [0, 1], [1, 255], [0, 255])):
        write_palette_png(tmp_path / f"{i}.png", np.array([ids], np.uint8))
    assert share_with_both(Dataset(("field",), samples), tmp_path) == pytest.approx(1 / 3), "the first has no tag"
    assert share_with_both(Dataset(("field",), samples[:1]), tmp_path) == 1
