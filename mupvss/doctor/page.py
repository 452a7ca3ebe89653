"""The doctor's page: pictures with what speaks against their tags, and with doubtful masks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from mupvss.data.images import read_label_image
from mupvss.data.sample import Dataset
from mupvss.doctor.masks import MaskDoubt
from mupvss.doctor.tags import LIKELY, Finding
from mupvss.files import write_text
from mupvss.report.html import page, picture, table
from mupvss.report.pictures import inline, overlay


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
    path = run / "seeds" / "masks" / f"{sample.name}.png"
    shown = sample.open_image()
    return picture(inline(overlay(shown, read_label_image(path)) if path.is_file() else shown), sample.name)


def _given(dataset: Dataset, number: int) -> str:
    return escape(", ".join(sorted(dataset.samples[number].tags)) or "none")


def _words(finding: Finding) -> str:
    how = "is likely" if finding.doubt >= LIKELY else "might be"
    return f"<b>{escape(finding.tag)}</b> {how} {finding.kind} (score {finding.score:.2f})"
