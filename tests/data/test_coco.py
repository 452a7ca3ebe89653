"""COCO's layout: the index, the rule that makes masks, the same pixels as pycocotools, and every stage of its config."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import PAPER, words
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as tools
from pycocotools.coco import COCO

from mupvss.cli.main import main
from mupvss.data.coco import index as json_stream
from mupvss.data.coco.index import build_index, open_index
from mupvss.data.coco.source import region
from mupvss.data.sources import load_dataset
from mupvss.errors import DataError
from mupvss.options import CocoData

CONFIG = Path(__file__).parents[2] / "configs" / "coco.toml"
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def box(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def crowd(mask):
    """COCO's uncompressed run lengths, column by column, background first."""
    flat = np.asfortranarray(mask).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def write(root, split, images, annotations, categories=CATEGORIES, **more):
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories, **more}))
    return path


@pytest.fixture
def coco_tree(tmp_path):
    """COCO 2014's layout: twelve pictures of 40x56, eight to train on; the first has an overlap, a crowd and nothing else."""
    root, rng = tmp_path / "coco", np.random.default_rng(0)
    for split, ids in (("train2014", range(2, 18, 2)), ("val2014", range(20, 28, 2))):
        images, annotations = [], []
        for image in reversed(ids):
            name = f"COCO_{split}_{image:012d}.jpg"
            (root / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 56, 3), np.uint8)).save(root / split / name)
            images.append({"id": image, "file_name": name, "width": 56, "height": 40})
            category = CATEGORIES[image // 2 % 3]["id"]
            annotations.append({"image_id": image, "category_id": category, "segmentation": box(10, 8, 30, 22), "iscrowd": 0})
        inside = np.zeros((40, 56), bool)
        inside[:, 36:] = True
        first = {"image_id": ids[0], "iscrowd": 0}
        annotations += [
            first | {"category_id": 18, "segmentation": box(12, 10, 4, 4)},
            first | {"category_id": 1, "iscrowd": 1, "segmentation": crowd(inside)},
        ]
        write(root, split, images, [a | {"id": i, "area": 1.0} for i, a in enumerate(annotations)])
    return root


def test_tags_ids_and_the_rule_for_overlaps_and_crowds(coco_tree):
    config = CocoData(root=coco_tree, train_split="train2014")
    dataset = load_dataset(config, "train")
    assert dataset.classes == ("person", "dog", "toothbrush")  # in the order of COCO's ids, without their holes
    assert [s.name for s in dataset.samples] == [f"COCO_train2014_{i:012d}" for i in range(2, 18, 2)]
    first = dataset.samples[0]
    assert first.tags == {"person", "dog"}
    mask = first.open_mask()
    assert mask[0, 0] == 0
    assert mask[20, 30] == 2, "the large dog"
    assert mask[20, 38] == 2, "an instance lies over a crowd"
    assert mask[20, 50] == 255, "a crowd is ignored"
    as_class = load_dataset(config.model_copy(update={"crowd": "class"}), "train").samples[0].open_mask()
    assert as_class[20, 50] == 1

    images = [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10}]
    large, small = (
        {"image_id": 1, "category_id": c, "segmentation": s} for c, s in ((18, box(0, 0, 20, 10)), (1, box(2, 2, 4, 4)))
    )
    for order in ([large, small], [small, large]):
        write(coco_tree, "overlap", images, [a | {"id": i} for i, a in enumerate(order)])
        found = load_dataset(config.model_copy(update={"train_split": "overlap"}), "train").samples[0].open_mask()
        assert (found[3, 3], found[8, 8]) == (1, 2), "the smaller one stays visible, whatever the order"


def test_fewer_classes(coco_tree):
    config = CocoData(root=coco_tree, train_split="train2014", classes=("dog",))
    assert set(np.unique(load_dataset(config, "train").samples[0].open_mask())) == {0, 1, 255}
    ignoring = load_dataset(config.model_copy(update={"other_classes": "ignore"}), "train").samples[1]
    assert ignoring.tags == frozenset()
    assert set(np.unique(ignoring.open_mask())) == {0, 255}
    with pytest.raises(DataError, match="no category 'god'"):
        load_dataset(config.model_copy(update={"classes": ("god",)}), "train")


def test_samples_are_looked_up_and_sliced(coco_tree):
    config = CocoData(root=coco_tree, train_split="train2014", seed_split="train2014", seed_every=3)
    assert [s.name[-2:] for s in load_dataset(config, "seeds", 7).samples] == ["02", "08", "14"]
    samples = load_dataset(config, "train").samples
    assert samples[-1].name == samples[7].name
    with pytest.raises(IndexError):
        samples[8]
    with multiprocessing.get_context("fork").Pool(2) as pool:  # after this process has read from the index
        assert pool.map(len, [s.tags for s in samples]) == [len(s.tags) for s in samples]
        assert pool.map(_tags, [(samples, i) for i in range(8)]) == [s.tags for s in samples]


