"""Series and training curves as inline SVG, told apart by colour and by dashes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 52, 190, 14, 42
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe and Ito's, which colour-blind readers can tell apart; the last follows the page's ink."""
DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]


def plot(series: Sequence[Series], x_label: str, y_label: str, y_range: tuple[float, float] | None = None) -> str:
    """Lines through points sorted by x; empty text if there is nothing to draw."""
    drawn = [one for one in series if one.points]
    if not drawn:
        return ""
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    low, high = y_range or (min(ys) - 0.05 * (max(ys) - min(ys) or 1), max(ys) + 0.05 * (max(ys) - min(ys) or 1))
    x_low, x_high = min(xs), max(xs)
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        px = LEFT + (right - LEFT) * (x - x_low) / ((x_high - x_low) or 1)
        return px, TOP + (base - TOP) * (1 - (y - low) / ((high - low) or 1))

    parts = [f'<path class="axis" d="M{LEFT},{TOP}V{base}H{right}"/>']
    for k in range(5):
        y = low + (high - low) * k / 4
        parts.append(f'<text x="{LEFT - 6}" y="{place(x_low, y)[1] + 4:.0f}" text-anchor="end">{y:.3g}</text>')
        x = x_low + (x_high - x_low) * k / 4
        parts.append(f'<text x="{place(x, low)[0]:.0f}" y="{base + 15}" text-anchor="middle">{x:.3g}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(12 {(TOP + base) / 2:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    for index, one in enumerate(drawn):
        parts.append(_line(index, one, place, right))
    title = f"{y_label} against {x_label}: " + ", ".join(one.name for one in drawn)
    return f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _line(index: int, one: Series, place, right: int) -> str:  # type: ignore[no-untyped-def]
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
    style = f'style="stroke:{colour};stroke-dasharray:{dash or "none"}"'
    dots = [place(x, y) for x, y in sorted(one.points)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" style="fill:{colour}"/>' for x, y in dots)
    y = TOP + 8 + 16 * index
    key = f'<path {style} d="M{right + 12},{y}h22" fill="none" stroke-width="2"/>'
    return f'<polyline {style} points="{line}"/>{circles}{key}<text x="{right + 40}" y="{y + 4}">{escape(one.name)}</text>'


CURVE_WIDTH, CURVE_HEIGHT, CURVE_LEFT, CURVE_BOTTOM = 300, 150, 44, 18


def read_log(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def curve(log: list[dict[str, float]], name: str) -> str:
    """One quantity against the step, each point the mean of up to a hundredth of the run."""
    points = [(entry["step"], entry[name]) for entry in log if name in entry]
    if len(points) < 2:
        return ""
    group = max(1, len(points) // 100)
    chunks = [points[i : i + group] for i in range(0, len(points), group)]
    xs = [sum(p[0] for p in chunk) / len(chunk) for chunk in chunks]
    ys = [sum(p[1] for p in chunk) / len(chunk) for chunk in chunks]
    low, high = min(ys), max(ys)
    span, last = (high - low) or 1.0, xs[-1]

    def place(x: float, y: float) -> str:
        px = CURVE_LEFT + (CURVE_WIDTH - CURVE_LEFT - 6) * x / last
        py = 6 + (CURVE_HEIGHT - CURVE_BOTTOM - 12) * (1 - (y - low) / span)
        return f"{px:.1f},{py:.1f}"

    line = " ".join(place(x, y) for x, y in zip(xs, ys, strict=True))
    base = CURVE_HEIGHT - CURVE_BOTTOM
    return (
        f'<figure><figcaption>{escape(name)}</figcaption><svg viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" role="img" '
        f'aria-label="{escape(name)} from {ys[0]:.3g} to {ys[-1]:.3g} over {last:.0f} steps">'
        f'<path class="axis" d="M{CURVE_LEFT},4V{base}H{CURVE_WIDTH}"/><polyline points="{line}"/>'
        f'<text x="{CURVE_LEFT - 4}" y="12" text-anchor="end">{high:.3g}</text>'
        f'<text x="{CURVE_LEFT - 4}" y="{base}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{CURVE_WIDTH - 4}" y="{CURVE_HEIGHT - 4}" text-anchor="end">step {last:.0f}</text></svg></figure>'
    )
