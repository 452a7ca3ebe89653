"""Reads and writes tag tables: CSV as people and spreadsheets write it, and JSONL (an object with picture and tags per line)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from mupvss.data.summary import SPLITS
from mupvss.data.tags.columns import PICTURE_KEYS, TAG_KEYS, Columns, find_columns, is_picture_name, is_yes, plain
from mupvss.data.tags.tag_table import TagTable
from mupvss.data.tags.words import SEPARATORS
from mupvss.errors import DataError, UserError
from mupvss.files import write_text

BETWEEN = ",;\t|"
"""Possible separators of the columns of a CSV."""
ANNOTATION = "annotation_id"
"""A column of Label Studio's CSV; empty for a picture that nobody has annotated."""
LONGEST_HEADER = 1 << 16
LONGEST = 1 << 28
"""Largest number of characters in a cell."""


def read_csv(path: Path, table: TagTable, tag_columns: Sequence[str] = ()) -> None:
    """Adds the rows to the table. DataError, with the line, if it is not a table of pictures and tags."""
    header, rows = _header_and_rows(path, table)
    columns = find_columns(header, [cells for _, cells in rows], path, tag_columns)
    table.notes += columns.notes
    nameless = unlabelled = 0
    own = [header.index(name) for name in (ANNOTATION,) if name in header]
    for line, cells in rows:
        if own and not "".join(cells[own[0] : own[0] + 1]).strip():
            unlabelled += 1
            continue
        name = cells[columns.picture].strip() if columns.picture < len(cells) else ""
        if (
            len(cells) > len(header)
            and any(cell.strip() for cell in cells[len(header) :])
            and len(header) - 1 not in columns.tags
        ):
            raise DataError(
                f"{path}, line {line}: has {len(cells)} cells, and the header {len(header)}; quote tags that have commas"
            )
        tags = [] if _is_absent(cells, columns) else _tags_of(cells, header, columns, table)
        if not name and tags:
            raise DataError(f"{path}, line {line}: the row names no picture")
        if name:
            table.add(name, tags)
        else:
            nameless += 1
    if unlabelled:
        table.notes.append(f"tasks left out, since they are not begun: {unlabelled}")
    if nameless:
        table.notes.append(f"rows without a picture and without tags, left out: {nameless}")


def _is_absent(cells: Sequence[str], columns: Columns) -> bool:
    """Whether the row says with a confidence of 0 that its tag is not in the picture."""
    at = columns.confidence
    return at is not None and at < len(cells) and cells[at].strip() in ("0", "0.0")


def _tags_of(cells: Sequence[str], header: Sequence[str], columns: Columns, table: TagTable) -> list[str]:
    if columns.one_each:
        return [header[i].strip() for i in columns.tags if i < len(cells) and is_yes(cells[i])]
    found = [cells[i] for i in columns.tags if i < len(cells)]
    if len(header) - 1 in columns.tags:  # unquoted commas between tags spill into columns that have no header
        found += cells[len(header) :]
    return [tag for cell in found for tag in table.words.of_cell(cell)]


