"""Cuts large pictures into tiles, and their masks too; the tags of a tile are the classes that its mask has.

The tags of a whole picture say nothing about a part of it. So there are tags only where there are masks; elsewhere the tiles are
cut, and a person tags them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w

from mupvss.data.images import read_image
from mupvss.data.masks import (
    IGNORE,
    LABELMAP,
    Colour,
    highest_id,
    labelmap_of,
    named_ids,
    read_label_image,
    read_labelmap,
    write_palette_png,
)
from mupvss.data.names import sample_name, stem
from mupvss.data.summary import print_doubts
from mupvss.data.tags import write_tags
from mupvss.data.tags.tag_table import counted
from mupvss.data.walk import pictures_below
from mupvss.errors import DataError
from mupvss.files import read_json, save_image, write_json, write_text
from mupvss.runtime.log import console, progress_bar

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
KNOWN = 0.5
"""Share of a tile's pixels whose class must be known, or it gets no tags."""
MARKER = "tiles.json"


@dataclass(frozen=True)
class Meaning:
    """What masks mean."""

    classes: tuple[str, ...]
    colours: dict[Colour, int] | None
    where: str
    """What says what colours mean."""


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
) -> None:
    """Writes out/pictures/NAME_TOP_LEFT.png and, with masks, out/masks of the same names, out/tags.csv and out/data.toml, a base
    for configs that says how they belong together.

    Args:
        pictures: Folder of the large pictures.
        out: New folder for the tiles, or one that the same call has begun.
        size: Side of a tile in pixels; smaller pictures are one tile.
        overlap: Pixels that neighbouring tiles share at least.
        masks: Folder of the true masks, with the pictures' names, or those that differ in an ending such as _RGB and _label.
        colours: What the colours of masks mean: a labelmap.txt beside them, or those of the ISPRS benchmark.
        classes: Names of the class ids 1, 2, ... of masks that hold ids.
        least: Share of a tile's known pixels that a class must cover to be one of its tags, in [0, 1].

    Raises:
        DataError: The folder has other content, there is nothing to cut, or the masks are not understood.
    """
    if size < 1 or not 0 <= overlap < size:
        raise DataError(f"--size is {size} and --overlap {overlap}; expected a size of at least 1 and an overlap under it")
    if not 0 <= least <= 1:
        raise DataError(f"--least is {least}; expected a share from 0 to 1")
    pictures, masks = pictures.resolve(), None if masks is None else masks.resolve()
    own, files, notes = _pairs(pictures, masks)
    meaning = None if masks is None else _meaning(masks, colours, classes)
    settings = {"pictures": str(pictures), "masks": str(masks), "size": size, "overlap": overlap}
    settings |= {"colours": colours, "classes": list(classes)}
    _claim(out, settings, [folder for folder in (pictures, masks) if folder is not None])
    tags: dict[str, set[str]] = {}
    unknown: list[str] = []
    count = 0
    with progress_bar("tiles", len(own), "pictures") as advance:
        for name in own:
            try:
                cut = _cut(pictures, name, out, size, overlap, files.get(_key(name)), meaning)
            except DataError as error:
                notes.append(f"left out: {error}")
                cut = {}
            count += len(cut)
            for tile, labels in cut.items():
                if labels is not None and meaning is not None:
                    if (labels != IGNORE).mean() < KNOWN:
                        unknown.append(tile)
                    else:
                        tags[tile] = _tags(labels, meaning.classes, least)
            advance(1)
    if unknown:
        notes.append(f"tiles of which less than half is known, without tags: {counted(unknown, 'tile')}")
    print_doubts(notes, console)
    if not count:
        raise DataError(f"{pictures}: none of its pictures could be cut")
    if meaning is None:
        _say(f"{count} tiles in {out / 'pictures'}; tag them before you go on")
        return
    if not any(tags.values()):
        raise DataError(
            f"{masks}: no mask has a pixel of any class. Are these masks of 0 and 255? Class ids are expected: 0 for the "
            "background, 1 for the first class, and 255 where it is not known"
        )
    write_tags(out / "tags.csv", tags)
    base: dict[str, Any] = {"source": "folder", "root": str(out / "pictures"), "tags": str(out / "tags.csv")}
    base |= {"masks": str((out / "masks").resolve()), "classes": list(meaning.classes)}
    write_text(out / "data.toml", tomli_w.dumps({"data": base}))
    _say(
        f"{count} tiles in {out / 'pictures'}, {len(tags)} of them with tags in {out / 'tags.csv'}. The masks number the classes "
        f"in this order: {', '.join(meaning.classes)}; {out / 'data.toml'} has the lines for [data] in a config"
    )


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _pairs(pictures: Path, masks: Path | None) -> tuple[list[str], dict[str, Path], list[str]]:
    """The pictures, the masks by what their names have in common with a picture's, and what was left out."""
    below = pictures_below(pictures) if pictures.is_dir() else None
    if below is None or not below.pictures:
        raise DataError(f"{pictures}: no picture in this folder; give the folder of the large pictures")
    notes = [note for note in (below.note(),) if note]
    files: dict[str, Path] = {}
    if masks is not None:
        if not masks.is_dir():
            raise DataError(f"{masks}: no such folder of masks")
        for name in pictures_below(masks).pictures:
            if masks == pictures and not MASK.search(stem(name)):
                continue
            other = files.setdefault(_key(name), masks / name)
            if other != masks / name:
                raise DataError(f"{other} and {masks / name} would both be the mask of '{_key(name)}'; leave one of them there")
    drawn = set(files.values())
    own = [
        name
        for name in below.pictures
        if pictures / name not in drawn and (masks is None or masks == pictures or not (pictures / name).is_relative_to(masks))
    ]
    seen: dict[str, str] = {}
    for name in own:
        if (other_name := seen.setdefault(sample_name(name).casefold(), name)) != name:
            raise DataError(
                f"{pictures / name} and {pictures / other_name}: their tiles would have the same names; rename one of them"
            )
    if masks is not None and (without := [name for name in own if _key(name) not in files]):
        notes.append(f"no mask in {masks}, so their tiles have no tags: {counted(without, 'picture')}")
    return own, files, notes


