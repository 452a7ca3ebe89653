"""Cuts large pictures into tiles, and their masks too; the tags of a tile are the classes that its mask has.

The tags of a whole picture say nothing about a part of it. So there are tags only where there are masks; elsewhere the tiles are
cut, and a person tags them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from mupvss.data.images import read_image
from mupvss.data.masks import IGNORE, Colour, highest_id, named_ids, read_label_image, read_labelmap, write_palette_png
from mupvss.data.names import sample_name, stem
from mupvss.data.summary import print_doubts
from mupvss.data.tags import write_tags
from mupvss.data.walk import pictures_below
from mupvss.errors import DataError
from mupvss.files import save_image
from mupvss.runtime.log import progress_bar

ISPRS: dict[str, Colour] = {
    "impervious surface": (255, 255, 255),
    "building": (0, 0, 255),
    "low vegetation": (0, 255, 255),
    "tree": (0, 255, 0),
    "car": (255, 255, 0),
    "clutter": (255, 0, 0),
}
"""Of the ISPRS benchmark's label pictures (Vaihingen, Potsdam); black borders of the eroded ones are not counted."""
MASK = re.compile(r"_(labels?|masks?|gt)(_noboundary)?$", re.IGNORECASE)
"""Endings of masks, as in top_potsdam_2_10_label.tif, by which they are known in a folder of pictures."""
PICTURE = re.compile(r"_(rgbir|rgb|irrg|ir)$", re.IGNORECASE)
"""Endings of their pictures, as in top_potsdam_2_10_RGB.tif."""


def starts(length: int, size: int, overlap: int) -> list[int]:
    """First pixels of tiles of `size` that cover `length` pixels and overlap by at least `overlap`; the last one ends with it."""
    if length <= size:
        return [0]
    step = size - overlap
    return [*range(0, length - size, step), length - size]


def cut_tiles(
    pictures: Path,
    out: Path,
    size: int = 512,
    overlap: int = 0,
    masks: Path | None = None,
    colours: Literal["labelmap", "isprs"] = "labelmap",
    classes: Sequence[str] = (),
    least: float = 0.005,
    console: Console | None = None,
) -> None:
    """Writes out/pictures/NAME_TOP_LEFT.png and, with masks, out/masks of the same names and out/tags.csv.

    Args:
        pictures: Folder of the large pictures.
        out: Folder for the tiles.
        size: Side of a tile in pixels; smaller pictures are one tile.
        overlap: Pixels that neighbouring tiles share at least.
        masks: Folder of the true masks, with the pictures' names, or those that differ in an ending such as _RGB and _label.
        colours: What the colours of masks mean: a labelmap.txt beside them, or those of the ISPRS benchmark.
        classes: Names of the class ids 1, 2, ... of masks that hold ids.
        least: Share of a tile's pixels that a class must cover to be one of its tags.
        console: For what was left out.

    Raises:
        DataError: There is nothing to cut, or the names of the classes are not known.
    """
    if not 0 <= overlap < size:
        raise DataError(f"--overlap is {overlap} and --size {size}; expected an overlap under the size")
    below = pictures_below(pictures)
    if not below.pictures:
        raise DataError(f"{pictures}: no picture in this folder; give the folder of the large pictures")
    names, ids = _classes(masks, colours, classes) if masks is not None else ((), None)
    drawn = [] if masks is None else pictures_below(masks).pictures
    drawn = [name for name in drawn if masks != pictures or MASK.search(stem(name))]
    files = {_key(name): masks / name for name in drawn if masks is not None}
    own = [name for name in below.pictures if masks is None or pictures / name not in files.values()]
    tags: dict[str, set[str]] = {}
    notes = [note for note in (below.note(),) if note]
    with progress_bar("tiles", len(own), "pictures") as advance:
        for name in own:
            try:
                cut = _cut(pictures, name, out, size, overlap, files.get(_key(name)), ids, names)
            except DataError as error:
                notes.append(f"left out: {error}")
                cut = {}
            if masks is not None and _key(name) not in files:
                notes.append(f"{name}: no mask of this name in {masks}, so its tiles have no tags")
            for tile, labels in cut.items():
                if labels is not None:
                    counts = np.bincount(labels.ravel(), minlength=256)[1:]
                    enough = max(1, least * labels.size)
                    tags[tile] = {called for called, count in zip(names, counts, strict=False) if count >= enough}
            advance(1)
    if tags:
        write_tags(out / "tags.csv", tags)
    said = f", {len(tags)} of them with tags in {out / 'tags.csv'}" if tags else "; tag them before you go on"
    console = console or Console(stderr=True)
    console.print(
        f"{len(list((out / 'pictures').glob('*.png')))} tiles in {out / 'pictures'}{said}", highlight=False, soft_wrap=True
    )
    print_doubts(notes, console)


def _key(name: str) -> str:
    """What a picture and its mask have in common."""
    return PICTURE.sub("", MASK.sub("", stem(name))).casefold()


def _classes(masks: Path, colours: str, classes: Sequence[str]) -> tuple[tuple[str, ...], dict[Colour, int] | None]:
    if colours == "isprs":
        ids = {colour: number for number, colour in enumerate(ISPRS.values(), 1)}
        return tuple(ISPRS), ids | {(0, 0, 0): IGNORE}
    found = named_ids(masks, classes)
    if found is not None and not classes:
        place = next(place for place in (masks, masks.parent) if (place / "labelmap.txt").is_file())
        return tuple(read_labelmap(place / "labelmap.txt")), found
    if not classes:
        raise DataError(f"{masks}: what do the class ids mean? Give --classes, or a labelmap.txt beside the masks")
    return tuple(classes), found


def _cut(
    pictures: Path,
    name: str,
    out: Path,
    size: int,
    overlap: int,
    mask: Path | None,
    ids: dict[Colour, int] | None,
    names: Sequence[str],
) -> dict[str, np.ndarray | None]:
    """Writes a picture's tiles; -> by tile its labels, None without a mask."""
    image, labels = read_image(pictures / name), None
    if mask is not None:
        labels = read_label_image(mask, ids)
        if labels.shape != (image.height, image.width):
            raise DataError(f"{mask}: {labels.shape[1]}x{labels.shape[0]} pixels, its picture has {image.width}x{image.height}")
        if (highest := highest_id(labels)) > len(names):
            raise DataError(f"{mask}: class id {highest}, and there are {len(names)} classes; check --classes")
    found: dict[str, np.ndarray | None] = {}
    for top in starts(image.height, size, overlap):
        for left in starts(image.width, size, overlap):
            tile = f"{sample_name(name)}_{top}_{left}.png"
            save_image(
                out / "pictures" / tile, image.crop((left, top, min(image.width, left + size), min(image.height, top + size)))
            )
            found[tile] = None
            if labels is not None:
                part = labels[top : top + size, left : left + size]
                write_palette_png(out / "masks" / tile, part)
                found[tile] = part
    return found
