"""The many kinds that the drawn backbone has learned from: other shapes, surfaces and telling parts than the six's.

`tests/data/test_scenes.py` holds that nothing here is one of the six's; grounds alone are shared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from mupvss.data.scenes import kind_patterns as p
from mupvss.data.scenes.textures import grass, leaves, sand, sky, street, water
from mupvss.data.scenes.things import Polygon, Silhouette, Thing, ellipse, strip

Random = np.random.Generator


def _around(radius: Callable[[np.ndarray], np.ndarray], points: int = 96) -> Polygon:
    """The outline at `radius`, a function of the angle."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack((np.cos(angle), np.sin(angle)), 1) * radius(angle)[:, None]


def _bar(x0: float, y0: float, x1: float, y1: float, half: float = 0.12) -> Polygon:
    return strip(np.array([(x0, y0), (x1, y1)]), np.full(2, half))


def _mirrored(half: list[tuple[float, float]]) -> Polygon:
    """An outline from its right half, top to bottom."""
    right = np.array(half)
    return np.concatenate((right, right[::-1] * (-1, 1)))


def star(points: int, rng: Random) -> Silhouette:
    inner, first = rng.uniform(0.4, 0.55), rng.uniform(0, np.pi)
    angle = first + np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2, inner, 0.98)
    return Silhouette([np.stack((np.cos(angle), np.sin(angle)), 1) * radius[:, None]], (0.0, 0.0), 0.25)


def gear(rng: Random) -> Silhouette:
    teeth, depth = int(rng.integers(8, 12)), rng.uniform(0.16, 0.24)
    return Silhouette([_around(lambda a: 0.95 - depth * (np.sin(teeth * a) > 0), 240)], (0.0, 0.0), 0.28)


def flower(petals: int, rng: Random) -> Silhouette:
    reach, size = rng.uniform(0.55, 0.65), rng.uniform(0.3, 0.38)
    angles = rng.uniform(0, 6) + np.arange(petals) * 2 * np.pi / petals
    leaf = [ellipse(reach * np.cos(a), reach * np.sin(a), size, size) for a in angles]
    return Silhouette([ellipse(0, 0, 0.4, 0.4), *leaf], (0.0, 0.0), 0.25)


def cross(rng: Random) -> Silhouette:
    half, low = rng.uniform(0.18, 0.28), rng.uniform(-0.35, 0.0)
    return Silhouette([_bar(0, -0.95, 0, 0.95, half), _bar(-0.75, low, 0.75, low, half)], (0.0, low), 0.22)


def crescent(rng: Random) -> Silhouette:
    a = np.linspace(0.9, 2 * np.pi - 0.9, 40)
    path = 0.72 * np.stack((np.cos(a), np.sin(a)), 1)
    half = rng.uniform(0.24, 0.32) * np.sin(np.linspace(0.12, np.pi - 0.12, 40))
    return Silhouette([strip(path, half)], (-0.72, 0.0), 0.22)


def arrow(rng: Random) -> Silhouette:
    half, wing = rng.uniform(0.14, 0.22), rng.uniform(0.5, 0.65)
    return Silhouette([_bar(-0.95, 0, 0.3, 0, half), np.array([(0.1, -wing), (0.98, 0), (0.1, wing)])], (0.35, 0.0), 0.21)


def heart(rng: Random) -> Silhouette:
    t, wide = np.linspace(0, 2 * np.pi, 80, endpoint=False), rng.uniform(0.85, 1.0)
    x = wide * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17
    return Silhouette([np.stack((x, y), 1)], (rng.uniform(-0.15, 0.15), -0.15), 0.24)


def leaf(rng: Random) -> Silhouette:
    x, wide = np.linspace(-0.75, 0.95, 30), rng.uniform(0.35, 0.5)
    half = wide * np.sin(np.pi * (x + 0.75) / 1.7) ** 0.8
    path = np.stack((x, rng.uniform(-0.2, 0.2) * x**2), 1)
    return Silhouette([strip(path, half + 0.01), _bar(-1.0, 0.0, -0.6, 0.0, 0.05)], (0.1, 0.0), 0.22)


def bottle(rng: Random) -> Silhouette:
    wide, neck, shoulder = rng.uniform(0.36, 0.48), rng.uniform(0.11, 0.16), rng.uniform(-0.3, -0.1)
    half = [(neck, -0.98), (neck, shoulder - 0.25), (wide, shoulder), (wide, 0.95)]
    return Silhouette([_mirrored(half)], (0.0, 0.35), 0.24)