def _tags(item):
    samples, place = item
    return samples[place].tags


def test_real_annotations_give_pycocotools_pixels(shared):
    for split in ("train2017", "val2017"):
        root = shared / "coco-mini"
        dataset = load_dataset(CocoData(root=root, train_split=split), "train")
        reference = COCO(root / "annotations" / f"instances_{split}.json")
        names = [c["name"] for c in reference.loadCats(sorted(reference.getCatIds()))]
        assert dataset.classes == tuple(names)
        assert len(dataset.samples) == len(reference.getImgIds()) == 40
        for sample in dataset.samples:
            found = reference.loadAnns(sorted(reference.getAnnIds(int(sample.name))))
            assert sample.tags == {reference.cats[a["category_id"]]["name"] for a in found}
            mask, image = sample.open_mask(), sample.open_image()
            expected = np.zeros((image.height, image.width), np.uint8)
            regions = [(reference.annToMask(a).astype(bool), a) for a in found]
            for inside, entry in regions:
                if entry["iscrowd"]:
                    expected[inside] = 255
            for inside, entry in sorted((r for r in regions if not r[1]["iscrowd"]), key=lambda r: -r[0].sum()):
                expected[inside] = names.index(reference.cats[entry["category_id"]]["name"]) + 1
            assert np.array_equal(mask, expected), sample.origin


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_run_lengths_of_both_forms(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    packed = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": packed["size"], "counts": packed["counts"].decode()}
    assert np.array_equal(region(text, mask.shape, "x"), mask)
    assert np.array_equal(region(crowd(mask), mask.shape, "x"), mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3]], "three or more points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "three or more points"),
        ([["a"] * 6], "not a list of numbers"),
        ([{"a": 1}], "not a list of numbers"),
        ([[[1, 2], [3]]], "not a list of numbers"),
        ({"size": [4, 4], "counts": [3]}, "does not add up"),
        ({"size": [4, 4], "counts": [-1, 17]}, "does not add up"),
        ({"size": [4, 4], "counts": "\x7f" * 50}, "does not add up"),
        ({"size": [4, 4], "counts": None}, "does not add up"),
        ({"size": [4, 5], "counts": [20]}, r"the picture is \[4, 4\]"),
    ],
)
def test_bad_segmentations(segmentation, message):
    with pytest.raises(DataError, match="p.jpg: .*" + message):
        region(segmentation, (4, 4), "p.jpg")


def test_polygons_far_outside_are_cut_off():
    assert region([[-1e9, -1e9, 1e9, -1e9, 1e9, 1e9, -1e9, 1e9]], (4, 6), "x").all()
    assert not region([], (4, 6), "x").any()


IMAGE = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}
ANNOTATION = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "lists no picture"),
        ({"categories": []}, "lists no category"),
        ({"images": [IMAGE, IMAGE]}, "share an id, or a name"),
        ({"images": [IMAGE, IMAGE | {"id": 2, "file_name": "a.png"}]}, "share an id, or a name"),
        ({"images": [IMAGE | {"file_name": "../a.jpg"}]}, "path inside the folder"),
        ({"images": [IMAGE | {"file_name": "..\\a.jpg"}]}, "path inside the folder"),
        ({"images": [IMAGE | {"width": 0}]}, "0x4 pixels"),
        ({"images": [IMAGE | {"id": True}]}, r"images\[0\].id is True"),
        ({"images": [IMAGE | {"id": 10**30}]}, "expected a number up to"),
        ({"images": [IMAGE | {"id": 1.5}]}, r"images\[0\].id is 1.5"),
        ({"images": [3]}, "not an object"),
        ({"annotations": [ANNOTATION | {"image_id": 7}]}, "names image 7, which is not listed"),
        ({"annotations": [ANNOTATION | {"category_id": 7}]}, "names category 7, which is not listed"),
        ({"annotations": [ANNOTATION | {"segmentation": "x"}]}, "neither polygons nor"),
        ({"categories": [{"id": 1}]}, "name is None"),
    ],
)
def test_bad_annotation_files(tmp_path, change, message):
    content = {"images": [IMAGE], "annotations": [ANNOTATION], "categories": CATEGORIES} | change
    path = tmp_path / "instances_x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="instances_x.json: .*" + message):
        build_index(path, tmp_path / "index.sqlite")
    assert not list(tmp_path.glob("*.sqlite")) + list(tmp_path.glob(".*"))


