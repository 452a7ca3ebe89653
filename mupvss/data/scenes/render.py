"""Draws one scene: a ground, clutter, up to three objects that may hide one another, light, and the exact mask.

Two worlds are drawn alike: the six things of the built-in data set, and the many kinds that the drawn backbone has learned from
(`kinds.py`). They share grounds, clutter, colours and light, and no thing. The six are frozen: `tests/data/test_scenes.py` holds
a hash of their first pictures. A change would be another data set.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mupvss.data.scenes.kinds import KINDS
from mupvss.data.scenes.shapes import SHAPES
from mupvss.data.scenes.textures import BODY, GROUND, PART, smooth_noise
from mupvss.data.scenes.things import Polygon, Thing

SIX: dict[str, Thing] = {
    name: Thing(SHAPES[name], BODY[name], PART[name], GROUND[name], name in ("house", "mushroom", "kite")) for name in SHAPES
}
WORLDS: dict[str, dict[str, Thing]] = {"six": SIX, "many": KINDS}
SUPERSAMPLE = 2
MIN_VISIBLE = 0.4
"""An object that would hide more of an earlier one is left out."""


@dataclass(frozen=True)
class Scene:
    image: np.ndarray
    """(S, S, 3) uint8 RGB."""
    mask: np.ndarray
    """(S, S) uint8: 0 background, 1... in the order of the world's things."""
    part: np.ndarray
    """(S, S) bool: the telling parts."""


@dataclass(frozen=True)
class _Object:
    thing: Thing
    cover: np.ndarray  # (S, S) in [0, 1]
    x: np.ndarray  # own frame
    y: np.ndarray
    part_x: np.ndarray  # the telling part's frame, radius 1
    part_y: np.ndarray


def draw_scene(seed: int, index: int, size: int, world: str = "six") -> Scene:
    """Scene number `index` of the data set `seed`, at size x size pixels, of the things of a world in WORLDS."""
    things = WORLDS[world]
    classes = tuple(things)
    rng = np.random.default_rng([seed, index])
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    names = _choose_classes(classes, rng)
    image = _ground(names, things, x, y, rng)
    for _ in range(rng.integers(2, 7)):
        image = _add_clutter(image, x, y, rng)
    mask, part = np.zeros((size, size), np.uint8), np.zeros((size, size), bool)
    owner = np.full((size, size), -1)
    areas: list[int] = []
    for name in names:
        placed = _place(things[name], x, y, rng)
        solid = placed.cover >= 0.5
        hides = [(owner == k)[~solid].sum() < MIN_VISIBLE * area for k, area in enumerate(areas)]
        painted, telling = _paint(placed, rng)
        if any(hides) or solid.sum() < 0.01 * size * size:
            continue
        owner[solid] = len(areas)
        areas.append(int(solid.sum()))
        image = image * (1 - placed.cover[..., None]) + painted * placed.cover[..., None]
        mask[solid] = classes.index(name) + 1
        part = np.where(solid, telling, part)
    image = _light(image, x, y, rng)
    return Scene((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), mask, part & (mask > 0))


def _choose_classes(classes: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    count = rng.choice(4, p=(0.04, 0.40, 0.38, 0.18))
    names = [classes[i] for i in rng.choice(len(classes), count, replace=True)]
    return [str(name) for name in names]


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Any hue, moderate saturation: bodies, grounds and clutter share one distribution, so that colour tells nothing."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.1, 0.65), rng.uniform(0.35, 0.85)))


def _ground(names: list[str], things: dict[str, Thing], x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    liked = names[0] if names and rng.random() < 0.5 else tuple(things)[rng.integers(len(things))]
    pattern = things[liked].ground(x, y, rng)
    drift = smooth_noise((x.shape[0], x.shape[1]), 2, rng)
    tone = 1 + rng.uniform(0.06, 0.16) * pattern + 0.15 * drift
    return tone[..., None] * _colour(rng)


def _add_clutter(image: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pebble, a stick or a shard, with a pattern of no class."""
    size = len(x)
    radius, angle = rng.uniform(0.05, 0.2), rng.uniform(0, 2 * np.pi)
    corners = rng.integers(3, 8)
    around = np.sort(rng.uniform(0, 2 * np.pi, corners))
    stretch = rng.uniform(1, 3.5)
    polygon = np.stack((stretch * radius * np.cos(around), radius * np.sin(around)), 1)
    cover = _rasterise([_turn(polygon, angle) + rng.uniform(-1, 1, 2)], size)
    slope = rng.uniform(-0.25, 0.25, 2)
    tone = 1 + slope[0] * x + slope[1] * y
    return image * (1 - cover[..., None]) + tone[..., None] * _colour(rng) * cover[..., None]


def _place(thing: Thing, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> _Object:
    shape = thing.shape(rng)
    half = rng.uniform(0.42, 0.9)
    squeeze = rng.uniform(0.8, 1.15)
    angle = rng.normal(0, 0.25) if thing.upright else rng.uniform(0, 2 * np.pi)
    mirror = rng.choice((-1.0, 1.0))
    centre = rng.uniform(-0.8, 0.8, 2)
    frame = np.array([half * mirror, half * squeeze])
    body = [_turn(polygon * frame, angle) + centre for polygon in shape.body]
    dx, dy = x - centre[0], y - centre[1]
    own_x = (np.cos(angle) * dx + np.sin(angle) * dy) / frame[0]
    own_y = (-np.sin(angle) * dx + np.cos(angle) * dy) / frame[1]
    cx, cy = shape.part_centre
    part_x, part_y = (own_x - cx) / shape.part_radius, (own_y - cy) / shape.part_radius
    return _Object(thing, _rasterise(body, len(x)), own_x, own_y, part_x, part_y)


def _paint(placed: _Object, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours (S, S, 3) of the object, and where its telling part lies (S, S) bool."""
    tone = 1 + rng.uniform(0.07, 0.14) * placed.thing.body(placed.x, placed.y, rng)
    direction = rng.uniform(0, 2 * np.pi)
    tone = tone + 0.1 * (np.cos(direction) * placed.x + np.sin(direction) * placed.y)
    telling = np.hypot(placed.part_x, placed.part_y) < 1
    light, dark = _colour(rng) * 0.4 + 0.6, _colour(rng) * 0.35
    pattern = placed.thing.part(placed.part_x, placed.part_y)[..., None]
    part = np.where(pattern > 0, light, dark)
    body = tone[..., None] * _colour(rng)
    return np.where(telling[..., None], part, body), telling


def _light(image: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    direction = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.3) * (np.cos(direction) * x + np.sin(direction) * y)
    exposure = rng.uniform(0.75, 1.2)
    noise = rng.normal(0, rng.uniform(0.005, 0.03), image.shape)
    return image * (exposure * (1 + slope))[..., None] + noise


def _turn(polygon: Polygon, angle: float) -> Polygon:
    rotation = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return polygon @ rotation


def _rasterise(polygons: list[Polygon], size: int) -> np.ndarray:
    """Union of polygons in [-1, 1] coordinates -> share of each pixel covered (size, size) float64."""
    fine = size * SUPERSAMPLE
    canvas = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        draw.polygon([tuple(p) for p in ((polygon + 1) / 2 * fine - 0.5).tolist()], fill=1)
    blocks = np.asarray(canvas, np.float64).reshape(size, SUPERSAMPLE, size, SUPERSAMPLE)
    return blocks.mean((1, 3))
