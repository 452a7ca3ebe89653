"""Pictures in rows and columns with their captions, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

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
