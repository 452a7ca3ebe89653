"""`mupvss data doctor`: from a run to a ranked list, a page with pictures, and, if asked for, a new tag table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mupvss.config.run import RunConfig
from mupvss.data.masks import read_label_image
from mupvss.data.sample import Dataset
from mupvss.data.tags import write_tags
from mupvss.doctor.evidence import gather_evidence
from mupvss.doctor.masks import MaskDoubt, mask_doubt
from mupvss.doctor.tags import LIKELY, Finding, corrected, findings, strengths, tag_doubts
from mupvss.errors import DataError
from mupvss.files import write_text
from mupvss.predict.load import load_classifier
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.report.html import page, picture, table
from mupvss.report.pictures import inline, overlay
from mupvss.stages.run_folder import Run, dataset_identity, fingerprint, pictures_of, stage_fingerprint

REVISION = 2
"""Increased when the evidence of a picture becomes another one."""


def examine(run: Path, out: Path | None, fix: Path | None, pictures: int) -> None:
    """-> OUT/index.html, tags.csv and masks.csv, the most doubtful first; and FIX."""
    folder = out or run / "doctor"
    config = FinishedRun(run).config()
    dataset = pictures_of(Run(config, run), "train")
    if fix is not None and fix.exists():
        raise DataError(f"{fix}: already exists, and tag tables are never overwritten; give another name")
    classes, known = dataset_identity(dataset)
    seen = [(name, state) for name, _, state in known]  # no evidence depends on the tags
    identity = fingerprint("doctor", REVISION, stage_fingerprint(run / "train"), classes, seen)
    networks = _networks(run)
    if networks[0].classes != dataset.classes:
        raise DataError(
            f"{run}: its network knows {', '.join(networks[0].classes)}, and the tags are now {', '.join(dataset.classes)}; run "
            "'mupvss run' again, or set data.classes"
        )
    evidence = gather_evidence(networks, dataset, folder / "evidence.jsonl", identity)
    tags = np.stack([dataset.tag_vector(sample) for sample in dataset.samples])
    doubts = tag_doubts(strengths(evidence, tags), tags)
    found = findings(doubts, evidence.scores, tags, dataset.classes)
    masks = _mask_doubts(run, dataset)
    _write_tables(folder, dataset, found, masks)
    write_page(folder, dataset, found, masks, pictures, run)
    if fix is not None:
        _write_fixed(fix, config, dataset, doubts, tags)
    _tell(dataset, found, folder, fix)


def _networks(run: Path) -> list[Predictor]:
    """The finished classifier, and the snapshots of its training, which had memorised fewer of the wrong tags."""
    final = load_classifier(run)
    earlier = sorted((run / "train" / "snapshots").glob("*.safetensors"))
    return [final, *(Predictor.open(path, final.config, final.options, final.threshold) for path in earlier)]


def _mask_doubts(run: Path, dataset: Dataset) -> list[MaskDoubt]:
    """Doubts about the masks of the pictures that have seeds, the most doubtful first."""
    searched = FinishedRun(run)
    if searched.threshold is None:
        return []
    seeds = ((i, searched.seeds(sample.name)) for i, sample in enumerate(dataset.samples))
    found = [mask_doubt(i, maps, searched.threshold) for i, maps in seeds if maps is not None]
    return sorted(found, key=lambda entry: (-entry.doubt, entry.picture))


def _write_tables(folder: Path, dataset: Dataset, found: list[Finding], masks: list[MaskDoubt]) -> None:
    rows = [(_origin(dataset, f.picture), f.kind, f.tag, f"{f.doubt:.3f}", f"{f.score:.3f}") for f in found]
    _write_csv(folder / "tags.csv", ("picture", "kind", "tag", "doubt", "score"), rows)
    shown = [(_origin(dataset, m.picture), f"{m.doubt:.3f}", f"{m.unsure:.3f}", f"{m.reach:.3f}") for m in masks]
    _write_csv(folder / "masks.csv", ("picture", "doubt", "unsure", "reach"), shown)


def _origin(dataset: Dataset, picture: int) -> str:
    return dataset.samples[picture].origin


def _write_csv(path: Path, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    write_text(path, buffer.getvalue())


def _write_fixed(path: Path, config: RunConfig, dataset: Dataset, doubts: np.ndarray, tags: np.ndarray) -> None:
    fixed = corrected(doubts, tags, LIKELY)
    table = {
        _table_name(sample.origin, sample.name, config): frozenset(
            name for name, value in zip(dataset.classes, row, strict=True) if value > 0
        )
        for sample, row in zip(dataset.samples, fixed, strict=True)
    }
    write_tags(path, table)


def _table_name(origin: str, name: str, config: RunConfig) -> str:
    """The picture's name in a tag table: its path relative to data.root, or its file's name."""
    if config.data.source == "folder":
        return Path(origin).relative_to(config.data.root).as_posix()
    return Path(origin).name if config.data.source == "voc" else name


def _tell(dataset: Dataset, found: list[Finding], folder: Path, fix: Path | None) -> None:
    likely = [f for f in found if f.doubt >= LIKELY]
    table = Table(title=f"{len(likely)} of {len(found)} pictures have a tag that is likely missing or wrong")
    for column in ("picture", "tag", "", "doubt"):
        table.add_column(column)
    for finding in found[:10]:
        table.add_row(_origin(dataset, finding.picture), finding.tag, finding.kind, f"{finding.doubt:.2f}")
    console = Console()
    console.print(table)
    console.print(f"all of them, and the doubtful masks: {folder / 'index.html'}", highlight=False, soft_wrap=True)
    if fix is not None:
        console.print(f"new tag table: {fix}", highlight=False, soft_wrap=True)


def write_page(
    folder: Path, dataset: Dataset, found: Sequence[Finding], masks: Sequence[MaskDoubt], count: int, run: Path
) -> None:
    """-> folder/index.html with the `count` most doubtful pictures of either list."""
    tags = [
        [
            _picture(dataset, f.picture),
            escape(dataset.samples[f.picture].origin),
            _given(dataset, f.picture),
            _words(f),
            f"{f.doubt:.2f}",
        ]
        for f in found[:count]
        if f.doubt > 0
    ]
    drawn = [
        [_mask(dataset, m.picture, run), escape(dataset.samples[m.picture].origin), _given(dataset, m.picture), f"{m.doubt:.2f}"]
        for m in masks[:count]
    ]
    sections = [("Tags", table(("", "picture", "tags", "finding", "doubt"), tags, "pictures"))]
    if drawn:
        sections.append(("Masks", table(("", "picture", "tags", "doubt"), drawn, "pictures")))
    write_text(folder / "index.html", page("Doubtful pictures", sections))


def _picture(dataset: Dataset, number: int) -> str:
    sample = dataset.samples[number]
    return picture(inline(sample.open_image()), sample.name)


def _mask(dataset: Dataset, number: int, run: Path) -> str:
    sample = dataset.samples[number]
    path, shown = FinishedRun(run).seed_mask(sample.name), sample.open_image()
    return picture(inline(shown if path is None else overlay(shown, read_label_image(path))), sample.name)


def _given(dataset: Dataset, number: int) -> str:
    return escape(", ".join(sorted(dataset.samples[number].tags)) or "none")


def _words(finding: Finding) -> str:
    how = "is likely" if finding.doubt >= LIKELY else "might be"
    return f"<b>{escape(finding.tag)}</b> {how} {finding.kind} (score {finding.score:.2f})"
