"""Archives from strangers: files and folders only, nothing outside the folder, no more than is reasonable."""

from __future__ import annotations

import errno
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TypeVar

from mupvss.errors import DownloadError
from mupvss.files import atomic_path
from mupvss.runtime.log import progress_bar

T = TypeVar("T")
MAX_BYTES = 128 << 30
"""Of everything in one archive, unpacked."""
CHUNK = 1 << 20
UNIX_TYPE = 0o170000
UNIX_REGULAR = (0, 0o100000)
"""File types in a zip's attributes that mean a plain file; others are links, devices and pipes."""


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpacks a .zip, .tar or .tgz into `folder`: first beside it under a temporary name, then moved, file by file.

    -> the names of what lies at its top. DownloadError for a path outside the folder, a link or a device, an archive that cannot
    be read, or one that unpacks without end; nothing of it then lies in `folder`. That it is whole, its hash must say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{archive.name}.unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _write_all(archive, aside)
        holds = sorted(path.name for path in aside.iterdir()) if aside.is_dir() else []
        _move(aside, folder)
        return holds
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_all(archive: Path, aside: Path) -> None:
    left = MAX_BYTES
    entries = _entries(archive)
    with progress_bar(f"unpack {archive.name}", max(1, archive.stat().st_size >> 20), "MB") as advance:
        shown = 0
        while (entry := _reading(archive, lambda: next(entries, None))) is not None:
            name, stream, place = entry
            target = aside.joinpath(*_parts(name, archive))
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                while chunk := _reading(archive, lambda: stream.read(CHUNK)):  # noqa: B023
                    left -= len(chunk)
                    if left < 0:
                        raise DownloadError(f"{archive}: more than {MAX_BYTES >> 30} GB when unpacked; stopped")
                    out.write(chunk)
            advance(max(0, (place >> 20) - shown))
            shown = max(shown, place >> 20)


def _reading(archive: Path, step: Callable[[], T]) -> T:
    """What an archive's readers raise for damaged ones has no common base; what the disk raises on writing must stay as it is."""
    try:
        return step()
    except DownloadError:
        raise
    except Exception as error:
        raise DownloadError(f"{archive}: a damaged archive ({type(error).__name__}: {error}); delete it and try again") from None


def _entries(archive: Path) -> Iterator[tuple[str, IO[bytes], int]]:
    """(name, content, place in the archive) of every file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                if (entry.external_attr >> 16) & UNIX_TYPE not in (*UNIX_REGULAR, 0o040000):
                    raise DownloadError(f"{archive}: '{entry.filename}' is a link or a device; refused")
                if not entry.is_dir():
                    with file.open(entry) as stream:
                        yield entry.filename, stream, entry.header_offset
        return
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            if member.isdir():
                continue
            if not member.isreg():
                raise DownloadError(f"{archive}: '{member.name}' is a link or a device; refused")
            content = tar.extractfile(member)
            assert content is not None
            with content:
                yield member.name, content, raw.tell()


def _parts(name: str, archive: Path) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or PureWindowsPath(name).drive:
        raise DownloadError(f"{archive}: '{name}' lies outside the folder; refused")
    return parts


def _move(aside: Path, folder: Path) -> None:
    """File by file, since a folder of the same name may be there already."""
    for path in sorted(p for p in aside.rglob("*") if p.is_file()):
        target = folder / path.relative_to(aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with atomic_path(target) as temporary:  # a folder there is a link to another disk
                shutil.copyfile(path, temporary)
