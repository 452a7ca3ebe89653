"""Tags from the exports of other tools: COCO's annotations, CVAT for images 1.1, the files of Pascal VOC and of LabelMe.

No library is used, for the reason given in `export/formats.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

from mupvss.data.names import stem
from mupvss.data.tags.tag_table import TagTable
from mupvss.data.walk import is_hidden
from mupvss.errors import DataError


def parse_xml(path: Path) -> ElementTree.Element:
    """The root element. A document type is refused before parsing, since its entities can expand without bound."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: no such annotation ({error.strerror}); give a tag table with data.tags instead") from None
    said = re.match(rb"""\s*<\?xml[^>]*encoding=["']([A-Za-z0-9._-]+)""", content[:200])
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else said[1].decode() if said else "utf-8-sig"
    try:
        text = content.decode("utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{path}: not {encoding} text ({error}); save it as UTF-8") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path}: declares a document type, which annotations never do; refused")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: not valid XML ({error})") from None


def read_coco(content: dict[str, Any], table: TagTable) -> None:
    """Instances, keypoints, labels or panoptic annotations. Pictures without an annotation are negatives."""
    path = table.path
    try:
        if not content["categories"] and any("caption" in entry for entry in content["annotations"]):
            raise DataError(f"{path}: captions have no categories; give the instances instead")
        names = {coco_id(category["id"]): str(category["name"]) for category in content["categories"]}
        files = {coco_id(image["id"]): str(image.get("file_name") or image["coco_url"]) for image in content["images"]}
        for what, entries, known in (("categories", content["categories"], names), ("images", content["images"], files)):
            if len(entries) > len(known):
                raise DataError(f"{path}: {len(entries) - len(known)} {what} have an id that another one has; give each its own")
        found: dict[int | str, set[str]] = {image: set() for image in files}
        for annotation in content["annotations"]:
            image = coco_id(annotation["image_id"])
            segments = annotation.get("segments_info")  # panoptic
            for entry in [annotation] if segments is None else segments:
                category = coco_id(entry["category_id"])
                if image not in files or category not in names:
                    raise DataError(
                        f"{path}: annotation {annotation.get('id')} names image {image} or category {category}, not listed"
                    )
                found[image].add(names[category])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not COCO's instance format ({type(error).__name__}: {error})") from None
    for image, tags in found.items():
        table.add(files[image], tags)
    unused = sorted(set(names.values()) - {tag for tags in found.values() for tag in tags})
    if unused:
        table.notes.append(f"categories without an annotation: {', '.join(unused)}")


def coco_id(value: Any) -> int | str:
    """A COCO id. Some tools write it as a string or a float; 7, 7.0 and "7" are the same id. ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        raise ValueError(f"an id is {value!r}")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"an id is {value!r}")
        return int(value)
    whole = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19
    return int(value) if whole and str(int(value)) == value else value


def read_cvat(root: ElementTree.Element, table: TagTable) -> None:
    """Pictures without a tag or shape are negatives. In the export of a project, the subset is the picture's folder."""
    attributes: Counter[str] = Counter()
    for picture in root.iter("image"):
        name = picture.get("name")
        if not name:
            raise DataError(f"{table.path}: an image without a name; expected an export as 'CVAT for images 1.1'")
        subset = picture.get("subset")
        labelled = [entry for entry in picture if entry.get("label")]
        attributes.update(entry.get("name") or "" for shape in labelled for entry in shape.iter("attribute"))
        labels = table.words.of_words(entry.get("label") or "" for entry in labelled)
        table.add(f"{subset}/{name}" if subset else name, labels)
    if not table.tags and next(root.iter("track"), None) is not None:
        raise DataError(f"{table.path}: holds the tracks of a video and no pictures; export it as 'CVAT for images 1.1'")
    if attributes:
        table.notes.append(f"attributes of labels, not read: {', '.join(sorted(attributes))}")


def read_voc_folder(folder: Path, table: TagTable) -> None:
    """Tags from the .xml files in a folder and its subfolders. <filename> names the picture, relative to its file's folder."""
    others: list[str] = []
    stale = 0
    for path in files_of(folder, ".xml"):
        root = parse_xml(path)
        if root.tag != "annotation":
            others.append(path.name)
            continue
        name = (root.findtext("filename") or "").strip()
        if not name:
            raise DataError(f"{path}: names no picture; expected <filename>")
        stale += stem(PureWindowsPath(name).name).casefold() != path.stem.casefold()
        inside = path.parent.relative_to(folder).as_posix()
        picture = name if inside == "." else f"{inside}/{name}"
        if picture in table.tags:
            raise DataError(f"{path}: picture '{name}' has another annotation in this folder already")
        table.add(picture, table.words.of_words(sorted(objects_of(root))))
    if stale:
        table.notes.append(f"XML files that are called otherwise than the picture they name: {stale}")
    if others:
        table.notes.append(f"XML files that are no annotations, left out: {', '.join(sorted(others)[:3])} ({len(others)})")


def files_of(folder: Path, suffix: str) -> list[Path]:
    """The files with this suffix in a folder and its subfolders, except hidden ones."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(place) / name for name in files if name.lower().endswith(suffix) and not is_hidden(name)]
    return sorted(found)


def read_labelme_folder(folder: Path, table: TagTable) -> None:
    """Tags from the .json files in a folder and its subfolders, one for each picture: the labels of shapes, and the flags that
    are set. imagePath names the picture, relative to its file's folder."""
    others: list[str] = []
    for path in files_of(folder, ".json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not valid JSON ({error})") from None
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            others.append(path.name)
            continue
        try:
            name = PureWindowsPath(str(content["imagePath"])).name
            labels = [str(shape["label"]) for shape in content["shapes"] if shape["label"] is not None]
            labels += [str(flag) for flag, is_set in (content.get("flags") or {}).items() if is_set is True]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not as LabelMe writes it ({type(error).__name__}: {error})") from None
        inside = path.parent.relative_to(folder).as_posix()
        table.add(name if inside == "." else f"{inside}/{name}", table.words.of_words(labels))
    if others:
        table.notes.append(f"JSON files that are no annotations, left out: {', '.join(sorted(others)[:3])} ({len(others)})")


def objects_of(root: ElementTree.Element) -> frozenset[str]:
    """Names of all objects in one annotation of VOC, including the difficult ones; not those of their parts."""
    there = (entry for entry in root.iter("object") if (entry.findtext("deleted") or "0").strip() != "1")
    names = ((entry.findtext("name") or "").strip() for entry in there)
    return frozenset(name for name in names if name)


def read_annotation(path: Path) -> frozenset[str]:
    return objects_of(parse_xml(path))
