"""The paper's whole chain, configs/voc.toml, on a small tree in VOC's full layout: XML, SBD's masks, void pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import PAPER, words
from PIL import Image

from mupvss.cli.main import main
from mupvss.data.masks import write_palette_png

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "configs" / "voc.toml"


@pytest.fixture
def voc_tree(tmp_path):
    """Twelve pictures: eight for training, half of their masks as SBD has them (no void), four for validation (void edges)."""
    root, rng = tmp_path / "VOCdevkit" / "VOC2012", np.random.default_rng(0)
    lists = root / "ImageSets" / "Segmentation"
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    lists.mkdir(parents=True)
    names = [f"2008_{i:06d}" for i in range(12)]
    for i, name in enumerate(names):
        image = rng.integers(0, 255, (40, 56, 3), np.uint8)
        image[8:30, 10:40] //= 4
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
        class_name, class_id = (("dog", 12), ("cat", 8), ("tvmonitor", 20))[i % 3]
        mask = np.zeros((40, 56), np.uint8)
        mask[8:30, 10:40] = class_id
        if i % 2:
            mask[7:9] = 255
        write_palette_png(root / "SegmentationClassAug" / f"{name}.png", mask)
        body = f"<object><name>{class_name}</name><difficult>0</difficult></object>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{body}</annotation>")
    (lists / "train_aug.txt").write_text("\n".join(names[:8]) + "\n")
    (lists / "train.txt").write_text("\n".join(names[:5]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[8:]) + "\n")
    return root


def test_every_stage_of_the_papers_config(voc_tree, tmp_path):
    out = tmp_path / "run"
    arguments = ["run", str(CONFIG), "--out", str(out), "--data.root", str(voc_tree), *words(PAPER)]
    assert main(arguments) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    for key in ("seeds/miou", "masks/affinity_miou", "masks/miou", "val/miou_single", "val/miou"):
        assert 0 <= metrics[key] <= 100
    assert metrics["affinity/kind"] == "net"
    assert metrics["val/pictures"] == 4
    assert metrics["seeds/pictures"] == 5  # seeds for train_aug, scored on train
    assert len(list((out / "masks" / "labels").glob("*.png"))) == 8
    results = sorted(p.name for p in (out / "val" / "results" / "VOC2012" / "Segmentation" / "comp6_val_cls").iterdir())
    assert results == [f"2008_{i:06d}.png" for i in range(8, 12)]


def test_bad_masks_and_seeds_say_what_is_wrong(voc_tree, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["run", str(CONFIG), "--out", str(out), "--data.root", str(voc_tree), *words(PAPER)]
    assert main(arguments) == 0
    names = [f"2008_{i:06d}" for i in range(8)]

    def fails_with(stage, *message):
        capsys.readouterr()
        assert main([stage, *arguments[1:]]) == 1
        said = capsys.readouterr().err
        assert all(part in said for part in ("error:", *message)), said

    # A seed file of another picture's size.
    seeds = out / "seeds" / "maps" / "attended_search_refined" / f"{names[0]}.npz"
    whole = seeds.read_bytes()
    with np.load(seeds) as file:
        np.savez(seeds, **{**file, "size": np.array([80, 56], np.int32)})
    (out / "masks" / "metrics.json").unlink()
    (out / "masks" / "maps" / "walked" / f"{names[0]}.npz").unlink()
    fails_with("masks", names[0], "run 'seeds' again")
    np.savez(seeds, ids=np.array([1], np.int16), maps=np.zeros((1, 5, 5), np.float16), size=np.array([20, 20]), stride=4)
    fails_with("masks", names[0], "20x20", "40x56")
    seeds.write_bytes(whole)
    assert main(["masks", *arguments[1:]]) == 0

    # Every mask unsure throughout.
    kept = {}
    for name in names:
        path = out / "masks" / "labels" / f"{name}.png"
        kept[path] = path.read_bytes()
        write_palette_png(path, np.full((40, 56), 255, np.uint8))
    (out / "segment" / "metrics.json").unlink()
    fails_with("segment", "masks.margin")
    for path, data in kept.items():
        path.write_bytes(data)

    # A class id that the network has no label for.
    path = out / "masks" / "labels" / f"{names[0]}.png"
    write_palette_png(path, np.full((40, 56), 77, np.uint8))
    fails_with("segment", names[0], "class id 77")

    # Labels of another size than their picture.
    write_palette_png(path, np.zeros((20, 56), np.uint8))
    fails_with("segment", names[0], "20x56")
