"""Tags from CVAT for images 1.1: tags of the picture, and the labels of every shape in it."""

from __future__ import annotations

from pathlib import Path

from mupvss.data.xml import parse_xml
from mupvss.errors import DataError


def tags_from_cvat(path: Path) -> dict[str, frozenset[str]]:
    """Pictures without a tag or shape are negatives."""
    found: dict[str, frozenset[str]] = {}
    for picture in parse_xml(path).iter("image"):
        name = picture.get("name")
        if not name:
            raise DataError(f"{path}: an image without a name; expected an export as 'CVAT for images 1.1'")
        if name in found:
            raise DataError(f"{path}: picture '{name}' is listed twice")
        found[name] = frozenset(label for entry in picture if (label := entry.get("label")))
    return found
