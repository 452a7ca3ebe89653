"""`mupvss data download`: archives fetched, verified and unpacked; what is there already is left alone."""

from __future__ import annotations

from pathlib import Path

from mupvss.download.catalogue import ARCHIVES, FOLDERS, Archive
from mupvss.download.fetch import fetch
from mupvss.download.sbd import add_sbd
from mupvss.download.unpack import unpack
from mupvss.engine.log import console
from mupvss.errors import ConfigError
from mupvss.files import read_json, write_json

DONE = ".mupvss-downloads.json"
"""In the user's folder: the hashes of the archives that are unpacked."""


def download_dataset(name: str, out: Path, mirror: str | None = None, keep: bool = False) -> None:
    """Into `out`, where the configs look for it. mirror: another server with files of the same names; keep: the archives too."""
    if name not in ARCHIVES:
        raise ConfigError(f"no data set '{name}' to download; known: {', '.join(ARCHIVES)}")
    folder = out / FOLDERS[name]
    for archive in ARCHIVES[name]:
        _one(archive, out, folder, mirror, keep)
    if name == "sbd":
        add_sbd(folder / "benchmark_RELEASE" / "dataset", out / "VOCdevkit" / "VOC2012")
    console.print(f"{name}: complete in {folder}", highlight=False, soft_wrap=True)


def _one(archive: Archive, out: Path, folder: Path, mirror: str | None, keep: bool) -> None:
    record = out / DONE
    done = read_json(record) if record.is_file() else {}
    if done.get(archive.name) == archive.sha256:
        console.print(f"{archive.name}: up to date", highlight=False)
        return
    url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.name}"
    path = fetch(url, archive.sha256, out / archive.name)
    unpack(path, folder)
    write_json(record, done | {archive.name: archive.sha256})
    if not keep:
        path.unlink()
