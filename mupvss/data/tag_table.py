"""Tag tables: CSV (picture, tags parted by | ; or ,) and JSONL (one object with picture and tags per line)."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from mupvss.errors import DataError

PICTURE_KEYS = ("image", "picture", "file", "filename", "path", "name")
TAG_KEYS = ("tags", "labels", "classes", "tag", "label", "class")


def read_tag_table(path: Path) -> dict[str, frozenset[str]]:
    """Picture name as written -> its tags. A picture without a tag is a valid negative; one listed twice is an error."""
    if not path.is_file():
        raise DataError(f"{path}: no such tag table; give a .csv or .jsonl with a picture and its tags per row")
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: tag tables are {' or '.join(readers)}, not '{path.suffix}'")
    try:
        rows = reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    table: dict[str, frozenset[str]] = {}
    for line, picture, tags in rows:
        if picture in table:
            raise DataError(f"{path}, line {line}: picture '{picture}' is listed twice; join its tags in one row")
        table[picture] = frozenset(tags)
    if not table:
        raise DataError(f"{path}: the table lists no picture; expected rows like 'cat01.jpg,cat|person'")
    return table


def _read_csv(path: Path) -> list[tuple[int, str, list[str]]]:
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


def _read_jsonl(path: Path) -> list[tuple[int, str, list[str]]]:
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
