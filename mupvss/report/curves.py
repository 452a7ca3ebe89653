"""Training curves as inline SVG."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM = 300, 150, 44, 18


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
        px = LEFT + (WIDTH - LEFT - 6) * x / last
        py = 6 + (HEIGHT - BOTTOM - 12) * (1 - (y - low) / span)
        return f"{px:.1f},{py:.1f}"

    line = " ".join(place(x, y) for x, y in zip(xs, ys, strict=True))
    base = HEIGHT - BOTTOM
    return (
        f'<figure><figcaption>{escape(name)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(name)} from {ys[0]:.3g} to {ys[-1]:.3g} over {last:.0f} steps">'
        f'<path class="axis" d="M{LEFT},4V{base}H{WIDTH}"/><polyline points="{line}"/>'
        f'<text x="{LEFT - 4}" y="12" text-anchor="end">{high:.3g}</text>'
        f'<text x="{LEFT - 4}" y="{base}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{WIDTH - 4}" y="{HEIGHT - 4}" text-anchor="end">step {last:.0f}</text></svg></figure>'
    )
