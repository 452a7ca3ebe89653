"""Summarises a data set, and what looks wrong in it, in a few lines before hours of training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from rich.console import Console

from mupvss.data.sample import Dataset

FEW = 20
"""A class with fewer pictures than this will have poor masks."""
EXPECTED = (
    "in trials with the same pictures, classes of 9 and 16 pictures reached 33 and 53 IoU with prototypes and 88 and 84 with "
    "a plain CAM, where the mean of all was 60 and 80"
)
"""MSRC-v2, seeds (docs/domains.md)."""
SHOWN = 40
"""Largest number of tags that are listed with their counts."""
TOGETHER, APART = 0.9, 5
"""A tag is nearly always with another if this share of its pictures has the other too; fewer than APART pictures say nothing."""
SPLITS = frozenset({"train", "val", "valid", "validation", "test", "training", "testing"})


def print_summary(dataset: Dataset, console: Console, counts: bool = True) -> None:
    """counts: also list how often each tag occurs; only the most frequent tags if there are many."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    found = Counter(tag for sample in dataset.samples for tag in sample.tags)
    untagged = sum(not sample.tags for sample in dataset.samples)
    tagged = max(1, len(dataset.samples) - untagged)
    say(
        f"{len(dataset.samples):,} pictures, {len(dataset.classes)} tags, {sum(found.values()) / tagged:.1f} per tagged picture, "
        f"{untagged:,} pictures without a tag"
    )
    if counts:
        ordered = sorted(dataset.classes, key=lambda name: -found[name]) if len(dataset.classes) > SHOWN else dataset.classes
        for name in ordered[:SHOWN]:
            say(f"  {name:24s} {found[name]:6d}")
        if len(ordered) > SHOWN:
            say(f"  ... and {len(ordered) - SHOWN} more, each with at most {found[ordered[SHOWN]]}")
    for note in dataset.notes:
        say(f"- {note}")
    pairs = Counter(pair for sample in dataset.samples for pair in combinations(sorted(sample.tags), 2))
    print_doubts((*doubts(dataset.classes, found, len(dataset.samples), untagged), *companions(found, pairs)), console)


def seen_before(train: Dataset, val: Dataset) -> list[str]:
    """The doubt, if any, about pictures that both learn and test."""
    learned = {sample.origin for sample in train.samples}
    both = [sample.origin for sample in val.samples if sample.origin in learned]
    if not both:
        return []
    return [
        f"{len(both)} of the {len(val.samples)} validation pictures are training pictures too ({_some(both, 3)}), so the score "
        "on them is too good; take them out of one of the tables"
    ]


def print_doubts(doubts: Iterable[str], console: Console) -> None:
    for doubt in doubts:
        console.print(f"! {doubt}", highlight=False, soft_wrap=True, markup=False)


def doubts(classes: Sequence[str], counts: Counter[str], pictures: int, untagged: int) -> Iterator[str]:
    """What looks wrong, and what to do about it, as sentences."""
    alike = defaultdict(list)
    for name in classes:
        alike["".join(c for c in name.casefold() if c.isalnum()) or name].append(name)
    for names in alike.values():
        if len(names) > 1:
            yield f"tags that differ only in capitals or signs: {', '.join(names)}; if they mean the same, spell them alike"
    spaced = [name for name in classes if len(name.split()) > 1 and any(word in counts for word in name.split())]
    if len(spaced) >= len(classes) / 3 and spaced:
        yield f"tags that consist of other tags: {_some(spaced)}; if blanks separate tags, give --separator ' ' (data.separator)"
    if classes and all(name.lstrip("-").isdigit() for name in classes):
        yield f"the tags are numbers: {_some(list(classes))}; if another column has their names, give --tag-columns NAME"
    if classes and {name.casefold() for name in classes} <= SPLITS:
        yield f"the tags are {', '.join(classes)}; if the folders of the tags are below them, give one of them instead"
    absent = [name for name in classes if not counts[name]]
    if absent:
        yield f"classes without a picture: {_some(absent)}"
    few = [name for name in classes if 0 < counts[name] < FEW]
    if len(few) > max(5, len(classes) / 2):
        yield (
            f"{len(few)} of {len(classes)} tags have fewer than {FEW} pictures, so their masks may be poor ({EXPECTED}); name "
            "the classes that matter in data.classes"
        )
    elif few:
        yield f"fewer than {FEW} pictures of {', '.join(few)}: masks may be poor ({EXPECTED})"
    everywhere = [name for name in classes if counts[name] == pictures]
    if everywhere and not untagged:
        yield f"all pictures have the tag {', '.join(everywhere)}; add some without it, or it cannot be learned"


def companions(counts: Counter[str], pairs: Counter[tuple[str, str]]) -> Iterator[str]:
    """Tags that nearly always occur together. pairs: number of pictures that have both, names in order."""
    mutual, within = [], []
    for (one, other), both in sorted(pairs.items()):
        first, second = (both >= TOGETHER * counts[name] and counts[name] >= APART for name in (one, other))
        if both >= TOGETHER**2 * (counts[one] + counts[other] - both) and first | second:
            mutual.append(f"{one} and {other} ({both} of {counts[one] + counts[other] - both} pictures)")
        elif first or second:
            rare, usual = (one, other) if first else (other, one)
            within.append(f"{rare} with {usual} ({both} of {counts[rare]})")
    if mutual:
        yield (
            f"tags that nearly always occur together: {_some(mutual)}; nothing says where one ends and the other begins. Add "
            "pictures that have only one of them, or make them one tag"
        )
    if within:
        yield (
            f"tags that nearly never occur alone: {_some(within, 6)}; part of the one may be masked as the other. Some pictures "
            "without the other help"
        )


def _some(names: list[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
