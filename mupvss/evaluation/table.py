"""Scores as a table for the terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from mupvss.evaluation.confusion import Scores


def as_table(found: Scores, names: list[str], title: str) -> Table:
    table = Table(title=title)
    for column, justify in (("class", "left"), ("IoU", "right"), ("precision", "right"), ("recall", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in zip(names, found.iou, found.precision, found.recall, strict=True):
        table.add_row(row[0], *("-" if value is None else f"{value:.1f}" for value in row[1:]))
    table.add_section()
    table.add_row("mean IoU", f"{found.miou:.1f}", f"FP {found.false_positive:.1f}", f"FN {found.false_negative:.1f}")
    return table


def as_json(found: Scores) -> dict[str, Any]:
    """Lists by class id, background first; null where a class is absent from truth and prediction."""
    return {
        "miou": found.miou,
        "iou": found.iou,
        "precision": found.precision,
        "recall": found.recall,
        "false_positive": found.false_positive,
        "false_negative": found.false_negative,
    }
