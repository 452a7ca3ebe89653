"""Completeness against size, and mIoU against image steps, one line per method."""

from __future__ import annotations

from collections.abc import Sequence

from mupvss.compare.records import Record, Row, mean
from mupvss.compare.tables import KIND_NAMES
from mupvss.report.plot import Series, plot


def completeness_plot(rows: Sequence[Row], body: bool = False) -> str:
    """Share of an object covered (oracle threshold) against its share of the picture, in groups of equal number, mean over seeds.

    body: what is left of the object without its telling part.
    """
    series = []
    for row in rows:
        # Every seed's groups are the same objects.
        groups = zip(*(record.kinds[row.kind].get("completeness", {}).get("groups", []) for record in row.records), strict=False)
        points = []
        for group in groups:
            shares = [found[2 if body else 1] for found in group]
            if None not in shares:
                points.append((100 * mean([found[0] for found in group]), 100 * mean(shares)))
        if points:
            series.append(Series(_title(row.name, row.kind), points))
    label = "share of the plain body covered, %" if body else "share covered, %"
    return plot(series, "size of the object, % of the picture", label, (0, 100))


def learning_curve(records: Sequence[Record]) -> str:
    """Seed mIoU at the oracle threshold against image steps, each method's own maps, mean over the seeds that have it."""
    values: dict[str, dict[int, list[float]]] = {}
    for record in records:
        for point in record.curve:
            if record.maps in point:
                title = _title(record.entry.name, record.maps)
                values.setdefault(title, {}).setdefault(point["image_steps"], []).append(point[record.maps]["oracle"])
    series = [Series(name, [(steps, mean(found)) for steps, found in points.items()]) for name, points in values.items()]
    return plot(series, "image steps", "mIoU, oracle threshold")


def _title(name: str, kind: str) -> str:
    return f"{name}: {KIND_NAMES.get(kind, kind)}" if kind in ("prototype", "cam_attention") else name
