"""Reading pictures and masks from files."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from mupvss.errors import DataError, UserError

T = TypeVar("T")

with contextlib.suppress(ImportError):  # an extra
    from pi_heif import register_heif_opener

    register_heif_opener()

Image.init()
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".jp2", ".j2k", ".jpx"}
    | {".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".mpo", ".qoi"}
) & frozenset(Image.registered_extensions())
"""Suffixes of pictures that can be read; .avif and .heic only if this installation supports them."""
FORMATS = sorted(
    {"JPEG", "MPO", "PNG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "JPEG2000", "AVIF", "HEIF", "PPM", "TGA", "QOI"} & set(Image.OPEN)
)
"""Formats that are opened, whatever the suffix says. Others could start programs of this computer, as PostScript does."""
MAX_PIXELS = 150_000_000
"""Larger pictures are refused: they would take gigabytes to decode."""
DARK = 40
"""A picture with all values below this is nearly black."""
PAGES, FEWER_BITS, BLACK = "pages", "bits", "dark"
REMARKS = {
    PAGES: "pictures of several pages or frames, of which only the first is used",
    FEWER_BITS: "grey 16-bit pictures whose values use 8 or 12 bits, scaled by these",
    BLACK: f"pictures that are nearly black (all values below {DARK} of 255); spread their values over the range of their file",
}
"""What is said of a picture that can be read, by its name in `Checked.remarks`."""


def read_image(path: Path) -> Image.Image:
    """Upright RGB picture. DataError for anything that cannot be decoded."""
    try:
        with path.open("rb") as stream:
            return decode_image(stream, str(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture; check the path in the tag table or split list") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


@dataclass(frozen=True)
class Checked:
    """What was seen when a picture was decoded."""

    size: tuple[int, int]
    """Upright (width, height)."""
    remarks: tuple[str, ...] = ()
    """Keys of REMARKS."""


def check_image(path: Path) -> Checked:
    """Decodes a picture, as fast as its format allows. DataError as for `read_image`."""
    try:
        with path.open("rb") as stream:
            found = _decoded(stream, str(path), _checked)
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture; check the path in the tag table or split list") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if BLACK in found.remarks and not _dark(read_image(path)):  # an eighth of the size has no single bright pixels
        found = replace(found, remarks=tuple(remark for remark in found.remarks if remark != BLACK))
    return found


def _checked(image: Image.Image) -> Checked:
    width, height = image.size
    remarks = []
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        image.draft(image.mode, (width // 8, height // 8))  # reads the whole file, and decodes at an eighth of the size
        image.load()
        seen = image
    else:
        seen = to_rgb(image)
        if image.mode.startswith("I;16") and _bits(np.asarray(image)) < 16:
            remarks.append(FEWER_BITS)
    if _dark(seen):
        remarks.append(BLACK)
    upright = (height, width) if _orientation(image) >= 5 else (width, height)
    if _pages(image) > 1:
        remarks.append(PAGES)
    return Checked(upright, tuple(remarks))


def _dark(image: Image.Image) -> bool:
    return max(high for _, high in image.convert("RGB").getextrema()) < DARK  # type: ignore[misc]


def _pages(image: Image.Image) -> int:
    """Pages of a TIFF of the first one's size, since smaller ones are previews, or frames of an animation. The second picture in
    a phone's JPEG is none. Asked last, since it may read on in the file."""
    if image.format not in ("TIFF", "GIF", "WEBP", "PNG"):
        return 1
    size, count = image.size, 1
    with contextlib.suppress(Exception):  # a damaged further page, for which readers promise no set of errors, is no page
        for page in range(1, getattr(image, "n_frames", 1)):
            image.seek(page)
            count += image.size == size
            if count > 1:
                break
    return count


def decode_image(stream: IO[bytes], origin: str) -> Image.Image:
    """Upright RGB picture of an open file; `origin` is its name in messages. The size is checked before any pixel is decoded."""
    return _decoded(stream, origin, to_rgb)


