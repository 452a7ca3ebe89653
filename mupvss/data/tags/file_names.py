"""Tags in file names, as the histology data sets LUAD-HistoSeg (`...-[1 0 0 1].png`), BCSS-WSSS (`...[1001].png`) and WSSS4LUAD
(`...-[1, 0, 0].png`) have them: a 0 or 1 for each class, in the order of the data set's classes, which the names do not tell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from mupvss.data.names import stem
from mupvss.data.tags.tag_table import Tags, counted
from mupvss.data.tags.words import tidy
from mupvss.errors import DataError

LABEL = re.compile(r"\[\s*[01](?:[\s,;_]*[01])*[\s,;]*\]$")
LEAST = 0.5
"""Share of the pictures that must have a label in their name; otherwise brackets are parts of names."""


def label_of(picture: str) -> tuple[bool, ...] | None:
    """'a/17-[1 0 1].png' -> (True, False, True); None if the name does not end with a label of two classes or more."""
    found = LABEL.search(stem(picture).rpartition("/")[2])
    digits = [] if found is None else [mark for mark in found.group() if mark in "01"]
    return tuple(mark == "1" for mark in digits) if len(digits) > 1 else None


def tags_from_names(pictures: Sequence[str], classes: Sequence[str], notes: list[str]) -> Tags | None:
    """
    Args:
        pictures: Relative paths.
        classes: Names of the classes, in the order of the labels; class 1, class 2, ... are used unless there are as many.
        notes: What was left out or guessed is added here.

    Returns:
        The tags by picture; None if names have no labels.

    Raises:
        DataError: The labels are not all of one length.
    """
    labels = {picture: label for picture in pictures if (label := label_of(picture)) is not None}
    if not labels or len(labels) < LEAST * len(pictures):
        return None
    lengths = Counter(map(len, labels.values()))
    if len(lengths) > 1:
        usual = lengths.most_common(1)[0][0]
        odd = next(picture for picture, label in labels.items() if len(label) != usual)
        raise DataError(f"{odd}: its name has a label of {len(labels[odd])} classes, most others have {usual}; rename it")
    count = next(iter(lengths))
    given = len(classes) == count
    names = [tidy(name) for name in classes] if given else [f"class {i}" for i in range(1, count + 1)]
    called = "those of data.classes" if given else f"{names[0]} to {names[-1]}; put their names in data.classes, in this order"
    notes.append(f"tags are read from the names of the pictures, as in {next(iter(labels))}: {count} classes, {called}")
    without = [picture for picture in pictures if picture not in labels]
    if without:
        notes.append(f"without a label in their name, left out: {counted(without, 'picture')}")
    return {p: frozenset(name for name, on in zip(names, label, strict=True) if on) for p, label in labels.items()}
