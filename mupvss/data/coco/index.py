"""COCO's instance annotations, read once as a stream into a small SQLite file, so that memory does not grow with their size.

Tables: categories (id, name), images (place from 0 in the order of their ids, id, file_name, name, width, height, tags, boxes),
annotations (image, category, crowd, segmentation as compressed JSON).
"""

from __future__ import annotations

import errno
import functools
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from mupvss.data.names import sample_name
from mupvss.data.tags.exports import coco_id
from mupvss.errors import DataError
from mupvss.files import atomic_path, cache_folder, hash_of
from mupvss.runtime.log import console
from mupvss.runtime.processes import processes

FORMAT = 3
"""Version of the tables' layout. It is part of the file name, so that another layout gets another file."""
BATCH = 1000
"""Number of rows written at once."""
SCHEMA = """
CREATE TABLE categories (id PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE listed (id PRIMARY KEY, file_name TEXT NOT NULL, name TEXT NOT NULL UNIQUE,
                     width INTEGER NOT NULL, height INTEGER NOT NULL);
CREATE TABLE annotations (id, image NOT NULL, category NOT NULL, crowd INTEGER NOT NULL, segmentation BLOB);
"""
"""Id columns have no type, since some tools write strings; annotations may lack an id. A box alone has no segmentation."""
FINISH = """
CREATE INDEX by_image ON annotations (image);
CREATE TABLE images AS
    SELECT row_number() OVER (ORDER BY id) - 1 AS place, id, file_name, name, width, height,
           (SELECT json_group_array(DISTINCT category) FROM annotations WHERE image = listed.id) AS tags,
           (SELECT count(*) FROM annotations WHERE image = listed.id AND segmentation IS NULL) AS boxes
    FROM listed ORDER BY id;
CREATE UNIQUE INDEX by_place ON images (place);
DROP TABLE listed;
"""


Id = int | str


@dataclass(frozen=True)
class Entry:
    """One picture of the index."""

    image: Id
    file_name: str
    name: str
    """The file's path without suffix, its folders joined by two underscores."""
    width: int
    height: int
    categories: frozenset[Id]
    boxes: int
    """Number of its annotations that have a box and no outline."""


@dataclass(frozen=True)
class Annotation:
    category: Id
    crowd: bool
    segmentation: Any
    """Polygons [[x1, y1, x2, y2, ...], ...], or a run-length code {"size": [h, w], "counts": ...}."""


class CocoIndex:
    """Reads an index. Every process opens the file for itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, sqlite3.Connection] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    def __len__(self) -> int:
        return int(self._all("SELECT count(*) FROM images")[0][0])

    @functools.cached_property
    def outlines(self) -> int:
        """Number of annotations with an outline."""
        return int(self._all("SELECT count(*) FROM annotations WHERE segmentation IS NOT NULL")[0][0])

    def boxed(self) -> int:
        """Number of pictures with a box that has no outline."""
        return int(self._all("SELECT count(*) FROM images WHERE boxes > 0")[0][0])

    def categories(self) -> dict[Id, str]:
        """Names by category id, in the order of the ids."""
        return dict(self._all("SELECT id, name FROM categories ORDER BY id"))

    def entry(self, place: int) -> Entry:
        rows = self._all("SELECT id, file_name, name, width, height, tags, boxes FROM images WHERE place = ?", place)
        if not rows:
            raise IndexError(place)
        image, file_name, name, width, height, tags, boxes = rows[0]
        return Entry(image, file_name, name, width, height, frozenset(json.loads(tags)), boxes)

    def annotations(self, image: Id) -> list[Annotation]:
        """The annotations of a picture that have an outline, in the order of their ids."""
        rows = self._all(
            "SELECT category, crowd, segmentation FROM annotations WHERE image = ? AND segmentation IS NOT NULL "
            "ORDER BY id, rowid",
            image,
        )
        return [Annotation(category, bool(crowd), json.loads(zlib.decompress(blob))) for category, crowd, blob in rows]

    def _all(self, query: str, *values: Any) -> list[Any]:
        if self._opened is None or self._opened[0] != os.getpid():  # a connection must not cross a fork
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            self._opened = (os.getpid(), connection)
        try:
            return self._opened[1].execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path}: a damaged index ({error}); delete it, and it is built again") from None


def open_index(annotations: Path) -> CocoIndex:
    """The index of an annotation file, built on first use and kept in the cache under a hash of the file's content."""
    if not annotations.is_file():
        found = sorted(path.name for path in annotations.parent.glob("*.json"))
        there = f"; found {', '.join(found[:5])}: set data.train_split, data.seed_split, data.val_split" if found else ""
        raise DataError(
            f"{annotations}: no such annotation file; data.root must hold annotations/ and a folder of pictures{there}"
        )
    # Hash the whole file, half a second for 300 MB, since even the smallest correction of a tag must be noticed.
    path = cache_folder() / "coco" / f"{annotations.stem}-{hash_of(annotations)[:24]}.v{FORMAT}.sqlite"
    with processes().main_first():
        if not path.is_file():
            console.print(f"{annotations}: read for the first time; its index will be {path}", highlight=False, soft_wrap=True)
            build_index(annotations, path)
    return CocoIndex(path)


