"""Seeds of other methods: every layout, how numbers are understood, what is said, and the way there and back."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from helpers import tiny
from PIL import Image
from test_pickled import Runs, saved

from mupvss.cli.main import main
from mupvss.data.masks import write_palette_png
from mupvss.data.sample import Dataset, Sample
from mupvss.errors import DataError, UserError
from mupvss.export.coco import CocoWriter
from mupvss.export.regions import Item, Options
from mupvss.export.seeds import LAYOUTS, export_seeds
from mupvss.masks.pseudo import pseudo_mask
from mupvss.options import MasksConfig
from mupvss.predict.load import load_classifier
from mupvss.search.given import GivenSeeds, folder_state
from mupvss.search.seeds import Seeds, read_seeds, write_seeds
from mupvss.stages.run import run_all
from mupvss.stages.run_folder import Run

CLASSES = ("bird", "cat", "dog", "sheep")
SIZE = (30, 41)
TAGS = {"a": ("cat", "sheep"), "b": ("bird",), "c": ("dog", "cat"), "none": ()}


def sample(name: str) -> Sample:
    return Sample(name, name, frozenset(TAGS[name]), lambda: Image.new("RGB", SIZE[::-1]))


DATASET = Dataset(CLASSES, tuple(sample(name) for name in TAGS))


def maps_of(name: str) -> dict[int, np.ndarray]:
    """Class id from 1 -> map."""
    generator = np.random.default_rng(len(name) + ord(name[0]))
    return {CLASSES.index(tag) + 1: generator.random(SIZE).astype(np.float32) for tag in sorted(TAGS[name])}


def from_zero(maps):
    return {i - 1: own for i, own in maps.items()}


def with_background(maps):
    return {0: np.full(SIZE, 0.4, np.float32)} | maps


def irn(maps):
    keys = torch.tensor([i - 1 for i in maps])
    whole = np.stack(list(maps.values()))
    return {"keys": keys, "cam": torch.from_numpy(whole[:, ::4, ::4].copy()), "high_res": whole}


def texts(maps):
    return {str(i - 1): own.astype(np.float64) for i, own in maps.items()}


def said(given):
    return list(given.remarks(given.notes))


@pytest.mark.parametrize("layout", [from_zero, with_background, irn, texts])
def test_layouts(tmp_path, layout):
    for name in TAGS:
        if TAGS[name]:
            saved(tmp_path / f"{name}.npy", layout(maps_of(name)))
    given = GivenSeeds(tmp_path, DATASET)
    for one in DATASET.samples:
        found, wanted = given.seeds(one), maps_of(one.name)
        assert found.ids.tolist() == sorted(wanted)
        assert found.size == SIZE
        for i, own in zip(found.ids, found.maps, strict=True):
            expected = wanted[i] / (wanted[i] + 0.4) if layout is with_background else wanted[i]
            np.testing.assert_allclose(own, expected, atol=1e-6)
    assert any(("from 1" if layout is with_background else "from 0") in text for text in said(given))
    assert not given.masks_only


def test_masks_and_own_seeds(tmp_path):
    """A mask is sure of what it says; 255 is unsure: background, though only just."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:10], labels[10:12] = 2, 255
    write_palette_png(tmp_path / "a.png", labels)
    write_palette_png(tmp_path / "b.png", np.ones(SIZE, np.uint8))
    cells = np.random.default_rng(0).random((2, 8, 11)).astype(np.float16)
    write_seeds(tmp_path / "c.npz", Seeds(np.array([3, 2]), cells, SIZE, 4))
    given = GivenSeeds(tmp_path, DATASET)
    a = given.seeds(sample("a"))
    assert a.ids.tolist() == [2, 4]
    np.testing.assert_allclose(np.unique(a.maps[0]), [0, 0.49, 1], atol=1e-6)
    assert (a.maps[0, :10] == 1).all()
    assert a.maps[1].max() < 0.5  # sheep is tagged and not in the mask
    assert not a.labels(0.5)[10:].any()
    labels = pseudo_mask(a, np.zeros((*SIZE, 3), np.uint8), 0.5, MasksConfig(crf="none"))[1]
    assert (labels[:9] == 2).all()
    assert (labels[11] == 255).all()
    assert not labels[14:].any()
    assert (given.seeds(sample("b")).labels(0.5) == 1).all()
    c = given.seeds(sample("c"))
    assert (c.ids.tolist(), c.stride) == ([2, 3], 4)
    np.testing.assert_allclose(c.maps, cells[::-1])
    assert any("tags without a map" in text for text in said(given))


