"""Pictures that come in through the browser: small enough, really pictures, and never outside their folder."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

from mupvss.data.images import SUFFIXES, read_image
from mupvss.errors import DataError

MAX_BYTES = 64 * 2**20
NAME = re.compile(r"[\w][\w .()+-]{0,150}")
"""Letters, digits and a few signs; no separator, no leading dot."""


class TooLargeError(ValueError):
    """More bytes than are taken."""


def checked_name(name: str) -> str:
    """A plain file name with a picture's suffix. ValueError for anything that could lead elsewhere, or is no picture."""
    if not NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"'{name[:80]}' is not a plain file name; letters, digits, spaces and . ( ) + - _ are taken")
    if Path(name).suffix.lower() not in SUFFIXES:
        raise ValueError(f"'{name}' is not a picture's name; {', '.join(sorted(SUFFIXES))} are taken")
    return name


def check_length(announced: str | None) -> None:
    """TooLargeError before a byte is read, if the sender says how much is to come."""
    if announced is not None and announced.isdigit() and int(announced) > MAX_BYTES:
        raise TooLargeError(f"{int(announced) / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB per picture are taken")


async def store(name: str, body: AsyncIterator[bytes], folder: Path) -> Path:
    """Streams to a temporary name, checks that it is a picture, then gives it a name of its own in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    target = _free(folder, checked_name(name))
    temporary = folder / f".{target.name}.part{target.suffix}"
    try:
        size = 0
        with temporary.open("xb") as stream:
            async for part in body:
                size += len(part)
                if size > MAX_BYTES:
                    raise TooLargeError(f"over {MAX_BYTES // 2**20} MB; no larger picture is taken")
                stream.write(part)
        try:
            read_image(temporary)
        except DataError as error:
            raise ValueError(str(error).replace(str(temporary), name)) from None
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _free(folder: Path, name: str) -> Path:
    stem, suffix, number = Path(name).stem, Path(name).suffix.lower(), 1
    target = folder / f"{stem}{suffix}"
    while any(folder.glob(f"{target.stem}.*")):
        number += 1
        target = folder / f"{stem}-{number}{suffix}"
    return target
