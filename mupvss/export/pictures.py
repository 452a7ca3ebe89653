"""Formats for people: palette PNGs, masks over their pictures, and cut-out objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.data.masks import bounding_box, write_palette_png
from mupvss.export.regions import Item, Options
from mupvss.files import save_image
from mupvss.report.pictures import overlay


class MaskWriter:
    """masks/NAME.png: 8-bit palette PNG of class ids."""

    def __init__(self, out: Path, options: Options) -> None:
        self.folder = out / "masks"

    def add(self, item: Item) -> None:
        write_palette_png(self.folder / f"{item.stem}.png", item.labels)

    def close(self) -> None:
        pass


class OverlayWriter:
    """overlay/NAME.jpg: the mask in colour over its picture."""

    def __init__(self, out: Path, options: Options) -> None:
        self.folder = out / "overlay"

    def add(self, item: Item) -> None:
        save_image(self.folder / f"{item.stem}.jpg", overlay(item.open(), item.labels), quality=90)

    def close(self) -> None:
        pass


UNFIT = re.compile(r'[\x00-\x1f/\\:*?"<>|]')


def file_names(classes: Sequence[str]) -> list[str]:
    """The classes' names as parts of a file's name, on every system and each its own: a tag may be 'N/A' or '../up'."""
    fit = [UNFIT.sub("_", name).strip(" .") or "_" for name in classes]
    alike = len({name.casefold() for name in fit}) < len(fit)
    return [f"{number}-{name}" if alike else name for number, name in enumerate(fit, 1)]


class CutoutWriter:
    """cutouts/NAME__CLASS.png: the pixels of a class on a transparent ground, cropped to their bounding box."""

    def __init__(self, out: Path, options: Options) -> None:
        self.folder, self.classes = out / "cutouts", file_names(options.classes)

    def add(self, item: Item) -> None:
        picture = item.open()
        for class_id, name in enumerate(self.classes, 1):
            mask, path = item.labels == class_id, self.folder / f"{item.stem}__{name}.png"
            if mask.any():
                cut = picture.copy()
                cut.putalpha(Image.fromarray(mask.astype(np.uint8) * 255))
                save_image(path, cut.crop(bounding_box(mask)))
            else:  # an earlier prediction may have found the class
                path.unlink(missing_ok=True)

    def close(self) -> None:
        pass
