"""Chooses the reader for a tag file by its suffix and, for JSON, by its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mupvss.data.tags.exports import tags_from_coco, tags_from_cvat, tags_from_voc_folder
from mupvss.data.tags.label_studio import tags_from_label_studio
from mupvss.data.tags.table import read_csv, read_jsonl, rows_to_tags
from mupvss.errors import DataError

Tags = dict[str, frozenset[str]]
"""Picture name as written -> its tags; a picture without any is a valid negative."""

READABLE = ".csv or .jsonl (a picture and its tags per row), .json (COCO, Label Studio), .xml (CVAT) or a folder of VOC's XML"


def read_tags(path: Path) -> Tags:
    """Reads tags in any known form. DataError, naming the file and if possible the line, for whatever cannot be understood."""
    if path.is_dir():
        return _not_empty(tags_from_voc_folder(path), path)
    if not path.is_file():
        raise DataError(f"{path}: no such tag table; give {READABLE}")
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            return _not_empty(rows_to_tags(read_csv(path), path), path)
        if suffix == ".jsonl":
            return _not_empty(rows_to_tags(read_jsonl(path), path), path)
        if suffix == ".json":
            return _not_empty(_from_json(path), path)
        if suffix == ".xml":
            return _not_empty(tags_from_cvat(path), path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    raise DataError(f"{path}: tag tables are {READABLE}, not '{path.suffix}'")


def _from_json(path: Path) -> Tags:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if isinstance(content, dict) and "images" in content:
        return tags_from_coco(content, path)
    if isinstance(content, list):
        return tags_from_label_studio(content, path)
    raise DataError(f'{path}: neither COCO ("images", "annotations", "categories") nor a list of Label Studio tasks')


def _not_empty(tags: Tags, path: Path) -> Tags:
    if not tags:
        raise DataError(f"{path}: the table lists no picture; expected rows like 'cat01.jpg,cat|person'")
    return tags
