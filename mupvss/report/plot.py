"""Series and training curves as inline SVG, distinguished by colour and by dashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f7f7f", "currentColor")
"""Okabe and Ito's, with a few changes: colour-blind readers can tell them apart. The last is the colour of the page's text."""
DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Frame:
    """Size of a plot and its margins, in pixels. Without a key, only one series can be identified."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    key: bool = True


LARGE, SMALL = Frame(640, 340, 52, 190, 14, 42), Frame(300, 170, 52, 18, 8, 40, key=False)


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]


def plot(
    series: Sequence[Series], x_label: str, y_label: str, y_range: tuple[float, float] | None = None, frame: Frame = LARGE
) -> str:
    """Lines through points sorted by x; empty text if there is nothing to draw."""
    drawn = [one for one in series if one.points]
    if not drawn:
        return ""
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    low, high = y_range or (min(ys) - 0.05 * (max(ys) - min(ys) or 1), max(ys) + 0.05 * (max(ys) - min(ys) or 1))
    x_low, x_high = min(xs), max(xs)
    left, top, right, base = frame.left, frame.top, frame.width - frame.right, frame.height - frame.bottom

    def place(x: float, y: float) -> tuple[float, float]:
        px = left + (right - left) * (x - x_low) / ((x_high - x_low) or 1)
        return px, top + (base - top) * (1 - (y - low) / ((high - low) or 1))

    parts = [f'<path class="axis" d="M{left},{top}V{base}H{right}"/>']
    ticks = 5 if frame.key else 3
    for k in range(ticks):
        y = low + (high - low) * k / (ticks - 1)
        parts.append(f'<text x="{left - 6}" y="{place(x_low, y)[1] + 4:.0f}" text-anchor="end">{y:.3g}</text>')
        x = x_low + (x_high - x_low) * k / (ticks - 1)
        parts.append(f'<text x="{place(x, low)[0]:.0f}" y="{base + 15}" text-anchor="middle">{x:.5g}</text>')
    parts.append(f'<text x="{(left + right) / 2:.0f}" y="{frame.height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    if frame.key:
        middle = f"translate(12 {(top + base) / 2:.0f})"
        parts.append(f'<text transform="{middle} rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    for index, one in enumerate(drawn):
        parts.append(_line(index, one, place))
        if frame.key:
            parts.append(_key(index, one.name, right, top))
    title = f"{y_label} against {x_label}: " + ", ".join(one.name for one in drawn)
    kind, box = "plot" if frame.key else "small", f"0 0 {frame.width} {frame.height}"
    return f'<svg class="{kind}" viewBox="{box}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _style(index: int) -> tuple[str, str]:
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
    return colour, f'style="stroke:{colour};stroke-dasharray:{dash or "none"}"'


def _line(index: int, one: Series, place: Callable[[float, float], tuple[float, float]]) -> str:
    colour, style = _style(index)
    dots = [place(x, y) for x, y in sorted(one.points)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" style="fill:{colour}"/>' for x, y in dots if len(dots) < 40)
    return f'<polyline {style} points="{line}"/>{circles}'


def _key(index: int, name: str, right: int, top: int) -> str:
    y = top + 8 + 16 * index
    path = f'<path {_style(index)[1]} d="M{right + 12},{y}h22" fill="none" stroke-width="2"/>'
    return f'{path}<text x="{right + 40}" y="{y + 4}">{escape(name)}</text>'


def read_log(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def curve(log: list[dict[str, float]], name: str) -> str:
    """One quantity against the step, each point the mean of up to a hundredth of the run."""
    points = [(entry["step"], entry[name]) for entry in log if name in entry]
    if len(points) < 2:
        return ""
    group = max(1, len(points) // 100)
    chunks = [points[i : i + group] for i in range(0, len(points), group)]
    means = [(sum(p[0] for p in chunk) / len(chunk), sum(p[1] for p in chunk) / len(chunk)) for chunk in chunks]
    return f"<figure><figcaption>{escape(name)}</figcaption>{plot([Series(name, means)], 'step', name, frame=SMALL)}</figure>"
