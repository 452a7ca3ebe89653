"""Unpacks archives whose hash was verified. They come from a known source, so the standard library's own checks are enough."""

from __future__ import annotations

import errno
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from mupvss.errors import DownloadError
from mupvss.files import atomic_path
from mupvss.runtime.log import progress_bar


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpacks a .zip, .tar or .tgz into `folder`: first beside it under a temporary name, then moved, file by file.

    -> the names at its top level. DownloadError for what `tarfile`'s filter "data" refuses (a path or a link outside the folder,
    a device), and for an archive that cannot be read; nothing of it is then in `folder`. Whether it is complete is not checked
    here; the hash has shown that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{archive.name}.unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with progress_bar(f"unpack {archive.name}", max(1, archive.stat().st_size >> 20), "MB") as advance:
            _extract(archive, aside, advance)
        holds = sorted(path.name for path in aside.iterdir()) if aside.is_dir() else []
        _move(aside, folder)
        return holds
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # the disk's fault, not the archive's
            raise
        # The errors that readers raise for damaged archives have no common base class.
        raise _damaged(archive, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _damaged(archive: Path, error: Exception) -> DownloadError:
    return DownloadError(f"{archive}: cannot be unpacked ({type(error).__name__}: {error}); delete it and try again")


def _extract(archive: Path, aside: Path, advance: Callable[[int], None]) -> None:
    shown = 0
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                file.extract(entry, aside)
                advance(max(0, (entry.header_offset >> 20) - shown))
                shown = max(shown, entry.header_offset >> 20)
        return
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            tar.extract(member, aside, filter="data")
            advance(max(0, (raw.tell() >> 20) - shown))
            shown = max(shown, raw.tell() >> 20)


def _move(aside: Path, folder: Path) -> None:
    """File by file, since a folder of the same name may already exist."""
    for path in sorted(p for p in aside.rglob("*") if p.is_file()):
        target = folder / path.relative_to(aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with atomic_path(target) as temporary:  # a folder of the target is a link to another disk
                shutil.copyfile(path, temporary)