def cup(rng: Random) -> Silhouette:
    top, foot = rng.uniform(0.55, 0.65), rng.uniform(0.35, 0.5)
    a = np.linspace(-1.3, 1.3, 16)
    handle = strip(np.stack((0.5 + 0.4 * np.cos(a), 0.05 + 0.38 * np.sin(a)), 1), np.full(16, 0.08))
    return Silhouette([_mirrored([(top, -0.7), (foot, 0.75)]), handle], (-0.1, 0.1), 0.24)


def key(rng: Random) -> Silhouette:
    teeth = [_bar(x, 0, x, rng.uniform(0.25, 0.42), 0.07) for x in (0.45, 0.65, 0.85)]
    return Silhouette([ellipse(-0.6, 0, 0.4, 0.4), _bar(-0.3, 0, 0.98, 0, 0.09), *teeth], (-0.6, 0.0), 0.24)


def hammer(rng: Random) -> Silhouette:
    head, half = rng.uniform(0.5, 0.7), rng.uniform(0.17, 0.24)
    claw = np.array([(0.7, -head), (0.98, -head - 0.12), (0.7, -head + 0.28), (0.45, -head + 0.2)])
    return Silhouette([_bar(0.7, -head, 0.7, head * 0.6, half), claw, _bar(-0.98, 0, 0.7, 0, 0.1)], (0.7, 0.1), 0.18)


def umbrella(rng: Random) -> Silhouette:
    a, high = np.linspace(np.pi, 2 * np.pi, 30), rng.uniform(0.7, 0.95)
    dome = np.stack((0.95 * np.cos(a), 0.0 + high * np.sin(a)), 1)
    hem = np.stack((np.linspace(0.95, -0.95, 37), -0.14 * np.abs(np.sin(np.linspace(0, 4 * np.pi, 37)))), 1)
    hook = np.linspace(0, np.pi, 10)
    stick = np.concatenate(([(0, -0.1), (0, 0.8)], np.stack((0.14 - 0.14 * np.cos(hook), 0.82 + 0.14 * np.sin(hook)), 1)))
    return Silhouette([np.concatenate((dome, hem)), strip(stick, np.full(len(stick), 0.06))], (0.3, -0.35), 0.21)


def comb(rng: Random) -> Silhouette:
    count, long = int(rng.integers(6, 9)), rng.uniform(0.4, 0.6)
    teeth = [_bar(x, -0.2, x, -0.2 + long, 0.06) for x in np.linspace(-0.88, 0.88, count)]
    return Silhouette([_bar(-0.95, -0.35, 0.95, -0.35, 0.25), *teeth], (rng.uniform(-0.4, 0.4), -0.35), 0.2)


def anchor(rng: Random) -> Silhouette:
    a = np.linspace(0.1 * np.pi, 0.9 * np.pi, 24)
    bow = np.stack((0.8 * np.cos(a), 0.1 + 0.75 * np.sin(a)), 1)
    arms = strip(bow, 0.06 + 0.08 * np.sin(np.linspace(0, np.pi, 24)))
    bar = rng.uniform(0.35, 0.5)
    return Silhouette(
        [arms, _bar(0, -0.7, 0, 0.85, 0.1), _bar(-bar, -0.4, bar, -0.4, 0.09), ellipse(0, -0.75, 0.24, 0.22)], (0.0, -0.75), 0.18
    )


def boat(rng: Random) -> Silhouette:
    deck, mast = rng.uniform(0.25, 0.4), rng.uniform(-0.25, 0.1)
    hull = np.array([(-0.95, deck), (0.95, deck), (0.6, 0.9), (-0.65, 0.9)])
    sail = np.array([(mast + 0.08, -0.95), (mast + 0.75, deck - 0.1), (mast + 0.08, deck - 0.1)])
    jib = np.array([(mast - 0.08, -0.7), (mast - 0.08, deck - 0.1), (mast - 0.55, deck - 0.1)])
    return Silhouette([hull, sail, jib, _bar(mast, -0.95, mast, deck + 0.1, 0.06)], (0.0, deck + 0.26), 0.2)


def fir(rng: Random) -> Silhouette:
    layers = [(0.4, -0.98, -0.4), (0.58, -0.6, 0.1), (0.78, -0.2, 0.62)]
    wide = rng.uniform(0.85, 1.1)
    body = [np.array([(0, top), (w * wide, low), (-w * wide, low)]) for w, top, low in layers]
    return Silhouette([*body, _bar(0, 0.5, 0, 0.98, 0.12)], (0.0, 0.3), 0.22)


