"""`mupvss init`: a config for someone's own pictures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mupvss.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class InitArguments:
    pictures: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the pictures; asked for if it is not given."""
    tags: Path | None = None
    """Tags: .csv or .jsonl, COCO or Label Studio .json, CVAT .xml, a folder of VOC's XML; default: one folder per tag."""
    val_tags: Path | None = None
    """Tags of pictures kept back, on which the segmentation network is tried; `mupvss data split` writes both tables."""
    out: Path | None = None
    """The config to write; default: the folder's name with .toml, here."""
    backbone: Literal["tiny", "small"] = "tiny"
    """DeiT-Ti is fast; DeiT-S is better and takes about four times as long."""
    weights: str | None = None
    """Pretrained weights: a path, a URL with its hash, a hub name, or an empty text for none; default: from the hub."""
    force: bool = False
    """Replace a config that is there."""
    quick: bool = False
    """Do not measure how long it will take."""


def init(argv: Sequence[str]) -> None:
    """Write a commented config for your own pictures, and say how long it will take."""
    arguments = tyro.cli(InitArguments, prog="mupvss init", args=list(argv))
    from mupvss.start.init import Wishes, initialise

    pictures, tags = arguments.pictures, arguments.tags
    if pictures is None:
        pictures, tags = _ask(tags)
    out = arguments.out or Path(f"{pictures.resolve().name}.toml")
    options = (arguments.backbone, arguments.weights, arguments.force, arguments.quick)
    initialise(Wishes(pictures, tags, arguments.val_tags, out, *options))


def _ask(tags: Path | None) -> tuple[Path, Path | None]:
    if not sys.stdin.isatty():
        raise ConfigError("mupvss init needs the folder of your pictures, as in: mupvss init pictures --tags tags.csv")
    pictures = Path(_answer("Folder of the pictures: ")).expanduser()
    if tags is None:
        text = input("Tag file (csv, jsonl, COCO or Label Studio json, CVAT xml, folder of VOC xml; empty: one folder per tag): ")
        tags = Path(text.strip()).expanduser() if text.strip() else None
    return pictures, tags


def _answer(question: str) -> str:
    while not (text := input(question).strip()):
        pass
    return text
