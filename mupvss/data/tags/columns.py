"""Finds the picture and tag columns of a table by known names, else by what their cells hold. Every guess becomes a note."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mupvss.data.images import SUFFIXES
from mupvss.data.names import spellings
from mupvss.data.walk import NOT_READ
from mupvss.errors import DataError

PICTURE_KEYS = (
    "image", "picture", "file", "filename", "path", "imagename", "imagepath", "imagefile", "imagefilename", "filepath", "img",
    "imgname", "imgpath", "picturename", "photo", "photoname", "imageurl", "url", "uri", "imageid", "name",
)  # fmt: skip
"""Names of the picture column, in lower case without blanks and punctuation, in order of preference."""
TAG_KEYS = (
    "tags", "labels", "classes", "tag", "label", "class", "labelname", "classname", "labelnames", "classnames", "tagname",
    "tagnames", "categories", "category", "categoryname", "keywords", "keyword", "choice", "choices", "objects",
)  # fmt: skip
"""Names of tag columns, likewise. A number after the name is ignored: label, label.1, label 2."""
BOOKKEEPING = frozenset(
    {
        "",
        "id",
        "index",
        "nr",
        "no",
        "number",
        "#",
        "unnamed:0",
        "row",
        "split",
        "subset",
        "fold",
        "isvalid",
        "usage",
        "date",
        "time",
    }
    | {"annotator", "annotationid", "createdat", "updatedat", "leadtime", "agreement", "confidence", "score", "area", "size"}
    | {"width", "height", "depth", "xmin", "ymin", "xmax", "ymax", "x", "y", "w", "h", "x1", "y1", "x2", "y2", "bbox"}
    | {"iscrowd", "difficult", "truncated", "occluded", "pose"}
)
"""Names of columns that are never guessed to hold tags."""
YES = frozenset({"1", "1.0", "true", "yes", "x", "y"})
NO = frozenset({"0", "0.0", "-1", "-1.0", "false", "no", "n", ""})

CLASSES = "_classes.csv"
"""The name of Roboflow's tables, in which every column except the picture's is a tag."""
OF_LABEL_STUDIO = frozenset({"annotationid", "annotator"})
"""Columns that its CSV always has."""
LABELS = re.compile(r'^\s*[\[{].*"\w*(labels?|choices|taxonomy)":', re.DOTALL)

Cells = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Columns:
    picture: int
    tags: tuple[int, ...]
    one_each: bool
    """Whether each of `tags` is a column of 0 and 1 for the tag that it is named after."""
    notes: tuple[str, ...]
    confidence: int | None = None
    """A column of 0 and 1 that says whether the tag of the row is in the picture (Open Images)."""


def plain(name: str) -> str:
    """'File_Name ' -> 'filename'."""
    return re.sub(r"[\s_\-./]+", "", name.strip().lower())


def find_columns(header: Sequence[str], cells: Cells, path: Path, wanted: Sequence[str] = ()) -> Columns:
    """Finds the columns that hold the picture and the tags. wanted: names of the tag columns, if the user gave them. DataError if
    they cannot be told."""
    picture, notes = _picture_column(header, cells, path)
    if wanted:
        columns = _wanted_columns(header, wanted, path)
        values = {row[i].strip().lower() for i in columns for row in cells if i < len(row)} - {""}
        marks = values <= YES | NO and bool(values & YES) and bool(values & NO)
        return Columns(picture, columns, marks and not set(map(plain, header)) >= OF_LABEL_STUDIO, tuple(notes))
    others = [i for i in range(len(header)) if i != picture]
    if path.name == CLASSES:
        return _one_each(header, picture, others, others, notes)
    names = set(map(plain, header))
    of_label_studio = names >= OF_LABEL_STUDIO
    if of_label_studio and not names - BOOKKEEPING - {plain(header[picture])}:
        return Columns(picture, (), False, tuple(notes))  # it writes no column for a control without results
    named = _tag_columns(header, others)
    binary = [i for i in others if plain(header[i]) not in BOOKKEEPING and _is_binary(cells, i) and not of_label_studio]
    lists = [i for i in others if _holds_labels(cells, i)]
    if len(binary) > 1 and set(named) <= set(binary) and not lists:
        return _one_each(header, picture, binary, others, notes)
    if named:
        used = _ignored(header, [i for i in others if i not in named])
        sure = next((i for i in others if plain(header[i]) == "confidence" and _is_binary(cells, i)), None)
        if sure is not None:
            used.append("rows with a confidence of 0 say that the tag is not in the picture")
        return Columns(picture, tuple(named), False, (*notes, *used), sure)
    unknown = [i for i in others if plain(header[i]) not in BOOKKEEPING]
    if lists:
        unknown = lists
    elif binary:
        return _one_each(header, picture, binary, others, notes)
    if len(unknown) == 1 or (unknown and unknown == lists):
        shown = ", ".join(f"'{header[i]}'" for i in unknown)
        notes.append(f"tags are read from the column {shown}")
        notes += _ignored(header, [i for i in others if i not in unknown])
        return Columns(picture, tuple(unknown), False, tuple(notes))
    raise DataError(
        f"{path}, line 1: the header is {list(header)}; expected a tag column ({', '.join(TAG_KEYS[:4])}) or a column of 0 and 1 "
        "for each tag. Name the column with --tag-columns (data.tag_columns)"
    )


def _picture_column(header: Sequence[str], cells: Cells, path: Path) -> tuple[int, list[str]]:
    names = [plain(name) for name in header]
    known = [names.index(key) for key in PICTURE_KEYS if key in names]
    looks = [i for i in range(len(header)) if _share(cells, i, is_picture_name) > 0.5]
    if known:
        return next((i for i in known if i in looks), known[0]), []
    if len(looks) == 1:
        return looks[0], [f"pictures are read from the column '{header[looks[0]]}'"]
    raise DataError(
        f"{path}, line 1: the header is {list(header)}; expected a picture column (image, picture, file, filename) and a tag "
        f"column ({', '.join(TAG_KEYS[:3])})"
    )


def _wanted_columns(header: Sequence[str], wanted: Sequence[str], path: Path) -> tuple[int, ...]:
    names = [plain(name) for name in header]
    absent = [name for name in wanted if plain(name) not in names]
    if absent:
        raise DataError(f"{path}, line 1: no column '{absent[0]}' (data.tag_columns); the header is {list(header)}")
    return tuple(i for i, name in enumerate(names) if name in {plain(name) for name in wanted})


def _tag_columns(header: Sequence[str], others: Sequence[int]) -> list[int]:
    """All columns with the first known name, also repeated or numbered."""
    bases = {i: re.sub(r"\d+$", "", plain(header[i])) for i in others}
    for key in TAG_KEYS:
        found = [i for i in others if bases[i] == key]
        while found and found[-1] + 1 < len(header) and not header[found[-1] + 1].strip() and found[-1] + 1 in others:
            found.append(found[-1] + 1)  # spreadsheets: further tags in columns without a name
        if found:
            return found
    return []


def _one_each(header: Sequence[str], picture: int, binary: Sequence[int], others: Sequence[int], notes: list[str]) -> Columns:
    shown = ", ".join(header[i].strip() for i in binary[:6]) + (", ..." if len(binary) > 6 else "")
    notes.append(f"a column of 0 and 1 for each tag: {shown}")
    left = [header[i].strip() for i in others if i not in binary and header[i].strip()]
    notes += [f"columns not read: {', '.join(left)}"] if left else []
    return Columns(picture, tuple(binary), True, tuple(notes))


def _ignored(header: Sequence[str], columns: Sequence[int]) -> list[str]:
    names = [header[i].strip() for i in columns if plain(header[i]) not in BOOKKEEPING]
    return [f"columns not read: {', '.join(names)}"] if names else []


def is_picture_name(text: str) -> bool:
    return any(PurePosixPath(form).suffix.lower() in SUFFIXES | NOT_READ for form in spellings(text.strip()))


def is_yes(text: str) -> bool:
    return text.strip().lower() in YES


def _is_binary(cells: Cells, column: int) -> bool:
    values = {row[column].strip().lower() for row in cells if column < len(row)}
    return bool(values - {""}) and values <= YES | NO


def _holds_labels(cells: Cells, column: int) -> bool:
    """Whether the column has lists of labels as Label Studio writes them into its CSV."""
    return any(LABELS.search(row[column]) for row in cells if column < len(row))


def _share(cells: Cells, column: int, test: object) -> float:
    found = [bool(test(row[column])) for row in cells if column < len(row) and row[column].strip()]  # type: ignore[operator]
    return sum(found) / len(found) if found else 0.0
