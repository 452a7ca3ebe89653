"""Turns the cells of a table into tags: a word, several with a separator, a list as JSON or Python writes it, or nothing."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SEPARATORS = "|;,\n\uff0c\u3001\uff1b"
"""Between the tags of a cell, unless another separator is given; the last three are those of Chinese and Japanese."""
NO_TAG = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
    | {"none", "NONE", "Null", "Nan", "N/a", "_none", "_background", "_background_", "__ignore__", "-", "[]", "{}"}
    | {"set()", "frozenset()"}
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
    strange: list[str] = field(default_factory=list)
    """Values in which no tag was found, though they are not empty."""

    def of_cell(self, text: str) -> list[str]:
        """'dog | person', '["dog", "person"]' or "['dog' 'person']" -> ['dog', 'person']."""
        text = re.sub(r"^(array|Index|list|set|frozenset)\((.*?)(, dtype=\S+)?\)$", r"\2", text.strip(), flags=re.DOTALL)
        if text.startswith(("[", "{", "(")):
            try:
                return self.of_value(json.loads(text))
            except (ValueError, RecursionError):
                found = _listed(text)
            if found is not None:
                return self.of_words(found)
        return self.of_words(self._parts(text))

    def of_value(self, value: Any) -> list[str]:
        """Tags in a JSON value: a string as in a cell, a number, a list of these, or an object as tools write it."""
        if isinstance(value, str):
            return self.of_cell(value)
        found = words_in(value)
        if not found and not _is_empty(value):
            self.strange.append(json.dumps(value, ensure_ascii=False)[:80])
        return self.of_words(found)

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
    """Removes blanks at the ends, makes inner ones one space and composes letters, so that equal words are equal strings. Control
    characters and broken letters, which no screen or file takes, are removed."""
    clean = "".join(
        sign for sign in unicodedata.normalize("NFC", word) if sign.isspace() or unicodedata.category(sign) not in BAD
    )
    return " ".join(clean.split())


BAD = ("Cc", "Cs")
"""Unicode categories: control characters, and halves of letters."""


def words_in(value: Any) -> list[str]:
    """The tags in a JSON value that stands where tags are expected: words and numbers, lists of them, objects with labels or
    names, or words that are each true or false."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int | float):
        return [_plain(value)]
    if isinstance(value, list):
        return [word for entry in value for word in words_in(_without_scores(entry))]
    if not isinstance(value, dict):
        return []
    found = labels_in(value)
    if not found and isinstance(value.get("name"), str):
        return [value["name"]]
    if not found and value and all(isinstance(part, bool) or part in (0, 1) for part in value.values()):
        return [word for word, there in value.items() if there]
    return found


def _without_scores(entry: Any) -> Any:
    """Inside a list, a number beside a word is its score."""
    if not isinstance(entry, list):
        return entry
    return [part for part in entry if isinstance(part, str)] or entry


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_empty(part) or part in (False, 0) for part in value.values())
    if isinstance(value, list):
        return all(_is_empty(part) for part in value)
    return value is None or value == "" or value is False


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
                marks = [
                    text
                    for text in texts
                    if isinstance(text, dict) and text and all(v is True or v is False for v in text.values())
                ]
                found += [word for mark in marks for word, there in mark.items() if there]
                found += labels_in([text for text in texts if not isinstance(text, str)])
    return found


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
ESCAPED = re.compile(r"\\(.)")


def _listed(text: str) -> list[str] | None:
    """The words of a list in brackets, as Python or numpy write it; None for anything else."""
    if text[0] + text[-1] not in ("[]", "()", "{}"):
        return None
    inside = text[1:-1]
    if not set(re.sub(r"\b(None|nan)\b", "", QUOTED.sub("", inside))) - set(", \t\r\n"):
        return [ESCAPED.sub(r"\1", a or b) for a, b in QUOTED.findall(inside)]
    if text[0] != "[" or set(inside) & set("'\":"):
        return None
    return re.split(f"[{re.escape(SEPARATORS)}]", inside)  # [dog, person]
