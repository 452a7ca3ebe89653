"""Pictures for the report: maps as heat over the image, masks in palette colours, all as inline PNG."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from mupvss.evaluation.palette import voc_palette

HEIGHT = 150
STOPS = np.array([(12, 7, 66), (93, 18, 110), (187, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
"""Dark to bright, even steps in lightness, so that the order survives in grey and for colour-blind readers."""


def heat(image: Image.Image, value: np.ndarray) -> Image.Image:
    """RGB picture and map (H, W) in [0, 1] -> the map in colour over the dimmed picture."""
    position = np.clip(value, 0, 1) * (len(STOPS) - 1)
    low = np.minimum(position.astype(int), len(STOPS) - 2)
    part = (position - low)[..., None]
    colour = STOPS[low] * (1 - part) + STOPS[low + 1] * part
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    return Image.fromarray((0.65 * colour + 0.35 * grey).clip(0, 255).astype(np.uint8))


def overlay(image: Image.Image, labels: np.ndarray) -> Image.Image:
    """RGB picture and class ids (H, W) -> the ids' colours over the picture; background left as it is, 255 white."""
    colours = voc_palette()
    colours[255] = 255
    pixels = np.asarray(image, np.float32)
    mixed = 0.4 * pixels + 0.6 * colours[labels]
    return Image.fromarray(np.where((labels > 0)[..., None], mixed, pixels * 0.8).astype(np.uint8))


def inline(image: Image.Image) -> str:
    """The picture at the report's height, as a data URL."""
    width = max(1, round(image.width * HEIGHT / image.height))
    buffer = io.BytesIO()
    image.resize((width, HEIGHT), Image.Resampling.BICUBIC).save(buffer, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
