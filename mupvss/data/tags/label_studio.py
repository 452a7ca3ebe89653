"""Tags from a Label Studio export, JSON or JSON-MIN: choices, and the labels of any region."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from mupvss.errors import DataError

PICTURE_KEYS = ("image", "img", "picture", "file", "url")


def tags_from_label_studio(content: list[Any], path: Path) -> dict[str, frozenset[str]]:
    """One entry per task. Skipped (cancelled) annotations are ignored; predictions are used only where nobody annotated."""
    found: dict[str, frozenset[str]] = {}
    for number, task in enumerate(content, 1):
        try:
            name, labels = _read_task(task, path, number)
        except DataError:
            raise
        except (AttributeError, TypeError, ValueError, RecursionError) as error:  # the file may hold anything anywhere
            raise DataError(f"{path}: task {number} is not as Label Studio exports it ({error})") from None
        if name in found:
            raise DataError(f"{path}: picture '{name}' is in two tasks; join them")
        found[name] = labels
    return found


def _read_task(task: Any, path: Path, number: int) -> tuple[str, frozenset[str]]:
    if not isinstance(task, dict):
        raise DataError(f"{path}: task {number} is not an object; expected an export of Label Studio")
    data = task.get("data", task)
    address = next((data[key] for key in PICTURE_KEYS if isinstance(data, dict) and isinstance(data.get(key), str)), None)
    if address is None:
        raise DataError(f"{path}: task {number} names no picture; expected one of {', '.join(PICTURE_KEYS)} in its data")
    return picture_name(address), frozenset(_labels_of(task))


def _labels_of(task: dict[str, Any]) -> Iterator[str]:
    if "data" not in task:  # JSON-MIN: the results are beside the picture
        yield from _words({key: value for key, value in task.items() if key not in PICTURE_KEYS and not _is_bookkeeping(key)})
        return
    done = [entry for entry in task.get("annotations") or [] if not entry.get("was_cancelled")]
    for entry in done or task.get("predictions") or []:
        for result in entry.get("result") or []:
            yield from _words(result.get("value"))


def _words(value: Any) -> Iterator[str]:
    """Texts under keys like choices, polygonlabels, brushlabels, rectanglelabels or labels, at any depth."""
    if isinstance(value, list):
        for part in value:
            yield from _words(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key in ("choice", "choices", "tags") or key.endswith("label") or key.endswith("labels"):
                texts = part if isinstance(part, list) else [part]
                yield from (text for text in texts if isinstance(text, str))
                yield from _words([text for text in texts if not isinstance(text, str)])


def _is_bookkeeping(key: str) -> bool:
    return key in ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time")


def picture_name(address: str) -> str:
    """The picture's relative name behind an address: local storage, an upload (whose prefix Label Studio added) or a URL."""
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    if local:
        return local[0]
    place = PurePosixPath(unquote(parts.path))
    if "upload" in place.parts:
        return re.sub(r"^[0-9a-f]{8}-", "", place.name)
    return place.name if parts.scheme else str(place).lstrip("/")
