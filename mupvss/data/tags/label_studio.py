"""Tags from a Label Studio export, JSON or JSON-MIN: choices, and the labels of any region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mupvss.data.tags.columns import BOOKKEEPING, PICTURE_KEYS, TAG_KEYS, is_picture_name, plain
from mupvss.data.tags.tag_table import TagTable
from mupvss.data.tags.words import labels_in
from mupvss.errors import DataError

FORMER = "completions"
"""The key of the annotations before version 1.0."""


def read_label_studio(content: list[Any], table: TagTable, tag_columns: Sequence[str] = ()) -> None:
    """Adds a row for each task that somebody has annotated.

    Tags of several annotators are joined. An annotation without a result makes the picture a negative. Tasks that were skipped,
    not begun or are drafts are left out. If only a model has labelled a task, its labels are used.
    """
    left_out: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    for number, task in enumerate(content, 1):
        try:
            _add_task(task, number, table, tag_columns, left_out, ignored)
        except DataError:
            raise
        except (AttributeError, TypeError, ValueError, RecursionError) as error:  # the file may hold anything anywhere
            raise DataError(f"{table.path}: task {number} is not as Label Studio exports it ({error})") from None
    if left_out[GUESSED]:
        table.notes.append(f"tasks that only a model has labelled, taken as it says: {left_out.pop(GUESSED)}")
    table.notes += [f"tasks left out, since they {why}: {count}" for why, count in sorted(left_out.items())]
    if ignored:
        table.notes.append(f"fields not read: {', '.join(sorted(ignored))}")


GUESSED = "guessed"


def _add_task(
    task: Any, number: int, table: TagTable, tag_columns: Sequence[str], left_out: Counter[str], ignored: Counter[str]
) -> None:
    if not isinstance(task, dict):
        raise DataError(f"{table.path}: task {number} is not an object; expected an export of Label Studio")
    data = task.get("data", task)
    address = _picture(data if isinstance(data, dict) else {})
    if address is None:
        raise DataError(
            f"{table.path}: task {number} names no picture, or more than one; expected one of {', '.join(PICTURE_KEYS[:4])} in "
            "its data"
        )
    if "data" not in task:
        labels = _labels_of_short(task, address, table, tag_columns, ignored)
        why = "" if labels or not _not_begun(task) else "are not begun"
    else:
        labels, why = _labels_of(task)
        labels = table.words.of_words(labels)
    if why:
        left_out[why] += 1
    if why in ("", GUESSED):
        table.add(address, labels)


def _picture(data: dict[str, Any]) -> str | None:
    """The address of the task's picture: under a known key, or the only text that looks like one."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    names = {plain(key): key for key in texts}
    for key in PICTURE_KEYS:
        if key in names and texts[names[key]].strip():
            return texts[names[key]].strip()
    found = {value.strip() for value in texts.values() if is_picture_name(value)}
    return found.pop() if len(found) == 1 else None


def _labels_of(task: dict[str, Any]) -> tuple[list[str], str]:
    """The labels, and why the task is left out: empty if it is not, GUESSED if only a model has labelled it."""
    entries = task.get("annotations")
    if entries is None:
        entries = task.get(FORMER)
    given = [entry for entry in entries or [] if not isinstance(entry, int)]  # numbers: the export holds only ids
    if entries and not given:
        raise ValueError("its annotations are numbers; export it as JSON with annotations")
    done = [entry for entry in given if not (entry.get("was_cancelled") or entry.get("skipped"))]
    if done:
        return list(_results(done)), ""
    if given:
        return [], "were skipped"
    guesses = [entry for entry in task.get("predictions") or [] if isinstance(entry, dict)]
    if guesses:
        return list(_results(guesses)), GUESSED
    if entries is None and "predictions" not in task:
        raise ValueError("it has no annotations; export it as JSON")
    return [], "are drafts" if task.get("drafts") else "are not begun"


def _results(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        for result in entry.get("result") or []:
            yield from labels_in(result.get("value"))


def _labels_of_short(
    task: dict[str, Any], address: str, table: TagTable, tag_columns: Sequence[str], ignored: Counter[str]
) -> list[str]:
    """Labels in JSON-MIN, which has each result under its control's name, or in an object with a picture and tags."""
    own = [key for key, value in task.items() if value != address and value is not None]
    known = [key for key in own if plain(key) in TAG_KEYS or key.endswith(("label", "labels"))]
    words: list[str] = []
    if tag_columns:
        controls = [key for key in own if plain(key) in {plain(name) for name in tag_columns}]
    elif _in_order(list(task)):  # the task's data stand before `id`, and results between `id` and `annotator`
        keys = list(task)
        controls = [key for key in own if keys.index("id") < keys.index(key) < keys.index("annotator")]
    else:
        controls = known or [key for key in own if plain(key) not in BOOKKEEPING]
        texts = [key for key in controls if isinstance(task[key], str)]
        if not controls and not any(plain(key) in TAG_KEYS for key in task):
            raise ValueError("it has neither annotations nor tags")
        if not known and len(texts) > 1:
            raise ValueError(f"which of {', '.join(texts)} are tags cannot be told; name them with --tag-columns")
    for key in controls:
        value = task[key]
        if isinstance(value, str) and _in_order(list(task)):  # one choice, whatever signs it has
            words += table.words.of_words([value])
        elif isinstance(value, str) or key in known or tag_columns:
            words += table.words.of_value(value)
        else:
            found = [part for part in value if isinstance(part, str)] if isinstance(value, list) else []
            words += table.words.of_words([*found, *labels_in(value)])
    ignored.update(key for key in own if key not in controls and plain(key) not in BOOKKEEPING)
    return list(dict.fromkeys(words))


def _in_order(keys: list[str]) -> bool:
    return "id" in keys and "annotator" in keys[keys.index("id") :]


def _not_begun(task: dict[str, Any]) -> bool:
    return "annotation_id" in task and task["annotation_id"] is None
