"""Maps as heat over the picture, masks in palette colours, pictures as data URLs; and grids of pictures with their captions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mupvss.data.masks import voc_palette

HEIGHT = 150
ROWS = 512
"""Rows of a picture that are worked on at once."""
STOPS = np.array([(12, 7, 66), (93, 18, 110), (187, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
"""Dark to bright, even steps in lightness, so that the order survives in grey and for colour-blind readers."""


def heat(image: Image.Image, value: np.ndarray) -> Image.Image:
    """RGB picture and map (H, W) in [0, 1] -> the map in colour over the picture in grey."""
    position = np.clip(value, 0, 1) * (len(STOPS) - 1)
    low = np.minimum(position.astype(int), len(STOPS) - 2)
    part = (position - low)[..., None]
    colour = STOPS[low] * (1 - part) + STOPS[low + 1] * part
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    return Image.fromarray((0.65 * colour + 0.35 * grey).clip(0, 255).astype(np.uint8))


def overlay(image: Image.Image, labels: np.ndarray) -> Image.Image:
    """RGB picture and class ids (H, W) -> the ids' colours over the picture; background slightly darker, 255 white."""
    colours = voc_palette()
    colours[255] = 255
    found = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, ROWS):  # in parts, since floats of a very large picture fill gigabytes
        part = labels[top : top + ROWS]
        pixels = np.asarray(image.crop((0, top, image.width, top + len(part))), np.float32)
        mixed = 0.4 * pixels + 0.6 * colours[part]
        found[top : top + ROWS] = np.where((part > 0)[..., None], mixed, pixels * 0.8).astype(np.uint8)
    return Image.fromarray(found)


def inline(image: Image.Image, height: int = HEIGHT) -> str:
    """The picture at a height in pixels, as a data URL."""
    width = max(1, round(image.width * height / image.height))
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


GAP, CAPTION = 6, 20
INK, PAPER = (28, 28, 30), (251, 250, 248)


def grid(header: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]], height: int = 150) -> Image.Image:
    """header: a caption per column; rows: (caption, pictures), every row as long as the header. Pictures get one height and
    each column its widest picture's width."""
    font = ImageFont.load_default(13)
    scaled = [(name, [_at_height(picture, height) for picture in pictures]) for name, pictures in rows]
    widths = [max([_text_width(text, font), *(pictures[k].width for _, pictures in scaled)]) for k, text in enumerate(header)]
    margin = max([_text_width(name, font) for name, _ in rows], default=0)
    left = margin + GAP if margin else 0
    canvas = Image.new("RGB", (left + sum(widths) + GAP * (len(widths) + 1), CAPTION + (height + GAP) * len(rows) + GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    x = left + GAP
    for text, width in zip(header, widths, strict=True):
        draw.text((x, 3), text, INK, font)
        x += width + GAP
    for line, (name, pictures) in enumerate(scaled):
        y = CAPTION + GAP + line * (height + GAP)
        draw.text((GAP, y + height // 2 - 8), name, INK, font)
        x = left + GAP
        for picture, width in zip(pictures, widths, strict=True):
            canvas.paste(picture, (x, y))
            x += width + GAP
    return canvas


def _at_height(image: Image.Image, height: int) -> Image.Image:
    size = (max(1, round(image.width * height / image.height)), height)
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _text_width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(font.getlength(text)) + 2 if text else 0
