"""Reading pictures and masks from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mupvss.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def read_image(path: Path) -> Image.Image:
    """RGB picture, turned upright by its EXIF entry. DataError for anything that cannot be decoded."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits per pixel: PIL would clip, not scale
                upright = Image.fromarray((np.asarray(upright, np.float32) / 257).clip(0, 255).astype(np.uint8))
            return upright.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture; check the path in the tag table or split list") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: cannot be read as a picture ({error}); replace it or take it out") from None


def read_label_image(path: Path) -> np.ndarray:
    """Class ids (H, W) uint8 of a palette or grey PNG. DataError for colour pictures and unreadable files."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise DataError(
                    f"{path}: a mask must be a palette or 8-bit grey PNG of class ids, not mode {image.mode}; convert it"
                )
            return np.array(image, np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such mask") from None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as a mask ({error}); replace it or take it out") from None