def test_names_differ_and_files_are_left_over(tmp_path):
    (tmp_path / "cams").mkdir()
    for name in ("A", "b", "c", "other"):
        saved(tmp_path / "cams" / f"{name}.NPY", from_zero(maps_of(name.lower()) if name != "other" else {}))
    text = " ".join(said(GivenSeeds(tmp_path, DATASET)))
    assert "in other capitals" in text
    assert "1 files belong to no picture, left out" in text


def test_small_maps_become_larger_and_large_values_smaller(tmp_path):
    value = {1: np.full((15, 20), 4.0), 3: np.full((15, 20), -2.0)}
    saved(tmp_path / "a.npy", value)
    saved(tmp_path / "b.npy", {0: np.full(SIZE, 255, np.uint8)})
    saved(tmp_path / "c.npy", from_zero(maps_of("c")))
    given = GivenSeeds(tmp_path, DATASET)
    assert "resized" not in " ".join(said(given))  # what was tried beforehand is not counted
    a = given.seeds(sample("a"))
    assert a.maps.shape == (2, *SIZE)
    assert (a.maps[0] == 1).all()
    assert (a.maps[1] == 0).all()
    assert (given.seeds(sample("b")).maps == 1).all()
    for text in ("1 picture: maps of another size", "negative values", "divided by"):
        assert text in " ".join(said(given))


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        GivenSeeds(tmp_path / "gone", DATASET)
    with pytest.raises(UserError, match=r"has no \.npy"):
        GivenSeeds(tmp_path, DATASET)
    saved(tmp_path / "a.npy", from_zero(maps_of("a")))
    with pytest.raises(DataError, match=r"no maps of 2 of the 4 pictures \(b, c\)"):
        GivenSeeds(tmp_path, DATASET)
    for name in ("b", "c"):
        saved(tmp_path / f"{name}.npy", from_zero(maps_of(name)))
    GivenSeeds(tmp_path, DATASET)
    for name in ("a", "b", "c"):
        saved(tmp_path / f"{name}.npy", {i + 7: own for i, own in maps_of(name).items()})
    with pytest.raises(DataError, match=r"from 0 nor from 1, in 3 of 3 files: .*a\.npy has 9, 11, .*cat \(2\), sheep \(4\)"):
        GivenSeeds(tmp_path, DATASET)
    ran = tmp_path / "ran"
    saved(tmp_path / "a.npy", {0: Runs(ran)})
    (tmp_path / "b.npy").write_bytes(b"short")
    with pytest.raises(DataError, match=r"(?s)2 files cannot be read:.*a\.npy: refused.*b\.npy: not a readable"):
        GivenSeeds(tmp_path, DATASET)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (np.zeros((7, 40)), "of 7x40 cells, but its picture has 30x41"),
        (np.zeros((1, 3)), "of 1x3 cells"),
        (np.zeros(SIZE[::-1]), "of 41x30 cells.*turned by its EXIF entry"),
        (np.full(SIZE, np.nan), "has values that are no numbers"),
    ],
)
def test_maps_of_another_picture_and_no_numbers(tmp_path, own, message):
    """Before anything is trained."""
    for name in ("a", "b", "c"):
        saved(tmp_path / f"{name}.npy", dict.fromkeys(from_zero(maps_of(name)), own))
    with pytest.raises(DataError, match=rf"a\.npy: {message}"):
        GivenSeeds(tmp_path, DATASET)


