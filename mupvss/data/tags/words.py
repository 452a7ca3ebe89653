"""Turns the cells of a table into tags: a word, several with a separator, a list as JSON or Python writes it, or nothing."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SEPARATORS = "|;,"
"""Between the tags of a cell, unless another separator is given."""
NO_TAG = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
    | {"none", "NONE", "_none", "_background", "-", "[]", "{}"}
)
"""Words for no tag: pandas' list of missing values, and names of folders of negatives."""
TAG_KEYS = ("choice", "choices", "tags", "category", "categories")
"""Keys that hold tags in the values of Label Studio and Hugging Face, besides taxonomy and those that end in label or labels."""


@dataclass
class Words:
    """Reads cells, and counts words for no tag."""

    separator: str | None = None
    """Between the tags of a cell; None: any of SEPARATORS."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Word for no tag -> the number of times it was found."""
    lists: int = 0
    """Number of cells that were lists."""

    def of_cell(self, text: str) -> list[str]:
        """'dog | person', '["dog", "person"]' or "['dog' 'person']" -> ['dog', 'person']."""
        text = text.strip()
        if text.startswith(("[", "{", "(")):
            found = _listed(text)
            if found is not None:
                self.lists += 1
                return self.of_words(found)
        return self.of_words(self._parts(text))

    def of_value(self, value: Any) -> list[str]:
        """Tags in a JSON value: a string as in a cell, a number, a list of these, or an object as Label Studio writes it."""
        if isinstance(value, str):
            return self.of_cell(value)
        if isinstance(value, list) and all(isinstance(part, str | int | float) or part is None for part in value):
            return self.of_words(_plain(part) for part in value)
        return self.of_words(labels_in(value)) if isinstance(value, list | dict) else self.of_words([_plain(value)])

    def of_words(self, words: Iterable[str]) -> list[str]:
        """The words that are tags; words for no tag are counted."""
        found = []
        for word in words:
            tag = tidy(word)
            if tag in NO_TAG:
                self.dropped[tag] += 1
            elif tag:
                found.append(tag)
        return found

    def _parts(self, text: str) -> list[str]:
        if self.separator is None:
            return re.split(f"[{re.escape(SEPARATORS)}]", text)
        return text.split(self.separator) if self.separator.strip() else text.split()

    def notes(self) -> list[str]:
        found = []
        if self.dropped:
            named = ", ".join(f"'{word}' ({count})" for word, count in sorted(self.dropped.items()))
            found.append(f"words that were read as no tag: {named}")
        return found


def tidy(word: str) -> str:
    """Removes blanks at the ends, makes inner ones one space and composes letters, so that equal words are equal strings."""
    return " ".join(unicodedata.normalize("NFC", word).split())


def labels_in(value: Any) -> list[str]:
    """The tags in a value of Label Studio: strings under keys like choices, polygonlabels, brushlabels or labels, at any depth;
    of a taxonomy, the last word of each path."""
    found: list[str] = []
    if isinstance(value, list):
        for part in value:
            found += labels_in(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key == "taxonomy" and isinstance(part, list):
                paths = [path if isinstance(path, list) else [path] for path in part]
                found += [path[-1] for path in paths if path and isinstance(path[-1], str)]
            elif key in TAG_KEYS or key.endswith(("label", "labels")):
                texts = part if isinstance(part, list) else [part]
                found += [text for text in texts if isinstance(text, str)]
                found += labels_in([text for text in texts if not isinstance(text, str)])
    return found


def has_numbers(value: Any) -> bool:
    """Whether a JSON value has numbers where Label Studio and Hugging Face put tags."""
    if isinstance(value, list):
        return any(has_numbers(part) for part in value)
    if not isinstance(value, dict):
        return False
    named = [part for key, part in value.items() if key in TAG_KEYS or key.endswith(("label", "labels"))]
    return any(
        isinstance(part, int | float) or (isinstance(part, list) and any(isinstance(x, int) for x in part)) for part in named
    )


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
ESCAPED = re.compile(r"\\(.)")


def _listed(text: str) -> list[str] | None:
    """The words of a list in brackets, as JSON, Python or numpy write it; None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        return [_plain(part) for part in value]
    if isinstance(value, list | dict):
        return labels_in(value)
    if text[0] + text[-1] not in ("[]", "()", "{}"):
        return None
    inside = text[1:-1]
    if not set(QUOTED.sub("", inside)) - set(", \t\r\n"):
        return [ESCAPED.sub(r"\1", a or b) for a, b in QUOTED.findall(inside)]
    if text[0] != "[" or set(inside) & set("'\":"):
        return None
    return re.split(f"[{re.escape(SEPARATORS)}]", inside)  # [dog, person]
