"""Completeness against size, and mIoU against image steps, one line per method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mupvss.compare.records import Record, Row, mean
from mupvss.compare.tables import KIND_NAMES
from mupvss.report.plot import Series, plot

SIZE_GROUPS = 6


def completeness_plot(rows: Sequence[Row], key: str = "completeness") -> str:
    """Share of an object covered (oracle threshold) against its share of the picture, in groups of equal number.

    key: completeness, or body for what is left without the telling part.
    """
    series = []
    for row in rows:
        regions = [r for record in row.records for r in record.kinds[row.kind].get("regions", []) if r[key] is not None]
        if len(regions) < SIZE_GROUPS:
            continue
        regions.sort(key=lambda r: r["size"])
        groups = [part for part in np.array_split(np.arange(len(regions)), SIZE_GROUPS) if len(part)]
        points = [
            (100 * float(np.mean([regions[i]["size"] for i in g])), 100 * float(np.mean([regions[i][key] for i in g])))
            for g in groups
        ]
        series.append(Series(_title(row.name, row.kind), points))
    label = "share covered, %" if key == "completeness" else "share of the plain body covered, %"
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
