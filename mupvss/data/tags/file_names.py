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

LABEL = re.compile(r"\[\s*[01](?:[\s,]*[01])*[\s,]*\]$")
LEAST = 0.5
"""Share of the pictures that must have a label in their name; otherwise brackets are parts of names."""


def label_of(picture: str) -> tuple[bool, ...] | None:
    """'a/17-[1 0 1].png' -> (True, False, True); None if the name does not end with a label of two classes or more."""
    found = LABEL.search(stem(picture).rpartition("/")[2])
    digits = [] if found is None else [mark for mark in found.group() if mark in "01"]
    return tuple(mark == "1" for mark in digits) if len(digits) > 1 else None


def tags_from_names(pictures: Sequence[str], classes: Sequence[str], notes: list[str]) -> tuple[Tags, tuple[str, ...]] | None:
    """
    Args:
        pictures: Relative paths.
        classes: Names of the classes in the order of the labels; if there are none, they are called class 1, class 2, ...
        notes: What was left out or guessed is added here.

    Returns:
        The tags by picture, and all classes in the order of the labels; None if names have no labels, or if the pictures with
        labels lie in several folders, which are then the tags.

    Raises:
        DataError: The labels are not all of one length, or not of that of `classes`.
    """
    labels = {picture: label for picture in pictures if (label := label_of(picture)) is not None}
    if not labels or len(labels) < LEAST * len(pictures):
        return None
    example = next(iter(labels))
    if len({picture.rpartition("/")[0] for picture in labels}) > 1:
        notes.append(
            f"names of pictures end like labels, as in {example}; they lie in several folders, so the folders are the tags"
        )
        return None
    lengths = Counter(map(len, labels.values()))
    count = lengths.most_common(1)[0][0]
    if len(lengths) > 1:
        odd = next(picture for picture, label in labels.items() if len(label) != count)
        raise DataError(f"{odd}: its name has a label of {len(labels[odd])} classes, most others have {count}; rename it")
    if classes and len(classes) != count:
        raise DataError(
            f"{example}: its name has a label of {count} classes, and data.classes has {len(classes)}; give {count} names in the "
            "order of the labels"
        )
    names = tuple(map(tidy, classes)) or tuple(f"class {i}" for i in range(1, count + 1))
    called = "those of data.classes" if classes else f"{names[0]} to {names[-1]}; put their names in data.classes, in this order"
    notes.append(f"tags are read from the names of the pictures, as in {example}: {count} classes, {called}")
    without = [picture for picture in pictures if picture not in labels]
    if without:
        notes.append(f"without a label in their name, left out: {counted(without, 'picture')}")
    return {p: frozenset(name for name, on in zip(names, label, strict=True) if on) for p, label in labels.items()}, names
