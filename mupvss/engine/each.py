"""How every stage goes through its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from mupvss.engine.log import progress_bar
from mupvss.engine.processes import processes

T = TypeVar("T")


def each(title: str, pictures: Sequence[T]) -> Iterator[T]:
    """Those that are this process's, under a progress bar. A stop asked for takes effect once the picture at hand is done."""
    own = processes().share(pictures)
    with progress_bar(title, len(own), "pictures") as advance:
        for picture in own:
            yield picture
            advance(1)
