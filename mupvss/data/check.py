"""`mupvss data check`: finds errors in a data set before hours of training do."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mupvss.data.images import BLACK, DARK, REMARKS, check_image
from mupvss.data.masks import IGNORE
from mupvss.data.readable import is_file
from mupvss.data.sample import Dataset, Sample
from mupvss.data.sources import load_dataset
from mupvss.data.summary import companions, doubts, print_doubts, seen_before
from mupvss.errors import DataError
from mupvss.options import DataConfig, FolderData
from mupvss.runtime.log import progress_bar


@dataclass
class Findings:
    classes: tuple[str, ...]
    pictures: int = 0
    untagged: int = 0
    class_counts: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    """Pictures or masks that cannot be used, with the reason."""
    mismatched: list[str] = field(default_factory=list)
    """Masks that have another size, hold class ids out of range or contradict the tags."""
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """Pictures with the same pixels."""
    dark: list[str] = field(default_factory=list)
    """Pictures that are nearly black, with their largest value."""
    remarks: Counter[str] = field(default_factory=Counter)
    """How often each of REMARKS holds."""
    masks: int = 0
    masks_with_class: int = 0
    notes: tuple[str, ...] = ()
    """What was left out or guessed while reading."""
    seen_before: list[str] = field(default_factory=list)
    """What is said of validation pictures that are training pictures too."""


def check_data(config: DataConfig) -> Findings:
    """Reads every picture and mask of both purposes once. DataError if the data set cannot even be listed."""
    samples: dict[str, Sample] = {}
    dataset: Dataset | None = None
    notes: dict[str, None] = {}
    for purpose in ("train", "seeds"):
        dataset = load_dataset(config, purpose)
        samples |= {sample.name: sample for sample in dataset.samples}
        notes |= dict.fromkeys(dataset.notes)
    assert dataset is not None
    findings = Findings(dataset.classes, pictures=len(samples), notes=tuple(notes))
    if isinstance(config, FolderData) and config.val_tags is not None:
        findings.seen_before = seen_before(dataset, load_dataset(config, "val"))
    seen: dict[str, str] = {}
    with progress_bar("check", len(samples), "pictures") as advance:
        for sample in samples.values():
            _count_tags(sample, findings)
            _check_files(sample, dataset.classes, findings, seen)
            advance(1)
    return findings


def _count_tags(sample: Sample, findings: Findings) -> None:
    findings.untagged += not sample.tags
    findings.class_counts.update(sample.tags)
    findings.pairs.update(combinations(sorted(sample.tags), 2))


def _check_files(sample: Sample, classes: tuple[str, ...], findings: Findings, seen: dict[str, str]) -> None:
    try:
        image = sample.open_image()
    except DataError as error:
        findings.unreadable.append(str(error))
        return
    brightest = max(high for _, high in image.getextrema())  # type: ignore[misc]
    if brightest < DARK:
        findings.dark.append(f"{sample.origin}: its largest value is {brightest} of 255")
    if is_file(sample):
        findings.remarks.update(check_image(Path(sample.origin)).remarks)
    digest = hashlib.sha256(image.tobytes() + bytes(str(image.size), "ascii")).hexdigest()
    if seen.setdefault(digest, sample.origin) != sample.origin:
        findings.duplicates.append((seen[digest], sample.origin))
    if sample.open_mask is None:
        return
    try:
        mask = sample.open_mask()
    except DataError as error:
        findings.unreadable.append(str(error))
        return
    if mask.shape != (image.height, image.width):
        findings.mismatched.append(f"{sample.origin}: picture {image.height}x{image.width}, mask {mask.shape[0]}x{mask.shape[1]}")
    ids = {int(i) for i in np.unique(mask)} - {0, IGNORE}
    if ids and max(ids) > len(classes):
        findings.mismatched.append(f"{sample.origin}: its mask has class id {max(ids)}, expected at most {len(classes)}")
        return
    findings.masks += 1
    findings.masks_with_class += bool(ids)
    drawn = {classes[i - 1] for i in ids}
    if drawn - sample.tags:
        findings.mismatched.append(f"{sample.origin}: drawn in its mask but not tagged: {', '.join(sorted(drawn - sample.tags))}")


def print_findings(findings: Findings) -> int:
    """Prints the findings and returns the number of those that must be fixed (unreadable files, masks that do not match)."""
    console = Console()
    table = Table(title=f"{findings.pictures} pictures, {findings.untagged} without a tag")
    for column in ("class", "pictures", "most often with"):
        table.add_column(column, justify="right" if column == "pictures" else "left")
    for name in findings.classes:
        beside = Counter({b if a == name else a: n for (a, b), n in findings.pairs.items() if name in (a, b)})
        often = ", ".join(f"{other} ({n})" for other, n in beside.most_common(3))
        table.add_row(escape(name), str(findings.class_counts[name]), escape(often))
    console.print(table)
    kinds = [f"{text}: {findings.remarks[key]}" for key, text in REMARKS.items() if findings.remarks[key] and key != BLACK]
    for note in (*findings.notes, *kinds):
        console.print(f"- {note}", highlight=False, soft_wrap=True, markup=False)
    said = doubts(findings.classes, findings.class_counts, findings.pictures, findings.untagged)
    print_doubts((*said, *companions(findings.class_counts, findings.pairs), *findings.seen_before), console)
    if findings.masks and not findings.masks_with_class:
        findings.mismatched.append(f"none of the {findings.masks} masks has a pixel of any class; are they masks of 0 and 255?")
    lists = {
        "cannot be read": findings.unreadable,
        "masks that do not fit": findings.mismatched,
        "nearly black; spread their values over the range of their file": findings.dark,
        "same picture twice": [f"{a} = {b}" for a, b in findings.duplicates],
    }
    for title, entries in lists.items():
        if entries:
            console.print(f"\n{title}: {len(entries)}", highlight=False)
            for entry in entries[:20]:
                console.print(f"  {escape(entry)}", highlight=False, soft_wrap=True)
            if len(entries) > 20:
                console.print(f"  ... and {len(entries) - 20} more", highlight=False)
    return len(findings.unreadable) + len(findings.mismatched)