def build_index(annotations: Path, path: Path) -> None:
    """Writes the index to `path`. DataError for a file that is not COCO's instance format."""
    with atomic_path(path) as temporary:
        connection = sqlite3.connect(temporary)
        try:
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + SCHEMA)
            _fill(connection, annotations)
            _check(connection, annotations)
            connection.executescript(FINISH)
            connection.commit()
        except sqlite3.IntegrityError as error:
            raise DataError(f"{annotations}: two entries share an id, or a name without suffix ({_shared(error)})") from None
        except sqlite3.Error as error:
            raise OSError(errno.EIO, f"the index of {annotations} cannot be written ({error})", str(path)) from None
        finally:
            connection.close()


def _shared(error: sqlite3.IntegrityError) -> str:
    """The array and the field whose value two entries share."""
    table, _, column = str(error).rpartition(": ")[2].partition(".")
    return f"{'images' if table == 'listed' else table}, {'file_name' if (table, column) == ('listed', 'name') else column}"


def _fill(connection: sqlite3.Connection, path: Path) -> None:
    waiting: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
    for key, number, item in stream_entries(path):
        if key in TABLES:
            if not isinstance(item, dict):
                raise DataError(f"{path}: {key}[{number}] is not an object; expected COCO's instance format")
            waiting[key].append(TABLES[key].row(item, path, number))
            if len(waiting[key]) == BATCH:
                _insert(connection, key, waiting)
    for key in TABLES:
        _insert(connection, key, waiting)


def _insert(connection: sqlite3.Connection, key: str, waiting: dict[str, list[tuple[Any, ...]]]) -> None:
    rows, waiting[key] = waiting[key], []
    marks = ", ".join("?" * TABLES[key].columns)
    connection.executemany(f"INSERT INTO {TABLES[key].name} VALUES ({marks})", rows)


def _category(item: dict[str, Any], path: Path, number: int) -> tuple[Any, ...]:
    return _id(item, "id", path, "categories", number), _text(item, "name", path, "categories", number)


def _image(item: dict[str, Any], path: Path, number: int) -> tuple[Any, ...]:
    name = _text(item, "file_name", path, "images", number).replace("\\", "/").removeprefix("./")
    place = PureWindowsPath(name)
    if place.is_absolute() or place.drive or place.root or ".." in place.parts or name.endswith("/") or "\0" in name:
        raise DataError(f"{path}: images[{number}].file_name is {name!r}; expected a path inside the folder of the pictures")
    size = [_whole(item, key, path, "images", number) for key in ("width", "height")]
    if min(size) < 1:
        raise DataError(f"{path}: images[{number}] is {size[0]}x{size[1]} pixels")
    return _id(item, "id", path, "images", number), name, sample_name(name), *size


def _annotation(item: dict[str, Any], path: Path, number: int) -> tuple[Any, ...]:
    own = item.get("id")
    image, category = (_id(item, key, path, "annotations", number) for key in ("image_id", "category_id"))
    segmentation = item.get("segmentation")
    if segmentation is not None and not isinstance(segmentation, list | dict):
        raise DataError(f"{path}: annotations[{number}].segmentation is neither polygons nor a run-length code")
    packed = zlib.compress(json.dumps(segmentation).encode()) if segmentation else None
    order = own if isinstance(own, int) and not isinstance(own, bool) and abs(own) < 2**63 else None
    return order, image, category, int(bool(item.get("iscrowd", 0))), packed


@dataclass(frozen=True)
class _Table:
    name: str
    columns: int
    row: Callable[[dict[str, Any], Path, int], tuple[Any, ...]]


TABLES = {
    "categories": _Table("categories", 2, _category),
    "images": _Table("listed", 5, _image),
    "annotations": _Table("annotations", 5, _annotation),
}
"""COCO's arrays, and the tables that store them."""


def _id(item: dict[str, Any], key: str, path: Path, where: str, number: int) -> Id:
    try:
        found = coco_id(item.get(key))
    except ValueError:
        raise DataError(f"{path}: {where}[{number}].{key} is {item.get(key)!r}; expected a whole number or a string") from None
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        raise DataError(f"{path}: {where}[{number}].{key} is {found}; expected a number up to 2^63")
    return found


