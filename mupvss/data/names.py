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


Key = Callable[[str], str]
MARKS = "without what a tool added to the name"
LEVELS: tuple[tuple[Key, Key, str], ...] = (
    (_same, _same, ""),
    (_composed, _composed, "in another Unicode form"),
    (_any_case, _any_case, "in other capitals"),
    (_composed, _without_marks, MARKS),
    (_without_marks, _composed, MARKS),
    (_any_case, _without_marks_any_case, f"{MARKS}, in other capitals"),
    (_without_marks_any_case, _any_case, f"{MARKS}, in other capitals"),
    (_any_suffix, _any_suffix, "with another suffix"),
    (_any_suffix, _without_marks_any_suffix, f"{MARKS} and with another suffix"),
    (_without_marks_any_suffix, _any_suffix, f"{MARKS} and with another suffix"),
)
"""How the last parts of two paths are compared, a picture's and a written name's, the strictest first, and how they may then
differ. What tools add is removed on one side only: two versions of a picture are two pictures."""
ELSEWHERE = "in another folder"
UPLOAD = re.compile(r"^/?data/upload/(\d+/)?")
"""Where Label Studio keeps uploads."""


class PictureNames:
    """Finds pictures by name among relative paths with / as separator."""

    def __init__(self, pictures: Iterable[str]) -> None:
        self.pictures = list(pictures)
        self._exact = set(self.pictures)
        self._by_name: list[dict[tuple[str, str], list[str]]] | None = None
        self._anywhere: list[dict[str, list[str]]] = [{} for _ in LEVELS]

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
        how = LEVELS[-best[1]][2]
        return Match(fitting[0], " and ".join(part for part in (how, "" if best[2] else ELSEWHERE) if part))

    def _best(self, form: str) -> tuple[tuple[int, int, bool], list[str]]:
        """The best rank that a picture has for this form of a name, and the pictures that have it."""
        parts = form.split("/")
        best = (0, 0, False)
        fitting: list[str] = []
        for level, (of_picture, of_written, _) in enumerate(LEVELS):
            for picture in self._candidates(level, parts, of_written(parts[-1])):
                common = _common_end(picture.split("/"), parts, of_picture is _same)
                rank = (common, -level, picture.count("/") == len(parts) - 1)
                if common and rank > best:
                    best, fitting = rank, [picture]
                elif common and rank == best and picture not in fitting:
                    fitting.append(picture)
        return best, fitting

    def _candidates(self, level: int, parts: list[str], key: str) -> list[str]:
        """Pictures whose last part has this key, and whose folder is the name's, or that have none. A name without a folder could
        be any of them, so a few are enough to see that there are several."""
        table = self._index()[level]
        if len(parts) > 1:
            return [*table.get((_any_case(parts[-2]), key), ()), *table.get(("", key), ())]
        alone = table.get(("", key), [])
        return alone if alone else self._anywhere[level].get(key, [])[:SEVERAL]

    def _index(self) -> list[dict[tuple[str, str], list[str]]]:
        """Per level: the last folder in any case, empty for none, and the key of the last part -> pictures."""
        if self._by_name is None:
            self._by_name = [{} for _ in LEVELS]
            for picture in self.pictures:
                folder, _, name = picture.rpartition("/")
                last = _any_case(folder.rpartition("/")[2])
                for (of_picture, _, _), table, anywhere in zip(LEVELS, self._by_name, self._anywhere, strict=True):
                    key = of_picture(name)
                    table.setdefault((last, key), []).append(picture)
                    anywhere.setdefault(key, []).append(picture)
        return self._by_name


SEVERAL = 3


def _common_end(picture: list[str], written: list[str], exact: bool) -> int:
    """Number of parts that both paths end with, if that is all of one of them; else 0. exact: folders must be equal too; else
    they may differ in capitals and Unicode form."""
    loose = _same if exact else _any_case
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
    content = name.encode(errors="surrogateescape")
    if len(content) <= LONGEST:
        return name
    return f"{content[: LONGEST - 13].decode(errors='ignore')}~{hashlib.sha256(content).hexdigest()[:12]}"


class Fitted:
    """Which pictures the names of a table mean, with what has to be said about it."""

    def __init__(self) -> None:
        self.overlooked: dict[str, list[str]] = {}
        """How names differ from their pictures' paths -> the names."""
        self.problems: list[str] = []
        self._written: dict[str, tuple[str, bool]] = {}
        """Picture -> the name it was found by, and whether that was its path."""

    def take(self, written: str, match: Match, where: str) -> str | None:
        """The picture of a match; None, with a problem noted, if there is none, or if another name has it already."""
        if match.picture is None:
            several = f"could be any of {', '.join(match.several[:3])}" if match.several else f"is not in {where}"
            self.problems.append(f"picture '{written}' {several}")
            return None
        other, plain = self._written.setdefault(match.picture, (written, not match.how))
        if other != written and not (plain and not match.how):
            self.problems.append(f"'{other}' and '{written}' both fit '{match.picture}' alone")
            return None
        if other != written:
            self.overlooked.setdefault("joined with another row of the same picture", []).append(f"'{other}' and '{written}'")
        if match.how:
            self.overlooked.setdefault(f"found {match.how}", []).append(f"'{written}' is '{match.picture}'")
        return match.picture
