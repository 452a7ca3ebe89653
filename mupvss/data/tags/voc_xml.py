"""Tags from Pascal VOC's annotations: one XML file per picture."""

from __future__ import annotations

from pathlib import Path

from mupvss.data.xml import parse_xml
from mupvss.errors import DataError


def tags_from_voc_folder(folder: Path) -> dict[str, frozenset[str]]:
    """Every .xml of a folder; a picture is called by the annotation's <filename>."""
    found: dict[str, frozenset[str]] = {}
    for path in sorted(folder.glob("*.xml")):
        name = (parse_xml(path).findtext("filename") or "").strip()
        if not name:
            raise DataError(f"{path}: names no picture; expected <filename>")
        if name in found:
            raise DataError(f"{path}: picture '{name}' has another annotation in this folder already")
        found[name] = read_annotation(path)
    return found


def read_annotation(path: Path) -> frozenset[str]:
    """Names of all objects in one annotation, the difficult ones included."""
    return frozenset(name.strip() for name in (o.findtext("name") or "" for o in parse_xml(path).iter("object")) if name.strip())