def test_maps_of_all_classes(tmp_path):
    """Those of the tags are taken, whether they are numbered from 0 or from 1."""
    for first in (0, 1):
        for name in ("a", "b", "c"):
            every = {i - 1 + first: np.zeros(SIZE, np.float32) for i in range(1, 5)} | ({0: np.zeros(SIZE)} if first else {})
            saved(tmp_path / f"{name}.npy", every | {i - 1 + first: np.sign(own) for i, own in maps_of(name).items()})
        given = GivenSeeds(tmp_path, DATASET)
        assert (given.seeds(sample("a")).maps == 1).all()
        assert any("not tagged with, left out" in text for text in said(given))


def test_masks_of_another_kind(tmp_path):
    """Numbered from 0; of 0 and 255; and in the colours of a labelmap."""
    for name in ("a", "b", "c"):
        labels = np.zeros(SIZE, np.uint8)
        labels[:9], labels[9:20] = 4 if name == "b" else 1, min(maps_of(name)) - 1
        write_palette_png(tmp_path / f"{name}.png", labels)
    with pytest.raises(DataError, match="masks number the classes from 1"):
        GivenSeeds(tmp_path, DATASET)
    for name in ("a", "b", "c"):
        write_palette_png(tmp_path / f"{name}.png", np.full(SIZE, 255, np.uint8))
    with pytest.raises(DataError, match="masks of 0 and 255"):
        GivenSeeds(tmp_path, DATASET)
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ndog:9,9,9::\ncat:7,8,9::\nbird:1,1,1::\nsheep:2,2,2::\n")
    for name, colour in (("a", (7, 8, 9)), ("b", (1, 1, 1)), ("c", (9, 9, 9))):
        Image.new("RGB", SIZE[::-1], colour).save(tmp_path / f"{name}.png")
    given = GivenSeeds(tmp_path, DATASET)
    assert [int(given.seeds(sample(name)).labels(0.5).max()) for name in "abc"] == [2, 1, 3]


