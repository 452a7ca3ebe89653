"""Finds the picture that a name in a table means. Tables come from other computers and tools, so their names may have other
separators, folders, case, suffixes and Unicode forms, or prefixes, or be web addresses.

One rule covers them all: a name fits a picture if one of the two paths is the end of the other. The longest common ending wins,
then the strictest comparison, then the same number of folders. If two pictures fit equally well, neither is chosen.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from mupvss.data.images import SUFFIXES
from mupvss.data.walk import NOT_READ

PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""Label Studio puts this before the name of every upload."""
VERSION = re.compile(r"_(jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9A-Za-z]+(?=\.[a-z]+$|$)", re.IGNORECASE)
"""Roboflow adds this to the name of every picture: a.jpg becomes a_jpg.rf.12ab.jpg."""


LONGEST = 200
"""Longest name of a picture in bytes; file systems allow 255, and the files written for a picture add to it."""


@dataclass(frozen=True)
class Match:
    """The picture that a name means."""

    picture: str | None
    """None: there is none, or more than one."""
    how: str = ""
    """How the name differs from the path; empty for the same path, however it is spelled."""
    several: tuple[str, ...] = ()
    """Pictures that fit equally well, so that none was chosen."""


def _same(text: str) -> str:
    return text


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _any_case(text: str) -> str:
    return _composed(text).casefold()


def stem(name: str) -> str:
    """The name without a picture's suffix; 'v1.2' has none."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in SUFFIXES | NOT_READ else name


def _any_suffix(text: str) -> str:
    return stem(_any_case(text))


def _without_marks(text: str) -> str:
    """Without what Label Studio and Roboflow add."""
    return VERSION.sub("", PREFIX.sub("", _composed(text)))


def _without_marks_any_case(text: str) -> str:
    return _without_marks(text).casefold()


def _without_marks_any_suffix(text: str) -> str:
    return stem(_without_marks_any_case(text))


LEVELS: tuple[tuple[Callable[[str], str], str], ...] = (
    (_same, ""),
    (_composed, "in another Unicode form"),
    (_any_case, "in other capitals"),
    (_without_marks, "without what a tool added to the name"),
    (_without_marks_any_case, "without what a tool added to the name, in other capitals"),
    (_any_suffix, "with another suffix"),
    (_without_marks_any_suffix, "without what a tool added to the name and with another suffix"),
)
"""How the last parts of two paths are compared, the strictest first, and how they may then differ."""
ELSEWHERE = "in another folder"
UPLOAD = re.compile(r"^/?data/upload/(\d+/)?")
"""Where Label Studio keeps uploads."""


class PictureNames:
    """Finds pictures by name among relative paths with / as separator."""

    def __init__(self, pictures: Iterable[str]) -> None:
        self.pictures = list(pictures)
        self._exact = set(self.pictures)
        self._by_name: list[dict[str, list[str]]] | None = None

    def find(self, written: str) -> Match:
        """The picture that `written` means: a path with any separators, or a web address."""
        for form in spellings(written):
            if form in self._exact:
                return Match(form)
        best = (0, 0, False)
        fitting: list[str] = []
        for form in spellings(written):
            rank, pictures = self._best(form)
            if rank > best:
                best, fitting = rank, pictures
        if len(fitting) != 1:
            return Match(None, several=tuple(sorted(fitting)))
        how = LEVELS[-best[1]][1]
        return Match(fitting[0], " and ".join(part for part in (how, "" if best[2] else ELSEWHERE) if part))

    def _best(self, form: str) -> tuple[tuple[int, int, bool], list[str]]:
        """The best rank that a picture has for this form of a name, and the pictures that have it."""
        parts = form.split("/")
        best = (0, 0, False)
        fitting: list[str] = []
        for level, (key, _) in enumerate(LEVELS):
            for picture in self._index()[level].get(key(parts[-1]), ()):
                common = _common_end(picture.split("/"), parts, key)
                rank = (common, -level, picture.count("/") == len(parts) - 1)
                if common and rank > best:
                    best, fitting = rank, [picture]
                elif common and rank == best and picture not in fitting:
                    fitting.append(picture)
        return best, fitting

    def _index(self) -> list[dict[str, list[str]]]:
        if self._by_name is None:
            self._by_name = [{} for _ in LEVELS]
            for picture in self.pictures:
                for (key, _), table in zip(LEVELS, self._by_name, strict=True):
                    table.setdefault(key(picture.rpartition("/")[2]), []).append(picture)
        return self._by_name


def _common_end(picture: list[str], written: list[str], key: Callable[[str], str]) -> int:
    """Number of parts that both paths end with, if these are all parts of one path; else 0. Folders may differ in case and
    Unicode form, but no more."""
    loose = _same if key is _same else _composed if key in (_composed, _without_marks) else _any_case
    common = 1
    while common < min(len(picture), len(written)):
        if loose(picture[-1 - common]) != loose(written[-1 - common]):
            return 0
        common += 1
    return common


def spellings(written: str) -> list[str]:
    """The relative paths that a name may stand for, the name itself first: with / as separator, without ./ and drive; of an
    address, the decoded path without the server."""
    paths = [*_address_paths(written), written]
    found = [written, *map(_tidy, paths), *(_tidy(unquote(path)) for path in paths if "%" in path)]
    return list(dict.fromkeys(name for name in found if name))


def _address_paths(written: str) -> list[str]:
    """The path in a web address or in an address of Label Studio; empty for anything else."""
    try:
        parts = urlsplit(written, allow_fragments=False)
        local = parse_qs(parts.query).get("d") if parts.path.endswith("/local-files/") else None
    except ValueError:
        return []
    if local:  # a plus sign is a space in some addresses and itself in others
        return [local[0], unquote(re.sub(r"^(.*&)?d=", "", parts.query))]
    if UPLOAD.match(parts.path):
        return [UPLOAD.sub("", parts.path)]
    if len(parts.scheme) > 1 and (parts.netloc or parts.path.startswith("/")):
        return [parts.path]
    return []


def _tidy(path: str) -> str:
    plain = re.sub(r"^[A-Za-z]:(?=/)", "", path.replace("\\", "/"))
    whole = posixpath.normpath(plain.lstrip("/")) if plain.strip("/") else ""
    return re.sub(r"^(\.\./)+", "", whole)


def sample_name(relative: str) -> str:
    """'cats/1.jpg' -> 'cats__1', the stem of every file written for the picture; very long names are shortened."""
    name = "__".join(PurePosixPath(relative).with_suffix("").parts)
    if len(name.encode()) <= LONGEST:
        return name
    return f"{name.encode()[: LONGEST - 13].decode(errors='ignore')}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"
