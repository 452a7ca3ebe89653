"""What a drawn thing is made of, and the outlines that silhouettes are put together from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Polygon = np.ndarray
"""(K, 2) float64 corners."""
Field = np.ndarray
Pattern = Callable[[Field, Field, np.random.Generator], Field]
"""Value in [-1, 1] at points (x, y) of the thing's own frame, or of the picture for a ground."""


@dataclass(frozen=True)
class Silhouette:
    """Outlines in the thing's own frame, in [-1, 1], x to the right and y down."""

    body: list[Polygon]
    """Drawn as a union."""
    part_centre: tuple[float, float]
    part_radius: float


@dataclass(frozen=True)
class Thing:
    """One class: a plain body that varies in proportion and pose, and one small part that tells what it is."""

    shape: Callable[[np.random.Generator], Silhouette]
    body: Pattern
    """At low contrast."""
    part: Callable[[Field, Field], Field]
    """At full contrast, inside the unit circle of the part's frame."""
    ground: Pattern
    """The ground it likes, so that the ground hints at the tag without being the thing."""
    upright: bool = False
    """Whether it stands, or lies at any angle."""


def ellipse(cx: float, cy: float, rx: float, ry: float, points: int = 32) -> Polygon:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack((cx + rx * np.cos(angle), cy + ry * np.sin(angle)), 1)


def strip(path: np.ndarray, half_width: np.ndarray) -> Polygon:
    """Outline of a path (K, 2) with a half width (K,) at each point."""
    tangent = np.gradient(path, axis=0)
    normal = np.stack((-tangent[:, 1], tangent[:, 0]), 1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    return np.concatenate((path + normal * half_width[:, None], (path - normal * half_width[:, None])[::-1]))
