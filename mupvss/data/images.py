"""Reading pictures and masks from files."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageCms

from mupvss.errors import DataError, UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MAX_PIXELS = 150_000_000
"""Larger pictures are refused: they would take gigabytes to decode."""


def read_image(path: Path) -> Image.Image:
    """Upright RGB picture. DataError for anything that cannot be decoded."""
    try:
        with path.open("rb") as stream:
            return decode_image(stream, str(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture; check the path in the tag table or split list") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def decode_image(stream: IO[bytes], origin: str) -> Image.Image:
    """Upright RGB picture of an open file; `origin` is its name in messages. The size is checked before any pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked below
            with Image.open(stream) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
                return to_rgb(image)
    except Image.DecompressionBombError as error:
        raise DataError(f"{origin}: {error}; at most {MAX_PIXELS // 10**6} million pixels are read: make it smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"{origin}: cannot be read as a picture ({error}); replace or remove it") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL picture -> upright RGB: rotated by its EXIF entry, 16 bits scaled, transparency over white, CMYK by its profile."""
    upright = _upright(image)
    if upright.mode.startswith(("I", "F")):  # PIL would clip, not scale
        return array_to_rgb(np.asarray(upright))
    if upright.mode == "CMYK":
        return _from_cmyk(upright)
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright.convert("RGB")


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by its EXIF orientation."""


def _upright(image: Image.Image) -> Image.Image:
    """As `ImageOps.exif_transpose`, which also writes the EXIF block anew and fails at entries of an odd type, as phones and
    tools leave them. Metadata that cannot be read leaves the picture as it is."""
    image.load()  # TIFF is turned here already
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # its parsers promise no set of errors
        orientation = 1
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # a damaged profile: the plain formula will do
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if found is not None:
                return found
    return image.convert("RGB")


def array_to_rgb(array: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, 1, 3 or 4): uint8, 16 bits per value in any whole-number type, or floats in [0, 1] -> RGB picture.

    UserError for any other shape or type, and for floats outside [0, 1].
    """
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(f"expected an array (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return to_rgb(Image.fromarray(_to_bytes(squeezed)))


def _to_bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.integer):
        return (array.astype(np.float64) / 257).clip(0, 255).round().astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise UserError(f"expected uint8, 16-bit numbers or floats in [0, 1], not {array.dtype} beyond that")
    return (array * 255).round().astype(np.uint8)
