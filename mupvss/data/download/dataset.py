"""`mupvss data download`: fetches, verifies and unpacks the archives of known data sets; what already exists is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mupvss.data.download.fetch import fetch
from mupvss.data.download.sbd import add_sbd
from mupvss.data.download.unpack import unpack
from mupvss.errors import ConfigError
from mupvss.files import lock_for, read_json, write_json
from mupvss.runtime.log import console


@dataclass(frozen=True)
class Archive:
    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"
_SBD = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
_COCO = "http://images.cocodataset.org"


def _coco(year: int, annotations: str, train: str, val: str) -> tuple[Archive, ...]:
    return (
        Archive(f"{_COCO}/annotations/annotations_trainval{year}.zip", annotations),
        Archive(f"{_COCO}/zips/train{year}.zip", train),
        Archive(f"{_COCO}/zips/val{year}.zip", val),
    )


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "voc": (Archive(f"{_VOC}/VOCtrainval_11-May-2012.tar", "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"),),
    "sbd": (Archive(f"{_SBD}/benchmark.tgz", "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53"),),
    "coco": _coco(
        2014,
        annotations="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        train="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        val="fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    ),
    "coco2017": _coco(
        2017,
        annotations="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        train="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        val="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
}
FOLDERS = {"voc": ".", "sbd": "SBD", "coco": "coco", "coco2017": "coco"}
"""Where each is unpacked below the user's folder, as the configs expect it."""


DONE = ".mupvss-downloads.json"
"""File in the user's folder that lists the unpacked archives, with their hashes and contents."""


def download_dataset(name: str, out: Path, mirror: str | None = None, keep: bool = False) -> None:
    """Downloads a data set into `out`, where the configs look for it. mirror: another server with files of the same names; keep:
    keep the archives."""
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
