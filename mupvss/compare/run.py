"""Trains the missing runs one after the other, and writes the comparison again after each."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mupvss.compare.figures import completeness_plot, draw_all, learning_curve
from mupvss.compare.plan import Entry, load_configs, plan
from mupvss.compare.results import Record, known_record, others, rows, store_record, stored_record
from mupvss.compare.tables import as_csv, costs, headline, html_cells, latex, markdown, paper, per_class
from mupvss.errors import ConfigError
from mupvss.files import write_text
from mupvss.report.html import page, table
from mupvss.runtime.device import prepare
from mupvss.runtime.log import console
from mupvss.stages.curve import run_curve
from mupvss.stages.run import run_one
from mupvss.stages.run_folder import alone_in


@dataclass(frozen=True)
class Comparison:
    configs: Sequence[Path]
    base: Path | None
    seeds: Sequence[int]
    out: Path
    reference: str | None
    """Name of the row to compute differences against; None: the last one."""
    curve: int
    """Number of pictures for the learning curve of the first seed; 0: no curve."""
    pictures: int
    """Number of pictures shown."""
    report_only: bool
    """Do not train or search; show the results that exist."""
    records: Path | None = None
    """Folder of saved results (`results.py`); they are used instead of training, and new ones are added."""


def compare(comparison: Comparison) -> None:
    """-> OUT/index.html, table.md, table.csv, table.tex, figures/*.png; OUT/CONFIG/seed-N hold the runs."""
    configs = load_configs(comparison.configs, comparison.base)
    if comparison.reference is None:
        comparison = dataclasses.replace(comparison, reference=list(configs)[-1])
    if comparison.reference not in configs:
        raise ConfigError(f"--reference is '{comparison.reference}'; choose one of {', '.join(configs)}")
    entries = plan(configs, comparison.seeds, comparison.out)
    for entry in entries:  # a damaged record is reported before hours of training, not after
        stored_record(comparison.records, entry)
    for number, entry in enumerate([] if comparison.report_only else entries, 1):
        console.rule(f"{entry.name}, seed {entry.seed} ({number} of {len(entries)})")
        curve = comparison.curve if entry.seed == comparison.seeds[0] else 0
        if _on_record(comparison.records, entry, curve):
            continue
        _work(entry, curve)
        if comparison.records is not None and (made := known_record(comparison.records, entry)) is not None:
            store_record(comparison.records, made)
        _write(comparison, entries)
    found = _write(comparison, entries)
    console.print(f"{found} of {len(entries)} runs: {comparison.out / 'index.html'}", highlight=False, soft_wrap=True)


def _on_record(folder: Path | None, entry: Entry, curve: int) -> bool:
    """Whether the run can be skipped. Checked only when its turn comes, since another computer may have made it meanwhile."""
    if folder is None:
        return False
    known = stored_record(folder, entry)
    if known is not None and (known.curve or not curve):
        note = f", with a learning curve on {known.curve_pictures} pictures" if curve not in (0, known.curve_pictures) else ""
        console.print(f"already in {folder}{note}", highlight=False, soft_wrap=True)
        return True
    if known is not None:
        message = f"{folder} has results but no learning curve; training again (skip with --curve 0)"
    elif there := others(folder, entry):
        message = f"{there[-1]} was made with other settings or pictures; ignored"
    else:
        return False
    console.print(message, highlight=False, soft_wrap=True)
    return False


def _work(entry: Entry, curve: int) -> None:
    with alone_in(entry.run.out), alone_in(entry.run.trained_by) if entry.run.trained_by else contextlib.nullcontext():
        for stage in ("train", "seeds"):
            run_one(entry.run, stage)
        if curve:
            prepare(entry.seed, entry.run.config.threads)
            run_curve(entry.run, curve)


def _write(comparison: Comparison, entries: Sequence[Entry]) -> int:
    found_records = (known_record(comparison.records, entry) for entry in entries)
    records = [record for record in found_records if record is not None]
    if not records:
        return 0
    pictures = entries[0].pictures
    dataset = pictures.searched
    found = rows(records)

    def same(record: Record) -> bool:
        """Whether it has the classes of the first config; others have no place in the tables and pictures of classes."""
        return record.entry.pictures.searched.classes == dataset.classes

    tables = {
        "Seeds": headline(found, str(comparison.reference)),
        "Per class, oracle threshold": per_class([row for row in found if all(map(same, row.records))], dataset.classes),
        "Cost": costs(found),
        "As in papers": paper(found),
    }
    at_hand = [record for record in records if record.on_disk and same(record) and record.entry.pictures.has_all_of(pictures)]
    first = [record for record in at_hand if record.entry.seed == at_hand[0].entry.seed]
    figures = draw_all(first, dataset, comparison.pictures, comparison.out / "figures")
    write_text(comparison.out / "table.md", "\n".join(f"## {title}\n\n{markdown(t)}" for title, t in tables.items()))
    write_text(comparison.out / "table.csv", as_csv(tables["Seeds"]))
    write_text(comparison.out / "table.tex", latex(tables["As in papers"]))
    sections = [(title, table(*html_cells(t))) for title, t in tables.items()]
    sections[0] = (sections[0][0], sections[0][1] + NOTE)
    sections += _plots(found, records)
    sections += [(title, f'<img class="wide" src="figures/{escape(name)}" alt="{escape(title)}">') for title, name in figures]
    write_text(comparison.out / "index.html", page("Comparison", sections))
    return len(records)


NOTE = (
    "<p>Mean ± standard deviation over the seeds; differences are paired by seed, in brackets their standard error. "
    "<i>Oracle</i>: the threshold was chosen with the masks; <i>mask-free</i>: without. Covered: mean share of an object's "
    "pixels found at the oracle threshold. Times and memory are those of the computer that a run was made on.</p>"
)


def _plots(found, records: Sequence[Record]) -> list[tuple[str, str]]:  # type: ignore[no-untyped-def]
    shown = [row for row in found if row.own or row.kind == "search_refined"]
    return [
        ("Completeness against size", completeness_plot(shown)),
        ("Completeness of the plain body", completeness_plot(shown, body=True)),
        ("Learning curve", learning_curve(records)),
    ]
