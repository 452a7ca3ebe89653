"""`mupvss data download`: archives fetched, verified and unpacked; what is there already is left alone."""

from __future__ import annotations

from pathlib import Path

from mupvss.download.catalogue import ARCHIVES, FOLDERS, Archive
from mupvss.download.fetch import fetch
from mupvss.download.sbd import add_sbd
from mupvss.download.unpack import unpack
from mupvss.engine.log import console
from mupvss.errors import ConfigError
from mupvss.files import lock_for, read_json, write_json

DONE = ".mupvss-downloads.json"
"""In the user's folder: the archives that are unpacked, with their hashes and what they hold."""


def download_dataset(name: str, out: Path, mirror: str | None = None, keep: bool = False) -> None:
    """Into `out`, where the configs look for it. mirror: another server with files of the same names; keep: the archives too."""
    if name not in ARCHIVES:
        raise ConfigError(f"no data set '{name}' to download; known: {', '.join(ARCHIVES)}")
    folder = out / FOLDERS[name]
    out.mkdir(parents=True, exist_ok=True)
    with lock_for(out / DONE):
        _all(name, out, folder, mirror, keep)
    console.print(f"{name}: complete in {folder}", highlight=False, soft_wrap=True)


def _all(name: str, out: Path, folder: Path, mirror: str | None, keep: bool) -> None:
    for archive in ARCHIVES[name]:
        _one(archive, out, folder, mirror, keep)
    if name == "sbd":
        add_sbd(folder / "benchmark_RELEASE" / "dataset", out / "VOCdevkit" / "VOC2012")


def _one(archive: Archive, out: Path, folder: Path, mirror: str | None, keep: bool) -> None:
    record = out / DONE
    done = read_json(record) if record.is_file() else {}
    known = done.get(archive.name, {})
    if known.get("sha256") == archive.sha256 and all((folder / name).exists() for name in known["holds"]):
        console.print(f"{archive.name}: up to date", highlight=False)
        if not keep:
            (out / archive.name).unlink(missing_ok=True)
        return
    url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.name}"
    path = fetch(url, archive.sha256, out / archive.name)
    holds = unpack(path, folder)
    write_json(record, done | {archive.name: {"sha256": archive.sha256, "holds": holds}})
    if not keep:
        path.unlink()
