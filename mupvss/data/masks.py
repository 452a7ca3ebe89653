"""Masks: one class id per pixel, 0 for background, 255 for pixels that are ignored; on disk a palette PNG in VOC's colours.

The file holds class ids; a viewer shows colours.
"""

from __future__ import annotations

import warnings
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


def read_label_image(path: Path) -> np.ndarray:
    """Class ids (H, W) uint8 of a palette or grey PNG. DataError for colour pictures and unreadable files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image_file = Image.open(path)
        with image_file as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            if image.mode not in ("P", "L"):
                raise DataError(
                    f"{path}: a mask must be a palette or 8-bit grey PNG of class ids, not mode {image.mode}; convert it"
                )
            return np.array(image, np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such mask") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}; at most {MAX_PIXELS // 10**6} million pixels are read") from None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as a mask ({error}); replace or remove it") from None


def bounding_box(mask: np.ndarray) -> Box:
    """(H, W) bool with at least one pixel -> (left, top, right, bottom), right and bottom excluded."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