def test_files_that_fit_two_pictures(tmp_path):
    for name in ("a", "b", "c"):
        saved(tmp_path / f"{name}.npy", from_zero(maps_of(name)))
    write_palette_png(tmp_path / "a.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(DataError, match="of the same picture"):
        GivenSeeds(tmp_path, DATASET)
    (tmp_path / "a.png").unlink()
    twice = [dataclasses.replace(sample("a"), name=f"{part}/a") for part in ("train", "val")]
    with pytest.raises(DataError, match="fits two pictures, train/a and val/a"):
        GivenSeeds(tmp_path, Dataset(CLASSES, tuple(twice)))


def test_a_tagged_picture_of_which_nothing_was_found(tmp_path):
    """Its maps are zero, of its own size, and can be read again."""
    for name in ("a", "b", "c"):
        saved(tmp_path / f"{name}.npy", from_zero(maps_of(name)))
    given = GivenSeeds(tmp_path, DATASET)
    saved(tmp_path / "a.npy", {})
    found = given.seeds(sample("a"))
    write_seeds(tmp_path / "out.npz", found)
    assert not read_seeds(tmp_path / "out.npz").best()[0].any()


@pytest.mark.parametrize("key", ["²", 10**5000, -1, True, 300, "12345678"], ids=range(6))
def test_keys_that_are_no_numbers_of_classes(tmp_path, key):
    saved(tmp_path / "a.npy", {key: np.zeros(SIZE)})
    with pytest.raises(DataError, match=r"a\.npy: (has an entry that is no map|not a readable)"):
        GivenSeeds(tmp_path, Dataset(CLASSES, (sample("a"),)))


def test_a_change_anywhere_is_noticed(tmp_path):
    own = np.zeros((300, 300), np.float32)
    saved(tmp_path / "a.npy", {0: own})
    before = folder_state(tmp_path)
    assert folder_state(tmp_path) == before
    own[100:200, 100:200] = 1
    saved(tmp_path / "a.npy", {0: own})
    assert folder_state(tmp_path) != before


SHORT = {"train.image_steps": 160, "affinity.kind": "none", "search.kinds": ["attended_search_refined"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = Run(tiny(SHORT), tmp_path_factory.mktemp("given") / "own")
    run_all(run)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(finished, tmp_path, layout):
    """Seeds of a run, written as another project writes them, read back and finished to masks: the same score."""
    out = tmp_path / "written"
    assert main(["export-seeds", str(finished.out), str(out), "--layout", layout]) == 0
    names = [path.stem for path in (finished.out / "seeds" / "masks").glob("*.png")]
    assert sorted(path.stem for path in out.glob("*.npy")) == sorted(names)
    other = Run(tiny({**SHORT, "search.given": str(out)}), tmp_path / "run")
    other.out.mkdir()
    for stage in ("train", "cam_train", "cam"):
        shutil.copytree(finished.folder(stage), other.folder(stage))
    metrics = run_all(other)
    before = json.loads((finished.out / "metrics.json").read_text())
    assert metrics["seeds/maps"] == "given"
    assert metrics["seeds/threshold"] == pytest.approx(before["seeds/threshold"], abs=0.011)
    for key in ("seeds/miou", "masks/miou"):
        assert metrics[key] == pytest.approx(before[key], abs=0.5)
    for name in names:
        one = read_seeds(finished.out / "seeds" / "maps" / before["seeds/maps"] / f"{name}.npz")
        other_one = read_seeds(other.out / "seeds" / "maps" / "given" / f"{name}.npz")
        np.testing.assert_allclose(one.full(), other_one.full(), atol=1e-3)
    assert any("numbered from 0" in text for text in metrics["seeds/remarks"])
    assert load_classifier(other.out, "cpu").threshold is None  # that of other maps says nothing about its own
    assert "given" in (other.out / "report" / "index.html").read_text()
    again = run_all(other)
    assert again["seeds/miou"] == metrics["seeds/miou"]


@pytest.mark.slow
def test_a_folder_that_is_missing_is_said_before_anything_is_trained(tmp_path):
    run = Run(tiny({"search.given": str(tmp_path / "gone")}), tmp_path / "run")
    with pytest.raises(UserError, match="no folder"):
        run_all(run)
    assert not (run.out / "train").exists()


def test_unknown_layouts_and_empty_runs(finished, tmp_path):
    with pytest.raises(UserError, match="choose from mctformer, psa, irn"):
        export_seeds(finished.out, tmp_path, "x")
    with pytest.raises(UserError, match="has no seeds of the kind nothing"):
        export_seeds(finished.out, tmp_path, "irn", "nothing")


def labels_of(name):
    """A mask of the picture's tags, each in its own stripe."""
    labels = np.zeros(SIZE, np.uint8)
    for place, tag in enumerate(sorted(TAGS[name])):
        labels[5 : 12 + place, 10 * place : 10 * place + 8] = CLASSES.index(tag) + 1
    return labels


def coco_file(folder, polygons=False, classes=CLASSES):
    options = Options(classes, tolerance=0)
    writer = CocoWriter(folder, options, polygons)
    for name in TAGS:
        writer.add(Item(f"{name}.jpg", folder / f"{name}.jpg", labels_of(name)))
    writer.close()
    return writer.path


@pytest.mark.parametrize("polygons", [False, True])
def test_masks_in_one_coco_file(tmp_path, polygons):
    coco_file(tmp_path, polygons)
    given = GivenSeeds(tmp_path, DATASET)
    assert given.masks_only
    for name, tags in TAGS.items():
        found = given.seeds(sample(name))
        assert found.ids.tolist() == sorted(CLASSES.index(tag) + 1 for tag in tags)
        np.testing.assert_array_equal(found.labels(0.5), labels_of(name))


def test_coco_files_that_do_not_fit(tmp_path):
    path = coco_file(tmp_path, classes=("w", "x", "y", "z"))
    with pytest.raises(DataError, match=r"none of its categories \(w, x, y, z\) is one of data\.classes"):
        GivenSeeds(tmp_path, DATASET)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"coco\.json"):
        GivenSeeds(tmp_path, DATASET)
    coco_file(tmp_path)
    (tmp_path / "second.json").write_text("{}")
    with pytest.raises(UserError, match=r"2 \.json files, and one that holds the masks of all pictures"):
        GivenSeeds(tmp_path, DATASET)
    (tmp_path / "second.json").unlink()
    content = json.loads(path.read_text())
    content["images"] = [entry | {"width": 7} for entry in content["images"]]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="picture"):
        GivenSeeds(tmp_path, DATASET)
