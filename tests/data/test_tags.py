"""Tags from every form they come in, the same in all of them, and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mupvss.data.tags import read_tags, write_tags
from mupvss.errors import DataError

EXPECTED = {"cats/a.jpg": {"cat", "dog"}, "b.png": {"dog"}, "c.jpg": set()}


def coco():
    return {
        "images": [{"id": i, "file_name": name, "width": 4, "height": 4} for i, name in enumerate(EXPECTED, 1)],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 17},
            {"id": 2, "image_id": 1, "category_id": 18},
            {"id": 3, "image_id": 1, "category_id": 18},
            {"id": 4, "image_id": 2, "category_id": 18},
        ],
    }


def label_studio():
    def task(name, *values, **more):
        results = [{"value": value, "type": "x", "from_name": "label", "to_name": "image"} for value in values]
        return {"data": {"image": name}, "annotations": [{"result": results}], **more}

    guessed = [{"result": [{"value": {"choices": ["person"]}}]}]
    skipped = {"was_cancelled": True, "result": [{"value": {"choices": ["person"]}}]}
    second = {"data": {"image": "b.png"}, "annotations": [], "predictions": []}
    second["predictions"] = [{"result": [{"value": {"brushlabels": ["dog"], "format": "rle", "rle": [1, 2]}}]}]
    left = {"data": {"image": "left.jpg"}, "annotations": [skipped], "predictions": guessed}
    return [
        left,
        task("cats/a.jpg", {"polygonlabels": ["cat"], "points": [[1, 2]]}, {"choices": ["dog"]}, predictions=guessed),
        second,
        task("c.jpg"),
    ]


def label_studio_min():
    return [
        {"image": "/data/upload/3/1a2b3c4d-b.png", "id": 1, "choice": "dog", "annotator": 1},
        {"image": "https://host/x/c%20d.jpg", "id": 2, "label": [{"rectanglelabels": ["cat"], "x": 1}, {"brushlabels": ["dog"]}]},
        {"image": "e.jpg", "id": 3, "tags": {"choices": ["cat", "dog"]}},
    ]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="cats/a.jpg" width="4" height="4"><box label="cat" xtl="1"/><polygon label="dog" points="1,1;2,2;3,1"/></image>
<image id="1" name="b.png" width="4" height="4"><tag label="dog" source="manual"/><mask label="dog" rle="1, 2"/></image>
<image id="2" name="c.jpg" width="4" height="4"></image>
</annotations>"""


def voc_folder(path):
    path.mkdir()
    for i, (name, tags) in enumerate(EXPECTED.items()):
        objects = "".join(f"<object><name>{tag}</name></object>" for tag in sorted(tags))
        (path / f"{i}.xml").write_text(f"<annotation><filename>{name}</filename>{objects}</annotation>")
    return path


def test_the_same_tags_in_every_form(tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps(coco()))
    (tmp_path / "studio.json").write_text(json.dumps(label_studio()))
    (tmp_path / "cvat.xml").write_text(CVAT)
    write_tags(tmp_path / "t.csv", EXPECTED)
    write_tags(tmp_path / "t.jsonl", EXPECTED)
    for path in ("coco.json", "studio.json", "cvat.xml", "t.csv", "t.jsonl"):
        assert read_tags(tmp_path / path).tags == EXPECTED, path
    assert read_tags(voc_folder(tmp_path / "xml")).tags == EXPECTED


def test_label_studios_short_form(tmp_path):
    (tmp_path / "min.json").write_text(json.dumps(label_studio_min()))
    found = {"/data/upload/3/1a2b3c4d-b.png": {"dog"}, "https://host/x/c%20d.jpg": {"cat", "dog"}, "e.jpg": {"cat", "dog"}}
    assert read_tags(tmp_path / "min.json").tags == found


STRAY = {"id": 9, "image_id": 77, "category_id": 17}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", "{", "not valid JSON"),
        ("t.json", "3", "neither COCO"),
        ("t.json", '{"images": [{"id": 1}], "categories": [], "annotations": []}', "not COCO's instance format"),
        ("t.json", '{"images": [], "categories": [], "annotations": []}', "lists no picture"),
        ("t.json", json.dumps({**coco(), "annotations": [STRAY]}), "annotation 9 names image 77"),
        ("t.json", "[1]", "task 1 is not an object"),
        ("t.json", '[{"data": {"text": "x"}}]', "task 1 names no picture"),
        ("t.xml", "<a", "not valid XML"),
        ("t.xml", '<!DOCTYPE x [<!ENTITY a "aa">]><a>&a;</a>', "document type"),
        ("t.xml", "<annotations><image/></annotations>", "without a name"),
        ("t.xml", "<annotations/>", "lists no picture"),
    ],
)  # fmt: skip
def test_bad_files_say_what_is_wrong(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        read_tags(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def read_or_refuse(path):
    try:
        found = read_tags(path).tags
    except DataError as error:
        message = str(error)
    else:
        message = str(path)
        assert all(isinstance(tag, str) for tags in found.values() for tag in tags)
    assert path.name in message


@pytest.mark.parametrize("name", ["t.json", "t.xml", "t.csv", "t.jsonl"])
@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_tags_or_a_clear_error(tmp_path_factory, name, content):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(content)
    read_or_refuse(path)


KEYS = ("image", "images", "data", "annotations", "result", "value", "choices", "labels", "id", "categories", "predictions")
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(KEYS), x, max_size=4), max_leaves=12
)


@settings(max_examples=300, deadline=None)
@given(value=VALUES)
def test_any_json_is_tags_or_a_clear_error(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("any") / "t.json"
    path.write_text(json.dumps(value))
    read_or_refuse(path)


def test_a_tag_that_a_csv_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match=r"write a \.jsonl"):
        write_tags(tmp_path / "t.csv", {"a.jpg": {"cat|dog"}})
    write_tags(tmp_path / "t.jsonl", {"a.jpg": {"cat|dog"}})
    assert read_tags(tmp_path / "t.jsonl").tags == {"a.jpg": {"cat|dog"}}
    with pytest.raises(ValueError, match=r"not '\.txt'"):
        write_tags(tmp_path / "t.txt", {})
