"""Surface patterns and telling parts of the many kinds: values in [-1, 1], none of them one of the six's (`textures.py`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mupvss.data.scenes.things import Field, Pattern

Random = np.random.Generator


def _polar(x: Field, y: Field) -> tuple[Field, Field]:
    return np.hypot(x, y), np.arctan2(y, x)


def _sign(inside: Field) -> Field:
    return np.where(inside, 1.0, -1.0)


def _tooth(x: Field) -> Field:
    """A triangle wave of period 1, in [-1, 1]."""
    return 4 * np.abs(x - np.floor(x + 0.5)) - 1


def ripples(x: Field, y: Field, rng: Random) -> Field:
    r, _ = _polar(x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5))
    return np.sin(rng.uniform(13, 19) * r)


def spokes(x: Field, y: Field, rng: Random) -> Field:
    return np.sin(int(rng.integers(9, 14)) * _polar(x, y)[1] + rng.uniform(0, 6))


def zigzag(x: Field, y: Field, rng: Random) -> Field:
    return np.sin(rng.uniform(11, 15) * y + 2.2 * _tooth(rng.uniform(1.6, 2.4) * x))


def honeycomb(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(9, 12)
    return (np.cos(f * x) + np.cos(f * (0.5 * x + 0.866 * y)) + np.cos(f * (0.5 * x - 0.866 * y))) / 1.5 - 1


def whirl(x: Field, y: Field, rng: Random) -> Field:
    r, a = _polar(x, y)
    return np.sin(rng.uniform(8, 12) * r + 3 * a)


def crosshatch(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(2.2, 3.0)
    return _sign((np.abs(_tooth(f * (x + 0.4 * y))) < 0.25) | (np.abs(_tooth(f * (y - 0.4 * x))) < 0.25))


def dashes(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(3.0, 4.0)
    row = np.floor(y * f)
    return _sign((np.abs((y * f) % 1 - 0.5) < 0.22) & ((x * f * 0.5 + 0.37 * row) % 1 < 0.55))


def pebbles(x: Field, y: Field, rng: Random) -> Field:
    points = rng.uniform(-1.2, 1.2, (40, 2))
    near = np.sort(np.stack([np.hypot(x - px, y - py) for px, py in points]), axis=0)
    return np.clip((near[1] - near[0]) * 10 - 1, -1, 1)


def freckles(x: Field, y: Field, rng: Random) -> Field:
    points, size = rng.uniform(-1, 1, (30, 2)), rng.uniform(0.05, 0.08)
    return _sign(np.min([np.hypot(x - px, y - py) for px, py in points], axis=0) < size)


def herringbone(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(9, 12)
    return np.sin(f * (np.abs(_tooth(1.2 * x)) + 1.4 * y))


def marble(x: Field, y: Field, rng: Random) -> Field:
    a, b, c = rng.uniform(2, 4, 3)
    return np.sin(6 * x + 2.5 * np.sin(a * y + c) + 1.5 * np.sin(b * (x + y)))


def chirp(x: Field, y: Field, rng: Random) -> Field:
    return np.sin(rng.uniform(6, 9) * (x + 1.3) ** 2)


def shingles(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(3.0, 4.0)
    row = np.floor(y * f)
    u, v = (x * f + 0.5 * (row % 2)) % 1 - 0.5, (y * f) % 1
    return np.clip(4 * (np.hypot(u, v) - 0.55), -1, 1)


def triangles(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(2.6, 3.4)
    return _sign((x * f) % 1 < (y * f) % 1)


def pluses(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(2.4, 3.2)
    u, v = np.abs((x * f) % 1 - 0.5), np.abs((y * f) % 1 - 0.5)
    return _sign((np.minimum(u, v) < 0.1) & (np.maximum(u, v) < 0.33))


def veins(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(2.5, 3.5)
    return _sign((np.abs(y) < 0.05) | ((f * (x + 0.8 * np.abs(y))) % 1 < 0.22))


def plaid(x: Field, y: Field, rng: Random) -> Field:
    f = rng.uniform(1.4, 1.9)
    return (_tooth(f * x) + _tooth(2 * f * y) + _sign(np.abs(_tooth(f * x + 0.5)) < 0.2)) / 3


BODIES: tuple[Pattern, ...] = (
    ripples, spokes, zigzag, honeycomb, whirl, crosshatch, dashes, pebbles, freckles, herringbone, marble, chirp, shingles,
    triangles, pluses, veins, plaid,
)  # fmt: skip


def spiral(x: Field, y: Field) -> Field:
    r, a = _polar(x, y)
    return _sign(np.sin(9 * r - a) > 0)


def trefoil(x: Field, y: Field) -> Field:
    return _sign(np.cos(3 * _polar(x, y)[1]) > 0)


def pentagram(x: Field, y: Field) -> Field:
    r, a = _polar(x, y)
    return _sign(r < 0.35 + 0.5 * np.abs(_tooth(5 * a / (2 * np.pi)) + 1) / 2)


def triangle(x: Field, y: Field) -> Field:
    return _sign((y < 0.5) & (y > -0.85 + 1.6 * np.abs(x)))


def moon(x: Field, y: Field) -> Field:
    return _sign((np.hypot(x, y) < 0.85) & (np.hypot(x - 0.4, y) > 0.7))


def chevron(x: Field, y: Field) -> Field:
    return _sign(np.abs(y + 0.3 - 0.9 * np.abs(x)) < 0.28)


def zed(x: Field, y: Field) -> Field:
    return _sign((np.abs(np.abs(y) - 0.6) < 0.16) & (np.abs(x) < 0.65) | (np.abs(x + y) < 0.2) & (np.abs(y) < 0.6))


def tee(x: Field, y: Field) -> Field:
    return _sign((np.abs(y + 0.55) < 0.2) & (np.abs(x) < 0.75) | (np.abs(x) < 0.2) & (y > -0.55) & (y < 0.8))


def ell(x: Field, y: Field) -> Field:
    return _sign((np.abs(x + 0.4) < 0.22) & (np.abs(y) < 0.75) | (np.abs(y - 0.53) < 0.22) & (x > -0.4) & (x < 0.65))


def aitch(x: Field, y: Field) -> Field:
    return _sign((np.abs(np.abs(x) - 0.5) < 0.17) & (np.abs(y) < 0.75) | (np.abs(y) < 0.16) & (np.abs(x) < 0.5))


def pointer(x: Field, y: Field) -> Field:
    return _sign((np.abs(y) < 0.14) & (x > -0.8) & (x < 0.2) | (x > 0.1) & (np.abs(y) < 0.75 * (0.85 - x)))


def hearts(x: Field, y: Field) -> Field:
    u, v = x / 0.75, -y / 0.75
    return _sign((u**2 + v**2 - 0.6) ** 3 - 1.2 * u**2 * v**3 < 0)


def wedge(x: Field, y: Field) -> Field:
    r, a = _polar(x, y)
    return _sign((r < 0.85) & (np.abs(a) > 0.6))


def percent(x: Field, y: Field) -> Field:
    dots = np.minimum(np.hypot(x + 0.42, y + 0.42), np.hypot(x - 0.42, y - 0.42)) < 0.26
    return _sign(dots | (np.abs(x + y) < 0.14) & (np.abs(x) < 0.62))


def bowtie(x: Field, y: Field) -> Field:
    return _sign((np.abs(y) < np.abs(x)) & (np.abs(x) < 0.8))


def petals(x: Field, y: Field) -> Field:
    r, a = _polar(x, y)
    return _sign(r < 0.45 + 0.4 * np.cos(6 * a))


def eye(x: Field, y: Field) -> Field:
    return _sign((np.abs(y) < 0.5 * (1 - x**2)) & (np.hypot(x, y) > 0.24))


def seven(x: Field, y: Field) -> Field:
    return _sign((np.abs(y + 0.6) < 0.18) & (np.abs(x) < 0.6) | (np.abs(x - 0.35 + 0.4 * (y + 0.6)) < 0.2) & (np.abs(y) < 0.75))


def prongs(x: Field, y: Field) -> Field:
    return _sign(
        (np.abs(y - 0.3) < 0.17) & (np.abs(x) < 0.65)
        | (np.abs(_tooth(x / 0.55)) > 0.45) & (np.abs(x) < 0.72) & (y < 0.3) & (y > -0.75)
        | (np.abs(x) < 0.14) & (y > 0.3) & (y < 0.9)
    )


PARTS: tuple[Callable[[Field, Field], Field], ...] = (
    spiral, trefoil, pentagram, triangle, moon, chevron, zed, tee, ell, aitch, pointer, hearts, wedge, percent, bowtie, petals,
    eye, seven, prongs,
)  # fmt: skip
