"""Colours that can be told apart on any picture, and masks drawn with them: bright, far from each other, with dark outlines."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

UNSURE = (255, 255, 255)


def colours_of(count: int) -> list[tuple[int, int, int]]:
    """The background's colour, which is not drawn, and `count` others. Neighbouring ids are far apart in hue."""
    found = [(0, 0, 0)]
    for i in range(count):
        hue = (0.02 + i * 0.61803399) % 1
        lightness, saturation = ((0.55, 1.0), (0.72, 0.95), (0.42, 0.9))[i // 8 % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
        found.append((round(red * 255), round(green * 255), round(blue * 255)))
    return found


def drawn(picture: Image.Image, labels: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    """RGB picture and class ids of its size -> the picture with the mask over it, with outlines in two tones."""
    table = np.zeros((256, 3), np.float32)
    table[: len(colours)] = colours
    table[255] = UNSURE
    pixels = np.asarray(picture, np.float32).copy()
    inside = labels > 0
    pixels[inside] = 0.62 * pixels[inside] + 0.38 * table[labels[inside]]
    edge = _differs(labels, 1)
    pixels[_differs(labels, 2)] *= 0.25
    pixels[edge & inside] = table[labels[edge & inside]]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _differs(labels: np.ndarray, distance: int) -> np.ndarray:
    """(H, W) bool: whether a pixel at this distance, in one of four directions, has another label."""
    found = np.zeros(labels.shape, bool)
    for view, mark in ((labels, found), (labels.T, found.T)):
        change = view[distance:] != view[:-distance]
        mark[distance:] |= change
        mark[:-distance] |= change
    return found
