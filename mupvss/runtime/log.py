"""Progress output of a command: a bar for people, lines for log files, JSON for machines; and the loop over its pictures."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mupvss.errors import MissingExtraError
from mupvss.files import write_text
from mupvss.runtime.launch import first_process
from mupvss.runtime.processes import processes
from mupvss.runtime.stopping import stop_requests

console = Console(stderr=True, quiet=not first_process())
"""Of several processes, only the first prints."""


@contextmanager
def progress_bar(title: str, total: int, unit: str, done: int = 0, brief: bool = False) -> Iterator[Any]:
    """Yields advance(n, note) of a bar with count, rate per second and time left; without a terminal, of plain lines.

    brief: for work that mostly takes no time; it leaves nothing on the terminal, and nothing in a log unless it takes long.

    SIGTERM makes the next `advance` raise StoppedError; the work that this call counts is complete by then.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=brief)
    with bar as progress, stop_requests(signal.SIGTERM) as stop:
        task = progress.add_task(title, total=total, completed=done, rate="", note="")
        plain = _PlainProgress(title, total, unit, done, brief)

        def advance(n: int, note: str = "") -> None:
            speed = progress.tasks[task].speed
            progress.update(task, advance=n, rate=f"{speed:.1f}/s" if speed else "", note=note)
            if not console.is_terminal:
                plain.advance(n, note)
            stop.check()

        yield advance


FIRST, SELDOM = 1.5, 60.0
"""Seconds until a log file gets its first estimate, and the longest time between two lines."""
WINDOW, APART = 7, 10.0
"""The speed is measured from the oldest of WINDOW marks, which are APART seconds apart."""


@contextmanager
def note_if_slow(text: str) -> Iterator[None]:
    """Prints `text` once if the work inside takes longer than a moment."""
    timer = threading.Timer(FIRST, console.print, (text,), {"highlight": False, "soft_wrap": True})
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _PlainProgress:
    """A few lines for logs: one as soon as the speed is known, then one per tenth of the work, or per minute if that is slow. The
    speed is that of the last minute, since other programs come and go."""

    def __init__(self, title: str, total: int, unit: str, done: int, brief: bool) -> None:
        self.clock, self.begin = time.monotonic, time.monotonic()
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.marks = deque([(0.0, done)], maxlen=WINDOW)
        self.brief = brief
        self.told: float | None = None

    def advance(self, n: int, note: str) -> None:
        before, self.done = self.done, self.done + n
        spent = self.clock() - self.begin
        first, had = self.marks[0]
        if spent - self.marks[-1][0] >= APART:
            self.marks.append((spent, self.done))
        if self.told is None:
            due = spent >= FIRST or (self.done >= self.total and not self.brief)
        else:
            tenth = self.done * 10 // self.total > before * 10 // self.total
            due = spent - self.told >= (FIRST if tenth else SELDOM) or self.done >= self.total
        if not due:
            return
        self.told = spent
        rate = (self.done - had) / max(spent - first, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        line = f"{self.title}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s, {left:.0f} s left {note}"
        console.print(line.rstrip(), highlight=False, soft_wrap=True)


class Journal:
    """Appends one JSON object per line; on resume, lines after the resumed step are dropped first."""

    def __init__(self, path: Path, keep_until: int, tensorboard: bool) -> None:
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if _step(line) <= keep_until] if keep_until else []
        write_text(path, "".join(line + "\n" for line in kept))
        self.path = path
        self.writer = _tensorboard(path.parent) if tensorboard else None

    def write(self, entry: dict[str, float]) -> None:
        with self.path.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
        if self.writer is not None:
            for name, value in entry.items():
                self.writer.add_scalar(name, value, int(entry["step"]))


def last_entry(path: Path) -> dict[str, float]:
    """The last entry of a journal; empty if there is none."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return dict(json.loads(lines[-1])) if lines else {}


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")  # a half-written line


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard needs the extra: pip install 'mupvss[tensorboard]'") from None
    return SummaryWriter(str(folder / "tensorboard"))


T = TypeVar("T")


def each(title: str, pictures: Sequence[T]) -> Iterator[T]:
    """Iterates over this process's pictures with a progress bar. A request to stop takes effect after the current picture."""
    own = processes().share(pictures)
    with progress_bar(title, len(own), "pictures") as advance:
        for picture in own:
            yield picture
            advance(1)
