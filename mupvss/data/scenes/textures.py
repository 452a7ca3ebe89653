"""Surface patterns of the six things, and the grounds of all: values in [-1, 1] at points (x, y), of which colour is no part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mupvss.data.scenes.things import Field, Pattern


def smooth_noise(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> Field:
    """Bilinear noise of about `cells` bumps across a picture of (height, width)."""
    grid = rng.uniform(-1, 1, (cells + 2, cells + 2))
    ys, xs = (np.linspace(0, cells, n) for n in shape)
    iy, ix = ys.astype(int), xs.astype(int)
    fy, fx = (ys - iy)[:, None], (xs - ix)[None]
    a, b = grid[np.ix_(iy, ix)], grid[np.ix_(iy, ix + 1)]
    c, d = grid[np.ix_(iy + 1, ix)], grid[np.ix_(iy + 1, ix + 1)]
    return (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy


def scales(x: Field, y: Field, rng: np.random.Generator) -> Field:
    f = rng.uniform(13, 17)
    return np.cos(f * x) * np.cos(f * y)


def ribs(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return np.cos(rng.uniform(9, 13) * y)


def bricks(x: Field, y: Field, rng: np.random.Generator) -> Field:
    f = rng.uniform(2.6, 3.4)
    row = np.floor(y * f)
    joint = np.minimum(np.abs((y * f) % 1 - 0.5), np.abs((x * f * 0.6 + 0.5 * (row % 2)) % 1 - 0.5) * 1.4)
    return np.where(joint > 0.4, -1.0, 0.6)


def weave(x: Field, y: Field, rng: np.random.Generator) -> Field:
    f = rng.uniform(16, 20)
    return np.sign(np.sin(f * (x + y))) * 0.7


def blotches(x: Field, y: Field, rng: np.random.Generator) -> Field:
    a, b = rng.uniform(4, 6, 2)
    p, q = rng.uniform(0, 6, 2)
    return np.sin(a * x + 2 * np.sin(b * y + p)) * np.sin(b * y + 1.5 * np.sin(a * x + q))


def bands(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return np.sin(rng.uniform(11, 15) * x + rng.uniform(-1, 1) * y)


BODY: dict[str, Pattern] = {
    "beetle": ribs,
    "fish": scales,
    "house": bricks,
    "kite": weave,
    "mushroom": blotches,
    "snake": bands,
}


def bullseye(x: Field, y: Field) -> Field:
    return np.where(np.hypot(x, y) % 0.66 < 0.33, 1.0, -1.0)


def stripes(x: Field, y: Field) -> Field:
    return np.where(np.sin(8 * y) > 0, 1.0, -1.0)


def window(x: Field, y: Field) -> Field:
    return np.where((np.abs(x) < 0.16) | (np.abs(y) < 0.16), 1.0, -1.0)


def halves(x: Field, y: Field) -> Field:
    return np.sign(x)


def dots(x: Field, y: Field) -> Field:
    return np.where(np.hypot((x + 1) % 0.66 - 0.33, (y + 1) % 0.66 - 0.33) < 0.22, 1.0, -1.0)


def chequers(x: Field, y: Field) -> Field:
    return np.sign(np.sin(6.3 * x) * np.sin(6.3 * y))


PART: dict[str, Callable[[Field, Field], Field]] = {
    "beetle": stripes,
    "fish": bullseye,
    "house": window,
    "kite": halves,
    "mushroom": dots,
    "snake": chequers,
}


def grass(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return np.sin(40 * x + 4 * np.sin(7 * y + rng.uniform(0, 6))) * 0.8


def water(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return np.sin(26 * y + 3 * np.sin(5 * x + rng.uniform(0, 6)))


def sky(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return smooth_noise((x.shape[0], x.shape[1]), 3, rng)


def street(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return np.sign(np.sin(20 * x + rng.uniform(0, 6)) * np.sin(20 * y)) * 0.7


def leaves(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return smooth_noise((x.shape[0], x.shape[1]), 12, rng)


def sand(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return rng.uniform(-1, 1, x.shape)


GROUND: dict[str, Pattern] = {
    "beetle": leaves,
    "fish": water,
    "house": street,
    "kite": sky,
    "mushroom": grass,
    "snake": sand,
}
