"""What a tag file says: its pictures with their tags, and what was left out or guessed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mupvss.data.tags.words import Words, tidy
from mupvss.errors import DataError

Tags = dict[str, frozenset[str]]
"""Picture name as written -> its tags; a picture without any is a valid negative."""


@dataclass
class TagTable:
    path: Path
    tags: Tags = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was left out or guessed, and how often, as sentences without the file's name."""
    words: Words = field(default_factory=Words)
    """Reads cells with the given separator."""
    repeated: list[str] = field(default_factory=list)
    """Pictures that are listed more than once, one entry for each time after the first."""

    def add(self, picture: str, tags: Iterable[str]) -> None:
        """Adds a row. The tags of a picture that is listed more than once are joined."""
        found = frozenset(tag for word in tags if (tag := tidy(word)))
        if picture in self.tags:
            self.repeated.append(picture)
            found |= self.tags[picture]
        self.tags[picture] = found

    def finish(self) -> TagTable:
        """Adds the notes on what was counted while reading."""
        if self.repeated:
            several = sorted(set(self.repeated))
            self.notes.append(f"listed more than once, tags joined: {counted(several, 'picture')}")
        self.notes += self.words.notes()
        if self.words.strange:
            raise DataError(
                f"{self.path}: {len(self.words.strange)} values hold no tag that can be read, such as {self.words.strange[0]}; "
                "expected words or lists of words"
            )
        return self


def counted(names: list[str], what: str, shown: int = 3) -> str:
    """'5 pictures (a.jpg, b.jpg, c.jpg, ...)'."""
    listed = ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
    return f"{len(names):,} {what}{'' if len(names) == 1 else 's'} ({listed})"