def _whole(item: dict[str, Any], key: str, path: Path, where: str, number: int) -> int:
    value = item.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{path}: {where}[{number}].{key} is {value!r}; expected a whole number")
    if not 0 <= value < 2**63:
        raise DataError(f"{path}: {where}[{number}].{key} is {value}; expected a number from 0 to 2^63")
    return value


def _text(item: dict[str, Any], key: str, path: Path, where: str, number: int) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{path}: {where}[{number}].{key} is {value!r}; expected a text")
    return value


def _check(connection: sqlite3.Connection, path: Path) -> None:
    for table, what in (("categories", "category"), ("listed", "picture")):
        if not connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]:
            raise DataError(f"{path}: lists no {what}; expected COCO's instance format (images, annotations, categories)")
    for column, table in (("image", "listed"), ("category", "categories")):
        row = connection.execute(
            f"SELECT rowid, {column} FROM annotations WHERE {column} NOT IN (SELECT id FROM {table}) LIMIT 1"
        ).fetchone()
        if row:
            raise DataError(f"{path}: annotations[{row[0] - 1}] names {column} {row[1]}, which is not listed")


CHUNK = 1 << 20
LONGEST = 1 << 26
"""Most characters that one entry may have."""


# The library ijson is not used: on 36 MB of annotations it takes 4.6 s where this takes 1.1 s, so a minute longer on COCO's own
# file. The standard library parses the JSON; this code only finds the entries.
def stream_entries(path: Path) -> Iterator[tuple[str, int, Any]]:
    """(key, number, entry) for every entry of every array that is a value of the outermost object; other values are skipped.

    DataError, naming the file, for what is not one JSON object in UTF-8.
    """
    with path.open(encoding="utf-8-sig", errors="strict") as stream:
        reader = _Reader(stream)
        try:
            yield from _object(reader)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
        except RecursionError:
            raise DataError(f"{path}: not valid JSON of a data set (nested too deeply)") from None
        except ValueError as error:
            raise DataError(f"{path}: not valid JSON ({error})") from None


def _object(reader: _Reader) -> Iterator[tuple[str, int, Any]]:
    reader.expect("{")
    more = not reader.accept("}")
    while more:
        key = reader.value()
        if not isinstance(key, str):
            raise ValueError(f"expected a key at character {reader.place()}")
        reader.expect(":")
        if reader.accept("["):
            yield from _array(reader, key)
        else:
            reader.value()
        more = reader.accept(",")
        if not more:
            reader.expect("}")
    reader.expect("")


def _array(reader: _Reader, key: str) -> Iterator[tuple[str, int, Any]]:
    number = 0
    more = not reader.accept("]")
    while more:
        yield key, number, reader.value()
        number += 1
        more = reader.accept(",")
        if not more:
            reader.expect("]")


class _Reader:
    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.text, self.at, self.before, self.ended = stream, "", 0, 0, False
        self.decoder = json.JSONDecoder(parse_constant=_refuse)

    def value(self) -> Any:
        """The next value; reads on until it is complete."""
        self._skip_blanks()
        size = CHUNK
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except JSONDecodeError as error:
                if self.ended:
                    raise ValueError(f"{error.msg} at character {self.before + error.pos}") from None
            else:
                if end + 3 < len(self.text) or self.ended:  # else '1' could be the start of '1.5' or '1e+5'
                    self.at = end
                    return value
            if len(self.text) - self.at > LONGEST:
                raise ValueError(f"no end of the value at character {self.place()} within {LONGEST >> 20} million characters")
            self._read(size)
            size *= 2  # so that a long value is tried a few times, not once per chunk

    def accept(self, sign: str) -> bool:
        self._skip_blanks()
        if not self.text.startswith(sign, self.at):
            return False
        self.at += 1
        return True

    def expect(self, sign: str) -> None:
        """Reads the sign, or raises ValueError. An empty sign stands for the end of the file."""
        self._skip_blanks()
        found = self.text[self.at : self.at + 1]
        if found != sign:
            raise ValueError(f"expected {sign or 'the end'!r}, found {found or 'the end'!r} at character {self.place()}")
        self.at += 1

    def place(self) -> int:
        return self.before + self.at

    def _skip_blanks(self) -> None:
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return
            self._read(CHUNK)

    def _read(self, size: int) -> None:
        """Drops the text already parsed and reads on."""
        more = self.stream.read(size)
        self.ended = not more
        self.before += self.at
        self.text, self.at = self.text[self.at :] + more, 0


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")
