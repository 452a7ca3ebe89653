"""Silhouettes of the six things of the built-in data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mupvss.data.scenes.things import Silhouette, ellipse, strip


def fish(rng: np.random.Generator) -> Silhouette:
    height, fork = rng.uniform(0.32, 0.5), rng.uniform(0.25, 0.45)
    tail = np.array([(-0.45, 0.0), (-1.0, -fork), (-0.82, 0.0), (-1.0, fork)])
    fin = np.array([(-0.1, -height * 0.8), (rng.uniform(-0.35, -0.15), -height - 0.25), (0.3, -height * 0.8)])
    return Silhouette([ellipse(0.2, 0, 0.75, height), tail, fin], (0.62, -0.08), 0.2)


def beetle(rng: np.random.Generator) -> Silhouette:
    width = rng.uniform(0.5, 0.7)
    legs = []
    for x in (-0.45, 0.0, 0.4):
        bend = x + rng.uniform(-0.2, 0.2)
        for side in (-1, 1):
            path = np.array([(x, 0.0), (bend, side * (width + 0.1)), (bend + 0.12, side * (width + 0.34))])
            legs.append(strip(path, np.full(3, 0.05)))
    return Silhouette([ellipse(-0.12, 0, 0.78, width), ellipse(0.72, 0, 0.28, 0.28), *legs], (0.72, 0), 0.24)


def mushroom(rng: np.random.Generator) -> Silhouette:
    stem, cap = rng.uniform(0.16, 0.26), rng.uniform(0.7, 0.95)
    angle = np.linspace(np.pi, 2 * np.pi, 24)
    dome = np.stack((cap * np.cos(angle), 0.05 + rng.uniform(0.7, 0.95) * np.sin(angle)), 1)
    foot = np.array([(-stem, 0), (stem, 0), (stem * 1.4, 0.95), (-stem * 1.4, 0.95)])
    return Silhouette([dome, foot], (rng.uniform(-0.25, 0.25), -0.35), 0.22)


def house(rng: np.random.Generator) -> Silhouette:
    width, eaves, peak = rng.uniform(0.6, 0.85), rng.uniform(-0.3, -0.05), rng.uniform(-0.25, 0.25)
    walls = np.array([(-width, eaves), (width, eaves), (width, 0.85), (-width, 0.85)])
    roof = np.array([(-width - 0.12, eaves + 0.02), (peak, -0.95), (width + 0.12, eaves + 0.02)])
    return Silhouette([walls, roof], (rng.uniform(-0.3, 0.3), 0.25), 0.22)


def snake(rng: np.random.Generator) -> Silhouette:
    x = np.linspace(-1, 0.85, 28)
    path = np.stack((x, rng.uniform(0.25, 0.42) * np.sin(rng.uniform(1.4, 2.0) * np.pi * x + rng.uniform(0, 2 * np.pi))), 1)
    half = rng.uniform(0.15, 0.2) * np.clip((x + 1.0) * 2.5, 0.25, 1)
    head = path[-1]
    return Silhouette([strip(path, half), ellipse(head[0], head[1], 0.24, 0.2)], (float(head[0]), float(head[1])), 0.2)


def kite(rng: np.random.Generator) -> Silhouette:
    waist, wide = rng.uniform(-0.35, -0.05), rng.uniform(0.55, 0.75)
    sail = np.array([(0, -0.95), (wide, waist), (0, 0.6), (-wide, waist)])
    y = np.linspace(0.55, 1.0, 10)
    tail = strip(np.stack((0.12 * np.sin(12 * y + rng.uniform(0, 6)), y), 1), np.full(10, 0.06))
    return Silhouette([sail, tail], (0.0, waist), 0.22)


SHAPES: dict[str, Callable[[np.random.Generator], Silhouette]] = {
    "beetle": beetle,
    "fish": fish,
    "house": house,
    "kite": kite,
    "mushroom": mushroom,
    "snake": snake,
}
