"""Masks written in each format and read back: exactly where the format can hold that, closely where it holds polygons."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import supervision
from PIL import Image, ImageDraw
from scipy import ndimage

from mupvss.data.masks import read_label_image
from mupvss.data.voc import load_voc
from mupvss.export.formats import FORMATS, export_all
from mupvss.export.labelling_tools import row_run_lengths
from mupvss.export.pictures import file_names
from mupvss.export.regions import Item, Options, regions, trace
from mupvss.options import VocData

CLASSES = ("cat", "dog", "person")


@pytest.fixture
def items(tmp_path):
    """Two pictures: a ring with a hole and a block at the border; a disc, a speck, and pixels nobody is sure of."""
    y, x = np.mgrid[:60, :80]
    distance = np.hypot(y - 25, x - 30)
    first = np.where((distance < 20) & (distance > 8), 1, 0).astype(np.uint8)
    first[40:, 60:] = 3
    second = np.where(np.hypot(y - 30, x - 50) < 15, 2, 0).astype(np.uint8)
    second[5:7, 5:7] = 1
    second[50:] = 255
    found = []
    for name, labels in (("cats/a.jpg", first), ("b.png", second)):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
        found.append(Item(name, path, labels))
    return found


@pytest.fixture
def options():
    return Options(CLASSES, min_pixels=4, tolerance=0.0)


def test_thin_regions_keep_an_outline():
    """A scratch one pixel wide: with a tolerance of a pixel, nothing would be left of it."""
    diagonal = np.eye(60, dtype=bool)
    for mask in (np.ones((1, 100), bool), np.ones((40, 1), bool), diagonal):
        rings = trace(mask, 1.0)
        assert len(rings) == 1
        assert overlap(drawn(rings[0], mask.shape), mask) > 0.9


def test_names_that_meet_in_voc_and_cutouts_of_classes_that_are_gone(items, options, tmp_path):
    first, second = items
    twin = dataclasses.replace(second, name="cats__a.jpg")
    export_all(iter([first, twin]), 2, ["voc", "cutouts"], tmp_path, options)
    names = (tmp_path / "voc" / "ImageSets" / "Segmentation" / "all.txt").read_text().split()
    assert len(set(names)) == 2
    for name, item in zip(names, (first, twin), strict=True):
        np.testing.assert_array_equal(read_label_image(tmp_path / "voc" / "SegmentationClass" / f"{name}.png"), item.labels)
    assert (tmp_path / "cutouts" / "cats" / "a__person.png").is_file()
    export_all(iter([dataclasses.replace(first, labels=first.labels % 3)]), 1, ["cutouts"], tmp_path, options)
    assert not (tmp_path / "cutouts" / "cats" / "a__person.png").exists()


def overlap(found, truth):
    return (found & truth).sum() / (found | truth).sum()


def drawn(points, shape):
    """A polygon filled at eight times the size, so that the drawing itself is no source of error."""
    large = Image.new("1", (shape[1] * 8, shape[0] * 8))
    ImageDraw.Draw(large).polygon([(8 * x - 0.5, 8 * y - 0.5) for x, y in points], fill=1)
    return np.asarray(large).reshape(shape[0], 8, shape[1], 8).mean((1, 3)) > 0.5


def test_regions(items, options):
    found = regions(items[0], options)
    assert [(r.class_name, r.box) for r in found] == [("cat", (11, 6, 50, 45)), ("person", (60, 40, 80, 60))]
    assert sum(r.area for r in found) == (items[0].labels > 0).sum()
    assert np.array_equal(found[0].full((60, 80)), items[0].labels == 1)
    assert [r.class_name for r in regions(items[1], options)] == ["cat", "dog"]
    assert [r.class_name for r in regions(items[1], Options(CLASSES))] == ["dog"]  # the speck is too small


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_outlines_hold_holes(items, options, tolerance):
    ring = regions(items[0], options)[0]
    (points,) = ring.outlines(tolerance)
    assert overlap(drawn(points, (60, 80)), items[0].labels == 1) > (0.999 if tolerance == 0 else 0.93)
    assert len(points) < (60 if tolerance else 400)


@pytest.mark.parametrize("mask", [np.ones((1, 1)), np.ones((1, 7)), np.eye(5), np.ones((4, 4))])
def test_outlines_of_thin_things(mask):
    found = np.zeros(mask.shape, bool)
    for points in trace(mask.astype(bool), 0.0):
        found |= drawn(points, mask.shape)
    assert overlap(found, mask.astype(bool)) == 1


def test_coco_as_pycocotools_reads_it(items, options, tmp_path):
    from pycocotools.coco import COCO

    export_all(items, 2, ["coco", "coco-polygons"], tmp_path, options)
    for name, least in (("coco.json", 1.0), ("coco-polygons.json", 0.9)):
        coco = COCO(str(tmp_path / name))
        assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == dict(enumerate(CLASSES, 1))
        for image, item in zip(coco.loadImgs(coco.getImgIds()), items, strict=True):
            assert (image["file_name"], image["height"], image["width"]) == (item.name, 60, 80)
            for class_id in range(1, 4):
                truth = item.labels == class_id
                entries = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], catIds=[class_id]))
                assert bool(entries) == truth.any()
                if truth.sum() > 4:
                    masks = [coco.annToMask(entry).astype(bool) for entry in entries]
                    found = np.logical_xor.reduce(masks) if name == "coco.json" else np.logical_or.reduce(masks)
                    if class_id != 1 or name == "coco.json":  # pycocotools fills a cut hole by its own rule
                        assert overlap(found, truth) >= least
                    x, y, w, h = entries[0]["bbox"]
                    assert truth[int(y) : int(y + h), int(x) : int(x + w)].sum() == truth.sum()
                    assert sum(entry["area"] for entry in entries) == truth.sum()


def test_voc_as_our_own_source_reads_it(items, tmp_path):
    export_all(items, 2, ["voc"], tmp_path, Options(("cat", "dog", "person"), min_pixels=4))
    root = tmp_path / "voc"
    (root / "JPEGImages").mkdir()
    dataset = load_voc(VocData(root=root, classes=("cat", "dog", "person")), "all")
    assert [(s.name, sorted(s.tags)) for s in dataset.samples] == [("cats__a", ["cat", "person"]), ("b", ["cat", "dog"])]
    for name, item in (("cats__a", items[0]), ("b", items[1])):
        assert np.array_equal(read_label_image(root / "SegmentationClass" / f"{name}.png"), item.labels)
        objects = read_label_image(root / "SegmentationObject" / f"{name}.png")
        assert np.array_equal(objects == 255, item.labels == 255)
        for number, entry in enumerate(ElementTree.parse(root / "Annotations" / f"{name}.xml").iter("object"), 1):
            rows, columns = np.nonzero(objects == number)
            box = [int(entry.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
            assert box == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]


def test_labelme(items, options, tmp_path):
    export_all(items, 2, ["labelme"], tmp_path, options)
    path = tmp_path / "labelme" / "cats" / "a.json"
    entry = json.loads(path.read_text())
    assert (path.parent / entry["imagePath"]).resolve() == items[0].path.resolve()
    assert (entry["imageHeight"], entry["imageWidth"], entry["imageData"]) == (60, 80, None)
    for shape in entry["shapes"]:
        assert shape["shape_type"] == "polygon"
        found = drawn(shape["points"], (60, 80))
        assert overlap(found, items[0].labels == CLASSES.index(shape["label"]) + 1) > 0.99


def test_label_studio(items, options, tmp_path):
    export_all(items, 2, ["label-studio"], tmp_path, options)
    tasks = json.loads((tmp_path / "label-studio.json").read_text())
    view = ElementTree.parse(tmp_path / "label-studio.xml").getroot()
    assert [e.get("value") for e in view.iter("Label")] == list(CLASSES)
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=cats/a.jpg"
    names = {view.find("Image").get("name"), view.find("PolygonLabels").get("name")}
    for task, item in zip(tasks, items, strict=True):
        for result in task["predictions"][0]["result"]:
            assert {result["to_name"], result["from_name"]} == names
            points = np.array(result["value"]["points"]) * [80, 60] / 100
            (label,) = result["value"]["polygonlabels"]
            if label != "cat" or item is items[0]:
                assert overlap(drawn(points, (60, 80)), item.labels == CLASSES.index(label) + 1) > 0.99


def test_cvat_is_exact(items, options, tmp_path):
    export_all(items, 2, ["cvat"], tmp_path, options)
    top = ElementTree.parse(tmp_path / "cvat.xml").getroot()
    assert [e.findtext("name") for e in top.iter("label")] == list(CLASSES)
    for picture, item in zip(top.iter("image"), items, strict=True):
        assert picture.get("name") == item.name
        found = np.zeros((60, 80), np.uint8)
        for entry in picture.iter("mask"):
            left, upper, width, height = (int(entry.get(key)) for key in ("left", "top", "width", "height"))
            runs = [int(run) for run in entry.get("rle").split(",")]
            inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width) == 1
            found[upper : upper + height, left : left + width][inside] = CLASSES.index(entry.get("label")) + 1
        assert np.array_equal(found, np.where(item.labels == 255, 0, item.labels))


def test_row_run_lengths():
    assert row_run_lengths(np.array([[1, 1, 0], [0, 1, 1]], bool)) == [0, 2, 2, 2]
    assert row_run_lengths(np.array([[0, 1]], bool)) == [1, 1]
    assert row_run_lengths(np.zeros((2, 2), bool)) == [4]


def test_yolo(items, options, tmp_path):
    export_all(items, 2, ["yolo"], tmp_path, options)
    for line in (tmp_path / "yolo" / "labels" / "cats" / "a.txt").read_text().splitlines():
        number, *values = line.split()
        points = np.array(values, float).reshape(-1, 2)
        assert points.min() >= 0
        assert points.max() <= 1
        assert overlap(drawn(points * [80, 60], (60, 80)), items[0].labels == int(number) + 1) > 0.99
    assert '0: "cat"' in (tmp_path / "yolo" / "data.yaml").read_text()


@pytest.mark.parametrize("name", ["yolo", "labelme", "coco-polygons"])
def test_as_supervision_reads_it(items, options, tmp_path, name):
    """The reader that many trainings of these formats use. It rounds outlines to whole pixels and draws them a pixel wider."""
    pictures = tmp_path / "flat"
    pictures.mkdir()
    flat = [Item(item.path.name, pictures / item.path.name, item.labels) for item in items]
    for item, new in zip(items, flat, strict=True):
        new.path.write_bytes(item.path.read_bytes())
    export_all(flat, 2, [name], tmp_path, options)
    read = supervision.DetectionDataset
    dataset = {
        "yolo": lambda: read.from_yolo(str(pictures), str(tmp_path / "yolo/labels"), str(tmp_path / "yolo/data.yaml"), True),
        "labelme": lambda: read.from_labelme(str(pictures), str(tmp_path / "labelme"), True),
        "coco-polygons": lambda: read.from_coco(str(pictures), str(tmp_path / "coco-polygons.json"), True),
    }[name]()
    for item in flat:
        _, found = next((image, found) for path, image, found in dataset if Path(path).name == item.name)
        assert found.mask is not None
        names = {dataset.classes[number] for number in found.class_id}
        present = {CLASSES[k - 1] for k in np.unique(item.labels) if 0 < k < 255}
        assert names == present
        for label in present:
            drawn = found.mask[[dataset.classes[number] == label for number in found.class_id]].any(0)
            truth = item.labels == CLASSES.index(label) + 1
            assert drawn[truth].all()
            assert not drawn[~ndimage.binary_dilation(truth, np.ones((3, 3)))].any()


def test_pictures_for_people(items, options, tmp_path):
    export_all(items, 2, ["masks", "overlay", "cutouts"], tmp_path, options)
    assert np.array_equal(read_label_image(tmp_path / "masks" / "cats" / "a.png"), items[0].labels)
    with Image.open(tmp_path / "overlay" / "cats" / "a.jpg") as shown:
        assert shown.size == (80, 60)
    with Image.open(tmp_path / "cutouts" / "cats" / "a__cat.png") as cut:
        assert cut.mode == "RGBA"
        assert np.array_equal(np.asarray(cut)[..., 3] > 0, items[0].labels[6:45, 11:50] == 1)
    assert sorted(p.name for p in (tmp_path / "cutouts").rglob("*.png")) == [
        "a__cat.png",
        "a__person.png",
        "b__cat.png",
        "b__dog.png",
    ]


def test_a_tag_never_writes_outside_the_folder(items, options, tmp_path):
    names = ("../../up", "TV/monitor", "N/A", "N:A", "a b.")[: len(options.classes)]
    out = tmp_path / "deep" / "out"
    export_all(items, 2, ["cutouts"], out, dataclasses.replace(options, classes=names))
    before = {item.path for item in items}
    written = [p for p in tmp_path.rglob("*.png") if p not in before]
    assert len(written) == 4
    assert all(p.is_relative_to(out / "cutouts") for p in written)
    assert file_names(["N/A", "N:A", "1-N_A", "fine"]) == ["1-N_A", "2-N_A", "3-1-N_A", "4-fine"]
    assert file_names(["cat", "Hühner", " ..", "a/b"]) == ["cat", "Hühner", "_", "a_b"]


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_found_is_a_valid_answer(items, options, tmp_path, name):
    empty = Item(items[0].name, items[0].path, np.zeros((60, 80), np.uint8))
    export_all([empty], 1, [name], tmp_path / "out", options)


def test_unknown_format(items, options, tmp_path):
    with pytest.raises(ValueError, match="no format 'kitti'"):
        export_all(items, 2, ["kitti"], tmp_path, options)