BROKEN = [
    "",
    "{",
    "[]",
    '{"images": [',
    "\xff\xfe",
    '{"images": {"a": 1}}',
    "[" * 100_000,
    '{"a": ' * 100_000,
    '{"images": []} 1',
]
BROKEN += ['{"images": [1, NaN]}', '{"images": [' + "9" * 5000, '{"a" 1}', "{1: 1}", "{]"]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_not_an_annotation_file(tmp_path, text):
    path = tmp_path / "instances_x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"instances_x\.json"):
        build_index(path, tmp_path / "index.sqlite")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such annotation file"):
        open_index(tmp_path / "annotations" / "instances_x.json")


def test_the_index_follows_the_file(coco_tree):
    config = CocoData(root=coco_tree, train_split="train2014")
    assert len(load_dataset(config, "train").samples) == 8
    write(coco_tree, "train2014", [IMAGE], [ANNOTATION])
    assert len(load_dataset(config, "train").samples) == 1


def test_a_correction_of_one_character_is_seen(coco_tree):
    config = CocoData(root=coco_tree, train_split="train2014")
    before = [s.tags for s in load_dataset(config, "train").samples]
    path = coco_tree / "annotations" / "instances_train2014.json"
    text = path.read_text()
    path.write_text(text.replace('"category_id": 90', '"category_id": 18', 1))
    assert [s.tags for s in load_dataset(config, "train").samples] != before


def test_a_damaged_index_says_so(coco_tree, tmp_path):
    config = CocoData(root=coco_tree, train_split="train2014")
    load_dataset(config, "train")
    (index,) = (tmp_path / "cache").rglob("*.sqlite")
    index.write_bytes(b"x" * 5000)
    with pytest.raises(DataError, match=r"damaged index .* delete it"):
        load_dataset(config, "train")


PEAK = """
import sys, tracemalloc
from pathlib import Path
from mupvss.data.coco import index as coco
coco.CHUNK = 1 << 16
tracemalloc.start()
coco.build_index(Path(sys.argv[1]), Path(sys.argv[2]))
index = coco.CocoIndex(Path(sys.argv[2]))
print(sum(len(index.entry(place).categories) for place in range(len(index))), tracemalloc.get_traced_memory()[1])
"""
"""In a process of its own: what other tests have left behind is no part of it."""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_annotations(tmp_path):
    """A file of some 5 MB, of which never more than a small part is in memory."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in range(4000)]
    polygon = [[round(x * 0.37, 2) for x in range(160)]]
    annotations = [{"id": i, "image_id": i % 4000, "category_id": 1, "segmentation": polygon, "iscrowd": 0} for i in range(8_000)]
    path = write(tmp_path, "big", images, annotations)
    assert path.stat().st_size > 5e6
    del images, annotations
    found = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), str(tmp_path / "index.sqlite")], capture_output=True, text=True, check=True
    )
    entries, peak = map(int, found.stdout.split())
    assert entries == 4000
    assert peak < 2.5e6


@pytest.mark.slow
def test_every_stage_of_the_config(coco_tree, tmp_path):
    out = tmp_path / "run"
    assert main(["run", str(CONFIG), "--out", str(out), "--data.root", str(coco_tree), *words(PAPER)]) == 0
    check_run(out, "COCO_val2014_000000000020", 4)


@pytest.mark.slow
def test_every_stage_on_real_annotations(shared, tmp_path):
    out = tmp_path / "run"
    splits = [f"--data.{purpose}-split={split}2017" for purpose, split in (("train", "train"), ("seed", "train"), ("val", "val"))]
    arguments = ["--data.root", str(shared / "coco-mini"), *splits, *words(PAPER | {"limit": 3})]
    assert main(["run", str(CONFIG), "--out", str(out), *arguments]) == 0
    check_run(out, None, 3, 3)


def check_run(out, name, pictures, searched=8):
    metrics = json.loads((out / "metrics.json").read_text())
    for key in ("seeds/miou", "masks/affinity_miou", "masks/miou", "val/miou_single", "val/miou"):
        assert 0 <= metrics[key] <= 100
    assert metrics["val/pictures"] == pictures
    assert metrics["seeds/pictures"] == searched
    assert len(list((out / "masks" / "labels").glob("*.png"))) == searched
    assert len(list((out / "val" / "masks").glob("*.png"))) == pictures
    assert name is None or (out / "val" / "masks" / f"{name}.png").is_file()


VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(content=st.dictionaries(st.text(), VALUES), chunk=st.integers(1, 9), indent=st.sampled_from([None, 1]))
def test_streamed_json_equals_parsed_json(tmp_path_factory, content, chunk, indent):
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        found = [(key, number, json.dumps(entry)) for key, number, entry in json_stream.stream_entries(path)]
    arrays = {key: value for key, value in content.items() if isinstance(value, list)}
    assert found == [(key, i, json.dumps(entry)) for key, value in arrays.items() for i, entry in enumerate(value)]
