"""Files as people, spreadsheets, phones and labelling tools write them. Each case stands for a kind."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import unicodedata
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mupvss.cli.main import main
from mupvss.data.check import check_data
from mupvss.data.coco.source import load_coco
from mupvss.data.folder import load_folder
from mupvss.data.images import array_to_rgb, check_image, read_image
from mupvss.data.masks import read_label_image, write_palette_png
from mupvss.data.names import PictureNames, sample_name
from mupvss.data.readable import readable
from mupvss.data.summary import companions, doubts
from mupvss.data.tags import read_tags
from mupvss.errors import DataError
from mupvss.options import CocoData, FolderData


def put(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number * 7 % 255, 9, 9)).save(root / name, "JPEG")


@pytest.fixture
def pictures(tmp_path):
    put(tmp_path / "pictures", "p1.jpg", "p2.jpg", "p3.jpg")
    return tmp_path / "pictures"


def tags_of(root, table, **options):
    """Tags by file, as a data set of the folder has them, and its notes."""
    dataset = load_folder(FolderData(root=root, tags=table, **options), "train")
    found = {os.path.relpath(sample.origin, root).replace(os.sep, "/"): set(sample.tags) for sample in dataset.samples}
    return found, " | ".join(dataset.notes)


THREE = {"p1.jpg": {"hen"}, "p2.jpg": {"hen", "goat"}, "p3.jpg": set()}

TABLES = {
    "excel with semicolons": ("\ufeffimage;tags\np1.jpg;hen\np2.jpg;hen, goat\np3.jpg;\n", "separated by ';'"),
    "excel with a line sep=": ("sep=,\nimage,tags\np1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n", ""),
    "excel with sep=; and commas between tags": ("sep=;\nimage;tags\np1.jpg;hen\np2.jpg;hen,goat\np3.jpg;\n", "';'"),
    "tabs": ("image\ttags\np1.jpg\then\np2.jpg\then,goat\np3.jpg\t\n", "tabs"),
    "Hugging Face": ("file_name,label\np1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n", ""),
    "Kaggle": ("image_name,label_name\np1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n", ""),
    "lists as Python writes them": ("image,tags\np1.jpg,\"['hen']\"\np2.jpg,\"['hen', 'goat']\"\np3.jpg,[]\n", ""),
    "lists as numpy writes them": ("image,tags\np1.jpg,['hen']\np2.jpg,['hen' 'goat']\np3.jpg,[]\n", ""),
    "lists as JSON": ('image,tags\np1.jpg,"[""hen""]"\np2.jpg,"[""hen"", ""goat""]"\np3.jpg,[]\n', ""),
    "lists without quotes": ('image,tags\np1.jpg,[hen]\np2.jpg,"[hen, goat]"\np3.jpg,[]\n', ""),
    "a column for each further tag": ("image,label,label,label\np1.jpg,hen,,\np2.jpg,hen,goat,\np3.jpg,,,\n", ""),
    "numbered columns": ("image,label,label.1,label_2\np1.jpg,hen,,\np2.jpg,,hen,goat\np3.jpg,,,\n", ""),
    "a row for each box": (
        "filename,width,height,class,xmin,ymin,xmax,ymax\np1.jpg,9,9,hen,1,1,2,2\np2.jpg,9,9,hen,1,1,2,2\n"
        "p2.jpg,9,9,goat,1,1,2,2\np3.jpg,9,9,,,,,\n",
        "listed more than once, tags joined: 1 picture (p2.jpg)",
    ),
    "equal rows": ("image,tags\np1.jpg,hen\np1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n", "listed more than once"),
    "a column of 0 and 1 for each tag": (
        "filename, goat, hen\np1.jpg, 0, 1\np2.jpg, 1, 1\np3.jpg, 0, 0\n",
        "a column of 0 and 1 for each tag: goat, hen",
    ),
    "-1 and 1": ("image_id goat hen\n".replace(" ", ",") + "p1.jpg,-1,1\np2.jpg,1,1\np3.jpg,-1,-1\n", "0 and 1"),
    "words that mean none": ("image,tags\np1.jpg,hen\np2.jpg,hen|goat\np3.jpg,nan\n", "'nan' (1)"),
    "a first column without a name": (",image,tags\n0,p1.jpg,hen\n1,p2.jpg,hen|goat\n2,p3.jpg,\n", ""),
    "columns of unknown names": (
        "image,tags,weather\np1.jpg,hen,rain\np2.jpg,hen|goat,sun\np3.jpg,,sun\n",
        "columns not read: weather",
    ),
    "one column of another name": ("photo,animal\np1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n", "from the column 'animal'"),
    "pictures under another name": ("which one,tags\np1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n", "from the column 'which one'"),
    "no header": ("p1.jpg,hen\np2.jpg,hen,goat\np3.jpg,\n", "the first line is no header"),
    "Label Studio's CSV": (
        "annotation_id,annotator,animal,created_at,id,image,lead_time,updated_at\n"
        '1,1,hen,x,1,/data/upload/2/1a2b3c41-p1.jpg,4.1,x\n'
        '2,1,"{""choices"": [""hen"", ""goat""]}",x,2,/data/upload/2/1a2b3c42-p2.jpg,4.1,x\n'
        '3,1,[],x,3,/data/upload/2/1a2b3c43-p3.jpg,4.1,x\n',
        "what a tool added to the name",
    ),
    "the same path twice": ("image,tags\np1.jpg,hen\n./p2.jpg,hen\np2.jpg,goat\np3.jpg,\n", "joined with another row"),
    "capitals": ("image,tags\nP1.JPG,hen\nP2.jpg,hen|goat\np3.jpg,\n", "in other capitals"),
    "no suffix": ("image,tags\np1,hen\np2,hen|goat\np3,\n", "with another suffix"),
    "another suffix": ("image,tags\np1.png,hen\np2.heic,hen|goat\np3.jpg,\n", "with another suffix"),
    "folders of another computer": (
        "image,tags\nC:\\my pictures\\p1.jpg,hen\n/home/a/p2.jpg,hen|goat\np3.jpg,\n",
        "another folder",
    ),
    "web addresses": ("image,tags\nhttps://e.org/a/p1.jpg,hen\ns3://b/p2.jpg,hen|goat\np3.jpg,\n", ""),
    "a step up and down": ("image,tags\n../pictures/p1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_tables(pictures, tmp_path, case):
    text, note = TABLES[case]
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found, notes = tags_of(pictures, tmp_path / "t.csv")
    assert found == THREE
    assert note in notes


def test_utf_16_with_tabs_as_excel_writes_it(pictures, tmp_path):
    (tmp_path / "t.csv").write_text("image\ttags\np1.jpg\then\np2.jpg\then, goat\np3.jpg\t\n", encoding="utf-16")
    assert tags_of(pictures, tmp_path / "t.csv")[0] == THREE


def test_absolute_paths_and_a_folder_as_it_is_typed(pictures, tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text(f"image,tags\n{pictures}/p1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "pictures", "--tags", "t.csv", "--out", "c.toml", "--weights", "", "--quick"]) == 0
    assert main(["data", "split", "pictures", "parts", "--tags", "t.csv"]) == 0
    assert tags_of(pictures.relative_to(tmp_path), tmp_path / "t.csv")[0] == THREE


def test_jsonl_of_hugging_face(pictures, tmp_path):
    rows = [{"file_name": "p1.jpg", "label": "hen", "split": "a"}, {"file_name": "p2.jpg", "label": ["hen", "goat"]}]
    rows.append({"file_name": "p3.jpg", "objects": {"bbox": [], "categories": []}})
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found, notes = tags_of(pictures, tmp_path / "t.jsonl")
    assert found == THREE
    assert "keys not read: split" in notes


def test_blanks_between_tags(pictures, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("image,tags\np1.jpg,hen\np2.jpg,hen goat\np3.jpg,goat rake hen\n")
    table = [
        "init",
        str(pictures),
        "--tags",
        str(tmp_path / "t.csv"),
        "--out",
        str(tmp_path / "c.toml"),
        "--weights",
        "",
        "--quick",
    ]
    assert main(table) == 0
    assert "tags that consist of other tags" in capsys.readouterr().out
    assert main([*table, "--separator", " ", "--force"]) == 0
    said = capsys.readouterr().out
    assert "3 tags, 2.0 per tagged picture" in said
    assert 'separator = " "' in (tmp_path / "c.toml").read_text()


def test_columns_that_the_user_names(pictures, tmp_path):
    (tmp_path / "t.csv").write_text("image,weather,beast\np1.jpg,rain,hen\np2.jpg,sun,hen|goat\np3.jpg,sun,\n")
    with pytest.raises(DataError, match="--tag-columns"):
        tags_of(pictures, tmp_path / "t.csv")
    assert tags_of(pictures, tmp_path / "t.csv", tag_columns=("beast",))[0] == THREE
    with pytest.raises(DataError, match="no column 'herd'"):
        tags_of(pictures, tmp_path / "t.csv", tag_columns=("herd",))


def test_what_looks_wrong_is_said():
    def said(counts, pictures=100, untagged=10):
        return " ".join(doubts(tuple(counts), Counter(counts), pictures, untagged))

    assert "differ only in capitals or signs: Hen, hen" in said({"Hen": 30, "hen": 40, "goat": 50})
    assert "consist of other tags" in said({"hen": 30, "goat": 30, "hen goat": 30})
    assert "90 of 90 tags have fewer than 20" in said({f"t{i}x": 2 for i in range(90)})
    assert "classes without a picture: rake" in said({"hen": 30, "rake": 0})
    assert "the tags are numbers" in said({"0": 30, "1": 40})
    assert "folders of the tags are below" in said({"train": 30, "val": 40})
    assert "all pictures have the tag hen" in said({"hen": 100, "goat": 50}, untagged=0)
    assert said({"hen": 50, "goat": 50}) == ""


def test_tags_that_come_together_are_said():
    counts = Counter(face=41, body=46, boat=26, water=58, sky=111, crab=3)
    pairs = Counter({("body", "face"): 41, ("boat", "water"): 25, ("sky", "water"): 30, ("crab", "water"): 3})
    mutual, within = companions(counts, pairs)
    assert "body and face (41 of 46 pictures)" in mutual
    assert "boat with water (25 of 26)" in within
    assert "crab" not in within
    assert "sky" not in within
    assert not [*companions(counts, Counter({("sky", "water"): 30}))]


def test_validation_pictures_that_were_learned_are_said(pictures, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("image,tags\np1.jpg,hen\np2.jpg,goat\n")
    (tmp_path / "v.csv").write_text("image,tags\np2.jpg,goat\np3.jpg,\n")
    data = [str(pictures), "--tags", str(tmp_path / "t.csv"), "--val-tags", str(tmp_path / "v.csv")]
    assert main(["init", *data, "--out", str(tmp_path / "c.toml"), "--weights", "", "--quick"]) == 0
    assert "1 of the 2 validation pictures are training pictures too" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "c.toml")]) == 0
    assert "1 of the 2 validation pictures are training pictures too" in capsys.readouterr().out


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "disk", "found"),
    [
        ("s3://farm/north/0001.jpg", ["north/0001.jpg", "south/0001.jpg"], "north/0001.jpg"),
        ("gs://farm/north/0002.jpg", ["north/0002.jpg"], "north/0002.jpg"),
        ("north/0001.jpg", ["0001.jpg", "photos/north/0001.jpg"], "photos/north/0001.jpg"),
        ("0001.jpg", ["north/0001.jpg", "south/0001.jpg"], None),
        ("north/0001.jpg", ["south/0001.jpg"], None),
        ("0001.jpg", ["north/0001.jpg"], "north/0001.jpg"),
        ("/data/local-files/?d=batch1%5Cf_000.jpg", ["batch1/f_000.jpg"], "batch1/f_000.jpg"),
        ("/data/local-files/?d=a/b%20c.jpg", ["a/b c.jpg"], "a/b c.jpg"),
        ("/data/local-files/?d=a+b.jpg", ["a+b.jpg"], "a+b.jpg"),
        ("http://host:8080/data/local-files/?d=x/a+b.jpg", ["x/a b.jpg"], "x/a b.jpg"),
        ("/data/upload/1/0123abcd-holiday-1.jpg", ["holiday-1.jpg"], "holiday-1.jpg"),
        ("/data/upload/1/0123abcd-h.jpg", ["0123abcd-h.jpg", "h.jpg"], "0123abcd-h.jpg"),
        ("https://host/x/c%20d.jpg?token=1", ["c d.jpg"], "c d.jpg"),
        ("hen_jpg.rf.0a1b2c.jpg", ["hen.jpg"], "hen.jpg"),
        ("p1.JPG", ["p1.jpg", "P1.JPG"], None),
        ("P1.JPG", ["p1.jpg", "P1.JPG"], "P1.JPG"),
        ("v1.2", ["v1.2.jpg", "v1.png"], "v1.2.jpg"),
        ("100%.jpg", ["100%.jpg"], "100%.jpg"),
        ("a#1.jpg", ["a#1.jpg"], "a#1.jpg"),
        (unicodedata.normalize("NFC", "Hühner.jpg"), [unicodedata.normalize("NFD", "Hühner.jpg")], None),
        ("scan0.png", ["scan0.edited.png"], None),
        ("http://[", ["a.jpg"], None),
        ("..\\label\\12.jpg", ["12.jpg"], "12.jpg"),
    ],
)
def test_which_picture_a_name_means(written, disk, found):
    if found is None and "H" in written:
        found = disk[0]
    assert PictureNames(disk).find(written).picture == found


def test_two_names_that_fit_one_picture_alone_are_not_joined(tmp_path):
    put(tmp_path / "pictures", "0001.jpg")
    (tmp_path / "t.csv").write_text("image,tags\nnorth/0001.jpg,hen\nsouth/0001.jpg,goat\n")
    with pytest.raises(DataError, match=r"'north/0001.jpg' and 'south/0001.jpg' both fit '0001.jpg' alone"):
        tags_of(tmp_path / "pictures", tmp_path / "t.csv")


def test_pictures_that_are_not_there_are_all_listed_or_skipped(pictures, tmp_path):
    (tmp_path / "t.csv").write_text("image,tags\np1.jpg,hen\nx.jpg,hen\ny.jpg,goat\n")
    with pytest.raises(DataError, match=r"2 of 3 pictures cannot be used: picture 'x.jpg' is not in .*'y.jpg'"):
        tags_of(pictures, tmp_path / "t.csv")
    found, notes = tags_of(pictures, tmp_path / "t.csv", unreadable="skip")
    assert found == {"p1.jpg": {"hen"}}
    assert "pictures of the table that are not there, left out: 2" in notes
    assert "in the folder but not in the table, left out: 2 pictures (p2.jpg, p3.jpg)" in notes


@pytest.mark.parametrize("name", ["x" * 230, "/".join(["folder-with-a-long-name"] * 10) + "/p"])
def test_long_names(tmp_path, name):
    put(tmp_path / "pictures" / "hen", f"{name}.jpg", "short.jpg")
    dataset = load_folder(FolderData(root=tmp_path / "pictures"), "train")
    assert all(len(sample.name.encode()) <= 200 for sample in dataset.samples)
    assert len({sample.name for sample in dataset.samples}) == 2
    write_palette_png(tmp_path / "out" / f"{name}.png", np.zeros((3, 3), np.uint8))
    write_palette_png(tmp_path / "out" / f"{sample_name(name + '.jpg')}.png", np.zeros((3, 3), np.uint8))


def test_names_that_join_to_one_say_so(tmp_path):
    put(tmp_path / "hen", "a__b.jpg", "a/b.jpg")
    with pytest.raises(DataError, match="would both be called 'hen__a__b'"):
        load_folder(FolderData(root=tmp_path), "train")
    (tmp_path / "hen" / "a__b.jpg").rename(tmp_path / "hen" / "b.png")
    put(tmp_path / "hen", "b.jpg")
    with pytest.raises(DataError, match="differ only in their suffix"):
        load_folder(FolderData(root=tmp_path), "train")


# Folders -------------------------------------------------------------------------------------------------------------


def test_what_a_mac_and_jupyter_leave_behind_is_no_class(tmp_path):
    left = (
        "__MACOSX/hen/1.jpg",
        "hen/.ipynb_checkpoints/1-checkpoint.jpg",
        "goat/.thumbnails/3.jpg",
        "hen/._1.jpg",
        "@eaDir/1.jpg",
    )
    put(tmp_path, "hen/1.jpg", "goat/2.jpg", *left)
    dataset = load_folder(FolderData(root=tmp_path), "train")
    assert dataset.classes == ("goat", "hen")
    assert len(dataset.samples) == 2


def test_suffixes_that_are_read_and_those_that_are_not(tmp_path):
    put(tmp_path / "hen", "5.jfif", "6.jpe", "1.jpg", "8.JPEG")
    Image.new("RGB", (9, 9)).save(tmp_path / "hen" / "7.gif")
    (tmp_path / "hen" / "9.nef").write_bytes(b"x")
    put(tmp_path, "loose.jpg")
    dataset = load_folder(FolderData(root=tmp_path), "train")
    assert sorted(sample.name for sample in dataset.samples) == ["hen__1", "hen__5", "hen__6", "hen__7", "hen__8"]
    assert "1 .nef" in " ".join(dataset.notes)
    assert "in no folder of a tag, left out: 1 picture (loose.jpg)" in " ".join(dataset.notes)


# Labelling tools -----------------------------------------------------------------------------------------------------


def task(address, *values, **more):
    results = [{"value": value, "from_name": "what", "to_name": "image", "type": "x"} for value in values]
    return {"data": {"image": address}, "annotations": [{"result": results, "was_cancelled": False}], **more}


def test_label_studio_tasks_that_say_nothing_are_left_out(tmp_path):
    skipped = {"result": [{"value": {"choices": ["hen"]}}], "was_cancelled": True}
    tasks = [
        task("done.jpg", {"choices": ["hen"]}),
        task("empty.jpg"),
        {"data": {"image": "skipped.jpg"}, "annotations": [skipped], "predictions": []},
        {"data": {"image": "new.jpg"}, "annotations": [], "predictions": [], "drafts": []},
        {"data": {"image": "draft.jpg"}, "annotations": [], "drafts": [{"result": []}]},
        {"data": {"image": "guess.jpg"}, "annotations": [], "predictions": [{"result": [{"value": {"choices": ["goat"]}}]}]},
    ]
    (tmp_path / "t.json").write_text(json.dumps(tasks))
    table = read_tags(tmp_path / "t.json")
    assert table.tags == {"done.jpg": {"hen"}, "empty.jpg": set(), "guess.jpg": {"goat"}}
    notes = " | ".join(table.notes)
    for words in ("were skipped: 1", "are not begun: 1", "are drafts: 1", "only a model has labelled, taken as it says: 1"):
        assert words in notes


def test_label_studio_before_1_0_and_other_shapes(tmp_path):
    former = task("a.jpg", {"rectanglelabels": ["hen"]})
    former["completions"] = former.pop("annotations")
    other_key = task("x", {"taxonomy": [["animal", "goat"], ["animal", "hen"]]})
    other_key["data"] = {"captioning": "/data/local-files/?d=b.jpg", "note": "seen at dusk"}
    (tmp_path / "t.json").write_text(json.dumps([former, other_key]))
    assert read_tags(tmp_path / "t.json").tags == {"a.jpg": {"hen"}, "/data/local-files/?d=b.jpg": {"goat", "hen"}}
    (tmp_path / "one.json").write_text(json.dumps(former))
    assert read_tags(tmp_path / "one.json").tags == {"a.jpg": {"hen"}}
    (tmp_path / "ids.json").write_text(json.dumps([{"data": {"image": "a.jpg"}, "annotations": [7]}]))
    with pytest.raises(DataError, match="its annotations are numbers"):
        read_tags(tmp_path / "ids.json")


def test_label_studios_short_form_has_results_under_any_name(tmp_path):
    end = {"annotator": 3, "annotation_id": 21, "created_at": "x", "updated_at": "x", "lead_time": 4.2}
    rows = [
        {"image": "1.jpg", "site": "north", "id": 11, "animal": "hen", **end},
        {"image": "2.jpg", "site": "north", "id": 12, "animal": {"choices": ["hen", "goat"]}, **end},
        {"image": "3.jpg", "id": 13, "bbox": [{"x": 1, "rectanglelabels": ["goat"]}], **end},
        {"image": "4.jpg", "id": 14, **end},
        {"image": "5.jpg", "id": 15, **end, "annotation_id": None},
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    table = read_tags(tmp_path / "t.json")
    assert table.tags == {"1.jpg": {"hen"}, "2.jpg": {"hen", "goat"}, "3.jpg": {"goat"}, "4.jpg": set()}
    assert "fields not read: site" in table.notes
    assert any("are not begun: 1" in note for note in table.notes)


def cvat(*images):
    return f"<annotations><version>1.1</version>{''.join(images)}</annotations>"


def test_cvat(tmp_path, pictures):
    (tmp_path / "video.xml").write_text(cvat('<track id="0" label="hen"><box frame="0"/></track>'))
    with pytest.raises(DataError, match="tracks of a video"):
        read_tags(tmp_path / "video.xml")
    (tmp_path / "project.xml").write_text(
        cvat(
            '<image id="0" name="p1.jpg" subset="Train" task_id="4"><box label="hen"/></image>',
            '<image id="1" name="p1.jpg" subset="Train" task_id="5"><box label="goat"/></image>',
            '<image id="2" name="p2.jpg" subset="Val"><tag label="goat"><attribute name="age">1</attribute></tag></image>',
        )
    )
    found, notes = tags_of(pictures, tmp_path / "project.xml")
    assert found == {"p1.jpg": {"hen", "goat"}, "p2.jpg": {"goat"}}
    assert "tags joined: 1 picture (Train/p1.jpg)" in notes
    assert "attributes of labels, not read: age" in notes


def voc_xml(path, filename, *names, part=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(f"<object><name>{name}</name>{part}</object>" for name in names)
    path.write_text(f"<annotation><filename>{filename}</filename>{objects}</annotation>")


def test_vocs_files(tmp_path):
    put(tmp_path / "pictures", "north/p1.jpg", "south/p2.jpg")
    xml = tmp_path / "xml"
    voc_xml(xml / "north" / "p1.xml", "p1", "hen", part="<part><name>beak</name></part>")
    voc_xml(xml / "south" / "p2.xml", "p2.JPG", "goat")
    (xml / "layout.xml").write_text("<dataset/>")
    found, notes = tags_of(tmp_path / "pictures", xml)
    assert found == {"north/p1.jpg": {"hen"}, "south/p2.jpg": {"goat"}}
    assert "no annotations, left out: layout.xml (1)" in notes
    with pytest.raises(DataError, match="annotation of one picture; give the folder"):
        read_tags(xml / "north" / "p1.xml")


def coco(root, images, annotations, categories=("hen", "goat")):
    put(root / "train", *(image["file_name"] for image in images))
    (root / "annotations").mkdir(parents=True)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in enumerate(categories)],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    config = CocoData(root=root, train_split="train", seed_split="train", val_split="train")
    return load_coco(config, "train"), read_tags(root / "annotations" / "instances_train.json").tags


SQUARE = [[1, 1, 9, 1, 9, 9, 1, 9]]


def image(number, name, **more):
    return {"id": number, "file_name": name, "width": 40, "height": 30, **more}


def test_cocos_ids_as_texts_floats_missing_and_twice(tmp_path):
    images = [image("yard_1", "north/p1.jpg", width=40.0), image(7.0, "south/p1.jpg"), image("8", "p3.jpg")]
    annotations = [
        {"image_id": "yard_1", "category_id": 0, "segmentation": SQUARE},
        {"id": 5, "image_id": 7, "category_id": "1", "segmentation": SQUARE},
        {"id": 5, "image_id": 7, "category_id": 0.0, "segmentation": SQUARE},
    ]
    dataset, tags = coco(tmp_path / "c", images, annotations)
    assert tags == {"north/p1.jpg": {"hen"}, "south/p1.jpg": {"goat", "hen"}, "p3.jpg": set()}
    found = {sample.name: (set(sample.tags), sample.open_mask().sum() > 0) for sample in dataset.samples}
    assert found == {"north__p1": ({"hen"}, True), "south__p1": ({"goat", "hen"}, True), "p3": (set(), False)}


@pytest.mark.parametrize("boxes", [{"segmentation": []}, {"segmentation": None}, {}])
def test_boxes_alone_are_no_masks(tmp_path, boxes):
    box = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5], **boxes}
    dataset, _ = coco(tmp_path / "a", [image(1, "p1.jpg"), image(2, "p2.jpg")], [box])
    assert [sample.open_mask for sample in dataset.samples] == [None, None]
    outline = {"id": 2, "image_id": 2, "category_id": 0, "segmentation": SQUARE}
    dataset, _ = coco(tmp_path / "b", [image(1, "p1.jpg"), image(2, "p2.jpg")], [box, outline])
    assert [sample.open_mask is not None for sample in dataset.samples] == [False, True]
    assert "1 of 2 pictures have boxes without outlines" in dataset.notes[0]


# Masks ---------------------------------------------------------------------------------------------------------------


def test_masks_that_are_looked_for(pictures, tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("image,tags\np1.jpg,hen\np2.jpg,goat\n")
    with pytest.raises(DataError, match="no such folder of masks"):
        tags_of(pictures, tmp_path / "t.csv", masks="mask")
    write_palette_png(tmp_path / "true" / "p1_mask.png", np.ones((30, 40), np.uint8))
    monkeypatch.chdir(tmp_path)
    assert "0 of 2 pictures have a mask" in tags_of(pictures, tmp_path / "t.csv", masks="true")[1]
    (tmp_path / "true" / "p1_mask.png").rename(tmp_path / "true" / "p1.PNG")
    assert "1 of 2 pictures have a mask" in tags_of(pictures, tmp_path / "t.csv", masks="true")[1]


def test_masks_in_the_colours_of_cvat(pictures, tmp_path):
    (tmp_path / "t.csv").write_text("image,tags\np1.jpg,hen\np2.jpg,goat\n")
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[:10] = (250, 50, 83)
    colours[20:] = (9, 9, 9)
    (tmp_path / "m" / "SegmentationClass").mkdir(parents=True)
    Image.fromarray(colours).save(tmp_path / "m" / "SegmentationClass" / "p1.png")
    options = FolderData(root=pictures, tags=tmp_path / "t.csv", masks=str(tmp_path / "m" / "SegmentationClass"))
    with pytest.raises(DataError, match=r"labelmap.txt"):
        load_folder(options, "val").samples[0].open_mask()
    labels = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nhen:250,50,83::\nrake:9,9,9::\n"
    (tmp_path / "m" / "labelmap.txt").write_text(labels)
    mask = load_folder(options, "val").samples[0].open_mask()
    assert (mask[:10] == 2).all(), "the second class in order"
    assert (mask[10:] == 0).all(), "a label that is no class"
    assert main(["evaluate", "--pred", str(options.masks), "--truth", str(options.masks), "--num-classes", "3"]) == 0


def test_evaluate_says_what_it_scored(tmp_path, capsys):
    for folder, names in (("truth", ("a.png", "b.PNG", "deep/c.png")), ("pred", ("a.png", "b.png", "deep/c.png", "extra.png"))):
        for name in names:
            write_palette_png(tmp_path / folder / name.replace("PNG", "png"), np.eye(4, dtype=np.uint8))
            if name.endswith("PNG"):
                (tmp_path / folder / "b.png").rename(tmp_path / folder / name)
    scored = ["evaluate", "--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth"), "--num-classes", "2"]
    assert main([*scored, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["pictures"] == 3
    assert "predictions that were not scored: 1 (extra)" in said.err
    write_palette_png(tmp_path / "truth" / "b.PNG", np.zeros((4, 4), np.uint8))
    assert main([*scored, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["miou"] < 100


@pytest.mark.parametrize(
    "line", ["with blanks", "/JPEGImages/with blanks.jpg /SegmentationClassAug/x.png", "JPEGImages\\with blanks.jpg"]
)
def test_lists_of_names(tmp_path, line, capsys):
    if line.startswith("/"):
        line = line.replace("with blanks", "plain")
    for folder in ("pred", "truth"):
        for name in ("with blanks", "plain"):
            write_palette_png(tmp_path / folder / f"{name}.png", np.eye(4, dtype=np.uint8))
    (tmp_path / "list.txt").write_text(line + "\n")
    folders = ["--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth")]
    assert main(["evaluate", *folders, "--num-classes", "2", "--list", str(tmp_path / "list.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 1


# Pictures ------------------------------------------------------------------------------------------------------------


def grey(path, values):
    Image.fromarray(values).save(path)
    return np.asarray(read_image(path))[..., 0]


def test_numbers_of_any_depth(tmp_path):
    ramp = np.linspace(0, 255, 40 * 30).reshape(30, 40).round()
    assert np.array_equal(grey(tmp_path / "i.tif", ramp.astype(np.int32)), ramp)
    assert np.array_equal(grey(tmp_path / "f.tif", ramp.astype(np.float32)), ramp)
    assert np.array_equal(grey(tmp_path / "u.tif", (ramp * 257).astype(np.uint16)), ramp)
    assert np.abs(grey(tmp_path / "n.tif", (ramp / 255).astype(np.float32)).astype(int) - ramp).max() <= 1
    holes = ramp.astype(np.float32)
    holes[0, 0] = np.nan
    assert np.array_equal(grey(tmp_path / "h.tif", holes), ramp)
    with pytest.raises(DataError, match=r"b.tif: its values go from -1 to"):
        grey(tmp_path / "b.tif", ramp.astype(np.float32) - 1)


def test_pictures_that_are_nearly_black_are_said(tmp_path):
    put(tmp_path / "hen", "1.jpg")
    assert len(check_data(FolderData(root=tmp_path)).dark) == 1


@pytest.mark.parametrize(("highest", "bits"), [(255, 8), (4095, 12), (65535, 16)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_contrast(tmp_path, highest, bits, suffix):
    values = np.linspace(0, highest, 1200).reshape(30, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    found = np.asarray(read_image(tmp_path / f"x.{suffix}"))[..., 0].astype(int)
    assert np.abs(found - values / (2**bits - 1) * 255).max() <= 1
    assert check_image(tmp_path / f"x.{suffix}").remarks == (() if bits == 16 else ("bits",))


def test_pages_frames_and_previews(tmp_path):
    picture, other = (Image.effect_noise((40, 30), 90).convert("RGB") for _ in range(2))
    picture.save(tmp_path / "pages.tif", save_all=True, append_images=[other, other])
    picture.save(tmp_path / "preview.tif", save_all=True, append_images=[other.resize((20, 15))])
    picture.save(tmp_path / "moving.gif", save_all=True, append_images=[other])
    assert np.array_equal(np.asarray(read_image(tmp_path / "pages.tif")), np.asarray(picture))
    assert [check_image(tmp_path / name).remarks for name in ("pages.tif", "preview.tif", "moving.gif")] == [
        ("pages",),
        (),
        ("pages",),
    ]


def test_damaged_further_pages_are_no_fault_of_the_first(tmp_path):
    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    picture.save(tmp_path / "one.tif")
    content = bytearray((tmp_path / "one.tif").read_bytes())
    first = struct.unpack("<I", content[4:8])[0]
    entries = struct.unpack("<H", content[first : first + 2])[0]
    content[first + 2 + 12 * entries : first + 6 + 12 * entries] = struct.pack("<I", len(content) + 1000)  # no such page
    (tmp_path / "one.tif").write_bytes(content)
    picture.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.effect_noise((40, 30), 50).convert("RGB")] * 3)
    (tmp_path / "moving.gif").write_bytes((tmp_path / "moving.gif").read_bytes()[:-900])
    for name in ("one.tif", "moving.gif"):
        assert check_image(tmp_path / name).size == read_image(tmp_path / name).size == (40, 30)


def test_single_bright_pixels_are_not_black(tmp_path):
    night = np.zeros((800, 800), np.uint8)
    night[50::100, 50::100] = 255
    Image.fromarray(night).convert("RGB").save(tmp_path / "night.jpg", quality=95)
    Image.new("RGB", (800, 800), (9, 9, 9)).save(tmp_path / "black.jpg")
    assert check_image(tmp_path / "night.jpg").remarks == ()
    assert check_image(tmp_path / "black.jpg").remarks == ("dark",)


@pytest.mark.parametrize("highest", [255, 4095, 65535])
def test_a_file_and_its_array_are_the_same_picture(tmp_path, highest):
    values = np.linspace(0, highest, 1200).reshape(30, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.array_equal(np.asarray(array_to_rgb(values)), np.asarray(read_image(tmp_path / "x.png")))


def test_what_is_odd_about_readable_pictures_is_counted(tmp_path):
    (tmp_path / "hen").mkdir()
    deep = np.linspace(0, 4095, 1200).reshape(30, 40).astype(np.uint16)
    for number in range(3):
        Image.fromarray(deep).save(tmp_path / "hen" / f"{number}.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "hen" / "night.jpg")
    dataset = load_folder(FolderData(root=tmp_path), "train")
    for _ in range(2):  # the second time from memory
        notes = readable(dataset, "stop", tmp_path / "pictures.json").notes
        assert [note for note in notes if note.startswith(("grey 16-bit", "pictures that are nearly black"))] == [
            f"grey 16-bit pictures whose values use 8 or 12 bits, scaled by these: 3 ({tmp_path / 'hen' / '0.png'}, ...)",
            "pictures that are nearly black (all values below 40 of 255); spread their values over the range of their file: "
            f"1 ({tmp_path / 'hen' / 'night.jpg'})",
        ]


@pytest.mark.parametrize("kind", ["profile", "text"])
def test_large_profiles_and_texts_are_no_pixels(tmp_path, kind):
    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    more = PngImagePlugin.PngInfo()
    if kind == "text":
        more.add_text("x", "y" * 3_000_000, zip=True)
    picture.save(tmp_path / "x.png", pnginfo=more, icc_profile=bytes(3_000_000) if kind == "profile" else None)
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), np.asarray(picture))
    assert check_image(tmp_path / "x.png").size == (40, 30)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_files_that_are_no_pictures_say_what_they_are(tmp_path, content, why):
    (tmp_path / "x.jpg").write_bytes(content)
    for read in (read_image, check_image):
        with pytest.raises(DataError, match=f"x.jpg: cannot be read as a picture .*{why}"):
            read(tmp_path / "x.jpg")


def test_checking_finds_what_reading_finds(tmp_path):
    stream = io.BytesIO()
    Image.effect_noise((400, 300), 90).convert("RGB").save(stream, "JPEG", exif=_turned())
    whole = stream.getvalue()
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert check_image(tmp_path / "whole.jpg").size == (300, 400) == read_image(tmp_path / "whole.jpg").size
    for length in (300, len(whole) // 2, len(whole) - 40):
        (tmp_path / "cut.jpg").write_bytes(whole[:length])
        for read in (read_image, check_image):
            with pytest.raises(DataError):
                read(tmp_path / "cut.jpg")


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


# What a second look found -------------------------------------------------------------------------------------------

MORE_TABLES = {
    "tags in columns without a name": ("image,tags,,\np1.jpg,hen,,\np2.jpg,hen,goat,\np3.jpg,,,\n", ""),
    "blanks before quotes": ('image, tags\n"p1.jpg", "hen"\n"p2.jpg", "hen,goat"\n"p3.jpg", ""\n', ""),
    "a Mac's line ends": ("image,tags\rp1.jpg,hen\rp2.jpg,hen|goat\rp3.jpg,\r", ""),
    "an empty line and a comment first": ("\n# our hens\nimage,tags\np1.jpg,hen\np2.jpg,hen|goat\np3.jpg,\n", ""),
    "lists with null": ('image,tags\np1.jpg,"[""hen"", null]"\np2.jpg,"[[""hen""], [""goat""]]"\np3.jpg,[null]\n', ""),
    "words that are true or false": (
        'image,tags\np1.jpg,"{""hen"": 1, ""goat"": 0}"\np2.jpg,"{""hen"":1,""goat"":1}"\np3.jpg,{}\n',
        "",
    ),
    "Open Images' absent tags": (
        "ImageID,LabelName,Confidence\np1,hen,1\np1,goat,0\np2,hen,1\np2,goat,1\np3,hen,0\n",
        "confidence of 0",
    ),
    "a line break between tags": ('image,tags\np1.jpg,hen\np2.jpg,"hen\ngoat"\np3.jpg,\n', ""),
    "Chinese commas": ("image,tags\np1.jpg,hen\np2.jpg,hen\uff0cgoat\np3.jpg,\n", ""),
    "no header, a subset and numbers": ("TRAIN,p1.jpg,hen,1.5\nTEST,p2.jpg,hen|goat,2\nTEST,p3.jpg,,3\n", "no header"),
    "VIA": (
        'filename,file_size,region_count,region_id,region_attributes\np1.jpg,1,1,0,"{""label"":""hen""}"\n'
        'p2.jpg,1,1,0,"{""label"":{""hen"":true,""goat"":true,""cow"":false}}"\np3.jpg,1,0,0,{}\n',
        "region_attributes",
    ),
}


@pytest.mark.parametrize("case", MORE_TABLES)
def test_more_tables(pictures, tmp_path, case):
    text, note = MORE_TABLES[case]
    (tmp_path / "t.csv").write_bytes(text.encode())
    found, notes = tags_of(pictures, tmp_path / "t.csv")
    assert found == THREE
    assert note in notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,tags\np1.jpg,"hen\np2.jpg,goat\n', "a quote is not closed"),
        ("image,tags,split\np1.jpg,hen,goat,train\n", "line 2: has 4 cells, and the header 3"),
        ('image,tags\np1.jpg,"[{""x"": 3}]"\n', "1 values hold no tag that can be read"),
    ],
)
def test_tables_that_would_lose_tags_are_refused(pictures, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        tags_of(pictures, tmp_path / "t.csv")


def test_lists_of_objects(pictures, tmp_path):
    rows = [{"image": "p1.jpg", "tags": "hen"}, {"image": "p2.jpg", "tags": "hen|goat"}, {"image": "p3.jpg", "tags": []}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    assert tags_of(pictures, tmp_path / "t.json")[0] == THREE
    other = [{"image": row["image"], "species": row["tags"], "by": "Anna"} for row in rows[:2]]
    (tmp_path / "o.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="which of species, by are tags"):
        tags_of(pictures, tmp_path / "o.json")
    found = tags_of(pictures, tmp_path / "o.json", tag_columns=("species",))[0]
    assert found == {name: tags for name, tags in THREE.items() if tags}


def test_ids_that_several_have_are_refused(tmp_path):
    content = {"categories": [{"id": 1, "name": "hen"}], "annotations": []}
    (tmp_path / "t.json").write_text(json.dumps({**content, "images": [image(1, "a.jpg"), image(1, "b.jpg")]}))
    with pytest.raises(DataError, match="1 images have an id that another one has"):
        read_tags(tmp_path / "t.json")
    (tmp_path / "t.json").write_text(json.dumps({**content, "images": [image("001", "a.jpg"), image("1", "b.jpg")]}))
    assert set(read_tags(tmp_path / "t.json").tags) == {"a.jpg", "b.jpg"}


def test_links_unknown_files_and_empty_folders(tmp_path):
    put(tmp_path / "elsewhere", "1.jpg")
    put(tmp_path / "set", "goat/2.jpg", "None/3.jpg")
    (tmp_path / "set" / "hen").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "goat" / "again").symlink_to(tmp_path / "set")  # no end, if it were followed for ever
    (tmp_path / "set" / "goat" / "4.jpg_large").write_bytes(b"x")
    (tmp_path / "set" / "rake").mkdir()
    dataset = load_folder(FolderData(root=tmp_path / "set"), "train")
    assert {sample.name: set(sample.tags) for sample in dataset.samples} == {
        "goat__2": {"goat"}, "None__3": set(), "hen__1": {"hen"},
    }  # fmt: skip
    notes = " ".join(dataset.notes)
    assert "files of no known suffix, left out: 1 ('goat/4.jpg_large')" in notes
    assert "folders without a picture, left out: rake" in notes
    (tmp_path / "t.csv").write_text("image,tags\nhen/1.jpg,hen\n")
    assert tags_of(tmp_path / "set", tmp_path / "t.csv")[0] == {"hen/1.jpg": {"hen"}}


def test_many_pictures_of_one_name_are_found_soon():
    names = PictureNames(f"scene_{i:05d}/rgb.png" for i in range(5000))
    begin = time.perf_counter()
    for i in range(5000):
        assert names.find(f"D:\\data\\scene_{i:05d}\\rgb.PNG").picture == f"scene_{i:05d}/rgb.png"
    assert time.perf_counter() - begin < 30, "minutes, if each were compared with all"


def test_dates_are_no_marks_of_a_tool_on_both_sides():
    assert PictureNames(["20240102-0001.jpg"]).find("20240101-0001.jpg").picture is None
    assert PictureNames(["a_jpg.rf.11.jpg"]).find("a_jpg.rf.22.jpg").picture is None


def test_masks_are_not_taken_for_pictures(tmp_path):
    put(tmp_path, "images/a.jpg")
    write_palette_png(tmp_path / "SegmentationClass" / "a.png", np.ones((30, 40), np.uint8))
    (tmp_path / "t.csv").write_text("image,tags\na.png,hen\n")
    assert tags_of(tmp_path, tmp_path / "t.csv")[0] == {"images/a.jpg": {"hen"}}


def test_grey_masks_of_four_bits(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"\0\x01" + b"\0\x23"  # 0, 1 and 2, 3
    head = struct.pack(">IIBBBBB", 2, 2, 4, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(content)
    assert read_label_image(tmp_path / "m.png").tolist() == [[0, 1], [2, 3]]


def test_postscript_is_never_opened(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match="unknown format"):
        read_image(tmp_path / "x.jpg")
