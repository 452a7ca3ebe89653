"""Reads and writes tag tables: CSV (picture, tags separated by | ; or ,) and JSONL (an object with picture and tags per line)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Set
from pathlib import Path

from mupvss.errors import DataError, UserError
from mupvss.files import write_text

PICTURE_KEYS = ("image", "picture", "file", "filename", "path", "name")
TAG_KEYS = ("tags", "labels", "classes", "tag", "label", "class")


Row = tuple[int, str, list[str]]
"""Line, picture, tags."""


def rows_to_tags(rows: list[Row], path: Path) -> dict[str, frozenset[str]]:
    """Rows -> tags by picture. DataError for a picture that is listed twice."""
    table: dict[str, frozenset[str]] = {}
    for line, picture, tags in rows:
        if picture in table:
            raise DataError(f"{path}, line {line}: picture '{picture}' is listed twice; join its tags in one row")
        table[picture] = frozenset(tags)
    return table


def read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        columns = {name.strip().lower(): name for name in reader.fieldnames or () if name}
        picture = next((columns[key] for key in PICTURE_KEYS if key in columns), None)
        tags = next((columns[key] for key in TAG_KEYS if key in columns), None)
        if picture is None or tags is None:
            raise DataError(
                f"{path}, line 1: the header is {list(reader.fieldnames or ())}; expected a picture column "
                f"({', '.join(PICTURE_KEYS[:3])}) and a tag column ({', '.join(TAG_KEYS[:3])})"
            )
        rows = []
        try:
            for row in reader:
                name = (row[picture] or "").strip()
                if not name:
                    raise DataError(f"{path}, line {reader.line_num}: the row names no picture")
                # Unquoted commas between tags spill into the columns that have no header.
                spilled = [row[tags] or "", *(row.get(None) or ())]
                rows.append((reader.line_num, name, split_tags("|".join(spilled))))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None
        return rows


def read_jsonl(path: Path) -> list[Row]:
    rows = []
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not text.strip():
            continue
        try:
            entry = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not valid JSON ({error})") from None
        if not isinstance(entry, dict):
            raise DataError(f"{path}, line {line}: expected an object with a picture and tags")
        picture = next((entry[key] for key in PICTURE_KEYS if key in entry), None)
        tags = next((entry[key] for key in TAG_KEYS if key in entry), None)
        if isinstance(tags, str):
            tags = split_tags(tags)
        if not isinstance(picture, str) or not isinstance(tags, list) or not all(isinstance(t, str) for t in tags):
            raise DataError(f'{path}, line {line}: expected {{"image": "cat01.jpg", "tags": ["cat", "person"]}}')
        rows.append((line, picture, [tag.strip() for tag in tags if tag.strip()]))
    return rows


def split_tags(text: str) -> list[str]:
    """'dog | person' -> ['dog', 'person']."""
    return [tag.strip() for tag in re.split(r"[|;,]", text) if tag.strip()]


def write_tags(path: Path, tags: Mapping[str, Set[str]]) -> None:
    """Writes .csv or .jsonl, in the mapping's order. UserError for another suffix, or a tag that a CSV cannot hold."""
    if path.suffix == ".jsonl":
        lines = (json.dumps({"image": name, "tags": sorted(entry)}, ensure_ascii=False) for name, entry in tags.items())
        write_text(path, "".join(f"{line}\n" for line in lines))
        return
    if path.suffix != ".csv":
        raise UserError(f"{path}: tag tables are written as .csv or .jsonl, not '{path.suffix}'")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("image", "tags"))
    for name, entry in tags.items():
        unfit = [tag for tag in entry if set(tag) & set("|;,")]
        if unfit:
            raise UserError(f"{path}: the tag '{unfit[0]}' has one of | ; , in it; write a .jsonl instead")
        writer.writerow((name, "|".join(sorted(entry))))
    write_text(path, buffer.getvalue())
