"""`mupvss data ...`: check a data set, split it, cut it into tiles, find errors in its tags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mupvss.errors import ConfigError, MissingExtraError


def data(argv: Sequence[str]) -> int:
    """Check a data set (check), split it (split), cut pictures (tiles), find doubtful tags (doctor), draw or download one."""
    parts = {"check": _check, "split": _split, "tiles": _tiles, "doctor": _doctor, "draw": _draw, "download": _download}
    if not argv or argv[0] not in parts:
        raise ConfigError(f"usage: mupvss data {'|'.join(parts)} ...; each has --help")
    return parts[argv[0]](argv[1:])


def _check(argv: Sequence[str]) -> int:
    from mupvss.config.load import load_config
    from mupvss.data.check import check_data, print_findings
    from mupvss.options import SOURCES, DataConfig, ScenesData

    rest = list(argv)
    known: DataConfig = ScenesData()
    if rest and not rest[0].startswith("-"):
        known = load_config(Path(rest.pop(0))).data
    elif "--source" in rest[:-1]:
        at = rest.index("--source")
        name = rest[at + 1]
        if name not in SOURCES:
            raise ConfigError(f"--source is '{name}'; choose one of {', '.join(SOURCES)}")
        known, rest = SOURCES[name](), rest[:at] + rest[at + 2 :]
    config = tyro.cli(type(known), prog="mupvss data check", args=rest, default=known)
    return 1 if print_findings(check_data(config)) else 0


@dataclasses.dataclass(frozen=True)
class SplitArguments:
    pictures: Annotated[Path, tyro.conf.Positional]
    """Folder of the pictures."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for the tag tables, one per subset."""
    tags: Path | None = None
    """Tags, in any form that `data.tags` accepts; default: one folder per tag."""
    parts: tuple[str, ...] = ("train=0.8", "val=0.2")
    """Names and shares of the subsets."""
    seed: int = 0


def _split(argv: Sequence[str]) -> int:
    from mupvss.data.split import split_data

    split_data(**dataclasses.asdict(tyro.cli(SplitArguments, prog="mupvss data split", args=list(argv))))
    return 0


@dataclasses.dataclass(frozen=True)
class TilesArguments:
    pictures: Annotated[Path, tyro.conf.Positional]
    """Folder of the large pictures."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for the tiles: pictures and, with masks, masks and tags.csv."""
    size: int = 512
    """Side of a tile in pixels."""
    overlap: int = 0
    """Pixels that neighbouring tiles share at least."""
    masks: Path | None = None
    """Folder of true masks. A tile's tags are the classes in its mask; without masks, tiles have no tags yet."""
    colours: Literal["labelmap", "isprs"] = "labelmap"
    """What the colours of masks mean: a labelmap.txt beside them, or those of the ISPRS benchmark (Vaihingen, Potsdam)."""
    classes: tuple[str, ...] = ()
    """Names of the class ids 1, 2, ... of masks that hold ids."""
    least: float = 0.005
    """Share of a tile that a class must cover to be one of its tags."""


def _tiles(argv: Sequence[str]) -> int:
    from mupvss.data.tiles import cut_tiles

    cut_tiles(**dataclasses.asdict(tyro.cli(TilesArguments, prog="mupvss data tiles", args=list(argv))))
    return 0


@dataclasses.dataclass(frozen=True)
class DoctorArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run that has seeds."""
    out: Path | None = None
    """Folder of the findings; default: RUN/doctor."""
    fix: Path | None = None
    """Write a corrected tag table (.csv or .jsonl): likely missing tags added, likely wrong ones removed."""
    pictures: int = 60
    """Number of pictures shown on the page, the most doubtful first."""


def _doctor(argv: Sequence[str]) -> int:
    try:
        from mupvss.doctor.run import examine
    except ImportError as error:
        raise MissingExtraError(f"the doctor needs the extra 'doctor' ({error}): pip install 'mupvss[doctor]'") from None
    examine(**dataclasses.asdict(tyro.cli(DoctorArguments, prog="mupvss data doctor", args=list(argv))))
    return 0


@dataclasses.dataclass(frozen=True)
class DrawArguments:
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for pictures and tags."""
    count: int = 300
    size: int = 160
    """Side of a picture in pixels."""
    seed: int = 0
    masks: bool = False
    """Also write the true masks."""


def _draw(argv: Sequence[str]) -> int:
    from mupvss.data.scenes.source import draw_folder

    draw_folder(**dataclasses.asdict(tyro.cli(DrawArguments, prog="mupvss data draw", args=list(argv))))
    return 0


@dataclasses.dataclass(frozen=True)
class DownloadArguments:
    name: Annotated[Literal["voc", "sbd", "coco", "coco2017"], tyro.conf.Positional]
    """voc: Pascal VOC 2012 (2 GB); sbd: its further masks (1.4 GB, after voc); coco: COCO 2014 (20 GB); coco2017 (20 GB)."""
    out: Annotated[Path, tyro.conf.Positional] = Path()
    """Folder to unpack into, as VOCdevkit/VOC2012 or coco."""
    mirror: str | None = None
    """URL of another server that has the files under the same names."""
    keep: bool = False
    """Keep the archives after unpacking."""


def _download(argv: Sequence[str]) -> int:
    from mupvss.data.download.dataset import download_dataset

    download_dataset(**dataclasses.asdict(tyro.cli(DownloadArguments, prog="mupvss data download", args=list(argv))))
    return 0