def butterfly(rng: Random) -> Silhouette:
    up, low = rng.uniform(0.4, 0.48), rng.uniform(0.28, 0.36)
    wings = [ellipse(s * 0.5, -0.35, 0.46, up) for s in (-1, 1)] + [ellipse(s * 0.4, 0.45, 0.36, low) for s in (-1, 1)]
    return Silhouette([*wings, ellipse(0, 0, 0.12, 0.7)], (0.5, -0.35), 0.22)


def bird(rng: Random) -> Silhouette:
    neck = rng.uniform(0.45, 0.6)
    beak = np.array([(0.75, -neck - 0.1), (1.0, -neck + 0.02), (0.75, -neck + 0.12)])
    tail = np.array([(-0.4, 0.0), (-1.0, rng.uniform(-0.4, -0.1)), (-0.9, 0.25)])
    legs = [_bar(x, 0.3, x + 0.05, 0.9, 0.05) for x in (-0.05, 0.2)]
    return Silhouette(
        [ellipse(0, 0.05, 0.6, 0.42), ellipse(0.55, -neck, 0.28, 0.26), _bar(0.3, -0.1, 0.5, -neck, 0.16), beak, tail, *legs],
        (0.55, -neck),
        0.19,
    )


def bone(rng: Random) -> Silhouette:
    half, knob = rng.uniform(0.14, 0.2), rng.uniform(0.2, 0.26)
    knobs = [ellipse(x, y, knob, knob) for x in (-0.72, 0.72) for y in (-0.2, 0.2)]
    return Silhouette([_bar(-0.75, 0, 0.75, 0, half), *knobs], (0.72, 0.0), 0.22)


def horseshoe(rng: Random) -> Silhouette:
    gap, half = rng.uniform(0.5, 0.75), rng.uniform(0.17, 0.22)
    a = np.linspace(0.5 * np.pi + gap, 2.5 * np.pi - gap, 40)
    return Silhouette([strip(0.75 * np.stack((np.cos(a), np.sin(a)), 1), np.full(40, half))], (0.0, -0.75), 0.19)


def hourglass(rng: Random) -> Silhouette:
    wide, waist = rng.uniform(0.55, 0.7), rng.uniform(0.08, 0.15)
    return Silhouette([_mirrored([(wide, -0.95), (wide, -0.75), (waist, 0.0), (wide, 0.75), (wide, 0.95)])], (0.0, 0.62), 0.23)


def pear(rng: Random) -> Silhouette:
    wide = rng.uniform(0.5, 0.6)
    return Silhouette(
        [ellipse(0, 0.35, wide, 0.6), ellipse(0, -0.35, wide * 0.55, 0.45), _bar(0, -0.7, 0.1, -0.98, 0.05)], (0.0, 0.4), 0.24
    )


def bell(rng: Random) -> Silhouette:
    y, wide = np.linspace(-0.85, 0.65, 24), rng.uniform(0.7, 0.9)
    half = [(float(w), float(v)) for w, v in zip(wide * (0.28 + 0.72 * ((y + 0.85) / 1.5) ** 2.2), y, strict=True)]
    return Silhouette([_mirrored(half), ellipse(0, 0.75, 0.2, 0.2), ellipse(0, -0.88, 0.14, 0.1)], (0.0, -0.05), 0.21)


def vase(rng: Random) -> Silhouette:
    y, belly = np.linspace(-0.95, 0.95, 32), rng.uniform(0.3, 0.45)
    half = 0.28 + belly * np.exp(-(((y - rng.uniform(0.1, 0.4)) / 0.42) ** 2)) + 0.1 * (y < -0.85)
    return Silhouette([_mirrored([(float(w), float(v)) for w, v in zip(half, y, strict=True)])], (0.0, 0.3), 0.24)


def chair(rng: Random) -> Silhouette:
    seat = rng.uniform(0.0, 0.2)
    legs = [_bar(x, seat, x, 0.95, 0.07) for x in (-0.5, 0.5)]
    return Silhouette([_bar(-0.5, -0.95, -0.5, seat, 0.12), _bar(-0.6, seat, 0.62, seat, 0.15), *legs], (0.1, seat), 0.16)


