"""Writing so that a crash, a full disk or a kill never leaves half a file under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

PART = ".part"
"""In the name of every file that is not whole yet."""
ENDS = 4096
"""Bytes at either end of a file that tell whether it is still the same."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; renamed to it when the block ends well, removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}{PART}{path.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as stream:  # Windows flushes no file that is open for reading alone
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Temporary files that killed processes left in `folder`, and `below` it. Only where no other process is writing."""
    for pattern in (f".*{PART}*", ".tmp*"):  # ours, and those of safetensors
        for path in folder.rglob(pattern) if below else folder.glob(pattern):
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
    """In the format of the path's suffix."""
    with atomic_path(path) as temporary:
        image.save(temporary, **options)


def file_state(origin: str) -> list[Any] | None:
    """Size and a checksum of both ends: a copied or newly checked-out folder is the same data, an edited picture is not, and
    a large data set is not read through."""
    try:
        with Path(origin).open("rb") as stream:
            ends = stream.read(ENDS)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - ENDS))
            ends += stream.read(ENDS)
    except OSError:
        return None
    return [size, zlib.crc32(ends)]


def hash_of(path: Path) -> str:
    """SHA-256 of the whole file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def lock_for(path: Path) -> FileLock:
    """Held by one process of this user and computer at a time, for what `path` stands for; nothing is left beside `path`."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock")


def cache_folder() -> Path:
    """Where downloads and indices are kept from run to run: XDG_CACHE_HOME/mupvss, else ~/.cache/mupvss."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mupvss"
