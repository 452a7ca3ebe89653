"""Finds the pictures below a folder. Files and folders that computers put beside pictures are neither pictures nor classes."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mupvss.data.images import SUFFIXES
from mupvss.files import read_json

NOT_THE_USERS = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "#recycle", "@recycle", "#snapshot", "@tmp"}
)
"""Folders that macOS, a network disk or Windows makes. Hidden ones, whose names begin with a dot, are left out as well."""
NOT_READ = (
    frozenset(
        {".heic", ".heif", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".psd", ".svg", ".pdf", ".ico"}
        | {".mp4", ".mov", ".avi", ".mkv", ".exr", ".hdr", ".jxl", ".dcm", ".nii", ".avif", ".jp2", ".gif", ".jfif"}
    )
    - SUFFIXES
)
"""Suffixes of pictures and videos that are not read; those that this installation of Pillow reads are in SUFFIXES."""


TEXTS = frozenset(
    {
        ".txt",
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".ndjson",
        ".xml",
        ".md",
        ".toml",
        ".yaml",
        ".yml",
        ".ini",
        ".db",
        ".py",
        ".ipynb",
    }
    | {".log", ".html", ".htm", ".zip", ".npz", ".npy", ".xlsx", ".xls", ".ods", ".doc", ".docx", ".rtf", ".sh", ".bat", ".lock"}
)
"""Suffixes of files that nobody takes for pictures."""
MARKER, FOUND = "stage.json", ".found"
"""By these names a folder of our own results is known: of a stage of a run, and of predictions."""
DRAWN = ("masks", "overlay", "cutouts", "voc")
"""Folders of predictions that hold pictures."""


@dataclass
class Below:
    """What lies below a folder."""

    pictures: list[str] = field(default_factory=list)
    """Relative to the folder, separated by /, in order."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Suffix of pictures and videos that are not read -> their number."""
    unknown: list[str] = field(default_factory=list)
    """Files of no known suffix, and those whose names are no Unicode."""
    folders: list[str] = field(default_factory=list)
    """The folders right below."""
    results: list[str] = field(default_factory=list)
    """Folders of our own results, which are not searched."""

    def note(self) -> str:
        """What was left out, as a sentence; empty if nothing was."""
        notes = []
        if self.left_out:
            counted = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.left_out.items()))
            heic = {".heic", ".heif"} & set(self.left_out)
            help_ = " (pip install 'mupvss[heic]' reads .heic)" if heic else " (save them as PNG or JPEG)"
            notes.append(f"left out, since they are not read: {counted}{help_}")
        if self.unknown:
            notes.append(f"files of no known suffix, left out: {len(self.unknown)} ({self.unknown[0]!r})")
        if self.results:
            notes.append(f"folders with results of mupvss, left out: {', '.join(sorted(self.results))}")
        return "; ".join(notes)


def pictures_below(folder: Path) -> Below:
    """Searches all subfolders except hidden ones, those in NOT_THE_USERS and those with our own results. Links to folders are
    followed, each folder once."""
    found = Below()
    been: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in been:
            folders.clear()
            continue
        been.add(real)
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        ours = {name for name in folders if is_stage(Path(place, name))}
        if ours and Path(place) != folder:  # the folder of a run
            found.results.append(str(inside))
            folders.clear()
            continue
        if FOUND in folders and "predictions.json" in files:
            ours |= set(DRAWN) & set(folders)
        found.results += [str(inside / name) for name in ours]
        folders[:] = sorted(name for name in folders if not is_hidden(name) and name not in ours)
        if Path(place) == folder:
            found.folders = list(folders)
        for name in files:
            suffix = Path(name).suffix.lower()
            if is_hidden(name):
                continue
            if not is_unicode(str(inside / name)):
                found.unknown.append(str(inside / name))
            elif suffix in SUFFIXES:
                found.pictures.append(str(inside / name))
            elif suffix in NOT_READ:
                found.left_out[suffix] += 1
            elif suffix not in TEXTS:
                found.unknown.append(str(inside / name))
    found.pictures.sort()
    with_results, with_pictures = ({path.partition("/")[0] for path in paths} for paths in (found.results, found.pictures))
    found.folders = [name for name in found.folders if name not in with_results or name in with_pictures]
    return found


def marker_of(folder: Path) -> dict[str, Any]:
    """What a stage has written about the result in its folder; empty if none has."""
    path = folder / MARKER
    return dict(read_json(path)) if path.is_file() else {}


def is_stage(folder: Path) -> bool:
    """Whether a stage of a run has made this folder."""
    try:
        return "fingerprint" in marker_of(folder)
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def is_drawn(path: Path, root: Path) -> bool:
    """Whether a file below `root` lies in a folder of predictions that holds pictures."""
    inside = path.relative_to(root).parts[:-1]
    return any(
        name == FOUND or (name in DRAWN and root.joinpath(*inside[:depth], FOUND).is_dir()) for depth, name in enumerate(inside)
    )


def is_unicode(name: str) -> bool:
    """False for a name from an old archive in another encoding, which cannot be printed or written."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is not the user's own."""
    return name.startswith(".") or name.lower() in NOT_THE_USERS
