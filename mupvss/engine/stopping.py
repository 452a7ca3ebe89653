"""Leaving when asked to: a training finishes its step and saves, everything else cleans up behind it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mupvss.errors import StoppedError


class Stop:
    requested = False
    signal = signal.SIGTERM

    def request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:  # asked twice: at once
            raise StoppedError(number)
        self.requested, self.signal = True, signal.Signals(number)


@contextlib.contextmanager
def stop_requests() -> Iterator[Stop]:
    """Within the block, SIGTERM and Ctrl-C only set `requested`; a second one raises StoppedError at once."""
    stop = Stop()
    with _handling(stop.request):
        yield stop


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """Within the block, SIGTERM raises StoppedError, so that temporary files are removed on the way out."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise StoppedError(number)

    with _handling(leave, (signal.SIGTERM,)):
        yield


@contextlib.contextmanager
def _handling(handler: Any, signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)) -> Iterator[None]:
    """Only the main thread may set handlers; in another one, signals keep doing what they did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)