def _decoded(stream: IO[bytes], origin: str, work: Callable[[Image.Image], T], whole: bool = True) -> T:
    """The result of `work` on the opened picture. whole: False for a PNG without its texts, which is not stripped again."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked below
            with Image.open(stream, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
                return work(image)
    except Image.DecompressionBombError as error:
        raise DataError(f"{origin}: {error}; at most {MAX_PIXELS // 10**6} million pixels are read: make it smaller") from None
    except (
        OSError, SyntaxError, ValueError, EOFError, struct.error, TypeError, AttributeError, KeyError, NotImplementedError
    ) as error:  # fmt: skip
        if isinstance(error, UserError):
            raise DataError(f"{origin}: {error}") from None
        if whole and "MAX_TEXT_CHUNK" in str(error):
            return _decoded(_without_texts(stream), origin, work, whole=False)
        raise DataError(f"{origin}: cannot be read as a picture ({_told(stream, error)}); replace or remove it") from None


def _told(stream: IO[bytes], error: Exception) -> str:
    """Why a picture cannot be read."""
    stream.seek(0)
    begin = stream.read(64)
    if not begin:
        return "the file is empty"
    if begin.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file with 'git lfs pull'"
    if begin.lstrip()[:1] == b"<":
        return "it is a web page or other text, not a picture"
    return "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)


TEXTS = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG that hold texts and colour profiles, and no pixels."""


def _without_texts(stream: IO[bytes]) -> IO[bytes]:
    """A PNG without its texts and profile. Pillow refuses a picture in which they are large, as some scanners write them."""
    stream.seek(0)
    kept = bytearray(stream.read(8))
    while len(head := stream.read(8)) == 8:
        body = stream.read(struct.unpack(">I", head[:4])[0] + 4)  # a checksum follows
        if head[4:] not in TEXTS:
            kept += head + body
    return io.BytesIO(bytes(kept))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL picture -> upright RGB: rotated by its EXIF entry, 16 bits scaled, transparency over white, CMYK by its profile."""
    upright = _upright(image)
    if upright.mode.startswith(("I", "F")):  # PIL would clip, not scale
        return Image.fromarray(_scaled(np.asarray(upright))).convert("RGB")
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
    """As `ImageOps.exif_transpose`, which also rewrites the EXIF block and fails at entries of an odd type, as phones and
    tools leave them. Metadata that cannot be read leaves the picture as it is."""
    image.load()  # TIFF is turned here already
    orientation = _orientation(image)
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if it cannot be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # its parsers promise no set of errors
        return 1
    return found if found in TURNS else 1


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # a damaged profile: the plain formula will do
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if found is not None:
                return found
    return image.convert("RGB")


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values of a file -> uint8. Their type does not give their range: 16-bit values use `_bits` of it; values of more bits are
    taken for [0, 1], 8-bit or 16-bit values, whichever fits. UserError if none does."""
    if values.dtype in (np.uint16, np.dtype(">u2")):
        return _from_sixteen(values)
    if values.dtype == np.uint8:
        return values
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if low < 0 or high > 65535:
        raise UserError(
            f"its values go from {low:g} to {high:g}; scale them to 0 ... 255 or 0 ... 65535, or fractions to 0 ... 1"
        )
    fractions = np.issubdtype(values.dtype, np.floating) and high <= 1
    factor = 255.0 if fractions else 1.0 if high <= 255 else 1 / 257
    return (np.nan_to_num(values.astype(np.float64), nan=0.0) * factor).round().clip(0, 255).astype(np.uint8)


def _from_sixteen(values: np.ndarray) -> np.ndarray:
    """Whole numbers up to 65535 -> uint8, by the bits that they use."""
    return (values.astype(np.float64) * (255 / (2 ** _bits(values) - 1))).round().astype(np.uint8)


def _bits(values: np.ndarray) -> int:
    """Bits that the values of a 16-bit file use: 8, 12 or 16. Cameras and microscopes of 12 bits write such files; with the range
    of 16 bits their pictures would be nearly black."""
    highest = int(values.max(initial=0))
    return 8 if highest < 2**8 else 12 if highest < 2**12 else 16


def array_to_rgb(array: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, 1, 3 or 4): uint8, 16 bits per value in any whole-number type (12 or 8 if none is higher), or floats in
    [0, 1] -> RGB picture.

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
        return _from_sixteen(array.clip(0, 2**16 - 1))
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise UserError(f"expected uint8, 16-bit numbers or floats in [0, 1], not {array.dtype} beyond that")
    return (array * 255).round().astype(np.uint8)
