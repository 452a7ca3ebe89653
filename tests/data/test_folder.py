"""Own pictures, tag tables, and `mupvss data check`."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from mupvss.cli.main import main
from mupvss.data.check import check_data
from mupvss.data.folder import load_folder
from mupvss.data.images import read_image
from mupvss.data.masks import write_palette_png
from mupvss.data.readable import readable
from mupvss.data.tags import read_tags
from mupvss.data.walk import pictures_below
from mupvss.errors import DataError
from mupvss.options import FolderData
from mupvss.stages.run_folder import truth_identity


def config(root, **options):
    return FolderData(root=root, **options)


def test_one_folder_per_tag(picture_folder):
    dataset = load_folder(config(picture_folder), "train")
    assert dataset.classes == ("cat", "dog")
    assert {s.name: sorted(s.tags) for s in dataset.samples} == {
        "cat__1": ["cat"], "cat__2": ["cat"], "dog__3": ["dog"], "none__4": [],
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_table_of_tags(picture_folder, suffix):
    table = picture_folder / f"t{suffix}"
    rows = {"cat/1.jpg": ["cat", "dog"], "none/4.jpg": []}
    if suffix == ".csv":
        table.write_text("filename,labels\n" + "".join(f'"{k}","{", ".join(v)}"\n' for k, v in rows.items()))
    else:
        table.write_text("\n".join(json.dumps({"image": k, "tags": v}) for k, v in rows.items()))
    dataset = load_folder(config(picture_folder, tags=table), "train")
    assert [sorted(s.tags) for s in dataset.samples] == [["cat", "dog"], []]


def test_unquoted_commas_between_tags(tmp_path):
    (tmp_path / "t.csv").write_text("image,tags\na.jpg,cat,dog\nb.jpg,cat\n")
    assert read_tags(tmp_path / "t.csv").tags == {"a.jpg": {"cat", "dog"}, "b.jpg": {"cat"}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "header"),
        ("t.csv", "image,tags\n", "lists no picture"),
        ("t.csv", "weather,mood\nrain,low\n", "header"),
        ("t.csv", "image,tags\n,x\n", "names no picture"),
        ("t.jsonl", "{\n", "line 1: not valid JSON"),
        ("t.jsonl", '{"image": 3, "tags": []}', "line 1: expected"),
        ("t.jsonl", "[1]", "expected an object"),
        ("t.txt", "x", "tag tables are"),
    ],
)
def test_bad_tables(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_tags(tmp_path / name)


def test_bad_bytes_in_a_table(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"image,tags\n\xff\xfe.jpg,x\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_tags(tmp_path / "t.csv")


def test_pictures_outside_the_folder_are_refused(picture_folder, tmp_path):
    (tmp_path / "secret.jpg").write_bytes((picture_folder / "cat/1.jpg").read_bytes())
    table = tmp_path / "t.csv"
    table.write_text("image,tags\n../secret.jpg,cat\n")
    with pytest.raises(DataError, match="outside"):
        load_folder(config(picture_folder, tags=table), "train")
    table.write_text("image,tags\ncat/9.jpg,cat\n")
    with pytest.raises(DataError, match="is not in"):
        load_folder(config(picture_folder, tags=table), "train")


def test_no_picture_and_no_class_in_common(picture_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture in a folder per tag"):
        load_folder(config(tmp_path / "empty"), "train")
    with pytest.raises(DataError, match="no such folder"):
        load_folder(config(tmp_path / "nowhere"), "train")
    with pytest.raises(DataError, match=r"horse.*cat, dog"):
        load_folder(config(picture_folder, classes=("horse",)), "train")


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    if mode == "I;16":
        Image.fromarray(np.full((8, 6), 40000, np.uint16)).save(tmp_path / "x.png")
    else:
        Image.new("RGB", (6, 8), (150, 150, 150)).convert(mode).save(tmp_path / f"x.{suffix}")
    image = read_image(tmp_path / f"x.{suffix}")
    assert (image.mode, image.size) == ("RGB", (6, 8))
    if mode != "1":
        assert abs(int(np.array(image).mean()) - 153) < 10


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (10, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("tag", "kind", "value"), [(0x011A, 2, b"72\0"), (0x0110, 5, bytes(8)), (0x8825, 2, b"N\0"), (0x0111, 2, b"x\0")]
)
def test_odd_exif_entries_do_not_hide_a_turned_picture(tmp_path, orientation, tag, kind, value):
    """Phones and tools leave entries of types that do not belong there. Those cannot be written anew, and need not be."""
    pixels = np.random.default_rng(0).integers(0, 255, (10, 20, 3), np.uint8)
    plain = Image.Exif()
    plain[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "plain.png", exif=plain)
    with Image.open(tmp_path / "plain.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    count = 1 if kind == 5 else len(value)
    inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", 38)  # behind header, two entries and the end
    turned = struct.pack("<HHIHxx", 0x0112, 3, 1, orientation)
    entries = sorted([(0x0112, turned), (tag, struct.pack("<HHI", tag, kind, count) + inline)])
    block = b"II*\0" + struct.pack("<IH", 8, 2) + b"".join(entry for _, entry in entries) + bytes(4) + value
    Image.fromarray(pixels).save(tmp_path / "odd.png", exif=b"Exif\0\0" + block)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "odd.png")), expected)


def test_check_finds_what_is_wrong(picture_folder, capsys):
    write_palette_png(picture_folder / "masks/cat/1.png", np.zeros((9, 9), np.uint8))
    write_palette_png(picture_folder / "masks/cat/2.png", np.full((48, 40), 2, np.uint8))
    (picture_folder / "dog/5.jpg").write_bytes((picture_folder / "dog/3.jpg").read_bytes())
    (picture_folder / "dog/6.jpg").write_bytes(b"\xff\xd8\xff not a jpeg")
    found = check_data(config(picture_folder, masks="masks"))
    assert found.pictures == 6
    assert found.untagged == 1
    assert found.class_counts == {"cat": 2, "dog": 3}
    assert len(found.duplicates) == 1
    assert len(found.unreadable) == 1
    assert "dog/6.jpg" in found.unreadable[0]
    assert len(found.mismatched) == 2
    assert main(["data", "check", "--source", "folder", "--root", str(picture_folder), "--masks", "masks"]) == 1
    assert "dog/6.jpg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (
            ("train/1031280-2300-27920-[1 0 0 1].png", "train/77-1-2-[0 1 0 0].png", "train/77-1-3-[0 0 0 0].png"),
            4,
        ),  # LUAD-HistoSeg
        (("a/TCGA-A1-DX1_xmin45749_MPP-0.2500+0[1001].png", "a/TCGA-A1+1[0100].png", "a/TCGA-A1+2[0000].png"), 4),  # BCSS-WSSS
        (("436219-8069-57662-[1, 0].png", "436219-8069-1-[0, 1].png", "436219-8069-2-[0, 0].png"), 2),  # WSSS4LUAD
    ],
)
def test_tags_in_file_names(tmp_path, names, count):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(path)
    dataset = load_folder(FolderData(root=tmp_path), "train")
    by_name = {sample.origin.rpartition("/")[2]: sample.tags for sample in dataset.samples}
    last = {"class 4"} if count == 4 else set()
    assert [by_name[name.rpartition("/")[2]] for name in names] == [{"class 1"} | last, {"class 2"}, set()]
    assert f"{count} classes, class 1 to class {count}; put their names in data.classes" in " ".join(dataset.notes)
    words = ("tumour", "stroma", "lymphocytes", "necrosis")[:count]
    dataset = load_folder(FolderData(root=tmp_path, classes=words), "train")
    assert {tag for sample in dataset.samples for tag in sample.tags} <= set(words)
    assert [len(sample.tags) for sample in dataset.samples] == [
        len(by_name[s.origin.rpartition("/")[2]]) for s in dataset.samples
    ]


def test_classes_of_names_are_in_their_order(tmp_path):
    """Also those that no picture has, and past the ninth."""
    for i in range(12):
        label = " ".join("1" if k == i and k != 2 else "0" for k in range(12))
        Image.new("RGB", (9, 9)).save(tmp_path / f"{i}-[{label}].png")
    dataset = load_folder(FolderData(root=tmp_path), "train")
    assert dataset.classes == tuple(f"class {i}" for i in range(1, 13))
    again = load_folder(FolderData(root=tmp_path, classes=dataset.classes), "train")
    assert [s.tags for s in again.samples] == [s.tags for s in dataset.samples]


def test_labels_of_two_lengths_and_brackets_that_are_no_labels(tmp_path):
    for name in ("x-[1 0].png", "y-[0 1].png", "z-[0 1 1].png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    with pytest.raises(DataError, match=r"z-\[0 1 1\]\.png: its name has a label of 3 classes, most others have 2"):
        load_folder(FolderData(root=tmp_path), "train")
    (tmp_path / "z-[0 1 1].png").unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    notes = " ".join(load_folder(FolderData(root=tmp_path), "train").notes)
    assert "without a label in their name, left out: 1 picture (plain.png)" in notes
    with pytest.raises(DataError, match=r"a label of 2 classes, and data\.classes has 3; give 2 names"):
        load_folder(FolderData(root=tmp_path, classes=("a", "b", "c")), "train")
    grid = tmp_path / "grid"
    for name in ("cat/a-[0 1].png", "cat/b-[1 1].png", "dog/c-[0 0].png"):
        (grid / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(grid / name)
    dataset = load_folder(FolderData(root=grid), "train")
    assert (dataset.classes, [sorted(s.tags) for s in dataset.samples]) == (("cat", "dog"), [["cat"], ["cat"], ["dog"]])
    assert "they lie in several folders, so the folders are the tags" in " ".join(dataset.notes)
    other = tmp_path / "other"
    for name in ("cat/holiday [1].png", "cat/holiday [01].png", "dog/a.png", "dog/b.png", "dog/[2 0].png"):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(other / name)
    assert load_folder(FolderData(root=other), "train").classes == ("cat", "dog")


def test_the_folder_background_has_no_tag_unless_it_is_named(tmp_path):
    for name in ("background/1", "cat/2"):
        write_picture(tmp_path / f"{name}.png")
    found = load_folder(config(tmp_path), "train")
    assert (found.classes, [sorted(s.tags) for s in found.samples]) == (("cat",), [[], ["cat"]])
    assert "folders whose pictures have no tag: background (1)" in found.notes
    found = load_folder(config(tmp_path, classes=("background", "cat")), "train")
    assert [sorted(s.tags) for s in found.samples] == [["background"], ["cat"]]


def test_more_tags_than_a_mask_can_tell_apart(tmp_path):
    write_picture(tmp_path / "1.png")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "1.png", "tags": [f"tag {n}" for n in range(255)]}))
    with pytest.raises(DataError, match=r"has 255 different tags, and a mask can tell 254 apart"):
        load_folder(config(tmp_path, tags=tmp_path / "t.jsonl"), "train")
    assert len(load_folder(config(tmp_path, tags=tmp_path / "t.jsonl", classes=("tag 1", "tag 2")), "train").classes) == 2


def test_our_own_results_are_no_pictures(tmp_path):
    """A run and predictions below the folder of the pictures: their masks would be learned as untagged pictures."""
    for name in ("cat/1", "dog/2", "runs/mine/seeds/masks/1", "runs/mine/preview/masks/2", "dog/masks/2", "dog/.found/2"):
        write_picture(tmp_path / f"{name}.png")
    (tmp_path / "runs" / "mine" / "seeds" / "stage.json").write_text('{"fingerprint": "0"}')
    (tmp_path / "cat" / "stage.json").write_text('{"act": 1}')  # the user's own
    (tmp_path / "dog" / "predictions.json").write_text("{}")
    found = load_folder(config(tmp_path), "train")
    assert (found.classes, [s.name for s in found.samples]) == (("cat", "dog"), ["cat__1", "dog__2"])
    assert found.notes == ("folders with results of mupvss, left out: dog/masks, runs/mine",)
    inside = pictures_below(tmp_path / "runs" / "mine" / "seeds" / "masks")
    assert inside.pictures == ["1.png"], "a folder of masks can still be given itself"


def test_a_check_is_repeated_when_what_it_depends_on_has_changed(tmp_path):
    """The verdict on a mask depends on the classes and on what says what its colours mean."""
    for name in ("cat/1", "dog/2"):
        write_picture(tmp_path / "pictures" / f"{name}.png")
    labels = np.full((8, 8), 3, np.uint8)
    write_palette_png(tmp_path / "masks" / "cat" / "1.png", labels)
    options = {"masks": str(tmp_path / "masks")}

    def checked(**more):
        return readable(load_folder(config(tmp_path / "pictures", **options, **more), "train"), "stop", tmp_path / "m.json")

    with pytest.raises(DataError, match="has class id 3, expected at most 2"):
        checked()
    assert len(checked(classes=("cat", "dog", "owl")).samples) == 2
    with pytest.raises(DataError, match="has class id 3"):
        checked(classes=("cat", "dog"))
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:4] = (9, 9, 9)
    Image.fromarray(colours).save(tmp_path / "masks" / "cat" / "1.png")
    (tmp_path / "masks" / "labelmap.txt").write_text("dog:1,1,1::\n")
    with pytest.raises(DataError, match=r"not in labelmap\.txt"):
        checked()
    (tmp_path / "masks" / "labelmap.txt").write_text("dog:9,9,9::\n")
    dataset = checked()
    before = truth_identity(dataset, config(tmp_path))
    (tmp_path / "masks" / "labelmap.txt").write_text("cat:9,9,9::\n")
    assert truth_identity(checked(), config(tmp_path)) != before, "the same files mean another class"


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(str(path))).integers(0, 255, (8, 8, 3), np.uint8)).save(path)