def hat(rng: Random) -> Silhouette:
    crown, high = rng.uniform(0.42, 0.55), rng.uniform(-0.75, -0.5)
    return Silhouette([_mirrored([(crown * 0.9, high), (crown, 0.35)]), ellipse(0, 0.4, 0.96, 0.2)], (0.0, -0.1), 0.22)


def lamp(rng: Random) -> Silhouette:
    top, low = rng.uniform(0.25, 0.4), rng.uniform(0.65, 0.85)
    return Silhouette(
        [_mirrored([(top, -0.95), (low, -0.1)]), _bar(0, -0.1, 0, 0.8, 0.08), ellipse(0, 0.85, 0.45, 0.12)], (0.0, -0.5), 0.22
    )


def bolt(rng: Random) -> Silhouette:
    shift = rng.uniform(0.15, 0.3)
    corners = [(-0.1, -0.98), (0.45, -0.98), (0.15, -shift), (0.5, -shift), (-0.35, 0.98), (-0.02, 0.12), (-0.45, 0.12)]
    return Silhouette([np.array(corners)], (0.02, -0.1), 0.2)


def cloud(rng: Random) -> Silhouette:
    bumps = [(-0.55, 0.1, 0.36), (-0.15, -0.2, 0.42), (0.35, -0.1, 0.4), (0.65, 0.18, 0.3)]
    body = [ellipse(x, y + rng.uniform(-0.08, 0.08), r, r) for x, y, r in bumps]
    return Silhouette([*body, _bar(-0.6, 0.25, 0.7, 0.25, 0.22)], (0.1, 0.05), 0.24)


def drop(rng: Random) -> Silhouette:
    y, wide = np.linspace(-0.95, 0.92, 40), rng.uniform(0.5, 0.62)
    s = (y + 0.95) / 1.87
    half = wide * 2.6 * s * np.sqrt(np.clip(1 - s, 0, 1)) ** 1.0
    return Silhouette([_mirrored([(float(w), float(v)) for w, v in zip(half, y, strict=True)])], (0.0, 0.35), 0.24)


def hook(rng: Random) -> Silhouette:
    a, radius = np.linspace(0, 1.25 * np.pi, 26), rng.uniform(0.38, 0.48)
    bow = np.stack((radius * np.cos(a), 0.4 + radius * np.sin(a)), 1)
    path = np.concatenate(([(radius, -0.85)], bow))
    return Silhouette([strip(path, np.full(len(path), 0.13)), ellipse(radius, -0.72, 0.26, 0.24)], (radius, -0.72), 0.2)


def propeller(rng: Random) -> Silhouette:
    first, wide = rng.uniform(0, 2), rng.uniform(0.18, 0.26)
    blades = []
    for k in range(3):
        a = first + k * 2 * np.pi / 3
        along = np.linspace(0.05, 0.98, 14)
        half = wide * np.sin(np.pi * np.linspace(0.08, 0.97, 14)) ** 0.7
        blades.append(strip(along[:, None] * np.array([(np.cos(a), np.sin(a))]), half))
    return Silhouette([*blades, ellipse(0, 0, 0.26, 0.26)], (0.0, 0.0), 0.22)


def wrench(rng: Random) -> Silhouette:
    jaw, half = rng.uniform(0.3, 0.38), rng.uniform(0.11, 0.15)
    a = np.linspace(0.6, 2 * np.pi - 0.6, 24)
    mouth = strip(np.stack((0.68 + (jaw - 0.12) * np.cos(a), (jaw - 0.12) * np.sin(a)), 1), np.full(24, 0.13))
    return Silhouette([_bar(-0.75, 0, 0.45, 0, half), mouth, ellipse(-0.75, 0, 0.24, 0.24)], (-0.75, 0.0), 0.19)


def rocket(rng: Random) -> Silhouette:
    y, wide = np.linspace(-0.98, 0.6, 30), rng.uniform(0.26, 0.36)
    half = [(float(w), float(v)) for w, v in zip(wide * np.sin(0.12 + 0.75 * np.pi * (y + 0.98) / 1.58), y, strict=True)]
    fins = [np.array([(s * 0.18, 0.15), (s * 0.65, 0.85), (s * 0.15, 0.6)]) for s in (-1, 1)]
    return Silhouette([_mirrored(half), *fins, np.array([(-0.15, 0.6), (0.15, 0.6), (0.0, 0.98)])], (0.0, -0.25), 0.2)


