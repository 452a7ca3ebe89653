"""Chooses the reader for a tag file by its suffix and, for JSON, by its content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mupvss.data.tags.exports import files_of, parse_xml, read_coco, read_cvat, read_labelme_folder, read_voc_folder
from mupvss.data.tags.label_studio import read_label_studio
from mupvss.data.tags.table import decoded, read_csv, read_jsonl
from mupvss.data.tags.tag_table import TagTable
from mupvss.data.tags.words import Words
from mupvss.errors import DataError

READABLE = (
    ".csv or .jsonl (a picture and its tags per row), .json (COCO, Label Studio), .xml (CVAT), or a folder of VOC's XML or "
    "LabelMe's JSON"
)


def read_tags(path: Path, separator: str | None = None, tag_columns: Sequence[str] = ()) -> TagTable:
    """Read tags in any known form.

    Args:
        path: A .csv, .tsv, .jsonl, .json or .xml file, or a folder of VOC's XML or LabelMe's JSON files.
        separator: Separator of the tags in a cell; None: any of | ; and comma. A blank stands for any number of blanks.
        tag_columns: Names of the tag columns, for a table that does not call them tags, labels or the like.

    Returns:
        The tags by picture, and what was left out or guessed.

    Raises:
        DataError: The file cannot be understood; the message names it and, if possible, the line.
    """
    table = TagTable(path, words=Words(separator))
    if not path.exists():
        raise DataError(f"{path}: no such tag table; give {READABLE}")
    suffix = path.suffix.lower()
    if path.is_dir():
        _read_folder(path, table)
    elif suffix in (".csv", ".tsv"):
        read_csv(path, table, tag_columns)
    elif suffix in (".jsonl", ".ndjson"):
        read_jsonl(path, table)
    elif suffix == ".json":
        _read_json(path, table, tag_columns)
    elif suffix == ".xml":
        _read_xml(path, table)
    else:
        raise DataError(f"{path}: tag tables are {READABLE}, not '{path.suffix}'")
    if not table.tags:
        left = f" ({'; '.join(table.notes)})" if table.notes else ""
        raise DataError(f"{path}: the table lists no picture{left}; expected rows like 'cat01.jpg,cat|person'")
    return table.finish()


def _read_folder(path: Path, table: TagTable) -> None:
    read_voc_folder(path, table)
    if not table.tags:
        read_labelme_folder(path, table)
    elif others := files_of(path, ".json"):
        table.notes.append(f"JSON files beside the XML files, not read: {len(others)}")


def _read_xml(path: Path, table: TagTable) -> None:
    root = parse_xml(path)
    if root.tag == "annotation":
        raise DataError(f"{path}: is the annotation of one picture; give the folder that holds all of them")
    read_cvat(root, table)


def _read_json(path: Path, table: TagTable, tag_columns: Sequence[str]) -> None:
    try:
        content: Any = json.loads(decoded(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if isinstance(content, dict) and "images" in content:
        read_coco(content, table)
    elif isinstance(content, list):
        read_label_studio(content, table, tag_columns)
    elif isinstance(content, dict) and "data" in content and ("annotations" in content or "completions" in content):
        read_label_studio([content], table)  # the export of one task
    else:
        raise DataError(f'{path}: neither COCO ("images", "annotations", "categories") nor a list of Label Studio tasks')
