"""Tags from the exports of other tools: COCO's instance annotations, CVAT for images 1.1, Pascal VOC's XML files.

No library is used, for the reason given in `export/formats.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mupvss.errors import DataError


def parse_xml(path: Path) -> ElementTree.Element:
    """The root element. A document type is refused before parsing, since its entities can expand without bound."""
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


def tags_from_coco(content: dict[str, Any], path: Path) -> dict[str, frozenset[str]]:
    """Pictures without an annotation are negatives."""
    try:
        names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
        files = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        found: dict[str, set[str]] = {name: set() for name in files.values()}
        if len(found) != len(files):
            raise DataError(f"{path}: two images have the same file_name")
        for annotation in content["annotations"]:
            image, category = int(annotation["image_id"]), int(annotation["category_id"])
            if image not in files or category not in names:
                raise DataError(
                    f"{path}: annotation {annotation.get('id')} names image {image} or category {category}, not listed"
                )
            found[files[image]].add(names[category])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not COCO's instance format ({type(error).__name__}: {error})") from None
    return {name: frozenset(tags) for name, tags in found.items()}


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


def tags_from_voc_folder(folder: Path) -> dict[str, frozenset[str]]:
    """Tags from every .xml file of a folder; a picture's name is the annotation's <filename>."""
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
    """Names of all objects in one annotation, including the difficult ones."""
    return frozenset(name.strip() for name in (o.findtext("name") or "" for o in parse_xml(path).iter("object")) if name.strip())