def plane(rng: Random) -> Silhouette:
    sweep, wing = rng.uniform(0.2, 0.45), rng.uniform(0.75, 0.95)
    wings = [np.array([(0.25, 0), (-sweep, s * wing), (-sweep - 0.22, s * wing), (-0.2, 0)]) for s in (-1, 1)]
    tails = [np.array([(-0.65, 0), (-0.95, s * 0.35), (-1.0, s * 0.3), (-0.9, 0)]) for s in (-1, 1)]
    return Silhouette([ellipse(0, 0, 0.98, 0.15), *wings, *tails], (0.0, 0.0), 0.2)


def tooth(rng: Random) -> Silhouette:
    wide = rng.uniform(0.55, 0.7)
    roots = [np.array([(s * wide, -0.1), (s * 0.45, 0.95), (s * 0.05, 0.15)]) for s in (-1, 1)]
    return Silhouette([ellipse(0, -0.4, wide, 0.5), *roots], (0.0, -0.4), 0.23)


def candle(rng: Random) -> Silhouette:
    half, high = rng.uniform(0.22, 0.32), rng.uniform(-0.4, -0.2)
    flame = ellipse(0, high - 0.35, 0.15, 0.26)
    return Silhouette(
        [_mirrored([(half, high), (half, 0.8)]), ellipse(0, 0.82, 0.6, 0.14), flame, _bar(0, high, 0, high - 0.2, 0.04)],
        (0.0, 0.25),
        0.2,
    )


def table(rng: Random) -> Silhouette:
    top, splay = rng.uniform(-0.45, -0.2), rng.uniform(-0.1, 0.15)
    legs = [_bar(s * 0.7, top, s * (0.7 + splay), 0.9, 0.08) for s in (-1, 1)]
    return Silhouette([_bar(-0.98, top, 0.98, top, 0.17), *legs], (rng.uniform(-0.3, 0.3), top), 0.17)


def banana(rng: Random) -> Silhouette:
    a, bend = np.linspace(0.15 * np.pi, 0.85 * np.pi, 30), rng.uniform(0.6, 0.8)
    path = np.stack((np.cos(a) * 0.98, bend * np.sin(a) - 0.35), 1)
    half = 0.05 + 0.2 * np.sin(np.linspace(0, np.pi, 30)) ** 0.6
    return Silhouette([strip(path, half)], (0.0, bend - 0.35), 0.2)


def mitten(rng: Random) -> Silhouette:
    thumb = strip(np.array([(0.2, 0.3), (0.75, -0.15)]), np.full(2, rng.uniform(0.16, 0.22)))
    return Silhouette(
        [ellipse(-0.1, -0.3, 0.45, 0.65), _mirrored([(0.42, 0.3), (0.42, 0.95)]) - (0.1, 0), thumb], (-0.1, -0.35), 0.23
    )


SHAPES: dict[str, Callable[[Random], Silhouette]] = {
    "anchor": anchor,
    "arrow": arrow,
    "banana": banana,
    "bell": bell,
    "bird": bird,
    "boat": boat,
    "bolt": bolt,
    "bone": bone,
    "bottle": bottle,
    "butterfly": butterfly,
    "candle": candle,
    "chair": chair,
    "cloud": cloud,
    "comb": comb,
    "crescent": crescent,
    "cross": cross,
    "cup": cup,
    "drop": drop,
    "fir": fir,
    "flower": functools.partial(flower, 5),
    "gear": gear,
    "hammer": hammer,
    "hat": hat,
    "heart": heart,
    "hook": hook,
    "horseshoe": horseshoe,
    "hourglass": hourglass,
    "key": key,
    "lamp": lamp,
    "leaf": leaf,
    "mitten": mitten,
    "pear": pear,
    "plane": plane,
    "propeller": propeller,
    "rocket": rocket,
    "star": functools.partial(star, 5),
    "table": table,
    "tooth": tooth,
    "umbrella": umbrella,
    "vase": vase,
    "wrench": wrench,
}
UPRIGHT = ("bell", "bottle", "candle", "chair", "cup", "fir", "hat", "lamp", "table", "vase")
GROUNDS = (leaves, water, street, sky, grass, sand)

KINDS: dict[str, Thing] = {
    name: Thing(shape, p.BODIES[k % len(p.BODIES)], p.PARTS[k % len(p.PARTS)], GROUNDS[k % len(GROUNDS)], name in UPRIGHT)
    for k, (name, shape) in enumerate(SHAPES.items())
}
"""No two have both surface and part in common: of those there are 17 and 19, without a common factor."""
