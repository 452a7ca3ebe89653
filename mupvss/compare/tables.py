"""The comparison as tables: one list of columns, written as Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape

from mupvss.compare.results import Difference, Record, Row, difference, interval, mean, spread
from mupvss.model.licences import shortened

Table = tuple[list[str], list[list[str]]]
"""Header and cells, as text."""


def headline(rows: Sequence[Row], reference: str) -> Table:
    """Seed mIoU with oracle and mask-free threshold, and the oracle's paired difference from the reference."""
    header = ["config", "maps", "seeds", "mIoU, oracle", "mIoU, mask-free", f"oracle − {reference}", "covered", "body covered"]
    against = [row for row in rows if row.name == reference]
    body = []
    for row in rows:
        gap = difference(row, against, "miou_oracle")
        body.append(
            [
                row.name,
                row.title,
                str(len(row.records)),
                figure(row.values("miou_oracle")),
                figure(row.values("miou")),
                "" if row.name == reference else _difference(gap),
                *_completeness(row),
            ]
        )
    return header, body


PAPER = [
    "method",
    "backbone",
    "pretraining",
    "extra supervision",
    "seeds",
    "mIoU",
    "95 % interval",
    "oracle",
    "lost by the threshold",
]


def paper(rows: Sequence[Row]) -> Table:
    """A line per method in the form of the field's papers: its own maps, and what it was given besides image tags."""
    body = []
    for row in (row for row in rows if row.own):
        model = row.records[0].entry.run.config.model  # of another package's method it may be of any kind
        weights = getattr(model, "weights", None)
        given = [getattr(model, "backbone", "its own"), shortened(weights) if weights else "none", "none"]
        body.append([row.name, *given, *paper_figures(row.values("miou"), row.values("miou_oracle"))])
    return PAPER, body


def paper_figures(miou: Sequence[float], oracle: Sequence[float]) -> list[str]:
    """Number of seeds, mIoU with its interval, oracle, and what the threshold that was chosen without masks loses."""
    if not miou:
        return ["0", "", "", "", ""]
    between = interval(miou)
    lost = [best - own for own, best in zip(miou, oracle, strict=True)]
    shown = "" if between is None else f"{between[0]:.1f} to {between[1]:.1f}"
    return [str(len(miou)), f"{mean(miou):.1f}", shown, f"{mean(oracle):.1f}", f"{mean(lost):.1f}"]


def per_class(rows: Sequence[Row], classes: Sequence[str]) -> Table:
    """IoU of each class at the oracle threshold, mean over seeds."""
    body = []
    for row in rows:
        lists = [values for values in (record.kinds[row.kind].get("iou_oracle") for record in row.records) if values]
        cells = []
        for index in range(len(classes) + 1):
            known = [values[index] for values in lists if values[index] is not None]
            cells.append(f"{mean(known):.1f}" if known else "")
        body.append([row.name, row.title, *cells])
    return ["config", "maps", "background", *classes], body


def costs(rows: Sequence[Row]) -> Table:
    """One line per config: time, device, precision, memory, size, operations."""
    header = [
        "config",
        "training, s",
        "trained on",
        "trained in",
        "search and scoring, s",
        "largest memory, MB",
        "of a GPU, MB",
        "parameters, M",
        "GFLOP forward",
    ]
    body = []
    for row in {row.name: row for row in rows}.values():
        records = row.records
        shared = records[0].entry.run.trained_by is not None
        peak = max(max(r.train["peak_mb"], r.seeds["peak_mb"]) for r in records)
        on_gpu = [mb for r in records for spent in (r.train, r.seeds) if (mb := spent.get("gpu_peak_mb")) is not None]
        body.append(
            [
                row.name,
                "shared" if shared else f"{mean([r.train['seconds'] for r in records]):.0f}",
                _each(records, "device"),
                _each(records, "precision"),
                f"{mean([r.seeds['seconds'] for r in records]):.0f}",
                f"{peak:.0f}",
                f"{max(on_gpu):.0f}" if on_gpu else "",
                f"{records[0].cost['parameters'] / 1e6:.2f}",
                f"{records[0].cost['gflops']:.2f}",
            ]
        )
    return header, body


def _each(records: Sequence[Record], key: str) -> str:
    """The distinct values that the trainings recorded under `key`."""
    return ", ".join(sorted({record.train.get(key) or "unknown" for record in records}))


def markdown(table: Table) -> str:
    header, body = table
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) + "\n"


LATEX = {sign: rf"\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "--",
}
"""Signs that LaTeX writes otherwise."""


def latex(table: Table) -> str:
    """A tabular with rules of the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(sign, sign) for sign in cell) for cell in cells) + r" \\"

    header, body = table
    columns = "l" * 4 + "r" * (len(header) - 4)
    return (
        "\n".join(
            [
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                line(header),
                r"\midrule",
                *map(line, body),
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )


def as_csv(table: Table) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table[0])
    writer.writerows(table[1])
    return stream.getvalue()


def html_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    return table[0], [[escape(cell) for cell in row] for row in table[1]]


def figure(values: Sequence[float]) -> str:
    """Mean ± standard deviation over the seeds; for one seed its value, for none an empty text."""
    if not values:
        return ""
    deviation = spread(values)
    return f"{mean(values):.1f}" if deviation is None else f"{mean(values):.1f} ± {deviation:.1f}"


def _difference(gap: Difference | None) -> str:
    if gap is None:
        return ""
    error = "" if gap.error is None else f" (± {gap.error:.2f})"
    return f"{gap.mean:+.1f}{error}".replace("-", "−")


def _completeness(row: Row) -> list[str]:
    """Mean share covered over all regions and seeds, for the whole region and for its plain body, at the oracle threshold."""
    found = [record.kinds[row.kind].get("completeness", {}) for record in row.records]
    cells = []
    for key in ("covered", "body"):
        known = [means[key] for means in found if means.get(key) is not None]
        cells.append(f"{100 * mean(known):.1f} %" if known else "")
    return cells
