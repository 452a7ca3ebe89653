"""XML from strangers."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from mupvss.errors import DataError


def parse_xml(path: Path) -> ElementTree.Element:
    """The root element. A document type is refused before anything is parsed, since entities can grow without bounds."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation; give a tag table with data.tags instead") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path}: declares a document type, which annotations never do; refused")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: not valid XML ({error})") from None