def _header_and_rows(path: Path, table: TagTable) -> tuple[list[str], list[tuple[int, list[str]]]]:
    text = decoded(path)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    skipped = 0
    while text and (not text.split("\n", 1)[0].strip(" \r,;\t") or text.startswith("#")):
        text, skipped = text.partition("\n")[2], skipped + 1
    first, _, rest = text.partition("\n")
    said = re.fullmatch(r"\"?sep=(.?)\"?", first.strip(" \r\n"), re.IGNORECASE)
    if said:  # Excel's line that says what separates columns
        between, text, skipped = said[1] or "\t", rest, skipped + 1
    else:
        between = _between(first[:LONGEST_HEADER])
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
    limit = csv.field_size_limit(LONGEST)  # outlines that a tool writes into a cell are long
    try:
        _check_quotes(text, between)
        rows += [(reader.line_num + skipped, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num + skipped}: not valid CSV ({error})") from None
    finally:
        csv.field_size_limit(limit)
    if between != ",":
        table.notes.append(f"columns are separated by {'tabs' if between == chr(9) else repr(between)}")
    if not rows:
        raise DataError(f"{path}: is empty; expected a header such as 'image,tags', and a row for each picture")
    header = [name.strip() for name in rows[0][1]]
    if any(is_picture_name(cell) for cell in header):
        table.notes.append("the first line is no header: it names a picture")
        width = max(len(cells) for _, cells in rows)
        place = next(i for i, cell in enumerate(header) if is_picture_name(cell))
        return ["image" if i == place else _guessed_name(rows, i) for i in range(width)], rows
    return header, rows[1:]


def _guessed_name(rows: Sequence[tuple[int, list[str]]], column: int) -> str:
    """'tags' for a column without a header that holds words, neither numbers nor the names of subsets."""
    values = {cells[column].strip().lower() for _, cells in rows if column < len(cells)} - {""}
    numbers = all(re.fullmatch(r"-?\d+([.,]\d+)?", value) for value in values)
    return f"column {column + 1}" if values and (numbers or values <= SPLITS | {"unassigned", "validate"}) else "tags"


def _check_quotes(text: str, between: str) -> None:
    """csv.Error if a quote is never closed: the rest of the file would be one cell."""
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True, strict=True):
            pass
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise csv.Error("a quote is not closed") from None


def _between(first: str) -> str:
    """The separator of the columns: one that gives the header a known name if possible, and then the most columns."""

    def rank(sign: str) -> tuple[bool, bool, int]:
        cells = next(csv.reader([first], delimiter=sign), [])
        known = any(plain(cell) in PICTURE_KEYS or plain(cell) in TAG_KEYS for cell in cells)
        return known and len(cells) > 1, any(is_picture_name(cell) for cell in cells), len(cells)

    return max(BETWEEN, key=rank)


def decoded(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 as Excel writes it. DataError for anything else."""
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        shown = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise DataError(f"{path}: not {shown} text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_jsonl(path: Path, table: TagTable) -> None:
    """Adds a picture for each line."""
    ignored: Counter[str] = Counter()
    for line, text in enumerate(decoded(path).split("\n"), 1):
        if text.strip():
            try:
                entry = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {line}: not valid JSON ({error})") from None
            _add_entry(entry, f"{path}, line {line}", table, ignored)
    note_ignored(ignored, table)


def note_ignored(ignored: Counter[str], table: TagTable) -> None:
    """Adds a note on the keys that were not read, if there are any."""
    if ignored:
        table.notes.append(f"keys not read: {', '.join(sorted(ignored))}")


def _add_entry(entry: Any, where: str, table: TagTable, ignored: Counter[str]) -> None:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object with a picture and tags")
    keys = {plain(key): key for key in entry}
    picture = next((keys[key] for key in PICTURE_KEYS if key in keys and isinstance(entry[keys[key]], str)), None)
    tags = next((keys[key] for key in TAG_KEYS if key in keys), None)
    if picture is None or tags is None or isinstance(entry[tags], bool):
        raise DataError(f'{where}: expected {{"image": "cat01.jpg", "tags": ["cat", "person"]}}, not the keys {list(entry)}')
    ignored.update(key for key in entry if key not in (picture, tags))
    if not entry[picture].strip():
        raise DataError(f"{where}: names no picture")
    found = table.words.of_value(entry[tags])
    table.add(entry[picture].strip(), found)


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
        unfit = [tag for tag in entry if set(tag) & set(SEPARATORS)]
        if unfit:
            raise UserError(f"{path}: the tag '{unfit[0]}' has one of | ; , in it; write a .jsonl instead")
        writer.writerow((name, "|".join(sorted(entry))))
    write_text(path, buffer.getvalue())
