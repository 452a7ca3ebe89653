"""The pictures of a studio and their names. A picture is identified by its path and content: a second one with the same name gets
another name, and the same one after every restart, so that no decision can move from one to the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mupvss.data.decisions import Content
from mupvss.data.names import sample_name
from mupvss.data.sample import Sample
from mupvss.export.predict_folder import Source
from mupvss.files import file_state, read_json, save_image, state_mark, write_json


@dataclass(frozen=True)
class Entry:
    """A picture of the studio."""

    name: str
    """Its key, a plain file name without suffix; no two pictures have the same."""
    path: Path
    tags: tuple[str, ...]
    """The given tags, or those that the network found."""
    file: str
    """Its name in exports: relative, with its suffix, as `mupvss predict` writes it."""

    @property
    def content(self) -> Content:
        return file_state(str(self.path))


def gathered(*groups: Iterable[Entry]) -> dict[str, Entry]:
    """All entries by name. If two share a name, the later one gets a name made from its content; the same file is one entry."""
    found: dict[str, Entry] = {}
    for entry in (entry for group in groups for entry in group):
        other = found.get(entry.name)
        if other is None:
            found[entry.name] = entry
        elif not (other.path.exists() and entry.path.exists() and other.path.samefile(entry.path)):
            mark = f"~{state_mark(entry.content)}"
            place = PurePosixPath(entry.file)
            renamed = replace(entry, name=entry.name + mark, file=str(place.with_name(f"{place.stem}{mark}{place.suffix}")))
            number = 1
            while renamed.name in found:  # equal content in several places
                number += 1
                file = str(place.with_name(f"{place.stem}{mark}-{number}{place.suffix}"))
                renamed = replace(renamed, name=f"{entry.name}{mark}-{number}", file=file)
            found[renamed.name] = renamed
    return found


def of_samples(samples: Iterable[Sample], root: Path | None, folder: Path) -> list[Entry]:
    """The pictures of a run. root: the folder that their names in exports are relative to. Drawn scenes are first saved as
    files of the studio."""
    found = []
    for sample in samples:
        path = Path(sample.origin)
        if not path.is_file():
            path = folder / "drawn" / f"{sample.name}.png"
            if not path.is_file():
                save_image(path, sample.open_image())
        inside = root is not None and path.is_relative_to(root)
        file = path.relative_to(root).as_posix() if inside and root is not None else f"{sample.name}{path.suffix}"
        found.append(Entry(sample.name, path, tuple(sorted(sample.tags)), file))
    return found


def of_source(source: Source, tags: tuple[str, ...]) -> Entry:
    """A picture of a folder that was given to the studio."""
    return Entry(sample_name(source.name), source.path, tags, source.name)


TAGS = ".tags.json"
"""Ending of the file beside an upload that holds the tags found in it."""


def uploaded(folder: Path) -> list[Entry]:
    """The pictures that were added to a studio, from its folder of uploads."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.suffix != ".json" and not path.name.startswith(".")]
    by_name = {path.name: path for path in files}
    by_stem = {path.stem: path for path in files}  # earlier versions kept the tags by stem
    found = []
    for tags in sorted(folder.glob(f"*{TAGS}")):
        whose = tags.name.removesuffix(TAGS)
        path = by_name.get(whose) or by_stem.get(whose)
        if path is not None:
            try:
                known = tuple(map(str, read_json(tags)))
            except (ValueError, TypeError):  # damaged: the picture stays, its tags can be given again
                known = ()
            found.append(Entry(path.stem, path, known, path.name))
    return found


def keep_upload(path: Path, tags: tuple[str, ...]) -> Entry:
    """Saves the tags that were found in an upload."""
    write_json(path.with_name(path.name + TAGS), list(tags))
    return Entry(path.stem, path, tags, path.name)
