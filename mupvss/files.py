"""Writes files so that a crash, a full disk or a kill never leaves half a file under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

PART = ".part"
"""Part of the name of every file that is not complete yet."""
LEFTOVER = re.compile(rf"\..*\.[0-9a-f]{{12}}-\d+{re.escape(PART)}.*|\.tmp[A-Za-z0-9]{{6}}", re.S)
"""Names of such files: ours, and those of safetensors."""
ENDS = 4096
"""Number of bytes at either end of a file that are checked to detect a change."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`. It is renamed to `path` if the block succeeds, and removed if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A picture's name may be as long as the file system allows, so only its beginning is used.
    begin = path.name.encode()[:80].decode(errors="ignore")
    own = hashlib.sha256(f"{path.name} {platform.node()}".encode()).hexdigest()[:12]
    temporary = path.with_name(f".{begin}.{own}-{os.getpid()}{PART}{path.suffix[-20:]}")
    try:
        yield temporary
        with temporary.open("r+b") as stream:  # Windows cannot flush a file that is open for reading only
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Removes temporary files that killed processes left in `folder` and, if `below`, in its subfolders. Call it only where no
    other process writes."""
    for path in folder.rglob(".*") if below else folder.glob(".*"):
        if LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Indented, with sorted keys and a final newline; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def save_image(path: Path, image: Image.Image, **options: Any) -> None:
    """Writes the image in the format of the path's suffix."""
    with atomic_path(path) as temporary:
        image.save(temporary, **options)


def file_state(origin: str) -> list[Any] | None:
    """Size and a checksum of both ends. So a copied or newly checked-out folder counts as the same data, an edited picture does
    not, and a large data set need not be read through."""
    try:
        with Path(origin).open("rb") as stream:
            ends = stream.read(ENDS)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - ENDS))
            ends += stream.read(ENDS)
    except OSError:
        return None
    return [size, zlib.crc32(ends)]


def state_mark(state: list[Any] | None) -> str:
    """A file's state as part of a name: '7129-9a0b1c2d'; that of no file: '0-00000000'."""
    size, checksum = state or (0, 0)
    return f"{size}-{checksum:08x}"


def hash_of(path: Path) -> str:
    """SHA-256 of the whole file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def lock_for(path: Path, shared: bool = False) -> FileLock:
    """A lock for `path`, held by one process of this user and computer at a time; no file is left beside `path`.

    shared: the folder of the locks may be that of several computers or containers, in which the same path is another place.
    """
    place = path.resolve()
    key = str(place)
    if shared:
        place.parent.mkdir(parents=True, exist_ok=True)
        state = place.parent.stat()
        key = f"{platform.node()} {state.st_dev} {state.st_ino} {place.name}"
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock")


def cache_folder() -> Path:
    """Folder in which downloads and indices are kept between runs: XDG_CACHE_HOME/mupvss, else ~/.cache/mupvss."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mupvss"