def _key(name: str) -> str:
    """What a picture and its mask have in common."""
    return PICTURE.sub("", MASK.sub("", stem(name))).casefold()


def _meaning(masks: Path, colours: str, classes: Sequence[str]) -> Meaning:
    if colours == "isprs":
        ids = {colour: number for number, colour in enumerate(ISPRS.values(), 1)}
        return Meaning(tuple(ISPRS), ids | {(0, 0, 0): IGNORE}, "the ISPRS benchmark")
    place = labelmap_of(masks)
    names = tuple(read_labelmap(place)) if place is not None else ()
    if not classes and not names:
        raise DataError(f"{masks}: what do the class ids mean? Give --classes, or a {LABELMAP} beside the masks")
    if place is not None and (unknown := [name for name in classes if name not in names]):
        raise DataError(f"--classes has '{unknown[0]}', and {place} has {', '.join(names)}")
    return Meaning(tuple(classes) or names, named_ids(masks, classes), LABELMAP)


def _claim(out: Path, settings: dict[str, Any], sources: Sequence[Path]) -> None:
    """Makes the folder ours. DataError if it has other content, or lies in a folder of pictures."""
    for folder in sources:
        if out.resolve().is_relative_to(folder):
            raise DataError(f"{out}: lies in {folder}, where tiles would be taken for pictures; give a folder elsewhere")
    known = read_json(out / MARKER) if (out / MARKER).is_file() else None
    if known != settings and out.is_dir() and any(out.iterdir()):
        what = "tiles of another size or of other pictures" if known is not None else "other files"
        raise DataError(f"{out}: has {what}; give a new folder")
    write_json(out / MARKER, settings)


def _cut(
    pictures: Path, name: str, out: Path, size: int, overlap: int, mask: Path | None, meaning: Meaning | None
) -> dict[str, np.ndarray | None]:
    """Writes a picture's tiles; -> by tile its labels, None without a mask."""
    image, labels = read_image(pictures / name), None
    if mask is not None and meaning is not None:
        labels = read_label_image(mask, meaning.colours, meaning.where)
        if labels.shape != (image.height, image.width):
            raise DataError(f"{mask}: {labels.shape[1]}x{labels.shape[0]} pixels, its picture has {image.width}x{image.height}")
        if (highest := highest_id(labels)) > len(meaning.classes):
            raise DataError(f"{mask}: class id {highest}, and there are {len(meaning.classes)} classes; check --classes")
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


def _tags(labels: np.ndarray, classes: Sequence[str], least: float) -> set[str]:
    counts = np.bincount(labels.ravel(), minlength=256)
    enough = max(1, least * (labels.size - counts[IGNORE]))
    return {name for number, name in enumerate(classes, 1) if counts[number] >= enough}
