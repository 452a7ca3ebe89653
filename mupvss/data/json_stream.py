"""The entries of a JSON object's arrays, one after the other: a file of gigabytes needs no more memory than its largest entry.

Built on the standard library's decoder: it is fast, and stops at deep nesting, which makes readers that keep the path of every
value fill the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any

from mupvss.errors import DataError

CHUNK = 1 << 20
LONGEST = 1 << 26
"""Characters of one entry."""


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
        """The next value, read on until it is whole."""
        self._skip_blanks()
        size = CHUNK
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except JSONDecodeError as error:
                if self.ended:
                    raise ValueError(f"{error.msg} at character {self.before + error.pos}") from None
            else:
                if end + 3 < len(self.text) or self.ended:  # else '1' could be the begin of '1.5' or '1e+5'
                    self.at = end
                    return value
            if len(self.text) - self.at > LONGEST:
                raise ValueError(f"no end of the value at character {self.place()} within {LONGEST >> 20} million characters")
            self._read(size)
            size *= 2  # a long value is tried a few times, not once a chunk

    def accept(self, sign: str) -> bool:
        self._skip_blanks()
        if not self.text.startswith(sign, self.at):
            return False
        self.at += 1
        return True

    def expect(self, sign: str) -> None:
        """An empty sign stands for the end of the file."""
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
        """Drops what is done with and reads on."""
        more = self.stream.read(size)
        self.ended = not more
        self.before += self.at
        self.text, self.at = self.text[self.at :] + more, 0


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")
