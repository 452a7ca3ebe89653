"""The VOC layout: tags, masks, class subsets, and what goes wrong in it."""

from __future__ import annotations

import numpy as np
import pytest

from mupvss.data.sources import load_dataset
from mupvss.data.voc import CLASSES, load_voc
from mupvss.errors import DataError
from mupvss.options import VocData


def config(root, **options):
    return VocData(root=root, **options)


def test_tags_from_annotations(voc_root):
    dataset = load_voc(config(voc_root), "train")
    assert dataset.classes == CLASSES
    assert [sorted(s.tags) for s in dataset.samples] == [["dog", "person"], ["cat"], ["chair"]]
    assert set(np.unique(dataset.samples[0].open_mask())) == {0, 12, 15}
    assert dataset.tag_vector(dataset.samples[1]).tolist() == [float(c == "cat") for c in CLASSES]


@pytest.mark.parametrize(("other", "expected"), [("background", {0, 1}), ("ignore", {0, 1, 255})])
def test_a_subset_of_classes(voc_root, other, expected):
    dataset = load_voc(config(voc_root, classes=("dog", "cat"), other_classes=other), "train")
    assert [sorted(s.tags) for s in dataset.samples] == [["dog"], ["cat"], []]
    assert set(np.unique(dataset.samples[0].open_mask())) == expected
    assert set(np.unique(dataset.samples[1].open_mask())) == {0, 2, 255}  # void stays void


def test_tags_from_a_table(voc_root, tmp_path):
    table = tmp_path / "tags.csv"
    table.write_text("image,tags\na.jpg,dog|person\nb.jpg,cat\nc.jpg,\n")
    dataset = load_voc(config(voc_root, tags=table), "train")
    assert [sorted(s.tags) for s in dataset.samples] == [["dog", "person"], ["cat"], []]
    table.write_text("image,tags\na.jpg,dog|person\n")
    with pytest.raises(DataError, match="no row for picture 'b'"):
        load_voc(config(voc_root, tags=table), "train")
    table.write_text("image,tags\na.jpg,doog\n")
    with pytest.raises(DataError, match=r"tags\.csv.*unknown tag 'doog'"):
        load_voc(config(voc_root, tags=table), "train")


def test_errors_name_the_file(voc_root):
    with pytest.raises(DataError, match=r"nothing\.txt.*found \['train'\]"):
        load_voc(config(voc_root), "nothing")
    with pytest.raises(DataError, match="no class \\['unicorn'\\]"):
        load_voc(config(voc_root, classes=("unicorn",)), "train")
    (voc_root / "ImageSets/Segmentation/empty.txt").write_text("\n")
    with pytest.raises(DataError, match=r"empty\.txt.*empty"):
        load_voc(config(voc_root), "empty")
    (voc_root / "Annotations/a.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>')
    with pytest.raises(DataError, match=r"a\.xml.*document type"):
        load_voc(config(voc_root), "train")
    (voc_root / "Annotations/a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"a\.xml.*not valid XML"):
        load_voc(config(voc_root), "train")


def test_limit(voc_root):
    assert len(load_dataset(config(voc_root), "train", 2).samples) == 2


def test_real_animals(shared):
    animals = ("cat", "cow", "dog", "horse", "person", "sheep")
    root = shared / "voc-animals"
    dataset = load_voc(config(root / "VOC2012", tags=root / "tags.csv", classes=animals, masks="SegmentationClassAug"), "train")
    assert len(dataset.samples) == 437
    agreeing = 0
    for sample in dataset.samples[:40]:
        mask = sample.open_mask()
        assert mask.shape == sample.open_image().size[::-1]
        agreeing += {animals[i - 1] for i in np.unique(mask) if 0 < i < 255} == sample.tags
    assert agreeing >= 36  # tags come from boxes, masks from outlines: nearly the same


def test_pictures_that_are_scored_and_left_out(voc_root):
    lists = voc_root / "ImageSets" / "Segmentation"
    (lists / "some.txt").write_text("b\n")
    options = {"seed_split": "train", "score_split": "some"}
    found = load_dataset(config(voc_root, **options), "seeds").samples
    assert [(s.name, s.open_mask is not None) for s in found] == [("a", False), ("b", True), ("c", False)]
    assert all(s.open_mask is not None for s in load_dataset(config(voc_root, **options), "train").samples)
    left = load_dataset(config(voc_root, seed_without="some"), "seeds").samples
    assert [s.name for s in left] == ["a", "c"]
