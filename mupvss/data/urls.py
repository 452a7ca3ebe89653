"""Pictures from the web, only where the caller allows it."""

from __future__ import annotations

import io
import urllib.error
import urllib.request

from PIL import Image

from mupvss.data.images import decode_image
from mupvss.errors import DataError

MAX_BYTES = 64 * 2**20
TIMEOUT = 20.0
"""Seconds without an answer."""


def is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def fetch_image(url: str, allowed: bool) -> Image.Image:
    """Upright RGB picture. ValueError where URLs are off; DataError for what cannot be fetched, is too large or no picture."""
    if not allowed:
        raise ValueError(f"{url}: web addresses are not fetched unless you ask for it: load(run, allow_urls=True)")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            content = answer.read(MAX_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DataError(f"{url}: cannot be fetched ({error}); check the address, or save the picture and give its path") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"{url}: larger than {MAX_BYTES // 2**20} MB; save the picture and give its path")
    return decode_image(io.BytesIO(content), url)
