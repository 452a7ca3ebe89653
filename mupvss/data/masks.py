"""Masks: one class id per pixel, 0 for background, 255 for pixels that are ignored; on disk a palette PNG in VOC's colours.

The file holds class ids; a viewer shows colours.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mupvss.data.images import MAX_PIXELS
from mupvss.errors import DataError
from mupvss.files import save_image

IGNORE = 255
"""Void in true masks, unsure in pseudo-masks: no metric counts it and no network learns from it."""
Box = tuple[int, int, int, int]
"""(left, top, right, bottom), right and bottom excluded."""


def voc_palette() -> np.ndarray:
    """(256, 3) uint8: VOC's colour map, where the bits of the id are spread over the three channels."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def write_palette_png(path: Path, labels: np.ndarray) -> None:
    """Class ids (H, W) uint8 -> an 8-bit palette PNG."""
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(voc_palette().ravel().tolist())
    save_image(path, image)


def write_grey_png(path: Path, values: np.ndarray) -> None:
    """(H, W) uint8 -> an 8-bit grey PNG."""
    save_image(path, Image.fromarray(values))


LABELMAP = "labelmap.txt"
MOST_CLASSES = 254
"""A mask has one byte per pixel, in which 0 is the background and 255 is unsure."""
"""The file that explains the colours of masks, as CVAT writes it: a line NAME:RED,GREEN,BLUE:PARTS:ACTIONS for each label."""
Colour = tuple[int, int, int]


def read_labelmap(path: Path) -> dict[str, Colour]:
    """Labels and their colours in the order of the file, without the background. DataError for a line that is not understood."""
    found: dict[str, Colour] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"(.+?):(\d{1,3}),(\d{1,3}),(\d{1,3})(:.*)?", line.strip())
        if match is None:
            raise DataError(f"{path}, line {number}: expected NAME:RED,GREEN,BLUE::, found '{line[:80]}'")
        red, green, blue = (int(value) for value in match.group(2, 3, 4))
        found[match.group(1)] = (red, green, blue)
    return {name: colour for name, colour in found.items() if name != "background" and colour != (0, 0, 0)}


def labelmap_of(folder: Path) -> Path | None:
    """The labelmap.txt in the folder of the masks or its parent; None if there is none."""
    return next((place / LABELMAP for place in (folder, folder.parent) if (place / LABELMAP).is_file()), None)


def label_names(classes: Sequence[str]) -> list[str]:
    """Names of the labels 0, 1, ...: the background, and the classes. All differ, also where a class is called background."""
    return ["(background)" if "background" in classes else "background", *classes]


def named_ids(folder: Path, classes: Sequence[str] = ()) -> dict[Colour, int] | None:
    """Colour -> class id, from a labelmap.txt in the folder of the masks or its parent; None if there is none. Without classes,
    ids follow the order of that file; with classes, all other labels are background."""
    path = labelmap_of(folder)
    if path is None:
        return None
    names = read_labelmap(path)
    known = tuple(classes) or tuple(names)
    return {colour: known.index(name) + 1 if name in known else 0 for name, colour in names.items()}


def _ids_of_colours(image: Image.Image, ids: Mapping[Colour, int], path: Path, where: str) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    codes = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    void = voc_palette()[IGNORE].tolist()
    table = {0: 0, (void[0] << 16) | (void[1] << 8) | void[2]: IGNORE}
    table |= {(red << 16) | (green << 8) | blue: class_id for (red, green, blue), class_id in ids.items()}
    present, places = np.unique(codes, return_inverse=True)
    unknown = [code for code in present.tolist() if code not in table]
    if unknown:
        shown = ", ".join(str((code >> 16, code >> 8 & 255, code & 255)) for code in unknown[:3])
        raise DataError(f"{path}: has {len(unknown)} colours that are not in {where}, such as {shown}")
    return np.array([table[code] for code in present.tolist()], np.uint8)[places].reshape(codes.shape)


def read_label_image(path: Path, colours: Mapping[Colour, int] | None = None, where: str = LABELMAP) -> np.ndarray:
    """Class ids (H, W) uint8 of a palette or grey PNG, or of a picture in the given colours. where: what says what they mean.
    DataError for other colour pictures and unreadable files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image_file = Image.open(path)
        with image_file as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            if image.mode in ("RGB", "RGBA") and colours is not None:
                return _ids_of_colours(image, colours, path, where)
            if image.mode not in ("P", "L"):
                raise DataError(
                    f"{path}: a mask must be a palette or 8-bit grey PNG of class ids, not mode {image.mode}; convert it, or "
                    f"put the {LABELMAP} that explains its colours beside it"
                )
            # Pillow spreads grey values of 2 and 4 bits over 0 ... 255.
            raw = image.tile[0][3] if image.mode == "L" and image.tile else None
            spread = {"L;2": 85, "L;4": 17}.get(str(raw), 1)
            return np.array(image, np.uint8) // spread
    except FileNotFoundError:
        raise DataError(f"{path}: no such mask") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}; at most {MAX_PIXELS // 10**6} million pixels are read") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, UnidentifiedImageError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as a mask ({error}); replace or remove it") from None


def highest_id(mask: np.ndarray) -> int:
    """The highest class id in a mask, 255 apart; 0 if there is none."""
    return int(mask[mask != IGNORE].max(initial=0))


def bounding_box(mask: np.ndarray) -> Box:
    """(H, W) bool with at least one pixel -> (left, top, right, bottom), right and bottom excluded."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
